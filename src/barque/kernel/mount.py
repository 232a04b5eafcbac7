"""Mounts: the classic call, the detached-tree calls, and attributes of whole trees.

Kernel spellings are kept. Targets may be paths or descriptors; for a descriptor the path
/proc/self/fd/N is used, which the kernel resolves without following the container's symlinks.
"""

import ctypes
import os
from typing import NamedTuple

from barque.base.errors import KernelError
from barque.kernel import libc

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_SYNCHRONOUS = 16
MS_REMOUNT = 32
MS_MANDLOCK = 64
MS_DIRSYNC = 128
MS_NOSYMFOLLOW = 256
MS_NOATIME = 1024
MS_NODIRATIME = 2048
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384
MS_SILENT = 32768
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MS_RELATIME = 1 << 21
MS_I_VERSION = 1 << 23
MS_STRICTATIME = 1 << 24
MS_LAZYTIME = 1 << 25

MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR__ATIME = 0x70
MOUNT_ATTR_RELATIME = 0x0
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x100000
MOUNT_ATTR_NOSYMFOLLOW = 0x200000

OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_EMPTY_PATH = 0x40

_FSOPEN_CLOEXEC = 1
_FSMOUNT_CLOEXEC = 1
_FSCONFIG_SET_FLAG = 0
_FSCONFIG_SET_STRING = 1
_FSCONFIG_CMD_CREATE = 6

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000


class MountAttr(NamedTuple):
    """What mount_setattr(2) changes; bits of MOUNT_ATTR_*, propagation of MS_*."""

    set: int = 0
    clear: int = 0
    propagation: int = 0
    userns_fd: int = 0


class _mount_attr(ctypes.Structure):  # noqa: N801 - the kernel's spelling
    _fields_ = [
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    ]


def fd_path(fd: int) -> bytes:
    """Return the path by which the kernel reaches `fd` without a lookup of its name."""
    return b"/proc/self/fd/%d" % fd


def mount(
    source: str | bytes | None,
    target: str | bytes | int,
    fstype: str | None = None,
    flags: int = 0,
    data: str | bytes | None = None,
) -> None:
    """Mount something on a path or a descriptor.

    Raises:
        KernelError: with the kernel's errno; the target named is the path given.
    """
    where = fd_path(target) if isinstance(target, int) else os.fsencode(target)
    result = libc.mount(
        None if source is None else os.fsencode(source),
        where,
        None if fstype is None else fstype.encode(),
        flags,
        None if data is None else os.fsencode(data),
    )
    if result:
        raise libc.fail("mount", where)


def umount(target: str | bytes, flags: int = 0) -> None:
    """Unmount by umount2(2), which may wait for a file system to be written.

    Raises:
        KernelError: with the kernel's errno.
    """
    if libc.blocking_umount2(os.fsencode(target), flags):
        raise libc.fail("umount2", target)


def mounts_below(path: str) -> list[str]:
    """Return the mount points at or below path in this mount namespace, the innermost first."""
    real = os.path.realpath(path)
    found = []
    with open("/proc/self/mountinfo", "rb") as table:
        for line in table:
            raw = line.split(b" ", 5)[4]
            # The kernel writes blanks and backslashes of a path as octal numbers.
            point = os.fsdecode(raw.decode("unicode_escape").encode("latin-1") if b"\\" in raw else raw)
            if point == real or point.startswith(real + "/"):
                found.append(point)
    found.reverse()
    return found


def unmount_below(path: str) -> None:
    """Detach every mount at or below path, so that removing the folder removes nothing of theirs.

    Raises:
        KernelError: one cannot be detached.
    """
    for point in mounts_below(path):
        umount(point, MNT_DETACH | UMOUNT_NOFOLLOW)


def pivot_root(new_root: bytes, put_old: bytes) -> None:
    """Make another mount the root of this mount namespace.

    Raises:
        KernelError: EINVAL on a rootfs (initramfs) or shared parent mount.
    """
    new, old = ctypes.create_string_buffer(new_root), ctypes.create_string_buffer(put_old)
    libc.invoke("pivot_root", ctypes.addressof(new), ctypes.addressof(old))


def open_tree(dirfd: int, path: str | bytes, flags: int = OPEN_TREE_CLONE) -> int:
    """Return a descriptor (close-on-exec) of a mount tree, detached when cloned.

    Raises:
        KernelError: with the kernel's errno.
    """
    name = ctypes.create_string_buffer(os.fsencode(path))
    try:
        return libc.invoke("open_tree", dirfd, ctypes.addressof(name), flags | OPEN_TREE_CLOEXEC)
    except KernelError as error:
        raise KernelError(error.errno or 0, "open_tree", os.fsdecode(path)) from None


def move_mount(tree: int, target: int | str | bytes) -> None:
    """Attach the detached tree `tree` on `target`, a path or a descriptor.

    Raises:
        KernelError: with the kernel's errno.
    """
    empty = ctypes.create_string_buffer(b"")
    flags = MOVE_MOUNT_F_EMPTY_PATH
    if isinstance(target, int):
        dirfd, name = target, empty
        flags |= MOVE_MOUNT_T_EMPTY_PATH
    else:
        dirfd, name = AT_FDCWD, ctypes.create_string_buffer(os.fsencode(target))
    libc.invoke("move_mount", tree, ctypes.addressof(empty), dirfd, ctypes.addressof(name), flags)


def mount_setattr(fd: int, attr: MountAttr, *, recursive: bool = False) -> None:
    """Change attributes of the mount behind `fd`, of its whole tree when `recursive`.

    Raises:
        KernelError: EPERM for a locked flag; ENOSYS before Linux 5.12.
    """
    block = _mount_attr(attr.set, attr.clear, attr.propagation, attr.userns_fd)
    empty = ctypes.create_string_buffer(b"")
    libc.invoke(
        "mount_setattr",
        fd,
        ctypes.addressof(empty),
        AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0),
        ctypes.addressof(block),
        ctypes.sizeof(block),
    )


def detached(fstype: str, attr: int = 0, options: tuple[str, ...] = ()) -> int:
    """Return a descriptor of a new file system that is mounted nowhere.

    Args:
        fstype: the kind.
        attr: bits of MOUNT_ATTR_*.
        options: the file system's own, as `key=value` or `key`, `source=` among them.

    Raises:
        KernelError: with the kernel's errno.
    """
    name = ctypes.create_string_buffer(fstype.encode())
    context = libc.invoke("fsopen", ctypes.addressof(name), _FSOPEN_CLOEXEC)
    try:
        for option in options:
            key, has_value, value = option.partition("=")
            key_text, value_text = ctypes.create_string_buffer(key.encode()), ctypes.create_string_buffer(os.fsencode(value))
            if has_value:
                libc.invoke("fsconfig", context, _FSCONFIG_SET_STRING, ctypes.addressof(key_text),
                            ctypes.addressof(value_text), 0)  # fmt: skip
            else:
                libc.invoke("fsconfig", context, _FSCONFIG_SET_FLAG, ctypes.addressof(key_text), 0, 0)
        libc.invoke("fsconfig", context, _FSCONFIG_CMD_CREATE)
        return libc.invoke("fsmount", context, _FSMOUNT_CLOEXEC, attr)
    finally:
        os.close(context)
