"""A client's files come over: the receiving half of BuildKit's file synchronisation (fsutil).

The client lists its files in walking order, one STAT each; the receiver asks for the content of those that it
does not have yet; DATA packets carry it, an empty one ends a file; FIN from both ends the exchange.
"""

import contextlib
import hashlib
import os
import posixpath
import stat
from typing import Any

from barque.base.errors import BarqueError, InvalidInputError
from barque.base.files import write_all
from barque.builder.buildkit.pb import wire_pb2
from barque.builder.copying import give
from barque.builder.file_digests import FileDigests
from barque.kernel.openat2 import RESOLVE_IN_ROOT, RESOLVE_NO_SYMLINKS, open_in_root

_RESOLVE = RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LONGEST_PATH = 4096
_MOST_OPEN = 256
"""Files whose content is asked for are open from then on, but for very many."""
# Bits of Go's os.FileMode.
_GO_FOLDER, _GO_LINK, _GO_DEVICE, _GO_PIPE, _GO_SOCKET = 1 << 31, 1 << 27, 1 << 26, 1 << 25, 1 << 24
_GO_SETUID, _GO_SETGID, _GO_STICKY = 1 << 23, 1 << 22, 1 << 20
_GO_TYPES = _GO_FOLDER | _GO_LINK | _GO_DEVICE | _GO_PIPE | _GO_SOCKET


def unix_mode(mode: int) -> int:
    """Return permission bits, set-id bits and the sticky bit of Go's file mode."""
    found = mode & 0o777
    for bit, ours in ((_GO_SETUID, stat.S_ISUID), (_GO_SETGID, stat.S_ISGID), (_GO_STICKY, stat.S_ISVTX)):
        if mode & bit:
            found |= ours
    return found


class _Tree:
    """The folder that receives; what is in it from an earlier time is kept where it is unchanged."""

    def __init__(self, path: str) -> None:
        self.root = os.open(path, _FOLDER)
        self.seen: set[str] = set()
        self.times: list[tuple[str, int]] = []
        self.changed = False
        self._folder: tuple[str, int] | None = None

    def close(self) -> None:
        if self._folder is not None:
            os.close(self._folder[1])
            self._folder = None
        os.close(self.root)

    def place(self, path: str) -> tuple[int, str]:
        """Return a descriptor of the folder that a path lies in, and its last part.

        Raises:
            InvalidInputError: the path is not clean, or its folder was not listed before it.
        """
        parent, _, name = path.rpartition("/")
        if not path or len(path) > _LONGEST_PATH or posixpath.normpath(path) != path or name in (".", ".."):
            raise InvalidInputError(f"the client sent an invalid path: {path!r}")
        if path.startswith(("/", "../")) or "\0" in path:
            raise InvalidInputError(f"the client sent a path outside its folder: {path!r}")
        if parent and parent not in self.seen:
            raise InvalidInputError(f"the client sent {path!r} before its folder")
        if self._folder is None or self._folder[0] != parent:
            fd = os.dup(self.root) if not parent else open_in_root(self.root, parent, _FOLDER, resolve=_RESOLVE)
            if self._folder is not None:
                os.close(self._folder[1])
            self._folder = (parent, fd)
        return self._folder[1], name

    def current(self, folder: int, name: str) -> os.stat_result | None:
        try:
            return os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def remove(self, folder: int, name: str) -> None:
        """Remove whatever has a name in a folder."""
        found = self.current(folder, name)
        if found is None:
            return
        self.changed = True
        if not stat.S_ISDIR(found.st_mode):
            os.unlink(name, dir_fd=folder)
            return
        fd = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
        try:
            for inner in os.listdir(fd):
                self.remove(fd, inner)
        finally:
            os.close(fd)
        os.rmdir(name, dir_fd=folder)

    def drop_unlisted(self) -> None:
        """Remove what an earlier time left and the client no longer has."""
        self._drop(self.root, "")

    def set_times(self) -> None:
        """Give folders their times."""
        for path, time_ns in reversed(self.times):
            folder, name = self.place(path)
            os.utime(name, ns=(time_ns, time_ns), dir_fd=folder, follow_symlinks=False)

    def _drop(self, folder: int, prefix: str) -> None:
        with os.scandir(folder) as found:
            entries = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]
        for name, is_folder in entries:
            if prefix + name not in self.seen:
                self.remove(folder, name)
            elif is_folder:
                fd = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
                try:
                    self._drop(fd, f"{prefix}{name}/")
                finally:
                    os.close(fd)


class _Arriving:
    """A file whose content was asked for: its descriptor, -1 while it is closed, how it was listed, its digest so far."""

    __slots__ = ("fd", "hasher", "listed")

    def __init__(self, fd: int, listed: Any) -> None:
        self.fd, self.listed = fd, listed
        self.hasher = hashlib.sha256()


class Receiver:
    """Fills a folder from one exchange; `transferred` counts the bytes that came over.

    Args:
        path: the folder.
        owner: user and group that all files are given, None to keep their own.
        merge: leave in the folder what was not sent.
        digests: takes note of the content that comes.
    """

    def __init__(
        self, path: str, *, owner: tuple[int, int] | None = None, merge: bool = False, digests: FileDigests | None = None
    ) -> None:
        self._tree = _Tree(path)
        self._owner = owner
        self._merge = merge
        self._digests = digests
        self._inodes: list[int] = []
        self._wanted: dict[int, _Arriving] = {}
        self._open = 0
        self._listed = 0
        self._ended = self.finished = False
        self.transferred = 0

    def close(self) -> None:
        """Close what is open, and remove the files of which not all has come."""
        for file in self._wanted.values():
            if file.fd >= 0:
                os.close(file.fd)
            with contextlib.suppress(OSError, BarqueError):
                folder, name = self._tree.place(file.listed.path)
                os.unlink(name, dir_fd=folder)
        self._wanted.clear()
        self._tree.close()

    @property
    def changed(self) -> bool:
        """Whether anything of the folder is not as it was, but for times of folders."""
        return self._tree.changed

    @property
    def complete(self) -> bool:
        """Whether all is listed and all that was asked for is here."""
        return self._ended and not self._wanted

    def take(self, packet: Any) -> int | None:
        """Take a packet; return the number to ask content by, None where nothing is needed.

        Raises:
            InvalidInputError: it is not as it should be, or tells of an error.
        """
        self.transferred += packet.ByteSize()
        kinds = wire_pb2.Packet
        if packet.type == kinds.PACKET_STAT:
            return self.listed(packet)
        if packet.type == kinds.PACKET_DATA:
            self.data(packet)
        elif packet.type == kinds.PACKET_ERR:
            raise InvalidInputError(packet.data.decode("utf-8", "replace"))
        return None

    def finish(self) -> None:
        """Bring the folder to what was listed."""
        self.finished = True
        if not self._merge:
            self._tree.drop_unlisted()
        self._tree.set_times()
        if self._digests is not None and self.changed:
            self._digests.keep_only(self._inodes)

    def listed(self, packet: Any) -> int | None:
        """Take a STAT; return the number to ask content by, None where nothing is needed.

        Raises:
            InvalidInputError: it names what cannot be part of a context.
        """
        if not packet.HasField("stat"):
            self._ended = True
            return None
        number = self._listed
        self._listed += 1
        found = packet.stat
        if self._owner is not None:
            found.uid, found.gid = self._owner
        path = found.path
        folder, name = self._tree.place(path)
        wanted = self._make(folder, name, found)
        self._tree.seen.add(path)
        if wanted is None:
            return None
        if self._open >= _MOST_OPEN:
            os.close(wanted)
            wanted = -1
        self._open += wanted >= 0
        self._wanted[number] = _Arriving(wanted, found)
        return number

    def _make(self, folder: int, name: str, found: Any) -> int | None:
        kind = found.mode & _GO_TYPES
        current = self._tree.current(folder, name)
        if kind == _GO_FOLDER:
            if current is None or not stat.S_ISDIR(current.st_mode):
                self._tree.remove(folder, name)
                os.mkdir(name, 0o700, dir_fd=folder)
                current = None
            if current is None or _attributes_of(current) != _attributes_in(found):
                self._attributes(folder, name, found)
            self._tree.times.append((found.path, found.modTime))
            return None
        if kind == _GO_LINK:
            if current is not None and _is_link(current, found) and os.readlink(name, dir_fd=folder) == found.linkname:
                return None
            self._tree.changed = True
            self._tree.remove(folder, name)
            os.symlink(found.linkname, name, dir_fd=folder)
            os.chown(name, found.uid, found.gid, dir_fd=folder, follow_symlinks=False)
            os.utime(name, ns=(found.modTime, found.modTime), dir_fd=folder, follow_symlinks=False)
            return None
        if kind == _GO_PIPE:
            self._tree.changed = True
            self._tree.remove(folder, name)
            os.mkfifo(name, 0o600, dir_fd=folder)
            self._attributes(folder, name, found)
            return None
        if kind:
            raise InvalidInputError(f"{found.path}: devices and sockets cannot be part of a build context")
        if found.linkname:
            self._link(folder, name, found)
            return None
        if current is not None and _unchanged(current, found):
            self._inodes.append(current.st_ino)
            return None
        self._tree.changed = True
        if current is not None:
            self._tree.remove(folder, name)
        # Opened again for its content, perhaps, by one who may not write to it later.
        return os.open(name, _NEW_FILE, unix_mode(found.mode) | 0o600, dir_fd=folder)

    def _link(self, folder: int, name: str, found: Any) -> None:
        if found.linkname not in self._tree.seen:
            raise InvalidInputError(f"{found.path}: hard link to {found.linkname!r}, which was not sent")
        self._tree.changed = True
        self._tree.remove(folder, name)
        parent, _, last = found.linkname.rpartition("/")
        source = open_in_root(self._tree.root, parent or ".", _FOLDER, resolve=_RESOLVE)
        try:
            os.link(last, name, src_dir_fd=source, dst_dir_fd=folder, follow_symlinks=False)
        finally:
            os.close(source)

    def _attributes(self, folder: int, name: str, found: Any) -> None:
        self._tree.changed = True
        os.chown(name, found.uid, found.gid, dir_fd=folder, follow_symlinks=False)
        os.chmod(name, unix_mode(found.mode), dir_fd=folder)

    def data(self, packet: Any) -> None:
        """Take content; an empty packet ends its file.

        Raises:
            InvalidInputError: nobody asked for it.
        """
        file = self._wanted.get(packet.ID)
        if file is None:
            raise InvalidInputError(f"the client sent content that was not asked for ({packet.ID})")
        if file.fd < 0:
            folder, name = self._tree.place(file.listed.path)
            file.fd = os.open(name, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
            self._open += 1
        if packet.data:
            file.hasher.update(packet.data)
            write_all(file.fd, packet.data)
            return
        del self._wanted[packet.ID]
        self._open -= 1
        try:
            self._dress(file)
        finally:
            os.close(file.fd)

    def _dress(self, file: _Arriving) -> None:
        """Give a file that is here whole what was listed of it besides its content."""
        fd, listed = file.fd, file.listed
        give(fd, (listed.uid, listed.gid), unix_mode(listed.mode))
        attributes = {key: value for key, value in listed.xattrs.items() if key.startswith("user.")}
        for key, value in attributes.items():
            os.setxattr(fd, key, value)
        os.utime(fd, ns=(listed.modTime, listed.modTime))
        if self._digests is not None and not attributes:
            found = os.fstat(fd)
            self._inodes.append(found.st_ino)
            self._digests.put(found, file.hasher.digest())


def _unchanged(current: os.stat_result, found: Any) -> bool:
    return (
        stat.S_ISREG(current.st_mode)
        and current.st_size == found.size
        and current.st_mtime_ns == found.modTime
        and _attributes_of(current) == _attributes_in(found)
    )


def _is_link(current: os.stat_result, found: Any) -> bool:
    """Tell whether a file is a link with the owner and the time of another."""
    same = (current.st_uid, current.st_gid, current.st_mtime_ns) == (found.uid, found.gid, found.modTime)
    return same and stat.S_ISLNK(current.st_mode)


def _attributes_of(current: os.stat_result) -> tuple[int, int, int]:
    return stat.S_IMODE(current.st_mode), current.st_uid, current.st_gid


def _attributes_in(found: Any) -> tuple[int, int, int]:
    return unix_mode(found.mode), found.uid, found.gid
