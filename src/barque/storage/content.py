"""The content store: immutable blobs named by their sha256 digest.

    <root>/blobs/sha256/<hex>    whole, verified blobs, read-only
    <root>/ingest/<random>       blobs being written; emptied when the store opens

A blob appears by rename after its bytes are on disk, so a reader or a crash never sees half of one.
Layer tars are kept uncompressed: the blob's digest is the layer's diffID, and what a layer was made
of comes back byte for byte when it is saved.
"""

import hashlib
import os
import queue
import threading
from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple

from barque.base.errors import InvalidInputError, NotFoundError
from barque.base.files import fsync_folder
from barque.oci import digest as digests

CHUNK = 1 << 20


class Blob(NamedTuple):
    """A blob's digest and its size in bytes."""

    digest: str
    size: int


class ContentStore:
    """Blobs by digest below one folder; safe to use from several threads."""

    def __init__(self, root: str) -> None:
        self._blobs = f"{root}/blobs/sha256"
        self._ingest = f"{root}/ingest"
        os.makedirs(self._blobs, mode=0o711, exist_ok=True)
        os.makedirs(self._ingest, mode=0o700, exist_ok=True)
        for name in os.listdir(self._ingest):
            os.unlink(f"{self._ingest}/{name}")

    def path(self, digest: str) -> str:
        """Return where the blob lies or would lie."""
        return f"{self._blobs}/{digests.check(digest)[7:]}"

    def has(self, digest: str) -> bool:
        """Tell whether the blob is here."""
        return os.path.exists(self.path(digest))

    def size(self, digest: str) -> int:
        """Return the blob's size in bytes.

        Raises:
            NotFoundError: it is not here.
        """
        try:
            return os.stat(self.path(digest)).st_size
        except FileNotFoundError:
            raise NotFoundError(f"content {digest} not found") from None

    def open(self, digest: str) -> BinaryIO:
        """Open the blob for reading.

        Raises:
            NotFoundError: it is not here.
        """
        try:
            return open(self.path(digest), "rb")
        except FileNotFoundError:
            raise NotFoundError(f"content {digest} not found") from None

    def read(self, digest: str) -> bytes:
        """Return the whole of a small blob.

        Raises:
            NotFoundError: it is not here.
        """
        with self.open(digest) as file:
            return file.read()

    def temporary(self) -> BinaryIO:
        """Return a new unnamed file on the store's disk for data that is only passing through."""
        try:
            fd = os.open(self._ingest, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
        except OSError:
            # Not every file system has nameless files.
            name = f"{self._ingest}/{os.urandom(8).hex()}"
            fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            os.unlink(name)
        return os.fdopen(fd, "w+b", buffering=0)

    def ingest(self, chunks: Iterable[bytes | memoryview], expected: str = "") -> Blob:
        """Store the bytes of chunks as one blob.

        Args:
            chunks: the bytes; hashed in a second thread while the next are made.
            expected: the digest they must have, empty if unknown.

        Raises:
            InvalidInputError: the digest differs from expected.
            OSError: the disk is full or read-only; nothing is left behind.
        """
        name = f"{self._ingest}/{os.urandom(8).hex()}"
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        hasher = _Hasher()
        try:
            size = 0
            try:
                for chunk in chunks:
                    hasher.update(chunk)
                    size += len(chunk)
                    view = memoryview(chunk)
                    while view:
                        view = view[os.write(fd, view) :]
                found = "sha256:" + hasher.finish()
                if expected and found != expected:
                    raise InvalidInputError(f"unexpected digest: got {found}, wanted {expected} ({size} bytes)")
                os.fchmod(fd, 0o444)
                os.fsync(fd)
            finally:
                hasher.stop()
                os.close(fd)
            os.rename(name, self.path(found))
        except BaseException:
            os.unlink(name)
            raise
        fsync_folder(self._blobs)
        return Blob(found, size)

    def put(self, data: bytes) -> str:
        """Store data as one blob and return its digest."""
        return self.ingest([data]).digest

    def remove(self, digest: str) -> None:
        """Remove the blob if it is here."""
        try:
            os.unlink(self.path(digest))
        except FileNotFoundError:
            pass

    def walk(self) -> Iterator[Blob]:
        """Yield every blob."""
        with os.scandir(self._blobs) as entries:
            for entry in entries:
                yield Blob(f"sha256:{entry.name}", entry.stat().st_size)


class _Hasher:
    """A sha256 that is fed in a thread of its own, at most a few chunks behind."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._queue: queue.Queue[bytes | memoryview | None] | None = None
        self._thread: threading.Thread | None = None

    def update(self, chunk: bytes | memoryview) -> None:
        # A small blob is hashed at once: a thread costs more than it saves.
        if self._queue is None and len(chunk) < 1 << 16:
            self._hash.update(chunk)
            return
        if self._queue is None:
            self._queue = queue.Queue(8)
            self._thread = threading.Thread(target=self._run, name="sha256", daemon=True)
            self._thread.start()
        self._queue.put(chunk)

    def _run(self) -> None:
        assert self._queue is not None
        while (chunk := self._queue.get()) is not None:
            self._hash.update(chunk)

    def finish(self) -> str:
        self.stop()
        return self._hash.hexdigest()

    def stop(self) -> None:
        if self._thread is not None and self._queue is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None
