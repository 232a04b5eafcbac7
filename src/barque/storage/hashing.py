"""Digests of bytes that are passing through, in a thread beside whoever makes and writes them."""

import hashlib
import queue
import threading
from collections.abc import Iterable

from barque.base.errors import InvalidInputError
from barque.oci import digest as digests

_HASH_AHEAD = 4


class Hasher:
    """A hash that is fed in a thread of its own, at most a few chunks behind."""

    def __init__(self, algorithm: str = digests.SHA256) -> None:
        self._hash = hashlib.new(algorithm)
        self._queue: queue.Queue[bytes | memoryview | None] | None = None
        self._thread: threading.Thread | None = None

    def update(self, chunk: bytes | memoryview) -> None:
        """Add bytes; they must not change afterwards."""
        # A small blob is hashed at once: a thread costs more than it saves.
        if self._queue is None and len(chunk) < 1 << 16:
            self._hash.update(chunk)
            return
        if self._queue is None:
            self._queue = queue.Queue(_HASH_AHEAD)
            self._thread = threading.Thread(target=self._run, name="hasher", daemon=True)
            self._thread.start()
        self._queue.put(chunk)

    def _run(self) -> None:
        assert self._queue is not None
        while (chunk := self._queue.get()) is not None:
            self._hash.update(chunk)

    def finish(self) -> str:
        """Return the digest's hexadecimal digits; no more bytes may come."""
        self.stop()
        return self._hash.hexdigest()

    def stop(self) -> None:
        """End the thread; to be called whatever happens."""
        if self._thread is not None and self._queue is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None


def verify(chunks: Iterable[bytes | memoryview], digest: str) -> None:
    """Read chunks to their end.

    Raises:
        InvalidInputError: their digest is another.
    """
    algorithm = digests.split(digest)[0]
    hasher, size = Hasher(algorithm), 0
    try:
        for chunk in chunks:
            hasher.update(chunk)
            size += len(chunk)
        found = f"{algorithm}:{hasher.finish()}"
    finally:
        hasher.stop()
    if found != digest:
        raise InvalidInputError(f"unexpected digest: got {found}, wanted {digest} ({size} bytes)")
