"""Pseudo terminals: opening them in a given devpts, their size, the controlling terminal."""

import fcntl
import os
import struct
import termios

from barque.kernel.openat2 import open_in_root

_TIOCSPTLCK = 0x40045431
_TIOCGPTPEER = 0x5441


def open_pty(root: int, path: str = "/dev/pts/ptmx") -> tuple[int, int]:
    """Open a new pty of the devpts at `path` below the folder `root`.

    The slave is opened through the master, so no name inside the root is trusted.

    Returns:
        (master, slave), both close-on-exec.

    Raises:
        OSError: ENOENT without a devpts there, ENOSPC when it is full, EIO or EINVAL when the
            path is no ptmx device.
    """
    master = open_in_root(root, path, os.O_RDWR | os.O_NOCTTY)
    try:
        fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
        slave = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        os.close(master)
        raise
    return master, int(slave)


def set_size(fd: int, rows: int, columns: int) -> None:
    """Set the terminal's size in characters.

    Raises:
        OSError: ENOTTY when fd is no terminal.
    """
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def size(fd: int) -> tuple[int, int]:
    """Return (rows, columns).

    Raises:
        OSError: ENOTTY when fd is no terminal.
    """
    rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(fd, termios.TIOCGWINSZ, b"\0" * 8))
    return rows, columns


def make_controlling(fd: int) -> None:
    """Make `fd` the controlling terminal of this session leader.

    Raises:
        OSError: EPERM when this process leads no session or the terminal has one.
    """
    fcntl.ioctl(fd, termios.TIOCSCTTY, 0)
