"""News of the kernel on interfaces and firewall tables that somebody deleted."""

import socket
import struct

from barque.kernel.netlink import codec
from barque.kernel.netlink.connection import NETLINK_NETFILTER, NETLINK_ROUTE

_LINK_GROUP, _NFTABLES_GROUP = 1, 7
_DELLINK = 17
_DELTABLE, _DELCHAIN, _DELRULE = (0xA00 | kind for kind in (2, 5, 8))
_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
_SO_ATTACH_FILTER = 26
_RECEIVE_BYTES = 1 << 16
# Classic BPF: load a half word, jump if equal, return.
_LOAD_HALF, _JUMP_EQUAL, _RETURN = 0x28, 0x15, 0x06


class DeletionWatch:
    """Two sockets that become readable when an interface or a rule of a firewall is deleted."""

    def __init__(self) -> None:
        """Listen in the calling thread's network namespace.

        Raises:
            OSError: no right to.
        """
        self.links = _listen(NETLINK_ROUTE, _LINK_GROUP, (_DELLINK,))
        try:
            self.rules = _listen(NETLINK_NETFILTER, _NFTABLES_GROUP, (_DELTABLE, _DELCHAIN, _DELRULE))
        except BaseException:
            self.links.close()
            raise

    def close(self) -> None:
        """Stop listening."""
        self.links.close()
        self.rules.close()

    def deleted_links(self) -> set[int]:
        """Return the indexes of the interfaces that were deleted since the last call; -1: news was lost."""
        found = set()
        for data in _received(self.links):
            if data is None:
                found.add(-1)
                continue
            for message in codec.unpack(data):
                if message.kind == _DELLINK and len(message.payload) >= 8:
                    found.add(struct.unpack_from("=i", message.payload, 4)[0])
        return found

    def rules_changed(self) -> bool:
        """Tell whether anything of a firewall was deleted since the last call."""
        return bool(list(_received(self.rules)))


def _listen(protocol: int, group: int, kinds: tuple[int, ...]) -> socket.socket:
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, protocol)
    try:
        _only(sock, kinds)
        sock.bind((0, 0))
        sock.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
    except BaseException:
        sock.close()
        raise
    return sock


def _only(sock: socket.socket, kinds: tuple[int, ...]) -> None:
    """Let the kernel pass only messages of these kinds, so that others wake nobody."""
    count = len(kinds)
    program = [struct.pack("=HBBI", _LOAD_HALF, 0, 0, 4)]
    for at, kind in enumerate(kinds):
        # The filter reads in network byte order what is in the machine's.
        value = int.from_bytes(struct.pack("=H", kind), "big")
        program.append(struct.pack("=HBBI", _JUMP_EQUAL, count - at, 0, value))
    program.append(struct.pack("=HBBI", _RETURN, 0, 0, 0))
    program.append(struct.pack("=HBBI", _RETURN, 0, 0, 0xFFFFFFFF))
    _attach(sock, b"".join(program), len(program))


def _attach(sock: socket.socket, code: bytes, count: int) -> None:
    import ctypes

    buffer = ctypes.create_string_buffer(code, len(code))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", count, ctypes.addressof(buffer)))


def _received(sock: socket.socket) -> "list[bytes | None]":
    found: list[bytes | None] = []
    while True:
        try:
            found.append(sock.recv(_RECEIVE_BYTES))
        except BlockingIOError:
            return found
        except OSError:
            # More news than the buffer held.
            found.append(None)
