"""Opening the sockets of 127.0.0.11 in a container's network namespace.

The sockets take a port that the kernel chooses, and the namespace's own packets to port 53 are led
there: programs in the container may then listen on port 53 of all addresses themselves, as name
servers do. The ports are rewritten without connection tracking, so that a flood of questions does
not fill its table.
"""

import errno
import logging
import socket
import struct

from barque.base.errors import KernelError
from barque.kernel import nft
from barque.kernel.netlink import namespace
from barque.kernel.netlink.codec import NLM_F_EXCL, Request
from barque.kernel.netlink.connection import NETLINK_NETFILTER, Connection

log = logging.getLogger(__name__)

ADDRESS = "127.0.0.11"
PORT = 53
TABLE = "barque_dns"
_CHAIN = "ports"
_RAW_PRIORITY = -300
_LOOPBACK_INDEX = 1
_UDP_CHECKSUM, _TCP_CHECKSUM = 6, 16
_SOURCE, _DESTINATION = (12, 0), (16, 2)
_ATTEMPTS = 16
_REFUSALS = frozenset({errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.ENOENT, errno.EINVAL, errno.ENOSYS})


def open_listeners(space: int) -> tuple[socket.socket, socket.socket]:
    """Return the UDP and the listening TCP socket of a namespace given by a descriptor.

    Raises:
        OSError: the namespace is gone, or the kernel refused.
    """
    with namespace.entered(space):
        udp, tcp = _bound(0)
        try:
            _lead(udp.getsockname()[1])
        except KernelError as error:
            udp.close()
            tcp.close()
            if error.errno not in _REFUSALS:
                raise
            log.warning("port 53 of a container is taken itself, as packets cannot be led elsewhere: %s", error)
            udp, tcp = _bound(PORT)
    return udp, tcp


def _bound(port: int) -> tuple[socket.socket, socket.socket]:
    for attempt in range(_ATTEMPTS):
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            udp.bind((ADDRESS, port))
            tcp.bind((ADDRESS, udp.getsockname()[1]))
            tcp.listen(64)
        except OSError as error:
            udp.close()
            tcp.close()
            # A program of the container may hold the TCP port of the number that UDP got.
            if port or error.errno != errno.EADDRINUSE or attempt == _ATTEMPTS - 1:
                raise
        else:
            return udp, tcp
    raise OSError(errno.EADDRINUSE, "no free port")


def _lead(port: int) -> None:
    connection = Connection(NETLINK_NETFILTER)
    rules = _rules(port)
    made = nft.add_table(TABLE)
    try:
        connection.transact([made._replace(flags=made.flags | NLM_F_EXCL), *rules])
    except KernelError as error:
        if error.errno != errno.EEXIST:
            raise
        # Of a name server that is gone. Removing costs milliseconds, so it is not tried beforehand.
        connection.transact([nft.remove_table(TABLE), made, *rules])
    finally:
        connection.close()


def _rules(port: int) -> list[Request]:
    head = []
    head.append(nft.add_chain(TABLE, _CHAIN, "filter", nft.HOOK_OUTPUT, _RAW_PRIORITY))
    accept = nft.verdict(nft.NF_ACCEPT)
    other = nft.compare(1, struct.pack("=I", _LOOPBACK_INDEX), equal=False)
    head.append(nft.add_rule(TABLE, _CHAIN, nft.meta(nft.META_OIF, 1), other, accept))
    six = nft.compare(1, bytes((nft.AF_INET,)), equal=False)
    head.append(nft.add_rule(TABLE, _CHAIN, nft.meta(nft.META_NFPROTO, 1), six, accept))
    for protocol, checksum in ((socket.IPPROTO_UDP, _UDP_CHECKSUM), (socket.IPPROTO_TCP, _TCP_CHECKSUM)):
        head.append(_rewrite(protocol, checksum, _DESTINATION, PORT, port))
        head.append(_rewrite(protocol, checksum, _SOURCE, port, PORT))
    return head


def _rewrite(protocol: int, checksum: int, side: tuple[int, int], old: int, new: int) -> Request:
    """Return a rule: where this side is our address and the old port, it gets the new one."""
    address_at, port_at = side
    return nft.add_rule(
        TABLE, _CHAIN,
        nft.payload(1, address_at, 4, 1), nft.compare(1, socket.inet_aton(ADDRESS)),
        nft.meta(nft.META_L4PROTO, 1), nft.compare(1, bytes((protocol,))),
        nft.payload(2, port_at, 2, 1), nft.compare(1, struct.pack("!H", old)),
        nft.load(1, struct.pack("!H", new)), nft.write_payload(2, port_at, 2, 1, checksum),
    )  # fmt: skip
