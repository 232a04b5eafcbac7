"""Digests of a kept folder's files, so that only those are read again that have changed.

A file is the one that was read if it has its inode, its size and the time of its last change, which the kernel sets.
"""

import os
import struct
from collections.abc import Callable, Iterable

_ROW = struct.Struct("<QqQ32s")


class FileDigests:
    """Digests of regular files without extended attributes, by inode; `fresh` where some were not read from elsewhere.

    Args:
        read: returns what `packed` returned earlier, or nothing; called when a digest is first asked for or told.
    """

    def __init__(self, read: Callable[[], bytes]) -> None:
        self._read = read
        self._rows: dict[int, tuple[int, int, bytes]] | None = None
        self.fresh = False

    @property
    def _known(self) -> dict[int, tuple[int, int, bytes]]:
        if self._rows is None:
            self._rows = {inode: (changed_ns, size, digest) for inode, changed_ns, size, digest in _ROW.iter_unpack(self._read())}
        return self._rows

    def get(self, file: os.stat_result) -> bytes | None:
        """Return the digest of a file, None where nothing is known of it as it is."""
        known = self._known.get(file.st_ino)
        return known[2] if known is not None and known[:2] == (file.st_ctime_ns, file.st_size) else None

    def put(self, file: os.stat_result, digest: bytes) -> None:
        """Take note of a file's digest (SHA-256)."""
        self._known[file.st_ino] = file.st_ctime_ns, file.st_size, digest
        self.fresh = True

    def keep_only(self, inodes: Iterable[int]) -> None:
        """Forget all other files: their inodes may be given to others."""
        known = self._known
        self._rows = {inode: known[inode] for inode in inodes if inode in known}
        self.fresh = True

    def packed(self) -> bytes:
        """Return all of it as bytes."""
        return b"".join(_ROW.pack(inode, *row) for inode, row in [*self._known.items()])
