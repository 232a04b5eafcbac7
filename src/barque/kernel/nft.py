"""nf_tables messages: tables, chains, maps, elements and the few expressions our rules use.

Everything returns `codec.Request` values or attribute bytes for `Connection.transact`; nothing is
sent here. Numbers are those of linux/netfilter/nf_tables.h; those of data types are nft's own, so
that `nft list ruleset` can print what we made.
"""

import struct
from collections.abc import Iterable
from typing import NamedTuple

from barque.kernel.netlink import codec
from barque.kernel.netlink.codec import Request

NFPROTO_INET, NFPROTO_BRIDGE = 1, 7
AF_INET, AF_INET6 = 2, 10
NF_DROP, NF_ACCEPT, NFT_RETURN = 0, 1, -5

HOOK_PREROUTING, HOOK_INPUT, HOOK_FORWARD, HOOK_OUTPUT, HOOK_POSTROUTING = range(5)

# nft's numbers of data types (include/datatype.h of nftables).
TYPE_IPADDR, TYPE_IP6ADDR, TYPE_ETHER, TYPE_PROTOCOL, TYPE_SERVICE, TYPE_IFNAME = 7, 8, 9, 12, 13, 41
TYPE_VERDICT = 0xFFFFFF00
IFNAME_BYTES = 16

CT_STATE, CT_STATUS = 0, 2
CT_ESTABLISHED_RELATED = 0x6
CT_STATUS_DNAT = 0x20

META_PROTOCOL, META_MARK, META_OIF, META_IIFNAME, META_OIFNAME, META_NFPROTO, META_L4PROTO = 1, 3, 5, 6, 7, 15, 16

_SUBSYSTEM = 10 << 8
_NEWTABLE, _DELTABLE, _NEWCHAIN, _GETCHAIN, _NEWRULE, _GETRULE = 0, 2, 3, 4, 6, 7
_NEWSET, _NEWSETELEM, _GETSETELEM, _DELSETELEM = 9, 12, 13, 14
_MAP = 8


class Set(NamedTuple):
    """A set, or with a data type a map; key_types are concatenated."""

    name: str
    key_types: tuple[int, ...]
    key_bytes: int
    data_types: tuple[int, ...] = ()
    data_bytes: int = 0


def _request(kind: int, flags: int, *parts: bytes, family: int = NFPROTO_INET) -> Request:
    return Request(_SUBSYSTEM | kind, flags, struct.pack("!BBH", family, 0, 0) + b"".join(parts))


def add_table(name: str, family: int = NFPROTO_INET) -> Request:
    """Make a table unless it is there."""
    return _request(_NEWTABLE, codec.NLM_F_CREATE, codec.text(1, name), codec.be32(2, 0), family=family)


def ask_rules(table: str, family: int = NFPROTO_INET) -> tuple[int, bytes]:
    """Return kind and body of a question after all rules of a table; there are none where there is no table."""
    asked = _request(_GETRULE, 0, codec.text(1, table), family=family)
    return asked.kind, asked.body


def ask_chains() -> tuple[int, bytes]:
    """Return kind and body of a question after the chains of all tables of all families."""
    return _SUBSYSTEM | _GETCHAIN, struct.pack("!BBH", 0, 0, 0)


class Chain(NamedTuple):
    """A chain; numbers are the kernel's, family 2 is IPv4. The hook is None where only rules enter it."""

    family: int
    table: str
    name: str
    hook: int | None
    policy: int


def read_chain(payload: bytes) -> Chain:
    """Return what a chain's message says."""
    table = codec.attributes(payload[4:])
    hook = codec.attributes(table.get(4, b""))
    return Chain(
        payload[0],
        table.get(1, b"").rstrip(b"\0").decode(errors="replace"),
        table.get(3, b"").rstrip(b"\0").decode(errors="replace"),
        int.from_bytes(hook[1], "big") if 1 in hook else None,
        int.from_bytes(table.get(5, b"\0\0\0\1"), "big"),
    )


def is_rule(request: Request) -> bool:
    """Tell whether a request makes a rule."""
    return request.kind == _SUBSYSTEM | _NEWRULE


def remove_table(name: str, family: int = NFPROTO_INET) -> Request:
    """Delete a table with all in it."""
    return _request(_DELTABLE, 0, codec.text(1, name), family=family)


def add_chain(
    table: str, name: str, kind: str, hook: int, priority: int, family: int = NFPROTO_INET
) -> Request:
    """Make a base chain ("nat" or "filter") that accepts what no rule decides."""
    return _request(
        _NEWCHAIN,
        codec.NLM_F_CREATE,
        codec.text(1, table),
        codec.text(3, name),
        codec.nested(4, codec.be32(1, hook), codec.be32(2, priority)),
        codec.be32(5, NF_ACCEPT),
        codec.text(7, kind),
        family=family,
    )


def add_rule(table: str, chain: str, *expressions: bytes, family: int = NFPROTO_INET) -> Request:
    """Append a rule."""
    listed = b"".join(codec.nested(1, item) for item in expressions)
    flags = codec.NLM_F_CREATE | codec.NLM_F_APPEND
    return _request(
        _NEWRULE, flags, codec.text(1, table), codec.text(2, chain), codec.nested(4, listed), family=family
    )


def _joined(types: Iterable[int]) -> int:
    number = 0
    for kind in types:
        number = number << 6 | kind
    return number


def add_set(table: str, made: Set, number: int, family: int = NFPROTO_INET) -> Request:
    """Make a set or map; number is unique within the batch."""
    parts = [codec.text(1, table), codec.text(2, made.name)]
    parts.append(codec.be32(3, _MAP if made.data_types else 0))
    parts += [codec.be32(4, _joined(made.key_types)), codec.be32(5, made.key_bytes)]
    if made.data_types == (TYPE_VERDICT,):
        parts += [codec.be32(6, TYPE_VERDICT), codec.be32(7, made.data_bytes)]
    elif made.data_types:
        parts += [codec.be32(6, _joined(made.data_types)), codec.be32(7, made.data_bytes)]
    parts.append(codec.be32(10, number))
    if made.key_types == (TYPE_IFNAME,):
        # Only for nft's listing: the key is text, not a number in network byte order.
        parts.append(codec.attribute(13, bytes((0, 4)) + struct.pack("=I", 1)))
    return _request(_NEWSET, codec.NLM_F_CREATE, *parts, family=family)


def _elements(table: str, name: str, keys: Iterable[tuple[bytes, bytes]]) -> bytes:
    listed = b"".join(codec.nested(1, codec.nested(1, codec.attribute(1, key)), data) for key, data in keys)
    return codec.text(1, table) + codec.text(2, name) + codec.nested(3, listed)


def add_elements(
    table: str, name: str, items: Iterable[tuple[bytes, bytes]], family: int = NFPROTO_INET
) -> Request:
    """Add elements (key, data) to a set (data is empty) or map (see `value` and `verdict_data`)."""
    return _request(_NEWSETELEM, codec.NLM_F_CREATE, _elements(table, name, items), family=family)


def remove_elements(table: str, name: str, keys: Iterable[bytes], family: int = NFPROTO_INET) -> Request:
    """Remove elements by their keys."""
    return _request(_DELSETELEM, 0, _elements(table, name, ((key, b"") for key in keys)), family=family)


def value(data: bytes) -> bytes:
    """Return an element's data in a map of values."""
    return codec.nested(2, codec.attribute(1, data))


def verdict_data(code: int) -> bytes:
    """Return an element's data in a map of verdicts."""
    return codec.nested(2, codec.nested(2, codec.be32(1, code)))


def ifname(name: str) -> bytes:
    """Return an interface's name as key."""
    return name.encode().ljust(IFNAME_BYTES, b"\0")


def _expression(name: str, *parts: bytes) -> bytes:
    return codec.text(1, name) + codec.nested(2, *parts)


def meta(key: int, register: int) -> bytes:
    """Load a packet's meta datum into a register."""
    return _expression("meta", codec.be32(1, register), codec.be32(2, key))


def set_mark(register: int) -> bytes:
    """Give a packet the mark that a register holds."""
    return _expression("meta", codec.be32(2, META_MARK), codec.be32(3, register))


def socket_mark(register: int) -> bytes:
    """Load the mark of the socket of this machine that a packet is for; without one the rule ends."""
    return _expression("socket", codec.be32(1, 1), codec.be32(2, register))


def payload(base: int, offset: int, size: int, register: int) -> bytes:
    """Load bytes of the link (base 0), network (base 1) or transport (base 2) header."""
    return _expression(
        "payload",
        codec.be32(1, register),
        codec.be32(2, base),
        codec.be32(3, offset),
        codec.be32(4, size),
    )


def write_payload(base: int, offset: int, size: int, register: int, checksum_offset: int) -> bytes:
    """Overwrite bytes of a header with a register's, and mend the checksum at an offset of the same header."""
    return _expression(
        "payload",
        codec.be32(5, register),
        codec.be32(2, base),
        codec.be32(3, offset),
        codec.be32(4, size),
        codec.be32(6, 1),
        codec.be32(7, checksum_offset),
        codec.be32(8, 0),
    )


def load(register: int, data: bytes) -> bytes:
    """Put bytes into a register."""
    return _expression("immediate", codec.be32(1, register), codec.nested(2, codec.attribute(1, data)))


def compare(register: int, data: bytes, *, equal: bool = True) -> bytes:
    """Go on with the rule only where the register holds (or does not hold) data."""
    return _expression(
        "cmp",
        codec.be32(1, register),
        codec.be32(2, 0 if equal else 1),
        codec.nested(3, codec.attribute(1, data)),
    )


def mask(register: int, bits: bytes) -> bytes:
    """Keep only these bits of a register."""
    return _expression(
        "bitwise",
        codec.be32(1, register),
        codec.be32(2, register),
        codec.be32(3, len(bits)),
        codec.nested(4, codec.attribute(1, bits)),
        codec.nested(5, codec.attribute(1, bytes(len(bits)))),
    )


def lookup(name: str, register: int, result: int | None = None, *, inverted: bool = False) -> bytes:
    """Look a key up: in a set (result None), else load a map's data (0: follow its verdict)."""
    parts = [codec.text(1, name), codec.be32(2, register)]
    if inverted:
        parts.append(codec.be32(5, 1))
    if result is not None:
        parts.append(codec.be32(3, result))
    return _expression("lookup", *parts)


def conntrack(key: int, register: int) -> bytes:
    """Load the connection's state or status."""
    return _expression("ct", codec.be32(1, register), codec.be32(2, key))


def destination_type(register: int) -> bytes:
    """Load what kind of address the destination is (2: an address of this machine)."""
    return _expression("fib", codec.be32(1, register), codec.be32(2, 3), codec.be32(3, 2))


def destination_nat(family: int, address_register: int, port_register: int) -> bytes:
    """Send the connection to the address and port in the registers."""
    return _expression(
        "nat",
        codec.be32(1, 1),
        codec.be32(2, family),
        codec.be32(3, address_register),
        codec.be32(5, port_register),
    )


def source_nat(family: int, address_register: int) -> bytes:
    """Let the connection come from the address in the register."""
    return _expression("nat", codec.be32(1, 0), codec.be32(2, family), codec.be32(3, address_register))


def masquerade() -> bytes:
    """Let the connection come from the address of the interface it leaves by."""
    return _expression("masq")


def verdict(code: int) -> bytes:
    """End with a verdict."""
    return _expression("immediate", codec.be32(1, 0), codec.nested(2, codec.nested(2, codec.be32(1, code))))
