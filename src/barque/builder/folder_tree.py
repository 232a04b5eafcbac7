"""A folder on disk as a tree, reached by descriptors only."""

import hashlib
import os
import stat
from collections.abc import Iterator

from barque.base.errors import InvalidInputError
from barque.base.files import open_regular
from barque.builder.file_digests import FileDigests
from barque.builder.trees import BLOCK, CHAR, FIFO, FILE, FOLDER, LINK, Node
from barque.kernel.openat2 import RESOLVE_IN_ROOT, RESOLVE_NO_SYMLINKS, open_in_root

_KINDS = {
    stat.S_IFREG: FILE, stat.S_IFDIR: FOLDER, stat.S_IFLNK: LINK, stat.S_IFCHR: CHAR, stat.S_IFBLK: BLOCK,
    stat.S_IFIFO: FIFO,
}  # fmt: skip
_CHUNK = 1 << 20
_RESOLVE = RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS


class FolderTree:
    """The files below the folder whose descriptor is `root`; the descriptor stays the caller's.

    Args:
        root: the descriptor.
        path: the folder's path on the host where it has one that others may bind, else empty.
        digests: what is known of the files' content, and is taken note of, where the folder is kept.
    """

    def __init__(self, root: int, path: str = "", digests: FileDigests | None = None) -> None:
        self.root = root
        self.path = path
        self._digests = digests
        self._seen: tuple[str, os.stat_result] | None = None
        self._folder: tuple[str, int] | None = None

    def close(self) -> None:
        """Close what was opened."""
        if self._folder is not None:
            os.close(self._folder[1])
            self._folder = None

    def lstat(self, path: str) -> Node | None:
        """Return the file at path (see Tree); sockets are not files."""
        found = self._stat(path)
        kind = None if found is None else _KINDS.get(stat.S_IFMT(found.st_mode))
        if found is None or kind is None:
            return None
        self._seen = (path, found)
        parent, _, name = path.rpartition("/")
        link = os.readlink(name, dir_fd=self._parent(parent)) if kind == LINK else ""
        return Node(
            kind, stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, found.st_size if kind == FILE else 0,
            found.st_mtime_ns, link, (os.major(found.st_rdev), os.minor(found.st_rdev)),
            (found.st_dev, found.st_ino) if found.st_nlink > 1 and kind != FOLDER else None,
        )  # fmt: skip

    def names(self, path: str) -> list[str]:
        """Return the names in a folder (see Tree)."""
        fd = self._open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with os.scandir(fd) as entries:
                return sorted(entry.name for entry in entries)
        finally:
            os.close(fd)

    def read(self, path: str) -> Iterator[bytes]:
        """Yield a file's bytes (see Tree)."""
        parent, _, name = path.rpartition("/")
        fd = open_regular(name or ".", dir_fd=self._parent(parent))
        if fd < 0:
            raise InvalidInputError(f"/{path} is no regular file")
        try:
            while chunk := os.read(fd, _CHUNK):
                yield chunk
                if len(chunk) < _CHUNK:
                    # Of a regular file less comes only at its end.
                    return
        finally:
            os.close(fd)

    def xattrs(self, path: str) -> dict[bytes, bytes]:
        """Return the extended attributes that copies keep (see Tree)."""
        found = self._last_seen(path)
        kind = None if found is None else _KINDS.get(stat.S_IFMT(found.st_mode))
        if found is None or kind not in (FILE, FOLDER) or (self._digests is not None and self._digests.get(found) is not None):
            return {}
        fd = self._open(path, os.O_PATH)
        try:
            # It is not opened: it may be a device by now.
            place = f"/proc/self/fd/{fd}"
            names = os.listxattr(place)
            kept = [n for n in names if n.startswith(("user.", "security.capability")) and "overlay." not in n]
            return {os.fsencode(name): os.getxattr(place, name) for name in kept}
        except OSError:
            return {}
        finally:
            os.close(fd)

    def digest(self, path: str) -> str:
        """Return a file's digest (see Tree)."""
        found = self._last_seen(path) if self._digests is not None else None
        known = self._digests.get(found) if self._digests is not None and found is not None else None
        if known is not None:
            return known.hex()
        hasher = hashlib.sha256()
        for chunk in self.read(path):
            hasher.update(chunk)
        if self._digests is not None and found is not None and not self.xattrs(path):
            self._digests.put(found, hasher.digest())
        return hasher.hexdigest()

    def _last_seen(self, path: str) -> os.stat_result | None:
        """Return what a file was when it was last looked at, if that was just now."""
        return self._seen[1] if self._seen is not None and self._seen[0] == path else self._stat(path)

    def _stat(self, path: str) -> os.stat_result | None:
        parent, _, name = path.rpartition("/")
        try:
            return os.stat(name or ".", dir_fd=self._parent(parent), follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _open(self, path: str, flags: int) -> int:
        parent, _, name = path.rpartition("/")
        return os.open(name or ".", flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._parent(parent))

    def _parent(self, path: str) -> int:
        """Return a descriptor of a folder; the last one asked for is kept."""
        if not path:
            return self.root
        if self._folder is not None and self._folder[0] == path:
            return self._folder[1]
        fd = open_in_root(self.root, path, os.O_PATH | os.O_DIRECTORY, resolve=_RESOLVE)
        self.close()
        self._folder = (path, fd)
        return fd
