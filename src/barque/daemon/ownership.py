"""What only one daemon may hold: the data root's lock and the pid file."""

import errno
import fcntl
import os

from barque.daemon.flags import DaemonError


def lock_data_root(data_root: str) -> int:
    """Return a descriptor that holds the data root's lock until it is closed; folders are made.

    Raises:
        DaemonError: another daemon holds it, or the folder is read-only or not accessible.
    """
    path = os.path.join(data_root, "lock")
    try:
        os.makedirs(data_root, mode=0o710, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DaemonError(f"cannot use the data root {data_root}: {error.strerror}") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        pid = str(os.getpid()).encode()
        os.ftruncate(fd, 0)
        os.pwrite(fd, pid, 0)
    except OSError as error:
        owner = os.pread(fd, 20, 0).decode(errors="replace").strip()
        os.close(fd)
        if error.errno == errno.EWOULDBLOCK:
            raise DaemonError(f"the data root {data_root} is in use by another daemon (pid {owner})") from None
        raise DaemonError(f"cannot use the data root {data_root}: {error.strerror}") from None
    return fd


def write_pidfile(path: str) -> None:
    """Write our pid.

    Raises:
        DaemonError: a living daemon stands in the file, or it cannot be written.
    """
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            owner = file.read(20).strip()
    except FileNotFoundError:
        owner = ""
    except OSError as error:
        raise DaemonError(f"cannot read the pid file {path}: {error.strerror}") from None
    if owner.isdigit() and int(owner) != os.getpid() and _is_daemon(owner):
        raise DaemonError(f"process with PID {owner} is still running (pid file {path})")
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        with open(path, "w", encoding="ascii") as file:
            file.write(str(os.getpid()))
    except OSError as error:
        raise DaemonError(f"cannot write the pid file {path}: {error.strerror}") from None


def _is_daemon(pid: str) -> bool:
    """Tell whether a pid is a daemon of ours and not a later process with its number."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().split(b"\0")
    except OSError:
        return False
    return b"daemon" in words and any(b"barque" in word for word in words)


def remove_pidfile(path: str) -> None:
    """Remove the pid file if it is ours."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            ours = file.read(20).strip() == str(os.getpid())
        if ours:
            os.unlink(path)
    except OSError:
        pass
