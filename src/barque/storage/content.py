"""The content store: immutable blobs named by their digest.

    <root>/blobs/<algorithm>/<hex>   whole, verified blobs, read-only
    <root>/ingest/<random>           blobs being written; emptied when the store opens
    <root>/ingest/keep-<name>        blobs whose writing goes on later (see `writer` and `partial`)

A blob appears by rename after its bytes are on disk, so a reader or a crash never sees half of one.
Layer tars are kept uncompressed: the blob's digest is the layer's diffID, and what a layer was made
of comes back byte for byte when it is saved.

Garbage is collected beside readers and writers. A reader's open file outlives the removal of its
name. A writer holds a lease (`lease`) from before its first blob until what refers to the blobs is
durable: leased blobs stay, and `collect` looks at the leases before it asks what is referred to.
"""

import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import BinaryIO, NamedTuple

from barque.base import calling_off
from barque.base.errors import InvalidInputError, NotFoundError
from barque.base.files import fsync_folder
from barque.oci import digest as digests
from barque.storage.hashing import Hasher
from barque.storage.unfinished import CHUNK, Writer, WritingAhead

__all__ = ["CHUNK", "KEPT", "Blob", "ContentStore", "Lease", "Writer"]

KEPT = "keep-"
_PULLED = "pull-"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}")


class Blob(NamedTuple):
    """A blob's digest and its size in bytes."""

    digest: str
    size: int


_CURRENT: ContextVar[tuple["Lease", ...]] = ContextVar("leases", default=())


class ContentStore:
    """Blobs by digest below one folder; safe to use from several threads.

    Args:
        root: the folder.
        shared: other processes use the folder too, so unfinished blobs are not known to be nobody's.
    """

    def __init__(self, root: str, *, shared: bool = False) -> None:
        self.folder = root
        self._shared = shared
        self._root = f"{root}/blobs"
        self._ingest = f"{root}/ingest"
        self._lock = threading.Lock()
        self._leases: set[Lease] = set()
        self._collections: list[set[str]] = []
        for algorithm in digests.ALGORITHMS:
            os.makedirs(f"{self._root}/{algorithm}", mode=0o711, exist_ok=True)
        os.makedirs(self._ingest, mode=0o700, exist_ok=True)
        for name in () if shared else os.listdir(self._ingest):
            if not name.startswith(KEPT):
                os.unlink(f"{self._ingest}/{name}")

    def path(self, digest: str) -> str:
        """Return where the blob lies or would lie."""
        algorithm, digits = digests.split(digest)
        return f"{self._root}/{algorithm}/{digits}"

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

    def ingest(self, chunks: Iterable[bytes | memoryview], expected: str = "", *, durable: bool = True) -> Blob:
        """Store the bytes of chunks as one blob.

        Args:
            chunks: the bytes; hashed in a second thread while the next are made.
            expected: the digest they must have, empty if unknown: it is a sha256 then.
            durable: return when the bytes are on disk; else the caller writes the file system out later.

        Raises:
            InvalidInputError: the digest differs from expected.
            BarqueError: it was called off.
            OSError: the disk is full or read-only; nothing is left behind.
        """
        algorithm = digests.split(expected)[0] if expected else digests.SHA256
        name = f"{self._ingest}/{os.urandom(8).hex()}"
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        hasher = Hasher(algorithm)
        try:
            file = WritingAhead(fd)
            try:
                for chunk in chunks:
                    calling_off.check()
                    hasher.update(chunk)
                    file.write(chunk)
                found = f"{algorithm}:{hasher.finish()}"
                if expected and found != expected:
                    raise InvalidInputError(f"unexpected digest: got {found}, wanted {expected} ({file.size} bytes)")
                os.fchmod(fd, 0o444)
                if durable:
                    os.fsync(fd)
            finally:
                hasher.stop()
                os.close(fd)
                # What it reads from must not stay open for as long as somebody keeps the error.
                getattr(chunks, "close", lambda: None)()
            self._appear(name, found, durable=durable)
        except BaseException:
            # It is gone already where only the folder could not be synced.
            with suppress(FileNotFoundError):
                os.unlink(name)
            raise
        return Blob(found, file.size)

    def _appear(self, name: str, digest: str, *, durable: bool = True) -> None:
        path = self.path(digest)
        with self._lock:
            # Whoever collects garbage sees the lease no later than the blob.
            self._hold(digest, [lease for lease in _CURRENT.get() if lease in self._leases])
            if self._is_here(name, path):
                # An indexed layer's tar is another name of this very file: a second one would lie there beside it.
                os.unlink(name)
            else:
                os.rename(name, path)
        if durable:
            fsync_folder(os.path.dirname(path))

    def _is_here(self, name: str, path: str) -> bool:
        if self._shared:
            # The blob that comes is younger, which other processes' collectors look at.
            return False
        try:
            return os.stat(path).st_size == os.stat(name).st_size
        except FileNotFoundError:
            return False

    def writer(self, name: str) -> Writer:
        """Open a blob whose writing may go on later, even in another process, where it stopped.

        Args:
            name: a word that the writers of one blob share.

        Raises:
            InvalidInputError: the name is no plain word.
        """
        if not _NAME.fullmatch(name):
            raise InvalidInputError(f"invalid name of an unfinished blob: {name!r}")
        return Writer(f"{self._ingest}/{KEPT}{name}", self._appear)

    def unfinished(self) -> Iterator[tuple[str, int, float]]:
        """Yield name, size in bytes and last change (seconds since the epoch) of what `writer` keeps."""
        with os.scandir(self._ingest) as entries:
            for entry in entries:
                if not entry.name.startswith(KEPT):
                    continue
                try:
                    found = entry.stat()
                except FileNotFoundError:
                    continue
                yield entry.name[len(KEPT) :], found.st_size, found.st_mtime

    def unfinished_size(self, name: str) -> int | None:
        """Return how many bytes of an unfinished blob are here, None if there is none of this name."""
        try:
            return os.stat(f"{self._ingest}/{KEPT}{name}").st_size
        except (FileNotFoundError, ValueError):
            return None

    def forget_unfinished(self, name: str) -> bool:
        """Remove an unfinished blob; tell whether there was one."""
        try:
            os.unlink(f"{self._ingest}/{KEPT}{name}")
        except FileNotFoundError:
            return False
        return True

    def partial(self, digest: str) -> BinaryIO:
        """Open the kept beginning of a compressed blob whose download broke off, empty where nothing is kept.

        It is not verified, and whoever opens it must be the only one.
        """
        path = f"{self._ingest}/{KEPT}{_PULLED}{digests.check(digest)[7:]}"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        return os.fdopen(fd, "r+b", buffering=0)

    def keep_partial(self, digest: str) -> None:
        """Make the beginning that was kept a blob: its caller has seen all of it, and the digest was right.

        It is on disk when the file system is written out.
        """
        digest = digests.check(digest)
        name = f"{self._ingest}/{KEPT}{_PULLED}{digest[7:]}"
        os.chmod(name, 0o444)
        self._appear(name, digest, durable=False)

    def drop_partial(self, digest: str) -> None:
        """Forget the kept beginning of a blob."""
        self.forget_unfinished(f"{_PULLED}{digests.check(digest)[7:]}")

    def drop_old_partials(self, older_than_s: float) -> None:
        """Forget beginnings that nobody went on with for so many seconds."""
        limit = time.time() - older_than_s
        for name, _, changed in list(self.unfinished()):
            if name.startswith(_PULLED) and changed < limit:
                self.forget_unfinished(name)

    @contextmanager
    def lease(self) -> Iterator["Lease"]:
        """Keep blobs from the collector that arrive, or are asked for by `Lease.has`, meanwhile.

        Blobs that the code inside stores belong to the lease, also those of `asyncio.to_thread`.
        """
        lease = Lease(self)
        with self._lock:
            self._leases.add(lease)
        token = _CURRENT.set((*_CURRENT.get(), lease))
        try:
            yield lease
        finally:
            _CURRENT.reset(token)
            with self._lock:
                self._leases.discard(lease)

    def _hold(self, digest: str, leases: Iterable["Lease"]) -> None:
        for lease in leases:
            lease.held.add(digest)
            for seen in self._collections:
                seen.add(digest)

    def collect(self, referred: Callable[[], set[str]], *, older_than_s: float = 0) -> list[Blob]:
        """Remove blobs that nobody refers to and no lease holds; return them.

        Args:
            referred: returns the digests that are referred to; called once, after a look at the leases.
            older_than_s: blobs that are younger stay.
        """
        with self._lock:
            # What is held at any time from here on stays: its row may be written after the look at the rows.
            held = {digest for lease in self._leases for digest in lease.held}
            self._collections.append(held)
        try:
            keep = referred()
            return [blob for blob in list(self.walk()) if self._collect(blob.digest, keep, held, older_than_s)]
        finally:
            with self._lock:
                self._collections = [seen for seen in self._collections if seen is not held]

    def _collect(self, digest: str, keep: set[str], held: set[str], older_than_s: float) -> bool:
        if digest in keep:
            return False
        path = self.path(digest)
        with self._lock:
            try:
                if digest in held or (older_than_s and os.stat(path).st_mtime > time.time() - older_than_s):
                    return False
                os.unlink(path)
            except FileNotFoundError:
                return False
        return True

    def put(self, data: bytes) -> str:
        """Store data as one blob and return its digest."""
        return self.ingest([data]).digest

    def remove(self, digest: str) -> None:
        """Remove the blob if it is here."""
        try:
            os.unlink(self.path(digest))
        except FileNotFoundError:
            pass

    def discard(self, unused: Iterable[str], *, ending: "Lease | None" = None) -> None:
        """Remove blobs, but not those that a lease holds by now.

        Args:
            unused: digests of blobs that were found to be needed by nobody.
            ending: a lease that does not count any more.
        """
        for digest in unused:
            with self._lock:
                if not any(digest in lease.held for lease in self._leases if lease is not ending):
                    self.remove(digest)

    def walk(self) -> Iterator[Blob]:
        """Yield every blob."""
        for algorithm, digits in digests.ALGORITHMS.items():
            with os.scandir(f"{self._root}/{algorithm}") as entries:
                for entry in entries:
                    if len(entry.name) != digits:
                        continue
                    try:
                        yield Blob(f"{algorithm}:{entry.name}", entry.stat().st_size)
                    except FileNotFoundError:
                        continue


class Lease:
    """Blobs that stay although nothing durable refers to them yet; see ContentStore.lease."""

    def __init__(self, store: ContentStore) -> None:
        self._store = store
        self.held: set[str] = set()

    def hold(self, digest: str) -> None:
        """Keep the blob, whether it is here or will come."""
        with self._store._lock:
            self._store._hold(digest, [self])

    def discard(self, unused: Iterable[str]) -> None:
        """Remove blobs that no other lease holds."""
        self._store.discard(unused, ending=self)

    def has(self, digest: str) -> bool:
        """Tell whether the blob is here; if so it stays as long as the lease."""
        self.hold(digest)
        return self._store.has(digest)
