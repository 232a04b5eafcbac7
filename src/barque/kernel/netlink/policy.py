"""Routing by a packet's mark: packets that bear it are this machine's, whatever their address.

Numbers are those of linux/fib_rules.h and linux/rtnetlink.h.
"""

import socket
import struct

from barque.kernel.netlink import codec
from barque.kernel.netlink.codec import Request

_NEWROUTE, _DELROUTE, _NEWRULE, _DELRULE = 24, 25, 32, 33
_CREATE = codec.NLM_F_CREATE | codec.NLM_F_EXCL
_FRA_MARK, _FRA_TABLE, _FRA_MASK = 10, 15, 16
_RTA_OIF, _RTA_TABLE = 4, 15
_TO_TABLE, _LOCAL, _SCOPE_HOST, _STATIC = 1, 2, 254, 4
_LOOPBACK_INDEX = 1
FAMILIES = (socket.AF_INET, socket.AF_INET6)


def _rule(family: int, mark: int, table: int) -> bytes:
    body = struct.pack("=BBBBBBBBI", family, 0, 0, 0, 0, 0, 0, _TO_TABLE, 0)
    return body + codec.u32(_FRA_MARK, mark) + codec.u32(_FRA_MASK, 0xFFFFFFFF) + codec.u32(_FRA_TABLE, table)


def _route(family: int, table: int) -> bytes:
    body = struct.pack("=BBBBBBBBI", family, 0, 0, 0, 0, _STATIC, _SCOPE_HOST, _LOCAL, 0)
    return body + codec.u32(_RTA_TABLE, table) + codec.u32(_RTA_OIF, _LOOPBACK_INDEX)


def keep_marked(family: int, mark: int, table: int) -> list[Request]:
    """Let a table of routes that takes all packets count for those with a mark."""
    return [Request(_NEWROUTE, _CREATE, _route(family, table)), Request(_NEWRULE, _CREATE, _rule(family, mark, table))]


def pass_marked(family: int, mark: int, table: int) -> list[Request]:
    """Undo keep_marked()."""
    return [Request(_DELRULE, 0, _rule(family, mark, table)), Request(_DELROUTE, 0, _route(family, table))]
