"""Opening paths inside a folder that they cannot leave, whatever links lie there."""

import ctypes
import errno
import os
import struct

from barque.base.errors import KernelError

RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10
_SYS_OPENAT2 = 437

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long


def open_in_root(
    root: int, path: str | bytes, flags: int = os.O_PATH, mode: int = 0, *, resolve: int = RESOLVE_IN_ROOT
) -> int:
    """Open path with the folder `root` as its `/`: links and `..` stay inside.

    Args:
        root: descriptor of the folder.
        path: absolute paths start at root.
        flags: as for open(2); O_CLOEXEC is added.
        mode: permission bits with O_CREAT.
        resolve: RESOLVE_* bits.

    Raises:
        OSError: as open(2); its subclass tells what is wrong, as with os.open.
    """
    raw = os.fsencode(path) or b"."
    if b"\0" in raw:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), os.fsdecode(raw))
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, mode, resolve | RESOLVE_NO_MAGICLINKS)
    for _ in range(64):
        fd = _syscall(
            ctypes.c_long(_SYS_OPENAT2),
            ctypes.c_int(root),
            ctypes.c_char_p(raw),
            ctypes.c_char_p(how),
            ctypes.c_size_t(24),
        )
        if fd >= 0:
            return int(fd)
        code = ctypes.get_errno()
        # EAGAIN: a rename elsewhere raced with a `..`; the manual says to try again.
        if code not in (errno.EAGAIN, errno.EINTR):
            break
    raise OSError(code, os.strerror(code), os.fsdecode(raw))


def sync_file_system(fd: int) -> None:
    """Write out everything of the file system that fd lies on.

    Raises:
        KernelError: writing failed.
    """
    if _libc.syncfs(ctypes.c_int(fd)) != 0:
        raise KernelError(ctypes.get_errno(), "syncfs")


def start_writing(fd: int, start: int, length: int) -> None:
    """Let the kernel begin to write a piece of a file to its disk, without waiting (sync_file_range(2)).

    It is a hint: where the file system does not take it, nothing happens.
    """
    _libc.sync_file_range(ctypes.c_int(fd), ctypes.c_int64(start), ctypes.c_int64(length), ctypes.c_uint(2))
