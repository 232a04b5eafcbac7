"""A second nftables table, for networks whose containers may speak as nobody but themselves.

It looks at frames where they enter a bridge: what comes out of a guarded container must bear its MAC address,
and its IP addresses as source, as sender of ARP and as target of neighbour advertisements; it may not play a
router. All but IPv4, IPv6 and ARP is dropped. The table is there only while a network asks for it.
"""

import errno
import ipaddress

from barque.base.errors import KernelError
from barque.kernel import nft
from barque.kernel.netlink import codec
from barque.kernel.netlink.connection import NETLINK_NETFILTER, Connection
from barque.kernel.netlink.route import mac_bytes
from barque.network.model import Endpoint

_FAMILY = nft.NFPROTO_BRIDGE
_PRIORITY = -300
_SETS = (
    nft.Set("guarded", (nft.TYPE_IFNAME,), 16),
    nft.Set("mac", (nft.TYPE_IFNAME, nft.TYPE_ETHER), 24),
    nft.Set("ip4", (nft.TYPE_IFNAME, nft.TYPE_IPADDR), 20),
    nft.Set("ip6", (nft.TYPE_IFNAME, nft.TYPE_IP6ADDR), 32),
)
# The name of the interface fills register 1 (16 bytes); what follows it starts at 12.
_NAME, _AFTER = 1, 12
_IP, _ARP, _IP6 = b"\x08\x00", b"\x08\x06", b"\x86\xdd"
_ICMP6, _ROUTER, _ADVERTISEMENT, _REDIRECT = 58, 134, 136, 137


class Guard:
    """The table of one engine."""

    def __init__(self, table: str) -> None:
        """Open the socket; nothing is changed yet."""
        self._table = table
        self._connection = Connection(NETLINK_NETFILTER)
        self._guarded: dict[str, Endpoint] = {}

    def add(self, endpoint: Endpoint) -> None:
        """Guard an endpoint's end on the host.

        Raises:
            KernelError: the kernel refused.
        """
        first = not self._guarded
        self._guarded[endpoint.endpoint_id] = endpoint
        if first:
            self.rebuild()
            return
        made = [nft.add_elements(self._table, name, [(key, b"")], _FAMILY) for name, key in _elements(endpoint)]
        self._connection.transact(made)

    def remove(self, endpoint_id: str) -> None:
        """Guard an endpoint no longer; fine where it was not guarded."""
        endpoint = self._guarded.pop(endpoint_id, None)
        if endpoint is None:
            return
        if not self._guarded:
            self.rebuild()
            return
        gone = [nft.remove_elements(self._table, name, [key], _FAMILY) for name, key in _elements(endpoint)]
        try:
            self._connection.transact(gone)
        except KernelError as error:
            if error.errno != errno.ENOENT:
                raise

    def is_whole(self) -> bool:
        """Tell whether the table is as it should be."""
        if not self._guarded:
            return True
        try:
            return len(self._connection.dump(*nft.ask_rules(self._table, _FAMILY))) == len(_rules())
        except KernelError as error:
            if error.errno == errno.ENOENT:
                return False
            raise

    def rebuild(self) -> None:
        """Replace the table as a whole, in one step; where nobody is guarded there is none.

        Raises:
            KernelError: the kernel refused.
        """
        table = self._table
        requests: list[codec.Request] = [nft.add_table(table, _FAMILY), nft.remove_table(table, _FAMILY)]
        if self._guarded:
            requests.append(nft.add_table(table, _FAMILY))
            requests += [nft.add_set(table, item, at + 1, _FAMILY) for at, item in enumerate(_SETS)]
            requests.append(nft.add_chain(table, "sources", "filter", nft.HOOK_PREROUTING, _PRIORITY, _FAMILY))
            requests += [nft.add_rule(table, "sources", *rule, family=_FAMILY) for rule in _rules()]
            for endpoint in self._guarded.values():
                for name, key in _elements(endpoint):
                    requests.append(nft.add_elements(table, name, [(key, b"")], _FAMILY))
        self._connection.transact(requests)

    def close(self, *, remove: bool) -> None:
        """Close the socket; the table stays unless it is to be removed."""
        if remove and self._guarded:
            self._guarded.clear()
            self.rebuild()
        self._connection.close()


def _elements(endpoint: Endpoint) -> list[tuple[str, bytes]]:
    name = nft.ifname(endpoint.host_interface)
    found = [("guarded", name), ("mac", name + mac_bytes(endpoint.mac) + b"\0\0")]
    addresses = {endpoint.ip, endpoint.ip6, *endpoint.link_local, str(link_local_of(endpoint.mac)), "::"}
    for text in sorted(filter(None, addresses)):
        address = ipaddress.ip_address(text)
        found.append((f"ip{address.version}", name + address.packed))
    return found


def link_local_of(mac: str) -> ipaddress.IPv6Address:
    """Return the link-local address that the kernel makes of a MAC address."""
    raw = bytearray(mac_bytes(mac))
    raw[0] ^= 2
    return ipaddress.IPv6Address(b"\xfe\x80" + bytes(6) + bytes(raw[:3]) + b"\xff\xfe" + bytes(raw[3:]))


def _is(kind: bytes) -> list[bytes]:
    return [nft.meta(nft.META_PROTOCOL, 1), nft.compare(1, kind)]


def _is_icmp6(kind: int) -> list[bytes]:
    return [
        *_is(_IP6), nft.meta(nft.META_L4PROTO, 1), nft.compare(1, bytes((_ICMP6,))),
        nft.payload(2, 0, 1, 1), nft.compare(1, bytes((kind,))),
    ]  # fmt: skip


def _unless_in(name: str, base: int, offset: int, size: int) -> list[bytes]:
    """Match where the interface with these bytes of the packet is not in a set."""
    return [
        nft.meta(nft.META_IIFNAME, _NAME),
        nft.payload(base, offset, size, _AFTER),
        nft.lookup(name, _NAME, inverted=True),
    ]


def _rules() -> list[list[bytes]]:
    drop, accept = nft.verdict(nft.NF_DROP), nft.verdict(nft.NF_ACCEPT)
    asking = [nft.payload(1, 14, 4, 1), nft.compare(1, bytes(4))]
    return [
        [nft.meta(nft.META_IIFNAME, _NAME), nft.lookup("guarded", _NAME, inverted=True), accept],
        [*_unless_in("mac", 0, 6, 6), drop],
        [*_is(_ARP), *_unless_in("mac", 1, 8, 6), drop],
        [*_is(_ARP), *asking, accept],
        [*_is(_ARP), *_unless_in("ip4", 1, 14, 4), drop],
        [*_is(_ARP), accept],
        [*_is(_IP), *_unless_in("ip4", 1, 12, 4), drop],
        [*_is(_IP), accept],
        [*_is(_IP6), *_unless_in("ip6", 1, 8, 16), drop],
        [*_is_icmp6(_ADVERTISEMENT), *_unless_in("ip6", 2, 8, 16), drop],
        [*_is_icmp6(_ROUTER), drop],
        [*_is_icmp6(_REDIRECT), drop],
        [*_is(_IP6), accept],
        [drop],
    ]
