"""Our one nftables table: what its chains say, and its elements as networks and ports come and go.

The number of rules is fixed; bridges and published ports are elements of sets and maps:

    raw          before connection tracking: bridges may not speak as or to 127.0.0.0/8
    prerouting   a published port of one of this machine's addresses becomes a container's
    output       the same for connections that this machine makes itself
    forward      established | out of an internal bridge nowhere | published | routed to | within a bridge
                 (same_bridge) | else not into a bridge
    postrouting  masquerade: out of a bridge, back into the bridge it came from, from loopback

Because loopback addresses are routed into the bridge (route_localnet), `raw` closes the door that
this opens: a container must not reach a service that listens on 127.0.0.1.
"""

import errno
import ipaddress
from collections.abc import Iterable
from typing import NamedTuple

from barque.base.errors import KernelError
from barque.kernel import nft
from barque.kernel.netlink import codec
from barque.kernel.netlink.connection import NETLINK_NETFILTER, Connection
from barque.network.model import PortBinding

PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}

_TYPES4 = (nft.TYPE_PROTOCOL, nft.TYPE_IPADDR, nft.TYPE_SERVICE)
_TYPES6 = (nft.TYPE_PROTOCOL, nft.TYPE_IP6ADDR, nft.TYPE_SERVICE)
_NAMES = (nft.TYPE_IFNAME, nft.TYPE_IFNAME)
_SETS = (
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
)

# Registers of four bytes; 1 is the first 16-byte register and the same place as 8.
_FIRST, _SECOND, _THIRD, _SIXTH = 1, 9, 10, 13


class BridgeRules(NamedTuple):
    """What the firewall must know of a bridge.

    Pairs are for IPv4 and IPv6: whether to masquerade what leaves, under which address (empty: that of
    the interface it leaves by), whether other machines reach all ports (`unprotected`) or published ones
    (`routed`) at the containers' own addresses. `trusted` interfaces reach everything.
    """

    name: str
    masquerade: tuple[bool, bool] = (True, True)
    icc: bool = True
    internal: bool = False
    source: tuple[str, str] = ("", "")
    unprotected: tuple[bool, bool] = (False, False)
    routed: tuple[bool, bool] = (False, False)
    trusted: tuple[str, ...] = ()


class Forward(NamedTuple):
    """A published port and where it leads; with `direct` the target's own port is reached from everywhere."""

    binding: PortBinding
    target: str
    direct: bool = False


class Firewall:
    """The table of one engine; every change is one transaction."""

    def __init__(self, table: str, accept_mark: tuple[int, int] | None = None) -> None:
        """Open the socket; nothing is changed yet. Packets with this mark (and mask) may go everywhere."""
        self.table = table
        self._mark = accept_mark
        self._connection = Connection(NETLINK_NETFILTER)

    def close(self) -> None:
        """Close the socket; the table stays."""
        self._connection.close()

    def dropping_others(self) -> list[tuple[str, str, str]]:
        """Return family, table and chain of others' chains that drop forwarded packets by their policy."""
        families = {1: "inet", 2: "ip", 10: "ip6"}
        found = []
        for payload in self._connection.dump(*nft.ask_chains()):
            chain = nft.read_base_chain(payload)
            if chain is not None and chain.family in families and chain.hook == nft.HOOK_FORWARD \
                    and chain.policy == nft.NF_DROP and chain.table != self.table:  # fmt: skip
                found.append((families[chain.family], chain.table, chain.name))
        return found

    def is_whole(self) -> bool:
        """Tell whether the table is there with all its rules."""
        try:
            found = self._connection.dump(*nft.ask_rules(self.table))
        except KernelError as error:
            if error.errno == errno.ENOENT:
                return False
            raise
        return len(found) == sum(1 for request in _chains(self.table, self._mark) if nft.is_rule(request))

    def rebuild(self, bridges: Iterable[BridgeRules], forwards: Iterable[Forward]) -> None:
        """Replace the table as a whole, in one step that cuts no connection.

        Raises:
            KernelError: the kernel refused it; the old table stays.
        """
        requests = [nft.add_table(self.table), nft.remove_table(self.table)]
        requests.append(nft.add_table(self.table))
        requests += [nft.add_set(self.table, item, at + 1) for at, item in enumerate(_SETS)]
        requests += _chains(self.table, self._mark)
        for bridge in bridges:
            requests += self._bridge_elements(bridge)
        requests += self._forward_elements(forwards)
        self._connection.transact(requests)

    def remove(self) -> None:
        """Delete the table; fine where it is not there."""
        self._connection.transact([nft.add_table(self.table), nft.remove_table(self.table)])

    def add_bridge(self, bridge: BridgeRules) -> None:
        """Let a bridge's containers out, and keep other bridges from them."""
        self._connection.transact(self._bridge_elements(bridge))

    def remove_bridge(self, bridge: BridgeRules) -> None:
        """Forget a bridge."""
        self._connection.transact([nft.remove_elements(self.table, name, [key]) for name, key, _ in _of_bridge(bridge)])

    def add_forwards(self, forwards: Iterable[Forward]) -> None:
        """Publish ports.

        Raises:
            KernelError: EEXIST, one of them leads elsewhere already; none was added.
        """
        requests = self._forward_elements(forwards)
        if requests:
            self._connection.transact(requests)

    def remove_forwards(self, forwards: Iterable[Forward], staying: Iterable[Forward] = ()) -> None:
        """Take ports back; staying are the other ones of the same container."""
        listed, others = list(forwards), list(staying)
        keys = dict.fromkeys((name, key) for name, key, _ in (*map(_of_forward, listed), *_of_targets(listed)))
        needed = {(name, key) for name, key, _ in (*map(_of_forward, others), *_of_targets(others))}
        requests = [nft.remove_elements(self.table, name, [key]) for name, key in keys if (name, key) not in needed]
        if requests:
            self._connection.transact(requests)

    def _bridge_elements(self, bridge: BridgeRules) -> list[codec.Request]:
        return [nft.add_elements(self.table, name, [(key, data)]) for name, key, data in _of_bridge(bridge)]

    def _forward_elements(self, forwards: Iterable[Forward]) -> list[codec.Request]:
        listed = list(forwards)
        return [
            nft.add_elements(self.table, name, [(key, data)])
            for name, key, data in (*map(_of_forward, listed), *_of_targets(listed))
        ]


def _of_bridge(bridge: BridgeRules) -> list[tuple[str, bytes, bytes]]:
    name = nft.ifname(bridge.name)
    code = nft.NF_ACCEPT if bridge.icc else nft.NF_DROP
    found = [("bridges", name, b""), ("same_bridge", name * 2, nft.verdict_data(code))]
    found.append(("hairpin", name * 2, b""))
    for at, version in enumerate((4, 6)):
        if bridge.masquerade[at] and bridge.source[at]:
            address = ipaddress.ip_address(bridge.source[at])
            found.append((f"source{version}", name, nft.value(address.packed)))
        elif bridge.masquerade[at]:
            found.append((f"masquerade{version}", name, b""))
        if bridge.unprotected[at]:
            found.append((f"open{version}", name, b""))
        if bridge.routed[at]:
            found.append((f"echo{version}", name, b""))
    if bridge.internal:
        found.append(("internal", name, b""))
    found += [("trusted", nft.ifname(item) + name, b"") for item in dict.fromkeys(bridge.trusted)]
    return found


def _of_forward(forward: Forward) -> tuple[str, bytes, bytes]:
    binding = forward.binding
    target = ipaddress.ip_address(forward.target)
    if forward.direct:
        key = bytes((PROTOCOLS[binding.protocol], 0, 0, 0)) + target.packed
        return f"direct{target.version}", key + binding.container_port.to_bytes(2, "big") + b"\0\0", b""
    host = ipaddress.ip_address(binding.host_ip)
    key = bytes((PROTOCOLS[binding.protocol], 0, 0, 0))
    name = f"dnat{target.version}"
    if host.is_unspecified:
        name += "_any"
    else:
        key += host.packed
    key += binding.host_port.to_bytes(2, "big") + b"\0\0"
    data = target.packed + binding.container_port.to_bytes(2, "big") + b"\0\0"
    return name, key, nft.value(data)


def _of_targets(forwards: Iterable[Forward]) -> list[tuple[str, bytes, bytes]]:
    found = []
    for target in sorted({forward.target for forward in forwards if not forward.direct}):
        address = ipaddress.ip_address(target)
        found.append((f"self{address.version}", address.packed * 2, b""))
    return found


def _chains(table: str, mark: tuple[int, int] | None) -> list[codec.Request]:
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
    ]
