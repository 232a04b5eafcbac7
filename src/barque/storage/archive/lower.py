"""Files of the layers below, copied into the layer that is being unpacked: what a hard link may lead to."""

import os
import stat
from collections.abc import Sequence

from barque.base.files import write_all
from barque.kernel.openat2 import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, open_in_root
from barque.storage.archive.write import OPAQUE

_FOLDER = os.O_RDONLY | os.O_DIRECTORY
_INSIDE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS


def find(lowers: Sequence[str], path: bytes) -> int | None:
    """Return a descriptor (O_PATH) of what is no folder and shows at path below all whiteouts; None without.

    Args:
        lowers: folders of the layers below, nearest first.
        path: relative; no part of it may be a link.
    """
    for lower in lowers:
        root = os.open(lower, _FOLDER | os.O_CLOEXEC)
        try:
            fd, ends = _look(root, path)
        finally:
            os.close(root)
        if fd is not None or ends:
            return fd
    return None


def _look(root: int, path: bytes) -> tuple[int | None, bool]:
    """Return what one layer has at path, and whether it hides what lies below."""
    parts = path.split(b"/")
    for end in range(1, len(parts) + 1):
        try:
            fd = open_in_root(root, b"/".join(parts[:end]), os.O_PATH | os.O_NOFOLLOW, resolve=_INSIDE)
        except OSError:
            return None, False
        found = os.fstat(fd)
        if end == len(parts) and not stat.S_ISDIR(found.st_mode):
            if stat.S_ISCHR(found.st_mode) and found.st_rdev == 0:
                os.close(fd)
                return None, True
            return fd, True
        try:
            if not stat.S_ISDIR(found.st_mode) or end == len(parts):
                return None, True
            if end < len(parts) and _is_opaque(fd) and not _has(fd, parts[end]):
                return None, True
        finally:
            os.close(fd)
    return None, False


def _is_opaque(fd: int) -> bool:
    try:
        return os.getxattr(f"/proc/self/fd/{fd}", OPAQUE) == b"y"
    except OSError:
        return False


def _has(fd: int, name: bytes) -> bool:
    try:
        os.stat(name, dir_fd=fd, follow_symlinks=False)
    except OSError:
        return False
    return True


def copy_up(source: int, parent: int, name: bytes) -> None:
    """Make a copy, with all that is known of it, of what `find` found.

    Raises:
        OSError: the disk is full; or the name is taken.
    """
    found = os.fstat(source)
    kind = stat.S_IFMT(found.st_mode)
    if kind == stat.S_IFLNK:
        os.symlink(os.readlink(b"", dir_fd=source), name, dir_fd=parent)
    elif kind == stat.S_IFREG:
        _copy_file(source, parent, name)
    else:
        os.mknod(name, found.st_mode, found.st_rdev, dir_fd=parent)
    os.chown(name, found.st_uid, found.st_gid, dir_fd=parent, follow_symlinks=False)
    if kind != stat.S_IFLNK:
        os.chmod(name, stat.S_IMODE(found.st_mode), dir_fd=parent)
        _copy_xattrs(source, parent, name)
    os.utime(name, ns=(found.st_atime_ns, found.st_mtime_ns), dir_fd=parent, follow_symlinks=False)


def _copy_file(source: int, parent: int, name: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    target = os.open(name, flags, 0o600, dir_fd=parent)
    try:
        with open(f"/proc/self/fd/{source}", "rb", buffering=0) as file:
            while data := file.read(1 << 20):
                write_all(target, data)
    finally:
        os.close(target)


def _copy_xattrs(source: int, parent: int, name: bytes) -> None:
    place = f"/proc/self/fd/{source}"
    target = f"/proc/self/fd/{parent}/{os.fsdecode(name)}"
    for key in os.listxattr(place):
        if not key.startswith(("trusted.overlay.", "user.overlay.")):
            os.setxattr(target, key, os.getxattr(place, key), follow_symlinks=False)
