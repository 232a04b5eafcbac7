"""Records of builds on disk, with what was shown while they ran and how their outcome came to be.

<data-root>/builder/history/<time>-<number>/record    the record, as the protocol has it
<data-root>/builder/history/<time>-<number>/<hex>     a blob that it names by its digest

A folder comes by a rename, so there is none in part. Nothing is synced: a machine that loses power may lose records.
"""

import hashlib
import logging
import os
import shutil
from typing import Any, BinaryIO, NamedTuple

from google.protobuf.message import DecodeError
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from barque.base.files import write_atomic
from barque.builder.buildkit.pb import content_pb2, control_pb2

_RECORD = "record"
_UNFINISHED = "new-"
_CHUNK = 1 << 20
log = logging.getLogger(__name__)


class Kept(NamedTuple):
    """A record, its folder, its size on disk in bytes."""

    record: Any
    folder: str
    size: int


class HistoryStore:
    """The folder of all records; its methods block."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        os.makedirs(folder, mode=0o700, exist_ok=True)

    def load(self) -> list[Kept]:
        """Return what is kept, the oldest first; what is broken, or was not finished, is removed."""
        found = []
        for name in sorted(os.listdir(self._folder)):
            folder = f"{self._folder}/{name}"
            try:
                if name.startswith(_UNFINISHED):
                    raise ValueError("it was not finished")
                with open(f"{folder}/{_RECORD}", "rb") as file:
                    record = control_pb2.BuildHistoryRecord.FromString(file.read())
                found.append(Kept(record, folder, _size(folder)))
            except (OSError, ValueError, DecodeError) as error:
                log.warning("the record of a build in %s is removed: %s", folder, error)
                shutil.rmtree(folder, ignore_errors=True)
        return found

    def add(self, record: Any, blobs: list[bytes]) -> Kept:
        """Keep a record and the blobs that it names.

        Raises:
            OSError: the disk is full.
        """
        number = os.urandom(4).hex()
        unfinished = f"{self._folder}/{_UNFINISHED}{number}"
        os.mkdir(unfinished, mode=0o700)
        try:
            for data in blobs:
                _write(f"{unfinished}/{hashlib.sha256(data).hexdigest()}", data)
            _write(f"{unfinished}/{_RECORD}", record.SerializeToString())
            folder = f"{self._folder}/{record.CreatedAt.ToNanoseconds():020d}-{number}"
            os.rename(unfinished, folder)
        except OSError:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        return Kept(record, folder, _size(folder))

    def change(self, kept: Kept) -> None:
        """Write a record again.

        Raises:
            OSError: the disk is full.
        """
        write_atomic(f"{kept.folder}/{_RECORD}", kept.record.SerializeToString(), mode=0o600, durable=False)

    def remove(self, kept: Kept) -> None:
        """Forget a record."""
        shutil.rmtree(kept.folder, ignore_errors=True)

    def open(self, digest: str) -> BinaryIO | None:
        """Return a blob of a record, None without it."""
        algorithm, _, name = digest.partition(":")
        if algorithm != "sha256" or len(name) != 64 or not set(name) <= set("0123456789abcdef"):
            return None
        for folder in os.listdir(self._folder):
            try:
                return open(f"{self._folder}/{folder}/{name}", "rb")
            except OSError:
                continue
        return None


def _write(path: str, data: bytes) -> None:
    with open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(data)


def _size(folder: str) -> int:
    with os.scandir(folder) as found:
        return sum(entry.stat().st_size for entry in found)


class HistoryContent:
    """Serves containerd.services.content.v1.Content: the blobs that records name, to be read."""

    descriptor = content_pb2.DESCRIPTOR.services_by_name["Content"]

    def __init__(self, store: HistoryStore) -> None:
        self._store = store

    def _open(self, digest: str) -> BinaryIO:
        found = self._store.open(digest)
        if found is None:
            raise GRPCError(Status.NOT_FOUND, f"content {digest}: not found")
        return found

    async def info(self, stream: Any) -> None:
        """Say how large a blob is."""
        request = await stream.recv_message()
        with self._open(request.digest) as file:
            found = content_pb2.Info(digest=request.digest, size=os.fstat(file.fileno()).st_size)
        await stream.send_message(content_pb2.InfoResponse(info=found))

    async def read(self, stream: Any) -> None:
        """Send a blob, or a part of it."""
        request = await stream.recv_message()
        if request.offset < 0 or request.size < 0:
            raise GRPCError(Status.OUT_OF_RANGE, "offset and size are at least 0")
        with self._open(request.digest) as file:
            place = file.seek(request.offset)
            left = request.size or os.fstat(file.fileno()).st_size
            while left > 0 and (data := file.read(min(_CHUNK, left))):
                await stream.send_message(content_pb2.ReadContentResponse(offset=place, data=data))
                place, left = place + len(data), left - len(data)
