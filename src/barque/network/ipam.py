"""Addresses: which subnet is free, which address is free in it. Pure.

The lowest free address is handed out first; network, broadcast, gateway and auxiliary addresses
never are.
"""

import functools
import heapq
import ipaddress
from collections.abc import Iterable

from barque.base.errors import BarqueError, ForbiddenError, InvalidInputError

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

# The order in which networks without a wish get their subnets.
DEFAULT_POOLS: tuple[tuple[str, int], ...] = (
    *((f"172.{second}.0.0/16", 16) for second in range(17, 32)),
    ("192.168.0.0/16", 20),
)


def choose_subnet(pools: Iterable[tuple[str, int]], taken: Iterable[str]) -> str:
    """Return the first subnet of the pools, each (range, prefix length), that overlaps none taken.

    Raises:
        InvalidInputError: none is left.
    """
    used = sorted(map(_span, taken))
    for base, size in pools:
        version, first, last = _span(base)
        step = 1 << ((32 if version == 4 else 128) - size)
        for other, low, high in used:
            if other != version or high < first:
                continue
            if low >= first + step:
                break
            first = (high // step + 1) * step
        if first + step - 1 <= last:
            return f"{_address(first, version)}/{size}"
    raise InvalidInputError("all predefined address pools have been fully subnetted")


@functools.lru_cache(maxsize=1 << 14)
def _span(subnet: str) -> tuple[int, int, int]:
    """Return the version and the first and last address of a subnet."""
    network = ipaddress.ip_network(subnet, strict=False)
    return network.version, int(network.network_address), int(network.broadcast_address)


def check_free(subnet: str, taken: Iterable[str]) -> None:
    """Refuse a subnet that overlaps one of those taken.

    Raises:
        ForbiddenError: it does.
    """
    version, first, last = _span(subnet)
    for other, low, high in map(_span, taken):
        if other == version and low <= last and high >= first:
            raise ForbiddenError("invalid pool request: Pool overlaps with other one on this address space")


def overlap(one: IPNetwork, other: IPNetwork) -> bool:
    """Tell whether two networks of one IP version share an address."""
    if isinstance(one, ipaddress.IPv4Network) and isinstance(other, ipaddress.IPv4Network):
        return one.overlaps(other)
    if isinstance(one, ipaddress.IPv6Network) and isinstance(other, ipaddress.IPv6Network):
        return one.overlaps(other)
    return False


class Pool:
    """The addresses of one subnet."""

    def __init__(self, subnet: str, *, gateway: str = "", ip_range: str = "",
                 reserved: Iterable[str] = ()) -> None:  # fmt: skip
        """Take subnet's addresses, or those of ip_range alone; without a gateway none is kept free for it.

        Raises:
            InvalidInputError: the range or gateway is not of the subnet, or text is no address.
        """
        try:
            self.subnet = ipaddress.ip_network(subnet, strict=False)
            span = ipaddress.ip_network(ip_range or subnet, strict=False)
            first = int(self.subnet.network_address)
            gate = int(ipaddress.ip_address(gateway)) if gateway else 0
            held = {int(ipaddress.ip_address(item)) for item in reserved}
        except ValueError as error:
            raise InvalidInputError(f"invalid network configuration: {error}") from None
        last = int(self.subnet.broadcast_address)
        if span.version != self.subnet.version or not first <= int(span[0]) <= int(span[-1]) <= last:
            raise InvalidInputError(f"no matching subnet for range {ip_range}")
        if gateway and not first <= gate <= last:
            raise InvalidInputError(f"no matching subnet for gateway {gateway}")
        self.gateway = str(self._address(gate)) if gateway else ""
        self._low, self._high = int(span[0]), int(span[-1])
        self._never = {number for number in held if first <= number <= last}
        if gateway:
            self._never.add(gate)
        # A /31 or /32 has neither network nor broadcast address.
        if last - first > 1:
            self._never |= {first, last} if self.subnet.version == 4 else {first}
        self._used: set[int] = set()
        self._next = self._low
        # A heap of what was given back, some of which was asked for by number since; the set knows what is in it.
        self._returned: list[int] = []
        self._listed: set[int] = set()

    @property
    def prefix_length(self) -> int:
        """Number of bits of the network's part."""
        return self.subnet.prefixlen

    def take(self, wanted: str = "") -> str:
        """Return the lowest free address, or the wanted one.

        Raises:
            ForbiddenError: the wanted address is in use.
            BarqueError: none is free.
            InvalidInputError: the wanted one is not of this subnet.
        """
        if wanted:
            return self._take_exactly(wanted)
        while self._returned and self._returned[0] < self._next:
            number = self._next_returned()
            if number not in self._used:
                self._used.add(number)
                return str(self._address(number))
        while self._next <= self._high:
            number = self._next
            self._next += 1
            if number not in self._used and number not in self._never:
                self._used.add(number)
                return str(self._address(number))
        raise BarqueError(f"no available IPv{self.subnet.version} addresses on this network's address pools")

    def give_back(self, address: str) -> None:
        """Make an address free again; fine where it is."""
        number = int(ipaddress.ip_address(address))
        if number in self._used:
            self._used.remove(number)
            if self._low <= number < self._next and number not in self._listed:
                heapq.heappush(self._returned, number)
                self._listed.add(number)

    def _next_returned(self) -> int:
        number = heapq.heappop(self._returned)
        self._listed.remove(number)
        return number

    @property
    def is_exhausted(self) -> bool:
        """Tell whether take() would find none."""
        while self._returned and (self._returned[0] >= self._next or self._returned[0] in self._used):
            self._next_returned()
        while self._next <= self._high and (self._next in self._used or self._next in self._never):
            self._next += 1
        return not self._returned and self._next > self._high

    def used(self) -> int:
        """Return how many addresses are handed out."""
        return len(self._used)

    def usage(self) -> tuple[int, int]:
        """Return how many addresses of the subnet are in use, reserved ones too, and how many of the range are not."""
        busy = self._used | self._never
        within = sum(self._low <= number <= self._high for number in busy)
        return len(busy), self._high - self._low + 1 - within

    def _take_exactly(self, wanted: str) -> str:
        try:
            address = ipaddress.ip_address(wanted)
        except ValueError:
            raise InvalidInputError(f"invalid IP address: {wanted}") from None
        if address.version != self.subnet.version or address not in self.subnet:
            raise InvalidInputError(f"no configured subnet or ip-range contain the IP address {wanted}")
        number = int(address)
        if number in self._used or number in self._never:
            raise ForbiddenError("Address already in use")
        self._used.add(number)
        return str(address)

    def _address(self, number: int) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
        return _address(number, self.subnet.version)


def _address(number: int, version: int) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.IPv4Address(number) if version == 4 else ipaddress.IPv6Address(number)


def mac_of(address: str) -> str:
    """Return the MAC address that belongs to an IPv4 address, locally administered.

    Who gets an address of another gets its MAC too, so neighbours' caches stay right.
    """
    return "02:42:" + ipaddress.IPv4Address(address).packed.hex(":")


def random_mac(seed: bytes) -> str:
    """Return a locally administered MAC address made of four random bytes."""
    return "02:42:" + seed[:4].hex(":")
