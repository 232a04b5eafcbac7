"""Which subnets a network gets, and the addresses its endpoints get of them. Pure.

A subnet that is not named comes from the first pool with a free part that neither another network nor a
route of this machine uses. The gateway takes the first free address of the subnet, or of its range.
"""

import hashlib
import ipaddress
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from barque.base.errors import BarqueError, ForbiddenError, InvalidInputError
from barque.network import ipam
from barque.network.model import Network, Subnet

Pools = Sequence[tuple[str, int]]


class Taken(NamedTuple):
    """What a new subnet may not overlap: other networks never, routes only where it was not asked for."""

    networks: tuple[str, ...] = ()
    routes: tuple[str, ...] = ()


def unique_local_pool(seed: str) -> tuple[str, int]:
    """Return this machine's pool of IPv6 subnets: a /48 of fd00::/8 that the seed decides, in parts of /64."""
    raw = b"\xfd" + hashlib.sha256(seed.encode()).digest()[:5] + bytes(10)
    return f"{ipaddress.IPv6Address(raw)}/48", 64


def fill(network: Network, pools: Pools, taken: Taken, *, gateways: tuple[bool, bool] = (True, True)) -> Network:
    """Return the network with all its subnets and gateways known.

    Args:
        network: as asked for.
        pools: (range, prefix length) that subnets are cut of, both IP versions in one list.
        taken: what must not be overlapped.
        gateways: whether the IPv4 and IPv6 subnets need a gateway where none is named.

    Raises:
        ForbiddenError: a subnet overlaps another network's.
        InvalidInputError: no pool has room, or a gateway cannot be.
    """
    found: list[Subnet] = []
    used = list(taken.networks)
    for version, wanted, gateway in ((4, network.ipv4, gateways[0]), (6, network.ipv6, gateways[1])):
        if not wanted:
            continue
        asked = [item for item in network.subnets if item.subnet and _version(item.subnet) == version]
        for item in asked or [Subnet()]:
            made = _place(item, version, pools, used, taken.routes)
            used.append(made.subnet)
            found.append(_with_gateway(made) if gateway else made)
    return network._replace(subnets=tuple(found))


def _version(text: str) -> int:
    return 6 if ":" in text else 4


def _place(item: Subnet, version: int, pools: Pools, used: list[str], routes: Iterable[str]) -> Subnet:
    size = 0
    if item.subnet:
        subnet = ipaddress.ip_network(item.subnet)
        if not subnet.network_address.is_unspecified:
            ipam.check_free(item.subnet, used)
            return item
        # 0.0.0.0/24 asks for any subnet of that size.
        size = subnet.prefixlen
        if item.ip_range:
            raise InvalidInputError("invalid pool request: a range needs a subnet")
    own = [(base, size or part) for base, part in pools if _version(base) == version]
    own = [(base, part) for base, part in own if part >= ipaddress.ip_network(base, strict=False).prefixlen]
    return item._replace(subnet=ipam.choose_subnet(own, [*used, *routes]), chosen=True)


def _with_gateway(item: Subnet) -> Subnet:
    if item.gateway:
        return item
    pool = ipam.Pool(item.subnet, ip_range=item.ip_range, reserved=item.auxiliary.values())
    try:
        return item._replace(gateway=pool.take())
    except BarqueError:
        raise ForbiddenError(f"failed to allocate gateway (): no available addresses in {item.subnet}") from None


def overlapped(network: Network, routes: Iterable[str]) -> list[tuple[str, str]]:
    """Return (subnet, route) of each route of this machine that a subnet of the network overlaps."""
    listed = [ipaddress.ip_network(item, strict=False) for item in routes]
    found = []
    for item in network.subnets:
        if not item.subnet:
            continue
        subnet = ipaddress.ip_network(item.subnet)
        found += [(item.subnet, str(other)) for other in listed if ipam.overlap(subnet, other)]
    return found


class Addresses:
    """The address pools of one network; the subnets of a family are used up one after another."""

    def __init__(self, network: Network) -> None:
        """Reserve gateways and auxiliary addresses.

        Raises:
            InvalidInputError: a subnet makes no sense.
        """
        self._name, self._id = network.name, network.id
        self._pools: dict[int, list[ipam.Pool]] = {4: [], 6: []}
        for item in network.subnets:
            reserved = [*item.auxiliary.values(), *([item.gateway] if item.gateway else [])]
            pool = ipam.Pool(item.subnet, gateway=item.gateway, ip_range=item.ip_range, reserved=reserved)
            self._pools[_version(item.subnet)].append(pool)

    def take(self, version: int, wanted: str = "") -> tuple[str, ipam.Pool] | None:
        """Return an address and its pool, None where the network has none of that version.

        Raises:
            InvalidInputError: the wanted address is in none of the subnets.
            ForbiddenError: it is in use.
            BarqueError: all addresses are in use.
        """
        pools = self._pools[version]
        if wanted:
            address = ipaddress.ip_address(wanted)
            for pool in pools:
                if address in pool.subnet:
                    return pool.take(str(address)), pool
            raise InvalidInputError(f"invalid endpoint settings:\nno configured subnet or ip-range contain the IP address {wanted}")
        if not pools:
            return None
        for pool in pools:
            if not pool.is_exhausted:
                return pool.take(), pool
        raise BarqueError(
            f"no available IPv{version} addresses on this network's address pools: {self._name} ({self._id})"
        )

    def give_back(self, address: str) -> None:
        """Make an address free again; fine where it is."""
        if not address:
            return
        parsed = ipaddress.ip_address(address)
        for pool in self._pools[parsed.version]:
            if parsed in pool.subnet:
                pool.give_back(address)

    def usage(self) -> list[tuple[str, int, int]]:
        """Return (subnet, addresses in use, addresses that may still be given) of each subnet."""
        return [(str(pool.subnet), *pool.usage()) for pools in self._pools.values() for pool in pools]
