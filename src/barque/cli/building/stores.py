"""Folders with an OCI layout that a build reads or writes: local caches, and images that contexts are.

<folder>/oci-layout
<folder>/index.json             manifests by tag (org.opencontainers.image.ref.name)
<folder>/index.json.lock        held by who changes it
<folder>/blobs/sha256/<hex>
<folder>/ingest/<name>          a blob on its way
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from barque.base.errors import BarqueError, InvalidInputError, NotFoundError
from barque.base.files import write_all, write_atomic
from barque.builder.buildkit.pb import content_pb2
from barque.oci import digest as digests

if TYPE_CHECKING:
    from typing import BinaryIO

TAG = "org.opencontainers.image.ref.name"
LATEST = "latest"
_INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
_STORE_ID = "buildkit-attachable-store-id"
_CHUNK = 1 << 20
_LARGEST_INDEX = 16 << 20


class Store:
    """One folder; only a `writable` one is ever changed.

    Args:
        folder: its absolute path.
        tag: what the manifest that a build writes is called.
        writable: the build may write into it.
    """

    def __init__(self, folder: str, *, tag: str = LATEST, writable: bool = False) -> None:
        self.folder = folder
        self.tag = tag
        self.writable = writable

    def blob(self, digest: str) -> str:
        """Return a blob's path.

        Raises:
            InvalidInputError: it is no digest.
        """
        algorithm, _, value = digests.check(digest).partition(":")
        return f"{self.folder}/blobs/{algorithm}/{value}"

    def find(self, tag: str = "") -> str:
        """Return the digest of the manifest with a tag; without one, of the latest, or of the only one.

        Raises:
            NotFoundError: there is none.
            InvalidInputError: the folder is no OCI layout.
        """
        rows = self._rows()
        names = [str((row.get("annotations") or {}).get(TAG, "")) for row in rows]
        wanted = tag or LATEST
        named = [row for row, name in zip(rows, names, strict=True) if name == wanted]
        # Some write the whole name of the image where others write its tag.
        named = named or [row for row, name in zip(rows, names, strict=True) if name.rpartition("/")[2].partition(":")[2] == wanted]
        if not named and not tag and len(rows) == 1:
            named = rows
        if not named:
            raise NotFoundError(f"{self.folder} has no manifest with the tag {tag or LATEST}; name another tag, or a digest")
        return digests.check(str(named[-1].get("digest")))

    def put(self, descriptor: dict[str, Any]) -> None:
        """Let the tag mean a manifest; blocking."""
        with open(f"{self.folder}/index.json.lock", "ab") as lock:
            fcntl.flock(lock.fileno(), fcntl.LOCK_EX)
            try:
                rows = self._rows()
            except NotFoundError:
                rows = []
            kept = [row for row in rows if (row.get("annotations") or {}).get(TAG) != self.tag]
            made = {**descriptor, "annotations": {**(descriptor.get("annotations") or {}), TAG: self.tag}}
            index = {"schemaVersion": 2, "mediaType": _INDEX_TYPE, "manifests": [*kept, made]}
            write_atomic(f"{self.folder}/oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
            write_atomic(f"{self.folder}/index.json", json.dumps(index).encode())

    def _rows(self) -> list[dict[str, Any]]:
        try:
            with open(f"{self.folder}/index.json", "rb") as file:
                rows = json.loads(file.read(_LARGEST_INDEX))["manifests"]
            if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
                raise ValueError
        except FileNotFoundError:
            raise NotFoundError(f"{self.folder} has no index.json: it is no OCI layout") from None
        except (ValueError, KeyError, TypeError):
            raise InvalidInputError(f"{self.folder}/index.json is broken") from None
        return rows


def layout_of(text: str) -> tuple[Store, str, str]:
    """Return the folder, the tag and the digest that `folder[:tag][@digest]` means.

    Raises:
        BarqueError: there is no such folder, tag or digest.
    """
    place, _, digest = text.partition("@")
    folder, tag = place, ""
    if not os.path.isdir(place) and ":" in place:
        folder, _, tag = place.rpartition(":")
    if not os.path.isdir(folder):
        raise InvalidInputError(f"{folder or text} is no folder: an OCI layout is oci-layout://folder[:tag][@digest]")
    store = Store(os.path.abspath(folder))
    return store, tag or LATEST, digests.check(digest) if digest else store.find(tag)


class Stores:
    """Serves containerd.services.content.v1.Content: each call names the store it means."""

    descriptor = content_pb2.DESCRIPTOR.services_by_name["Content"]

    def __init__(self, stores: dict[str, Store]) -> None:
        self._stores = stores

    def _store(self, stream: Any) -> Store:
        name = str(stream.metadata.get(_STORE_ID, ""))
        if name not in self._stores:
            raise GRPCError(Status.NOT_FOUND, f"no access allowed to the store {name!r}")
        return self._stores[name]

    async def info(self, stream: Any) -> None:
        """Say how large a blob is."""
        request = await stream.recv_message()
        with _opened(self._store(stream), request.digest) as file:
            found = content_pb2.Info(digest=request.digest, size=os.fstat(file.fileno()).st_size)
        await stream.send_message(content_pb2.InfoResponse(info=found))

    async def read(self, stream: Any) -> None:
        """Send a blob, or a part of it."""
        request = await stream.recv_message()
        with _opened(self._store(stream), request.digest) as file:
            place = file.seek(request.offset)
            left = request.size or os.fstat(file.fileno()).st_size
            while left > 0 and (data := file.read(min(_CHUNK, left))):
                await stream.send_message(content_pb2.ReadContentResponse(offset=place, data=data))
                place, left = place + len(data), left - len(data)

    async def write(self, stream: Any) -> None:
        """Take a blob; it is there once all of it is, and is what its digest says."""
        store = self._store(stream)
        if not store.writable:
            raise GRPCError(Status.PERMISSION_DENIED, f"{store.folder} is not written to by this build")
        coming = _Coming(store)
        try:
            while (request := await stream.recv_message()) is not None:
                await stream.send_message(coming.take(request))
        except OSError as error:
            raise GRPCError(Status.UNKNOWN, f"failed to write into {store.folder}: {error.strerror or error}") from None
        finally:
            coming.close()


class _Coming:
    """One blob on its way into a folder."""

    def __init__(self, store: Store) -> None:
        self._store = store
        os.makedirs(f"{store.folder}/ingest", exist_ok=True)
        self._path = f"{store.folder}/ingest/{os.urandom(8).hex()}"
        self._file = open(self._path, "xb", buffering=0)  # noqa: SIM115 - closed by close
        self._hash = hashlib.sha256()
        self._size = 0
        self._total = 0
        self._expected = ""

    def take(self, request: Any) -> Any:
        """Do what a message says; return the answer to it."""
        self._total = request.total or self._total
        self._expected = request.expected or self._expected
        if self._expected and os.path.exists(_path(self._store, self._expected)):
            raise GRPCError(Status.ALREADY_EXISTS, f"content {self._expected}: already exists")
        if request.data:
            self._append(request.offset, request.data)
        digest = ""
        if request.action == content_pb2.COMMIT:
            digest = self._commit()
        return content_pb2.WriteContentResponse(action=request.action, offset=self._size, total=self._total, digest=digest)

    def _append(self, offset: int, data: bytes) -> None:
        if offset != self._size:
            raise GRPCError(Status.OUT_OF_RANGE, f"a piece at {offset} came where one at {self._size} was due")
        self._hash.update(data)
        self._size += len(data)
        write_all(self._file.fileno(), data)

    def _commit(self) -> str:
        digest = f"sha256:{self._hash.hexdigest()}"
        if (self._total and self._size != self._total) or (self._expected and digest != self._expected):
            raise GRPCError(Status.FAILED_PRECONDITION, f"{self._expected or self._total} came as {digest} of {self._size} bytes")
        target = self._store.blob(digest)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.fsync(self._file.fileno())
        os.chmod(self._path, 0o444)
        os.replace(self._path, target)
        return digest

    def close(self) -> None:
        """Remove what did not become a blob."""
        self._file.close()
        with suppress(FileNotFoundError):
            os.unlink(self._path)


def _path(store: Store, digest: str) -> str:
    try:
        return store.blob(digest)
    except BarqueError as error:
        raise GRPCError(Status.INVALID_ARGUMENT, str(error)) from None


def _opened(store: Store, digest: str) -> BinaryIO:
    try:
        return open(_path(store, digest), "rb")
    except (FileNotFoundError, IsADirectoryError):
        raise GRPCError(Status.NOT_FOUND, f"content {digest}: not found") from None
    except OSError as error:
        raise GRPCError(Status.UNKNOWN, f"content {digest}: {error.strerror or error}") from None
