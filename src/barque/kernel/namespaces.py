"""Namespaces: their names, joining and leaving them, id mappings."""

import os
from typing import NamedTuple

from barque.kernel import libc, process

# OCI name -> (clone flag, file in /proc/<pid>/ns), in the order in which they are joined.
KINDS: dict[str, tuple[int, str]] = {
    "user": (process.CLONE_NEWUSER, "user"),
    "ipc": (process.CLONE_NEWIPC, "ipc"),
    "uts": (process.CLONE_NEWUTS, "uts"),
    "network": (process.CLONE_NEWNET, "net"),
    "pid": (process.CLONE_NEWPID, "pid"),
    "cgroup": (process.CLONE_NEWCGROUP, "cgroup"),
    "time": (process.CLONE_NEWTIME, "time"),
    "mount": (process.CLONE_NEWNS, "mnt"),
}
_NS_GET_NSTYPE = 0xB703


class IdMap(NamedTuple):
    """One line of uid_map or gid_map."""

    inside: int
    outside: int
    size: int


def setns(fd: int, flags: int) -> None:
    """Join the namespace behind `fd`, or with a pidfd all of `flags` of that process.

    Raises:
        KernelError: EINVAL for the user namespace one is in already; EPERM; ESRCH.
    """
    if libc.setns(fd, flags):
        raise libc.fail("setns")


def unshare(flags: int) -> None:
    """Enter new namespaces (pid and time: for children).

    Raises:
        KernelError: with the kernel's errno.
    """
    if libc.unshare(flags):
        raise libc.fail("unshare")


def identity(kind: str, pid: int | str = "self") -> str:
    """Return a text that two processes share exactly when they share that namespace.

    Raises:
        OSError: ENOENT when the process is gone or the kernel lacks the kind.
    """
    return os.readlink(f"/proc/{pid}/ns/{KINDS[kind][1]}")


def kind_of(path: str) -> int:
    """Return which kind of namespace a path leads to: a CLONE_NEW… number.

    Raises:
        OSError: there is no such path, or it is no namespace (ENOTTY).
    """
    import fcntl

    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return fcntl.ioctl(fd, _NS_GET_NSTYPE)
    finally:
        os.close(fd)


def write_maps(pid: int, uids: list[IdMap], gids: list[IdMap]) -> None:
    """Write the id mappings of the user namespace that `pid` was cloned into.

    Raises:
        OSError: EPERM for ids that are not the caller's to give, EINVAL for overlaps.
    """
    if gids:
        if os.geteuid() != 0:
            _write(f"/proc/{pid}/setgroups", b"deny")
        _write(f"/proc/{pid}/gid_map", map_text(gids))
    if uids:
        _write(f"/proc/{pid}/uid_map", map_text(uids))


def map_text(maps: list[IdMap]) -> bytes:
    """Return mappings as the kernel reads them, which wants them in one write."""
    return "".join(f"{m.inside} {m.outside} {m.size}\n" for m in maps).encode()


def _write(path: str, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, content)
    except OSError as error:
        error.filename = path
        raise
    finally:
        os.close(fd)


def open_user_namespace(uids: list[IdMap], gids: list[IdMap]) -> int:
    """Return a descriptor of a new user namespace with these mappings, for id-mapped mounts.

    Raises:
        KernelError: the kernel refuses user namespaces.
        OSError: it refuses the mappings.
    """
    cloned = process.clone3(process.CLONE_NEWUSER | process.CLONE_CLEAR_SIGHAND)
    if cloned.pid == 0:
        os.kill(os.getpid(), 19)  # SIGSTOP: it only has to exist.
        os._exit(0)
    try:
        write_maps(cloned.pid, uids, gids)
        return os.open(f"/proc/{cloned.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        process.pidfd_send_signal(cloned.pidfd, 9)
        os.waitpid(cloned.pid, 0)
        os.close(cloned.pidfd)
