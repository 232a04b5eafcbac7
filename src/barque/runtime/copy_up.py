"""Copy what a tmpfs is about to hide into it."""

import os
import stat

from barque.base.files import set_mode

_CHUNK = 1 << 20


def copy_tree(source: int, target: int) -> None:
    """Copy the content of the folder `source` into the folder `target`, owners and modes kept.

    Raises:
        OSError: ENOSPC when the tmpfs is too small, EIO and the like from reading.
    """
    for name in os.listdir(source):
        status = os.stat(name, dir_fd=source, follow_symlinks=False)
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFLNK:
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        elif kind == stat.S_IFDIR:
            _copy_folder(source, target, name)
        elif kind == stat.S_IFREG:
            _copy_file(source, target, name)
        else:
            os.mknod(name, status.st_mode, status.st_rdev, dir_fd=target)
        os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
        if kind != stat.S_IFLNK:
            set_mode(name, stat.S_IMODE(status.st_mode), dir_fd=target)


def _copy_folder(source: int, target: int, name: str) -> None:
    os.mkdir(name, 0o700, dir_fd=target)
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    inner = os.open(name, flags, dir_fd=source)
    outer = os.open(name, flags, dir_fd=target)
    try:
        copy_tree(inner, outer)
    finally:
        os.close(inner)
        os.close(outer)


def _copy_file(source: int, target: int, name: str) -> None:
    inner = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
    outer = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=target)
    try:
        while os.sendfile(outer, inner, None, _CHUNK):
            pass
    finally:
        os.close(inner)
        os.close(outer)
