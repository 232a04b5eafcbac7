"""Interfaces without netlink: which names they can have; the oldest way to bring one up, an ioctl."""

import fcntl
import socket
import struct

_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1
_MAX_NAME = 15


def is_name(name: str) -> bool:
    """Tell whether an interface can have this name."""
    raw = name.encode()
    strange = any(letter in "/:" or letter.isspace() for letter in name)
    return 0 < len(raw) <= _MAX_NAME and name not in (".", "..") and not strange


def bring_up(name: str) -> None:
    """Set IFF_UP on an interface of the current network namespace.

    Raises:
        OSError: ENODEV when there is none of that name.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as end:
        request = struct.pack("16sH14x", name.encode(), 0)
        flags = struct.unpack("16sH14x", fcntl.ioctl(end, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(end, _SIOCSIFFLAGS, struct.pack("16sH14x", name.encode(), flags | _IFF_UP))
