"""The kernel's table of connections: forgetting datagram flows, so that the next packet is looked at anew.

Numbers are those of linux/netfilter/nfnetlink_conntrack.h.
"""

import errno
import ipaddress
import socket
import struct
from collections.abc import Callable
from typing import NamedTuple

from barque.base.errors import KernelError
from barque.kernel.netlink import codec
from barque.kernel.netlink.connection import NETLINK_NETFILTER, Connection

_SUBSYSTEM = 1 << 8
_GET, _DELETE = 1, 2
_ORIGINAL, _REPLY, _FILTER = 1, 2, 25
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_BY_SOURCE, _BY_PROTOCOL, _BY_DESTINATION_PORT = 1 << 0, 1 << 3, 1 << 5
_UDP = 17


class Flow(NamedTuple):
    """One direction of a connection as the kernel tracks it."""

    protocol: int
    source: str
    destination: str
    source_port: int
    destination_port: int


def forget_udp_to(addresses: frozenset[str], port: int, *, v6: bool) -> None:
    """Forget all UDP flows to a port of one of these addresses of this machine.

    Raises:
        KernelError: the kernel refused.
    """
    ports = codec.attribute(2, bytes(2)) + codec.attribute(3, struct.pack("!H", port))
    wanted = codec.nested(_ORIGINAL, codec.nested(_TUPLE_PROTO, codec.u8(1, _UDP), ports))
    flags = codec.nested(_FILTER, codec.u32(1, _BY_PROTOCOL | _BY_DESTINATION_PORT))

    def chosen(original: Flow, reply: Flow) -> bool:
        return original.destination_port == port and original.destination in addresses

    _forget(socket.AF_INET6 if v6 else socket.AF_INET, wanted + flags, chosen)


def forget_udp_of(address: str) -> None:
    """Forget all UDP flows that are answered by an address.

    Raises:
        KernelError: the kernel refused.
    """
    parsed = ipaddress.ip_address(address)
    source = codec.attribute(1 if parsed.version == 4 else 3, parsed.packed)
    other = codec.attribute(2 if parsed.version == 4 else 4, bytes(len(parsed.packed)))
    wanted = codec.nested(
        _REPLY, codec.nested(_TUPLE_IP, source, other), codec.nested(_TUPLE_PROTO, codec.u8(1, _UDP))
    )
    flags = codec.nested(_FILTER, codec.u32(2, _BY_SOURCE | _BY_PROTOCOL))

    def chosen(original: Flow, reply: Flow) -> bool:
        return reply.source == str(parsed)

    _forget(socket.AF_INET if parsed.version == 4 else socket.AF_INET6, wanted + flags, chosen)


def _forget(family: int, narrow: bytes, chosen: Callable[[Flow, Flow], bool]) -> None:
    header = struct.pack("!BBH", family, 0, 0)
    connection = Connection(NETLINK_NETFILTER)
    try:
        try:
            rows = connection.dump(_SUBSYSTEM | _GET, header + narrow)
        except KernelError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
            # A kernel that cannot look for us.
            rows = connection.dump(_SUBSYSTEM | _GET, header)
        found = []
        for payload in rows:
            table = codec.attributes(payload[4:])
            original, reply = table.get(_ORIGINAL, b""), table.get(_REPLY, b"")
            flow = _flow(original)
            if flow is not None and flow.protocol == _UDP and chosen(flow, _flow(reply) or flow):
                body = header + codec.nested(_ORIGINAL, original)
                found.append(codec.Request(_SUBSYSTEM | _DELETE, 0, body))
        connection.attempt(found, errno.ENOENT)
    finally:
        connection.close()


def _flow(data: bytes) -> Flow | None:
    table = codec.attributes(data)
    addresses = codec.attributes(table.get(_TUPLE_IP, b""))
    proto = codec.attributes(table.get(_TUPLE_PROTO, b""))
    source, destination = addresses.get(1) or addresses.get(3), addresses.get(2) or addresses.get(4)
    if source is None or destination is None or not proto.get(1):
        return None
    return Flow(
        proto[1][0],
        str(ipaddress.ip_address(source)),
        str(ipaddress.ip_address(destination)),
        int.from_bytes(proto.get(2, b""), "big"),
        int.from_bytes(proto.get(3, b""), "big"),
    )
