"""Content stores of a client, such as the folder of a local cache: blobs read from it and written to it."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Iterable
from typing import BinaryIO

from grpclib.const import Status
from grpclib.exceptions import GRPCError, StreamTerminatedError

from barque.base.errors import BarqueError, InvalidInputError, UnavailableError
from barque.base.files import write_all
from barque.builder.buildkit.connection import refused
from barque.builder.buildkit.pb import content_pb2
from barque.builder.buildkit.sessions import ClientSession
from barque.builder.caches import format as forms
from barque.builder.caches.format import Known
from barque.engine.pumps import chunks_of
from barque.oci import digest as digests, media
from barque.oci.manifest import Descriptor
from barque.storage.bounds import bounded
from barque.storage.compression import UNCOMPRESSED, Form, plain
from barque.storage.content import CHUNK, ContentStore

_SERVICE = "containerd.services.content.v1.Content"
_STORE_ID = "buildkit-attachable-store-id"
_PIECE = 1 << 20


class ClientStore:
    """One store of a client, by the id that the client knows it by."""

    def __init__(self, client: ClientSession, identity: str) -> None:
        self._client = client
        self._metadata = {_STORE_ID: identity}

    def _call(self, method: str):  # type: ignore[no-untyped-def]  # noqa: ANN202 - grpclib has no type for it
        if not self._client.serves(f"{_SERVICE}/{method}"):
            raise InvalidInputError("the client of this build gives no access to the folder of its cache or output")
        return self._client.client.stream(f"{_SERVICE}/{method}", metadata=self._metadata)

    async def size(self, digest: str) -> int:
        """Return a blob's size in bytes.

        Raises:
            NotFoundError: it is not there.
        """
        try:
            async with self._call("Info") as stream:
                await stream.send_message(content_pb2.InfoRequest(digest=digest), end=True)
                answer = await stream.recv_message()
        except GRPCError as error:
            raise refused(error) from None
        except (OSError, StreamTerminatedError) as error:
            raise UnavailableError(f"the client went away: {error}") from None
        return int(answer.info.size) if answer is not None else 0

    async def chunks(self, digest: str) -> AsyncIterator[bytes]:
        """Yield a blob's bytes as they come, unverified.

        Raises:
            NotFoundError: it is not there.
        """
        try:
            async with self._call("Read") as stream:
                await stream.send_message(content_pb2.ReadContentRequest(digest=digest), end=True)
                while (answer := await stream.recv_message()) is not None:
                    yield answer.data
        except GRPCError as error:
            raise refused(error) from None
        except (OSError, StreamTerminatedError) as error:
            raise UnavailableError(f"the client went away: {error}") from None

    async def read(self, digest: str) -> bytes:
        """Return a small blob, verified.

        Raises:
            BarqueError: it is not there, too big or something else.
        """
        data = bytearray()
        async for chunk in self.chunks(digest):
            data += chunk
            if len(data) > forms.CONFIG_BYTES_MAX:
                raise InvalidInputError(f"blob {digest} is larger than {forms.CONFIG_BYTES_MAX >> 20} MiB")
        if digests.of(bytes(data)) != digest:
            raise InvalidInputError(f"blob {digest} came as something else")
        return bytes(data)

    async def write(self, blob: Descriptor, read: Callable[[int], bytes]) -> None:
        """Write a blob, unless it is there.

        Args:
            blob: digest and size.
            read: returns the next so many bytes; blocking.

        Raises:
            BarqueError: the client refused.
        """
        message = content_pb2.WriteContentRequest
        ref = f"{blob.digest}-{os.urandom(4).hex()}"
        try:
            async with self._call("Write") as stream:
                start = message(action=content_pb2.STAT, ref=ref, total=blob.size, expected=blob.digest)
                await stream.send_message(start)
                await stream.recv_message()
                done = 0
                while data := await asyncio.to_thread(read, _PIECE):
                    await stream.send_message(message(action=content_pb2.WRITE, ref=ref, offset=done, data=data))
                    await stream.recv_message()
                    done += len(data)
                end = message(action=content_pb2.COMMIT, ref=ref, offset=done, total=blob.size, expected=blob.digest)
                await stream.send_message(end, end=True)
                while await stream.recv_message() is not None:
                    pass
        except GRPCError as error:
            if error.status is not Status.ALREADY_EXISTS:
                raise refused(error) from None
        except (OSError, StreamTerminatedError) as error:
            raise UnavailableError(f"the client went away while files were sent to it: {error}") from None

    async def write_bytes(self, blob: Descriptor, data: bytes) -> None:
        """Write a small blob (see write)."""
        view = memoryview(data)
        place = 0

        def read(size: int) -> bytes:
            nonlocal place
            piece = bytes(view[place : place + size])
            place += len(piece)
            return piece

        await self.write(blob, read)


class ClientCache:
    """A cache in a folder of the client (see imports.Reader, exports.Target).

    Args:
        store: the folder.
        content: takes and gives layers' tars.
        digest: of the manifest, to read it.
    """

    def __init__(self, store: ClientStore, content: ContentStore, digest: str = "") -> None:
        self._store = store
        self._content = content
        self._digest = digest

    async def load(self) -> Known:
        """Return what the cache knows."""
        if not self._digest:
            raise InvalidInputError("local cache importer requires explicit digest")
        config, layers = forms.split(forms.parsed(await self._store.read(digests.check(self._digest))))
        if config is None:
            raise InvalidInputError("the folder holds no cache")
        return forms.results(forms.parsed(await self._store.read(config.digest)), layers)

    async def bring(self, layer: Descriptor, diff_id: str) -> None:
        """Bring a layer's tar into the content store."""
        await bring_layer(self._content, self._store.chunks(layer.digest), layer, diff_id)

    async def layers(self, diff_ids: list[str], form: Form) -> dict[str, Descriptor]:
        """Take layers."""
        return {diff: await send_layer(self._store, self._content, diff, form) for diff in diff_ids}

    async def finish(self, config: tuple[bytes, Descriptor], manifest: tuple[bytes, str]) -> None:
        """Take the config and the manifest."""
        raw, blob = config
        await self._store.write_bytes(blob, raw)
        data, kind = manifest
        await self._store.write_bytes(Descriptor(kind, digests.of(data), len(data)), data)


async def send_layer(store: ClientStore, content: ContentStore, diff_id: str, form: Form) -> Descriptor:
    """Write a layer into a client's store; return what it is there."""
    with content.temporary() as file:
        blob = await asyncio.to_thread(packed, content, diff_id, form, file)
        source = content.open(diff_id) if form.kind == UNCOMPRESSED else file
        with source:
            source.seek(0)
            await store.write(blob, source.read)
    return blob


async def bring_layer(content: ContentStore, chunks: AsyncIterator[bytes], layer: Descriptor, diff_id: str) -> None:
    """Put the tar of a layer that comes in chunks, compressed or not, into the content store."""

    async def read() -> bytes:
        async for chunk in chunks:
            if chunk:
                return chunk
        return b""

    def work(given: Iterable[bytes]) -> None:
        tar = bounded(plain(given), layer.size, content.folder)
        content.ingest(tar, diff_id, durable=False)

    await chunks_of(read, work)


def packed(content: ContentStore, diff_id: str, form: Form, file: BinaryIO) -> Descriptor:
    """Write a layer's compressed form into a file (nothing for the plain one) and return what it is; blocking.

    Raises:
        BarqueError: the layer is gone.
        OSError: the disk is full.
    """
    kind = media.layer_type(form.kind, oci=True)
    if form.kind == UNCOMPRESSED:
        return Descriptor(kind, diff_id, content.size(diff_id))
    hasher, size = hashlib.sha256(), 0
    with content.open(diff_id) as source:
        for chunk in form.packed(iter(lambda: source.read(CHUNK), b"")):
            hasher.update(chunk)
            size += len(chunk)
            write_all(file.fileno(), chunk)
    if size == 0:
        raise BarqueError(f"layer {diff_id} is empty")
    return Descriptor(kind, f"sha256:{hasher.hexdigest()}", size)
