"""Being told of changes in folders (inotify(7))."""

import os
import struct

from barque.kernel import libc

MODIFY, MOVED_TO, CREATE, DELETE = 0x2, 0x80, 0x100, 0x200
IGNORED, OVERFLOW = 0x8000, 0x4000
_HEAD = struct.Struct("iIII")
_BUFFER_BYTES = 1 << 16


def init() -> int:
    """Return a new instance's descriptor, which does not block.

    Raises:
        KernelError: EMFILE where the user has too many.
    """
    fd: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if fd < 0:
        raise libc.fail("inotify_init1")
    return fd


def add_watch(fd: int, path: str, mask: int) -> int:
    """Return the number of a watch of a path; the same one for the same file.

    Raises:
        KernelError: ENOENT, or ENOSPC where the user has too many.
    """
    number: int = libc.inotify_add_watch(fd, libc.encoded(path), mask)
    if number < 0:
        raise libc.fail("inotify_add_watch", path)
    return number


def remove_watch(fd: int, number: int) -> None:
    """Watch no more; nothing happens where the watch has gone with its file."""
    libc.inotify_rm_watch(fd, number)


def read(fd: int) -> list[tuple[int, int]]:
    """Return (watch, mask) of what has happened, nothing where nothing has."""
    try:
        data = os.read(fd, _BUFFER_BYTES)
    except BlockingIOError:
        return []
    found = []
    at = 0
    while at + _HEAD.size <= len(data):
        number, mask, _, length = _HEAD.unpack_from(data, at)
        found.append((number, mask))
        at += _HEAD.size + length
    return found
