"""Our one nftables table: its elements, as networks and ports come and go.

The number of rules is fixed (`chains.py`); bridges and published ports are elements of sets and maps.
"""

import contextlib
import errno
import ipaddress
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from barque.base.errors import KernelError
from barque.kernel import nft
from barque.kernel.netlink import codec
from barque.kernel.netlink.connection import NETLINK_NETFILTER, Connection
from barque.network import chains
from barque.network.model import PortBinding

PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}
# An attribute holds 64 KiB, an element takes less than 100 bytes.
_ELEMENTS_AT_ONCE = 500
# The name of a set or map, a key, and data.
_Element = tuple[str, bytes, bytes]


class BridgeRules(NamedTuple):
    """What the firewall must know of a bridge.

    Pairs are for IPv4 and IPv6: whether to masquerade what leaves, under which address (empty: that of
    the interface it leaves by), whether other machines reach all ports (`unprotected`) or published ones
    (`routed`) at the containers' own addresses. `trusted` interfaces reach everything. `addresses` are its own.
    """

    name: str
    masquerade: tuple[bool, bool] = (True, True)
    icc: bool = True
    internal: bool = False
    source: tuple[str, str] = ("", "")
    unprotected: tuple[bool, bool] = (False, False)
    routed: tuple[bool, bool] = (False, False)
    trusted: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()


class Forward(NamedTuple):
    """A published port and where it leads; with `direct` the target's own port is reached from everywhere."""

    binding: PortBinding
    target: str
    direct: bool = False


class Linked(NamedTuple):
    """A port that one container may ask another one for, although containers of their bridge may not talk."""

    source: str
    target: str
    protocol: str
    port: int


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

    def is_whole(self) -> bool:
        """Tell whether the table is there with all its rules."""
        try:
            found = self._connection.dump(*nft.ask_rules(self.table))
        except KernelError as error:
            if error.errno == errno.ENOENT:
                return False
            raise
        return len(found) == sum(1 for request in chains.chains(self.table, self._mark) if nft.is_rule(request))

    def rebuild(self, bridges: Iterable[BridgeRules], forwards: Iterable[Forward], linked: Iterable[Linked] = ()) -> None:
        """Replace the table as a whole, in one step that cuts no connection.

        Raises:
            KernelError: the kernel refused it; the old table stays.
        """
        requests = [nft.add_table(self.table), nft.remove_table(self.table)]
        requests.append(nft.add_table(self.table))
        requests += [nft.add_set(self.table, item, at + 1) for at, item in enumerate(chains.SETS)]
        requests += chains.chains(self.table, self._mark)
        elements = [item for bridge in bridges for item in _of_bridge(bridge)]
        elements += _of_forwards(forwards)
        elements += [("linked4", _of_link(item), b"") for item in linked]
        self._connection.transact([*requests, *self._adding(elements)])

    def remove(self) -> None:
        """Delete the table; fine where it is not there."""
        self._connection.transact([nft.add_table(self.table), nft.remove_table(self.table)])

    def add_bridge(self, bridge: BridgeRules) -> None:
        """Let a bridge's containers out, and keep other bridges from them."""
        self._connection.transact(self._adding(_of_bridge(bridge)))

    def remove_bridge(self, bridge: BridgeRules) -> None:
        """Forget a bridge."""
        self._take_out((name, key) for name, key, _ in _of_bridge(bridge))

    def add_forwards(self, forwards: Iterable[Forward]) -> None:
        """Publish ports.

        Raises:
            KernelError: EEXIST, one of them leads elsewhere already; none was added.
        """
        self._connection.transact(self._adding(_of_forwards(forwards)))

    def remove_forwards(self, forwards: Iterable[Forward], staying: Iterable[Forward] = ()) -> None:
        """Take ports back; staying are the other ones of the same container."""
        needed = {(name, key) for name, key, _ in _of_forwards(staying)}
        gone = dict.fromkeys((name, key) for name, key, _ in _of_forwards(forwards))
        self._take_out(item for item in gone if item not in needed)

    def change_links(self, gone: Iterable[Linked], new: Iterable[Linked]) -> None:
        """Close ports between containers, and open others."""
        requests = [nft.remove_elements(self.table, "linked4", [_of_link(item)]) for item in gone]
        requests += self._adding([("linked4", _of_link(item), b"") for item in new])
        self._connection.transact(requests)

    def _adding(self, elements: Iterable[_Element]) -> list[codec.Request]:
        """Return what adds elements: few messages, each with many of one set."""
        by_set: dict[str, list[tuple[bytes, bytes]]] = {}
        for name, key, data in dict.fromkeys(elements):
            by_set.setdefault(name, []).append((key, data))
        return [nft.add_elements(self.table, name, part) for name, found in by_set.items() for part in _parts(found)]

    def _take_out(self, keys: Iterable[tuple[str, bytes]]) -> None:
        """Remove elements at once; where one is gone already, the others one by one.

        Raises:
            KernelError: the kernel refused, or one was gone; those that were there are removed.
        """
        requests = [nft.remove_elements(self.table, name, [key]) for name, key in keys]
        try:
            self._connection.transact(requests)
        except KernelError as error:
            if error.errno == errno.ENOENT:
                for request in requests:
                    with contextlib.suppress(KernelError):
                        self._connection.transact([request])
            raise


def _parts(items: list[tuple[bytes, bytes]]) -> Iterator[list[tuple[bytes, bytes]]]:
    """Cut a list into pieces of which each fits into one message."""
    for start in range(0, len(items), _ELEMENTS_AT_ONCE):
        yield items[start : start + _ELEMENTS_AT_ONCE]


def _of_bridge(bridge: BridgeRules) -> list[_Element]:
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
    for text in bridge.addresses:
        own = ipaddress.ip_address(text)
        found.append((f"gate{own.version}", own.packed, b""))
    found += [("trusted", nft.ifname(item) + name, b"") for item in dict.fromkeys(bridge.trusted)]
    return found


def _of_forwards(forwards: Iterable[Forward]) -> list[_Element]:
    listed = list(forwards)
    return [*map(_of_forward, listed), *_of_targets(listed)]


def _of_forward(forward: Forward) -> _Element:
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


def _of_link(item: Linked) -> bytes:
    ends = ipaddress.ip_address(item.source).packed + ipaddress.ip_address(item.target).packed
    return ends + bytes((PROTOCOLS[item.protocol], 0, 0, 0)) + item.port.to_bytes(2, "big") + b"\0\0"


def _of_targets(forwards: Iterable[Forward]) -> list[_Element]:
    found = []
    for target in sorted({forward.target for forward in forwards if not forward.direct}):
        address = ipaddress.ip_address(target)
        found.append((f"self{address.version}", address.packed * 2, b""))
    return found
