"""What both versions share: files, folders, the error, the protocol."""

import errno
import os
from typing import Any, Protocol

Resources = dict[str, Any]


class CgroupError(OSError):
    """A limit or a cgroup was refused; str() names the key."""


class Cgroup(Protocol):
    """A container's control group."""

    path: str
    version: int

    def exists(self) -> bool: ...
    def create(self, resources: Resources) -> list[str]:
        """Make the cgroup and set its limits; return warnings. On failure nothing is left.

        Raises:
            CgroupError: a limit was refused; its text names the key.
        """
        ...

    def update(self, resources: Resources) -> list[str]:
        """Change limits of the living cgroup; return warnings."""
        ...

    def join_self(self) -> None:
        """Move the calling single-threaded process in."""
        ...

    def dir_fd(self) -> int:
        """Return a descriptor for CLONE_INTO_CGROUP, owned by the caller, or -1 on version 1."""
        ...

    def dir_fd_beside(self, pid: int) -> int:
        """Return a descriptor of the cgroup of a process that moved itself further down, -1 on version 1."""
        ...

    def below(self, path: str) -> "Cgroup":
        """Return an existing cgroup below this one, for a process to be put in.

        Raises:
            CgroupError: there is none, or the path would leave this cgroup.
        """
        ...

    def bring_back(self, pid: int) -> None:
        """Move a process in that somebody moved to a freezer of his own, where no SIGKILL reaches it."""
        ...

    def freeze(self) -> None: ...
    def thaw(self) -> None: ...
    def is_frozen(self) -> bool: ...
    def processes(self) -> list[int]: ...
    def kill(self, signo: int) -> None: ...
    def stats(self) -> dict[str, Any]: ...
    def cpu_stats(self) -> dict[str, Any]: ...
    def oom_kills(self) -> int: ...
    def delete(self) -> bool:
        """Remove the cgroup and those below it; False while processes are left in it."""
        ...


def parts_below(path: str) -> list[str]:
    """Return the parts of a path below a cgroup.

    Raises:
        CgroupError: it would leave the cgroup.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in path:
        raise CgroupError(errno.EINVAL, f"cgroup path `{path}`: `..` components are not allowed")
    return parts


def read(path: str) -> str:
    """Return the content of a control file."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        chunks = []
        while chunk := os.read(fd, 65536):
            chunks.append(chunk)
    finally:
        os.close(fd)
    return b"".join(chunks).decode()


def write(path: str, value: str | int) -> None:
    """Write a control file in one system call.

    Raises:
        CgroupError: the kernel refused the value; the text names file and value.
    """
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, str(value).encode())
        finally:
            os.close(fd)
    except OSError as error:
        key = os.path.basename(path)
        raise CgroupError(error.errno, f"cannot set {key} to {str(value).strip()}: {error.strerror}") from error


def read_int(path: str, default: int = 0) -> int:
    """Return a number from a control file; `max` and a missing file give the default."""
    try:
        text = read(path).strip()
    except OSError:
        return default
    return int(text) if text.lstrip("-").isdigit() else default


def read_pairs(path: str) -> dict[str, int]:
    """Return a flat keyed file (`key value` lines) as numbers; empty where it is missing."""
    try:
        text = read(path)
    except OSError:
        return {}
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].lstrip("-").isdigit()}


def remove_tree(path: str) -> bool:
    """Remove a cgroup folder and those below; False while one is in use."""
    try:
        os.rmdir(path)
        return True
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
            raise
    with os.scandir(path) as entries:
        below = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    for folder in below:
        remove_tree(folder)
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno in (errno.EBUSY, errno.ENOTEMPTY):
            return False
        raise
    return True


def processes_below(path: str, name: str = "cgroup.procs") -> list[int]:
    """Return the pids in a cgroup and in those below it."""
    found: list[int] = []
    for folder, _, files in os.walk(path):
        if name in files:
            try:
                found += [int(pid) for pid in read(f"{folder}/{name}").split()]
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
                    raise
    return sorted(set(found))


def signal_all(pids: list[int], signo: int) -> None:
    """Send a signal to each process that still lives."""
    for pid in pids:
        try:
            os.kill(pid, signo)
        except ProcessLookupError:
            continue


def device_rule(rule: Resources) -> str:
    """Return an OCI device rule in the form of devices.allow.

    Raises:
        CgroupError: its type or access is unknown.
    """
    kind = rule.get("type") or "a"
    access = rule.get("access") or "rwm"
    if kind not in ("a", "b", "c", "u", "p") or set(access) - set("rwm"):
        raise CgroupError(errno.EINVAL, f"device rule {rule!r}: type must be a, b or c and access of r, w, m")
    numbers = [rule.get("major"), rule.get("minor")]
    major, minor = ("*" if number is None or number < 0 else str(number) for number in numbers)
    return f"{'c' if kind in 'up' else kind} {major}:{minor} {access}"
