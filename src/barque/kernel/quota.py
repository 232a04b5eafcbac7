"""Project quotas: how much the files below a folder may take (quotactl(2), ioctl_xfs_fsgetxattr(2)).

A folder is given a project's number, which all that is made below it inherits; the project has a limit.
"""

import ctypes
import errno
import fcntl
import os
import struct

from barque.base.errors import KernelError, UnsupportedError
from barque.kernel import libc

_GETXATTR, _SETXATTR = 0x801C581F, 0x401C5820
_XATTR = struct.Struct("=5I8x")
_INHERIT = 0x200
_GETQUOTA, _SETQUOTA = 0x800007, 0x800008
_PROJECT = 2
_LIMITS = struct.Struct("=8QI4x")
_BLOCK_LIMITS = 1
_BLOCK = 1024
_LOWEST = 1 << 30
"""Numbers from here on are ours: administrators count from 1."""


def _command(fd: int, command: int, project: int, data: bytes) -> bytes:
    buffer = ctypes.create_string_buffer(data, _LIMITS.size)
    libc.invoke("quotactl_fd", fd, command << 8 | _PROJECT, project, ctypes.addressof(buffer))
    return buffer.raw


def supported(path: str) -> bool:
    """Tell whether the file system of a folder keeps project quotas."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _command(fd, _GETQUOTA, 1, b"")
    except KernelError as error:
        # A project of which nothing is known yet.
        return error.errno == errno.ENOENT
    finally:
        os.close(fd)
    return True


def limit(paths: list[str], project: int, size: int) -> None:
    """Let folders, which must be empty and on one file system, take so many bytes together.

    Args:
        paths: the folders.
        project: a number that nothing else has.
        size: bytes; 0 for any number.

    Raises:
        UnsupportedError: their file system keeps no project quotas.
        OSError: the kernel refuses.
    """
    if not supported(paths[0]):
        raise UnsupportedError(f"the file system of {paths[0]} has no project quotas")
    for path in paths:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            flags, extent, extents, _, copied = _XATTR.unpack(fcntl.ioctl(fd, _GETXATTR, bytes(_XATTR.size)))
            fcntl.ioctl(fd, _SETXATTR, _XATTR.pack(flags | _INHERIT, extent, extents, project, copied))
            if path == paths[0]:
                blocks = -(-size // _BLOCK)
                _command(fd, _SETQUOTA, project, _LIMITS.pack(blocks, blocks, 0, 0, 0, 0, 0, 0, _BLOCK_LIMITS))
        finally:
            os.close(fd)


def new_project(path: str) -> int:
    """Return a project's number of which the file system of a folder knows nothing.

    Raises:
        OSError: the kernel refuses.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        while True:
            project = _LOWEST | int.from_bytes(os.urandom(4)) >> 1
            try:
                known = _LIMITS.unpack(_command(fd, _GETQUOTA, project, b""))
            except KernelError as error:
                if error.errno == errno.ENOENT:
                    return project
                raise
            if not any(known[:6]):
                return project
    finally:
        os.close(fd)


def project_of(path: str) -> int:
    """Return the number of the project that limit() gave a folder, 0 for one without."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        project = int(_XATTR.unpack(fcntl.ioctl(fd, _GETXATTR, bytes(_XATTR.size)))[3])
    except OSError:
        # A file system without projects.
        return 0
    finally:
        os.close(fd)
    return project if project >= _LOWEST else 0


def release(path: str) -> None:
    """Forget the limit of a folder's project, before the folder goes; one without a project stays as it is.

    Raises:
        OSError: the kernel refuses.
    """
    project = project_of(path)
    if project:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _command(fd, _SETQUOTA, project, _LIMITS.pack(0, 0, 0, 0, 0, 0, 0, 0, _BLOCK_LIMITS))
        finally:
            os.close(fd)


def limits(path: str, project: int) -> tuple[int, int]:
    """Return (bytes that a project may take, bytes that it takes).

    Raises:
        OSError: nothing is known of it.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        blocks, _, taken, *_ = _LIMITS.unpack(_command(fd, _GETQUOTA, project, b""))
        return blocks * _BLOCK, taken
    finally:
        os.close(fd)
