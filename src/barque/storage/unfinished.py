"""Blobs that are written in several goes, perhaps by several processes one after the other."""

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator

from barque.base.errors import ConflictError, InvalidInputError
from barque.kernel.openat2 import start_writing
from barque.oci import digest as digests

CHUNK = 1 << 20
_AHEAD_BYTES = 8 << 20


def _written(fd: int, data: bytes | memoryview) -> Iterator[int]:
    """Write all of data; yield the size of each piece that the file took."""
    view = memoryview(data)
    while view:
        count = os.write(fd, view)
        yield count
        view = view[count:]


class WritingAhead:
    """Writes to a file's end and lets the disk begin early, so that little is left to wait for when it is synced.

    Args:
        fd: the file; it stays the caller's.
        start: how many bytes it has.
    """

    def __init__(self, fd: int, start: int = 0) -> None:
        self._fd = fd
        self._begun = start
        self.size = start

    def write(self, data: bytes | memoryview) -> None:
        """Write all of data."""
        for count in _written(self._fd, data):
            self.size += count
        if self.size - self._begun >= _AHEAD_BYTES:
            start_writing(self._fd, self._begun, self.size - self._begun)
            self._begun = self.size


class Writer:
    """A blob that is written in several goes; one at a time may be open.

    Args:
        path: of the file.
        appear: makes the file a blob: told its path and its digest.

    Raises:
        ConflictError: it is open elsewhere.
    """

    def __init__(self, path: str, appear: Callable[[str, str], None]) -> None:
        self._appear = appear
        self._path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._fd)
            raise ConflictError("this blob is being written by another request") from None
        if not self._is_at(path):
            # Between our opening and our lock another writer made it a blob, which nobody writes to again.
            os.close(self._fd)
            raise ConflictError("this blob was finished by another request")
        self.size = os.fstat(self._fd).st_size

    def _is_at(self, path: str) -> bool:
        try:
            return os.path.samestat(os.fstat(self._fd), os.stat(path))
        except FileNotFoundError:
            return False

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *rest: object) -> None:
        self.close()

    def write(self, data: bytes | memoryview) -> None:
        """Append data."""
        for count in _written(self._fd, data):
            self.size += count

    def truncate(self, size: int) -> None:
        """Cut the blob back to size bytes."""
        os.ftruncate(self._fd, size)
        self.size = size

    def hash(self, hasher: "hashlib._Hash", start: int = 0) -> None:
        """Feed the bytes from start on to a hash."""
        while chunk := os.pread(self._fd, CHUNK, start):
            hasher.update(chunk)
            start += len(chunk)

    def commit(self, digest: str, found: str = "") -> None:
        """Make what was written the blob of this digest; the writer is closed then.

        Args:
            digest: what it must be.
            found: the digest that the caller computed meanwhile; computed here if empty.

        Raises:
            InvalidInputError: the bytes have another digest; they are kept.
            OSError: the disk failed.
        """
        if not found:
            algorithm, _ = digests.split(digest)
            hasher = hashlib.new(algorithm)
            self.hash(hasher)
            found = f"{algorithm}:{hasher.hexdigest()}"
        if found != digest:
            raise InvalidInputError(f"unexpected digest: got {found}, wanted {digest} ({self.size} bytes)")
        os.fsync(self._fd)
        os.fchmod(self._fd, 0o444)
        self._appear(self._path, digest)
        self.close()

    def close(self) -> None:
        """Keep what was written for a later go."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def discard(self) -> None:
        """Remove what was written."""
        if self._fd >= 0:
            os.unlink(self._path)
            self.close()
