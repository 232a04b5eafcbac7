"""Unpacking tar below a folder that nothing in the archive can leave.

Every path is opened with openat2 and the folder as its root, links are made and never followed
outside, and what stands in the way of an entry is replaced. In a layer, `.wh.` names become
overlay's whiteouts and opaque folders.
"""

import errno
import os
import stat
from collections.abc import Sequence

from barque.base import calling_off
from barque.base.errors import InvalidInputError
from barque.base.files import set_mode, write_all
from barque.kernel.openat2 import open_in_root
from barque.storage.archive import lower, tar
from barque.storage.archive.write import OPAQUE
from barque.storage.trees import remove_below

_FOLDERS_KEPT = 64
_PIECE = 32 << 20
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def unpack(
    buffer: memoryview,
    root: int,
    *,
    layer: bool = False,
    lowers: Sequence[str] = (),
    start: str = "",
    keep_kind: bool = False,
    owner: tuple[int, int] | None = None,
) -> int:
    """Unpack a tar below the folder `root` and return the bytes of its regular files.

    Args:
        buffer: the whole archive.
        root: descriptor of the folder that is `/` to all names and links.
        layer: translate whiteouts; root is an overlay layer.
        lowers: folders of the layers below, nearest first: folders that the archive leaves out get
            their owner and mode from there.
        start: folder below root that relative names start at.
        keep_kind: refuse to replace a folder by something else, or the other way round.
        owner: uid and gid that everything gets; None takes the archive's.

    Raises:
        InvalidInputError: the archive is broken or would leave the root.
        BarqueError: it was called off.
        OSError: the kernel refused something (ENOSPC, EROFS, ...).
    """
    work = _Unpacker(root, layer=layer, lowers=lowers, start=start, keep_kind=keep_kind, owner=owner)
    try:
        for entry in tar.entries(buffer):
            calling_off.check()
            work.add(buffer, entry)
        work.finish()
    finally:
        work.close()
    return work.total


def clean(name: bytes) -> bytes:
    """Return an archive's name relative to the root, lexically cleaned; empty is the root itself.

    Raises:
        InvalidInputError: it climbs above the root.
    """
    if b"/." not in name and b"//" not in name and not name.startswith((b".", b"/")):
        # Nothing to clean: most names are so.
        return name.removesuffix(b"/")
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            if not parts:
                raise InvalidInputError(f"archive entry {os.fsdecode(name)!r} is outside of the root")
            parts.pop()
        elif part and part != b".":
            parts.append(part)
    return b"/".join(parts)


class _Unpacker:
    def __init__(
        self,
        root: int,
        *,
        layer: bool,
        lowers: Sequence[str],
        start: str,
        keep_kind: bool,
        owner: tuple[int, int] | None,
    ) -> None:
        self._root = root
        self._layer = layer
        self._lowers = lowers
        self._start = clean(os.fsencode(start))
        self._keep_kind = keep_kind
        self._owner = owner
        self._folders: dict[bytes, int] = {}
        self._times: list[tuple[bytes, int]] = []
        self.total = 0

    def close(self) -> None:
        for fd in self._folders.values():
            os.close(fd)
        self._folders.clear()

    def finish(self) -> None:
        """Set the folders' times, innermost first, now that nothing is put into them any more."""
        for path, mtime in reversed(self._times):
            try:
                fd = open_in_root(self._root, path, _OPEN_FOLDER | os.O_NOFOLLOW)
            except OSError:
                continue
            try:
                os.utime(fd, ns=(mtime, mtime))
            finally:
                os.close(fd)

    def add(self, buffer: memoryview, entry: tar.Entry) -> None:
        name = clean(entry.name)
        path = b"/".join(p for p in (self._start, name) if p)
        if not name:
            if entry.kind == tar.FOLDER and not self._start:
                self._dress_folder(self._root, path, entry)
            return
        folder, _, base = path.rpartition(b"/")
        parent = self._folder(folder)
        if self._layer and base.startswith(b".wh."):
            self._whiteout(parent, base)
            return
        if entry.kind == tar.FOLDER:
            self._make_folder(parent, base, path, entry)
        elif entry.kind == tar.REGULAR:
            self._make_file(parent, base, path, buffer, entry)
        elif entry.kind == tar.HARDLINK:
            self._make_link(base, path, entry)
        elif entry.kind in (tar.SYMLINK, tar.CHAR, tar.BLOCK_DEVICE, tar.FIFO):
            self._make_node(parent, base, path, entry)
        else:
            raise InvalidInputError(f"unhandled tar header type {ord(entry.kind)} of {os.fsdecode(entry.name)!r}")

    def _folder(self, path: bytes) -> int:
        """Return a descriptor of the folder, made with its parents where it is missing."""
        fd = self._folders.get(path)
        if fd is not None:
            return fd
        try:
            try:
                fd = open_in_root(self._root, path, _OPEN_FOLDER)
            except FileNotFoundError:
                self._make_parents(path)
                fd = open_in_root(self._root, path, _OPEN_FOLDER)
        except OSError as error:
            # A file, a link that leads nowhere or in circles stands where a folder is needed.
            if error.errno not in (errno.ENOTDIR, errno.ENOENT, errno.ELOOP, errno.ENAMETOOLONG):
                raise
            raise InvalidInputError(f"archive entry below {os.fsdecode(path)!r}, which is not a directory") from None
        if len(self._folders) >= _FOLDERS_KEPT:
            os.close(self._folders.pop(next(iter(self._folders))))
        self._folders[path] = fd
        return fd

    def _make_parents(self, path: bytes) -> None:
        parts = path.split(b"/")
        for end in range(1, len(parts) + 1):
            below = b"/".join(parts[:end])
            parent = open_in_root(self._root, b"/".join(parts[: end - 1]), _OPEN_FOLDER)
            try:
                os.mkdir(parts[end - 1], 0o755, dir_fd=parent)
                mode, uid, gid = self._inherited(below)
                os.chown(parts[end - 1], uid, gid, dir_fd=parent, follow_symlinks=False)
                set_mode(parts[end - 1], mode, dir_fd=parent)
            except FileExistsError:
                continue
            finally:
                os.close(parent)

    def _inherited(self, path: bytes) -> tuple[int, int, int]:
        for below in self._lowers:
            try:
                found = os.lstat(os.path.join(os.fsencode(below), path))
            except OSError:
                continue
            if stat.S_ISDIR(found.st_mode):
                return stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid
            break
        return (0o755, *(self._owner or (0, 0)))

    def _clear(self, parent: int, base: bytes, path: bytes, *, folder: bool) -> bool:
        """Remove what stands where an entry goes; return whether it was a whiteout.

        No descriptor is kept then: a folder was replaced, or a link may now lead elsewhere.
        """
        try:
            found = os.stat(base, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return False
        if stat.S_ISDIR(found.st_mode):
            if self._keep_kind and not folder:
                raise InvalidInputError(f'cannot overwrite directory "/{os.fsdecode(path)}" with non-directory')
            remove_below(parent, base)
            self.close()
            return False
        if self._keep_kind and folder:
            raise InvalidInputError(f'cannot overwrite non-directory "/{os.fsdecode(path)}" with directory')
        os.unlink(base, dir_fd=parent)
        self.close()
        return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0

    def _parent_again(self, path: bytes) -> int:
        """Return the parent's descriptor, which may have been closed: by clearing, or for the sake of others."""
        return self._folder(path.rpartition(b"/")[0])

    def _make_folder(self, parent: int, base: bytes, path: bytes, entry: tar.Entry) -> None:
        try:
            os.mkdir(base, 0o700, dir_fd=parent)
        except FileExistsError:
            found = os.stat(base, dir_fd=parent, follow_symlinks=False)
            if not stat.S_ISDIR(found.st_mode):
                if not self._layer and stat.S_ISLNK(found.st_mode) and self._leads_to_folder(path):
                    return
                hidden = self._clear(parent, base, path, folder=True)
                parent = self._parent_again(path)
                os.mkdir(base, 0o700, dir_fd=parent)
                if hidden and self._layer:
                    self._set_opaque(parent, base)
        fd = os.open(base, _OPEN_FOLDER | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            self._dress_folder(fd, path, entry)
        finally:
            os.close(fd)

    def _leads_to_folder(self, path: bytes) -> bool:
        """Tell whether a link stands for a folder: a copied tree goes into it, as Docker does."""
        try:
            os.close(open_in_root(self._root, path, os.O_PATH | os.O_DIRECTORY))
        except OSError:
            return False
        return not self._keep_kind

    def _dress_folder(self, fd: int, path: bytes, entry: tar.Entry) -> None:
        self._dress(fd, entry)
        self._times.append((path, entry.mtime_ns))

    def _dress(self, fd: int, entry: tar.Entry) -> None:
        uid, gid = self._owner or (entry.uid, entry.gid)
        os.fchown(fd, uid, gid)
        # After the owner: changing the owner drops set-uid bits and capabilities.
        os.fchmod(fd, entry.mode)
        for name, value in entry.xattrs.items():
            _set_xattr(fd, name, value)

    def _make_file(self, parent: int, base: bytes, path: bytes, buffer: memoryview, entry: tar.Entry) -> None:
        try:
            fd = os.open(base, _CREATE, 0o600, dir_fd=parent)
        except FileExistsError:
            self._clear(parent, base, path, folder=False)
            parent = self._parent_again(path)
            fd = os.open(base, _CREATE, 0o600, dir_fd=parent)
        try:
            _write(fd, buffer, entry)
            self._dress(fd, entry)
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(fd)
        self.total += entry.size

    def _make_link(self, base: bytes, path: bytes, entry: tar.Entry) -> None:
        target = clean(entry.link)
        if self._start:
            target = self._start + b"/" + target
        if target == path:
            return
        folder, _, name = target.rpartition(b"/")
        for copied in (False, True):
            if copied and not self._copy_up(target):
                break
            try:
                source = open_in_root(self._root, folder, _OPEN_FOLDER)
            except OSError:
                continue
            try:
                if not stat.S_ISDIR(os.stat(name, dir_fd=source, follow_symlinks=False).st_mode):
                    self._clear(self._parent_again(path), base, path, folder=False)
                    parent = self._parent_again(path)
                    os.link(name, base, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
                    return
                break
            except FileNotFoundError:
                continue
            finally:
                os.close(source)
        raise InvalidInputError(f"invalid hard link {os.fsdecode(entry.name)!r} -> {os.fsdecode(entry.link)!r}")

    def _copy_up(self, target: bytes) -> bool:
        """Copy a file of the layers below into this one, as a hard link to it needs; tell whether there was one."""
        source = lower.find(self._lowers, target) if self._layer else None
        if source is None:
            return False
        try:
            folder, _, name = target.rpartition(b"/")
            lower.copy_up(source, self._folder(folder), name)
        finally:
            os.close(source)
        return True

    def _make_node(self, parent: int, base: bytes, path: bytes, entry: tar.Entry) -> None:
        self._clear(parent, base, path, folder=False)
        parent = self._parent_again(path)
        if entry.kind == tar.SYMLINK:
            if not entry.link:
                raise InvalidInputError(f"empty link target of {os.fsdecode(entry.name)!r}")
            os.symlink(entry.link, base, dir_fd=parent)
            self.close()
            parent = self._parent_again(path)
        elif entry.kind == tar.FIFO:
            os.mkfifo(base, entry.mode, dir_fd=parent)
        else:
            bits = stat.S_IFCHR if entry.kind == tar.CHAR else stat.S_IFBLK
            if entry.kind == tar.CHAR and entry.device == (0, 0) and self._layer:
                raise InvalidInputError(f"{os.fsdecode(entry.name)!r} is a device 0:0, which would hide files")
            os.mknod(base, bits | entry.mode, os.makedev(*entry.device), dir_fd=parent)
        uid, gid = self._owner or (entry.uid, entry.gid)
        os.chown(base, uid, gid, dir_fd=parent, follow_symlinks=False)
        if entry.kind != tar.SYMLINK:
            set_mode(base, entry.mode, dir_fd=parent)
        os.utime(base, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=parent, follow_symlinks=False)

    def _whiteout(self, parent: int, base: bytes) -> None:
        if base == b".wh..wh..opq":
            os.setxattr(f"/proc/self/fd/{parent}", OPAQUE, b"y")
            return
        if base.startswith(b".wh..wh."):
            # Notes that old union file systems kept for themselves.
            return
        name = base[4:]
        if name in (b"", b".", b".."):
            raise InvalidInputError(f"invalid whiteout {os.fsdecode(base)!r}")
        try:
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            os.mknod(name, stat.S_IFCHR, 0, dir_fd=parent)
            return
        # The same layer has it too: only what lies below is hidden.
        if stat.S_ISDIR(found.st_mode):
            self._set_opaque(parent, name)

    def _set_opaque(self, parent: int, name: bytes) -> None:
        fd = os.open(name, _OPEN_FOLDER | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            os.setxattr(fd, OPAQUE, b"y")
        finally:
            os.close(fd)


def _write(fd: int, buffer: memoryview, entry: tar.Entry) -> None:
    at = entry.data
    if entry.holes is None:
        for start in range(at, at + entry.size, _PIECE):
            calling_off.check()
            write_all(fd, buffer[start : min(start + _PIECE, at + entry.size)])
        return
    try:
        os.ftruncate(fd, entry.size)
    except OverflowError:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG)) from None
    for offset, length in entry.holes:
        end = at + length
        while at < end:
            wrote = os.pwrite(fd, buffer[at:end], offset)
            at += wrote
            offset += wrote


def _set_xattr(fd: int, name: bytes, value: bytes) -> None:
    # Overlay's own marks would make one layer's files show another's.
    if name.startswith((b"trusted.", b"user.overlay.", b"security.selinux")):
        return
    try:
        os.setxattr(fd, name, value)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EPERM, errno.EINVAL):
            raise
