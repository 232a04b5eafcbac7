"""What the chains of our nftables table say, and the sets and maps that they ask. Pure.

The number of rules is fixed; bridges and published ports are elements of sets and maps:

    raw          before connection tracking: bridges may not speak as or to 127.0.0.0/8
    prerouting   a published port of one of this machine's addresses becomes a container's
    output       the same for connections that this machine makes itself
    forward      established | out of an internal bridge nowhere | published | routed to | within a bridge
                 (linked4, same_bridge) | else not into a bridge
    postrouting  masquerade: out of a bridge, back into the bridge it came from, from loopback, from another
                 bridge's address

Because loopback addresses are routed into the bridge (route_localnet), `raw` closes the door that
this opens: a container must not reach a service that listens on 127.0.0.1.
"""

import ipaddress

from barque.kernel import nft
from barque.kernel.netlink import codec

_TYPES4 = (nft.TYPE_PROTOCOL, nft.TYPE_IPADDR, nft.TYPE_SERVICE)
_TYPES6 = (nft.TYPE_PROTOCOL, nft.TYPE_IP6ADDR, nft.TYPE_SERVICE)
_NAMES = (nft.TYPE_IFNAME, nft.TYPE_IFNAME)
SETS = (
    nft.Set("dnat4", _TYPES4, 12, _TYPES4[1:], 8),
    nft.Set("dnat4_any", (nft.TYPE_PROTOCOL, nft.TYPE_SERVICE), 8, _TYPES4[1:], 8),
    nft.Set("dnat6", _TYPES6, 24, _TYPES6[1:], 20),
    nft.Set("dnat6_any", (nft.TYPE_PROTOCOL, nft.TYPE_SERVICE), 8, _TYPES6[1:], 20),
    nft.Set("bridges", (nft.TYPE_IFNAME,), 16),
    nft.Set("masquerade4", (nft.TYPE_IFNAME,), 16),
    nft.Set("masquerade6", (nft.TYPE_IFNAME,), 16),
    nft.Set("source4", (nft.TYPE_IFNAME,), 16, (nft.TYPE_IPADDR,), 4),
    nft.Set("source6", (nft.TYPE_IFNAME,), 16, (nft.TYPE_IP6ADDR,), 16),
    nft.Set("internal", (nft.TYPE_IFNAME,), 16),
    nft.Set("open4", (nft.TYPE_IFNAME,), 16),
    nft.Set("open6", (nft.TYPE_IFNAME,), 16),
    nft.Set("echo4", (nft.TYPE_IFNAME,), 16),
    nft.Set("echo6", (nft.TYPE_IFNAME,), 16),
    nft.Set("trusted", _NAMES, 32),
    nft.Set("direct4", _TYPES4, 12),
    nft.Set("direct6", _TYPES6, 24),
    nft.Set("same_bridge", _NAMES, 32, (nft.TYPE_VERDICT,), 0),
    nft.Set("hairpin", _NAMES, 32),
    nft.Set("self4", (nft.TYPE_IPADDR, nft.TYPE_IPADDR), 8),
    nft.Set("self6", (nft.TYPE_IP6ADDR, nft.TYPE_IP6ADDR), 32),
    nft.Set("gate4", (nft.TYPE_IPADDR,), 4),
    nft.Set("gate6", (nft.TYPE_IP6ADDR,), 16),
    nft.Set("linked4", (nft.TYPE_IPADDR, nft.TYPE_IPADDR, nft.TYPE_PROTOCOL, nft.TYPE_SERVICE), 16),
)

# Registers of four bytes; 1 is the first 16-byte register and the same place as 8.
_FIRST, _SECOND, _THIRD, _SIXTH = 1, 9, 10, 13


def chains(table: str, mark: tuple[int, int] | None) -> list[codec.Request]:
    """Return what makes all chains with their rules; packets with the mark (and mask) may go everywhere."""
    requests = [
        nft.add_chain(table, "raw", "filter", nft.HOOK_PREROUTING, -300),
        nft.add_chain(table, "prerouting", "nat", nft.HOOK_PREROUTING, -100),
        nft.add_chain(table, "output", "nat", nft.HOOK_OUTPUT, -100),
        nft.add_chain(table, "forward", "filter", nft.HOOK_FORWARD, 0),
        nft.add_chain(table, "postrouting", "nat", nft.HOOK_POSTROUTING, 100),
    ]
    rules = [("raw", rule) for rule in _raw_rules()]
    # Only connections made here may use ports published on a loopback address.
    rules.append(("prerouting", [*_loopback(16), nft.verdict(nft.NFT_RETURN)]))
    # ::1 cannot be led into a container, it has no route there: the proxy serves it.
    to_self = [nft.payload(1, 24, 16, _FIRST), nft.compare(_FIRST, ipaddress.IPv6Address("::1").packed)]
    rules.append(("output", [*_family(nft.AF_INET6), *to_self, nft.verdict(nft.NFT_RETURN)]))
    for chain in ("prerouting", "output"):
        rules += [(chain, rule) for rule in _publish_rules()]
    if mark is not None:
        rules.append(("forward", _accept(*_marked(*mark))))
    rules += [("forward", rule) for rule in _forward_rules()]
    rules += [("postrouting", rule) for rule in _masquerade_rules()]
    return requests + [nft.add_rule(table, chain, *rule) for chain, rule in rules]


def _family(number: int) -> list[bytes]:
    return [nft.meta(nft.META_NFPROTO, _FIRST), nft.compare(_FIRST, bytes((number,)))]


def _loopback(offset: int) -> list[bytes]:
    """Match an IPv4 header whose address at offset (12 source, 16 destination) is 127.0.0.0/8."""
    return [
        *_family(nft.AF_INET),
        nft.payload(1, offset, 1, _FIRST),
        nft.compare(_FIRST, b"\x7f"),
    ]


def _in_set(key: int, name: str, result: int | None = None) -> list[bytes]:
    return [nft.meta(key, _FIRST), nft.lookup(name, _FIRST, result)]


def _through(name: str, result: int | None = None) -> list[bytes]:
    """Match by incoming and outgoing interface; 16 bytes each fill registers 1 and 2."""
    return [
        nft.meta(nft.META_IIFNAME, 1),
        nft.meta(nft.META_OIFNAME, 2),
        nft.lookup(name, 1, result),
    ]


def _raw_rules() -> list[list[bytes]]:
    return [
        [*_loopback(offset), *_in_set(nft.META_IIFNAME, "bridges"), nft.verdict(nft.NF_DROP)] for offset in (12, 16)
    ]


def _publish_rules() -> list[list[bytes]]:
    local = [nft.destination_type(_FIRST), nft.compare(_FIRST, (2).to_bytes(4, "little"))]
    protocol = nft.meta(nft.META_L4PROTO, _FIRST)
    rules = []
    for family, offset, size, port_at in (
        (nft.AF_INET, 16, 4, _THIRD),
        (nft.AF_INET6, 24, 16, _SIXTH),
    ):
        version = 4 if family == nft.AF_INET else 6
        target = nft.destination_nat(family, _FIRST, _SECOND if version == 4 else 12)
        exact = [protocol, nft.payload(1, offset, size, _SECOND), nft.payload(2, 2, 2, port_at)]
        name = f"dnat{version}"
        rules.append([*_family(family), *local, *exact, nft.lookup(name, _FIRST, _FIRST), target])
        every = [protocol, nft.payload(2, 2, 2, _SECOND)]
        name = f"dnat{version}_any"
        rules.append([*_family(family), *local, *every, nft.lookup(name, _FIRST, _FIRST), target])
    return rules


def _status_dnat() -> list[bytes]:
    return [
        nft.conntrack(nft.CT_STATUS, _FIRST),
        nft.mask(_FIRST, nft.CT_STATUS_DNAT.to_bytes(4, "little")),
        nft.compare(_FIRST, bytes(4), equal=False),
    ]


def _marked(mark: int, bits: int) -> list[bytes]:
    return [
        nft.meta(nft.META_MARK, _FIRST),
        nft.mask(_FIRST, bits.to_bytes(4, "little")),
        nft.compare(_FIRST, mark.to_bytes(4, "little")),
    ]


def _accept(*expressions: bytes) -> list[bytes]:
    return [*expressions, nft.verdict(nft.NF_ACCEPT)]


def _direct_rules() -> list[list[bytes]]:
    """Let in what may reach containers at their own addresses."""
    rules = [_accept(*_through("trusted"))]
    protocol = nft.meta(nft.META_L4PROTO, _FIRST)
    for family, echo, offset, size, port_at in (
        (nft.AF_INET, 1, 16, 4, _THIRD),
        (nft.AF_INET6, 58, 24, 16, _SIXTH),
    ):
        version = 4 if family == nft.AF_INET else 6
        address = [protocol, nft.payload(1, offset, size, _SECOND), nft.payload(2, 2, 2, port_at)]
        rules.append(_accept(*_family(family), *address, nft.lookup(f"direct{version}", _FIRST)))
        rules.append(_accept(*_family(family), *_in_set(nft.META_OIFNAME, f"open{version}")))
        ping = [protocol, nft.compare(_FIRST, bytes((echo,)))]
        rules.append(_accept(*_family(family), *ping, *_in_set(nft.META_OIFNAME, f"echo{version}")))
    return rules


def _forward_rules() -> list[list[bytes]]:
    established = nft.CT_ESTABLISHED_RELATED.to_bytes(4, "little")
    same = _through("same_bridge", 0)
    return [
        _accept(
            nft.conntrack(nft.CT_STATE, _FIRST),
            nft.mask(_FIRST, established),
            nft.compare(_FIRST, bytes(4), equal=False),
        ),
        [*_in_set(nft.META_IIFNAME, "internal"), *same],
        [*_in_set(nft.META_IIFNAME, "internal"), nft.verdict(nft.NF_DROP)],
        _accept(*_in_set(nft.META_OIFNAME, "bridges"), *_status_dnat()),
        *_direct_rules(),
        _accept(*_linked()),
        same,
        [*_in_set(nft.META_OIFNAME, "bridges"), nft.verdict(nft.NF_DROP)],
    ]


def _masquerade_rules() -> list[list[bytes]]:
    return [
        # Where bridged packets pass the firewall too, a container's call of its own published port
        # has no incoming interface here; it is known by its addresses.
        [
            *_family(nft.AF_INET),
            nft.payload(1, 12, 4, 1),
            nft.payload(1, 16, 4, _SECOND),
            nft.lookup("self4", 1),
            *_status_dnat(),
            nft.masquerade(),
        ],
        [
            *_family(nft.AF_INET6),
            nft.payload(1, 8, 16, 1),
            nft.payload(1, 24, 16, 2),
            nft.lookup("self6", 1),
            *_status_dnat(),
            nft.masquerade(),
        ],
        # A container that asks for its own or a neighbour's published port: the answer must come
        # back through here, not straight over the bridge.
        [*_through("hairpin"), *_status_dnat(), nft.masquerade()],
        [*_through("hairpin"), nft.verdict(nft.NFT_RETURN)],
        [*_family(nft.AF_INET), *_in_set(nft.META_IIFNAME, "source4", _FIRST), nft.source_nat(nft.AF_INET, _FIRST)],
        [*_family(nft.AF_INET6), *_in_set(nft.META_IIFNAME, "source6", 1), nft.source_nat(nft.AF_INET6, 1)],
        [*_family(nft.AF_INET), *_in_set(nft.META_IIFNAME, "masquerade4"), nft.masquerade()],
        [*_family(nft.AF_INET6), *_in_set(nft.META_IIFNAME, "masquerade6"), nft.masquerade()],
        [*_loopback(12), *_in_set(nft.META_OIFNAME, "bridges"), nft.masquerade()],
        # This machine asks at one bridge's address for a port that leads into another bridge. The container may know
        # a way of its own to that address, and a server of datagrams would answer as somebody else.
        [*_family(nft.AF_INET), nft.payload(1, 12, 4, _FIRST), nft.lookup("gate4", _FIRST), *_led_into_bridge()],
        [*_family(nft.AF_INET6), nft.payload(1, 8, 16, 1), nft.lookup("gate6", 1), *_led_into_bridge()],
    ]


def _led_into_bridge() -> list[bytes]:
    return [*_in_set(nft.META_OIFNAME, "bridges"), *_status_dnat(), nft.masquerade()]


def _linked() -> list[bytes]:
    """Match a container that asks another one that it is linked to for an exposed port."""
    return [
        *_family(nft.AF_INET),
        nft.payload(1, 12, 4, _FIRST),
        nft.payload(1, 16, 4, _SECOND),
        nft.meta(nft.META_L4PROTO, _THIRD),
        nft.payload(2, 2, 2, _THIRD + 1),
        nft.lookup("linked4", _FIRST),
    ]
