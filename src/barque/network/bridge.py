"""Bridges: the name and subnet of the default one; addresses, and the switches of the kernel they need."""

import errno
import hashlib
import ipaddress
import logging
import os
from collections.abc import Iterable
from typing import NamedTuple

from barque.base.errors import InvalidInputError
from barque.kernel.netlink import route
from barque.kernel.netlink.connection import Connection
from barque.network import ipam
from barque.network.model import NetworkOptions

log = logging.getLogger(__name__)

_DEFAULT_NAME = "barque"
_DEFAULT_MTU = 1500
_MAX_BRIDGES = 100


class Bridge(NamedTuple):
    """A bridge as it stands; `made` tells that it is ours to delete. Addresses are empty where it has none."""

    name: str
    ifindex: int
    mtu: int
    address: str
    prefix_length: int
    address6: str
    prefix_length6: int
    made: bool
    mac: str = ""


def choose_name(connection: Connection, wanted: str, earlier: str, alias: str) -> str:
    """Return the bridge's name: the wanted one, the earlier one, or the first free barque<n>.

    Raises:
        InvalidInputError: the wanted name is no interface name, or no bridge has it.
    """
    if wanted:
        if not 0 < len(wanted.encode()) < 16 or "/" in wanted or wanted != wanted.strip():
            raise InvalidInputError(f"invalid bridge name: {wanted!r}")
        found = route.link(connection, wanted)
        if found is not None and found.kind != "bridge":
            raise InvalidInputError(f"{wanted} is an interface, but not a bridge")
        return wanted
    names = [f"{_DEFAULT_NAME}{number}" for number in range(_MAX_BRIDGES)]
    for name in [earlier, *names] if earlier else names:
        found = route.link(connection, name)
        if found is None or found.alias == alias:
            return name
    raise InvalidInputError("no free name for the default bridge: choose one with --bridge")


def choose_address(
    connection: Connection, name: str, options: NetworkOptions, earlier: str, reserved: Iterable[str] = ()
) -> str:
    """Return the bridge's IPv4 address with prefix length.

    `--bip` wins, then what an existing bridge has, then the earlier choice, then the first pool
    that no route of this machine and none of the reserved subnets overlaps.

    Raises:
        InvalidInputError: --bip is no address of a network.
    """
    if options.bip:
        try:
            wish = ipaddress.IPv4Interface(options.bip)
        except ValueError:
            raise InvalidInputError(f"invalid CIDR address: {options.bip}") from None
        if wish.network.prefixlen < 31 and wish.ip == wish.network.network_address:
            raise InvalidInputError(f"--bip is the network itself, not an address: {options.bip}")
        return str(wish)
    found = route.link(connection, name)
    if found is not None:
        for address, size in route.addresses(connection, found.ifindex):
            if ":" not in address:
                return f"{address}/{size}"
    taken = route.destinations(connection)
    if earlier:
        near = ipaddress.ip_network(earlier, strict=False)
        if not any(near.overlaps(other) for other in map(_network4, taken) if other):
            return earlier
    pools = [item for item in options.default_address_pools if ":" not in item[0]] or ipam.DEFAULT_POOLS
    subnet = ipaddress.ip_network(ipam.choose_subnet(pools, [*taken, *reserved]))
    return f"{subnet.network_address + 1}/{subnet.prefixlen}"


def _network4(text: str) -> ipaddress.IPv4Network | None:
    network = ipaddress.ip_network(text, strict=False)
    return network if isinstance(network, ipaddress.IPv4Network) else None


def group_of(alias: str) -> int:
    """Return the group of interfaces that a bridge is in until it bears the alias."""
    return int.from_bytes(hashlib.sha256(alias.encode()).digest()[:4], "big") >> 1 | 1


def set_up(
    connection: Connection, name: str, addresses: Iterable[str], *, mtu: int, alias: str, mac: str = ""
) -> Bridge:
    """Make the bridge unless it is there, give it its addresses, bring it up.

    Raises:
        InvalidInputError: an interface of another kind has the name.
        KernelError: the kernel refused.
    """
    listed = [ipaddress.ip_interface(item) for item in addresses if item]
    found = route.link(connection, name)
    if found is not None and found.kind != "bridge":
        raise InvalidInputError(f"{name} is an interface, but not a bridge")
    if found is None:
        mac = mac or "02:" + os.urandom(5).hex(":")
        size = mtu or _DEFAULT_MTU
        connection.run([route.add_bridge(name, mtu=size, mac=mac, group=group_of(alias))])
        found = route.link(connection, name)
        assert found is not None
        # A new link takes no alias, one that exists does. Until then its group tells whose it is, if we die here.
        connection.run([route.bring_up(found.ifindex, alias=alias)])
        found = found._replace(alias=alias)
    v6 = any(item.version == 6 for item in listed)
    if v6:
        # Else the bridge asks for no neighbour until it is sure of its own address, a second or two.
        write_sysctl(f"net/ipv6/conf/{name}/accept_dad", "0")
        write_sysctl(f"net/ipv6/conf/{name}/disable_ipv6", "0")
    changes = [route.add_address(found.ifindex, str(i.ip), i.network.prefixlen) for i in listed]
    connection.attempt([route.bring_up(found.ifindex), *changes], errno.EEXIST)
    four = next((item for item in listed if item.version == 4), None)
    six = next((item for item in listed if item.version == 6), None)
    return Bridge(
        name=name,
        ifindex=found.ifindex,
        mtu=mtu or found.mtu,
        address=str(four.ip) if four else "",
        prefix_length=four.network.prefixlen if four else 0,
        address6=str(six.ip) if six else "",
        prefix_length6=six.network.prefixlen if six else 0,
        made=found.alias == alias,
        mac=found.mac,
    )


def open_ways(connection: Connection, bridge: Bridge, options: NetworkOptions) -> None:
    """Switch on forwarding where allowed and off, and loopback's way into the bridge."""
    if options.iptables:
        write_sysctl(f"net/ipv4/conf/{bridge.name}/route_localnet", "1")
    if not options.ip_forward:
        return
    if write_sysctl("net/ipv4/ip_forward", "1"):
        log.info("switched on IPv4 forwarding, which containers need to reach other networks")
    if bridge.address6:
        _keep_routers(connection)
        if write_sysctl("net/ipv6/conf/all/forwarding", "1"):
            log.info("switched on IPv6 forwarding, which containers need to reach other networks")


def _keep_routers(connection: Connection) -> None:
    """Let interfaces that routers tell of themselves listen on: the kernel makes those that forward forget them.

    Only where a router was heard: on a bridge a container could play one. accept_ra 1 means "unless this machine
    forwards", 2 "even then" (Documentation/networking/ip-sysctl.rst).
    """
    heard = route.taught_by_routers(connection)
    for link in route.links(connection) if heard else ():
        if link.ifindex in heard and read_sysctl(f"net/ipv6/conf/{link.name}/accept_ra") == "1":
            write_sysctl(f"net/ipv6/conf/{link.name}/accept_ra", "2")


def firewall_sees_frames() -> bool:
    """Tell whether frames that a bridge passes on go through the firewall, which then keeps containers apart.

    Where they do, ports may not be isolated as well: what the firewall leads back into the bridge it came
    from does not pass through the machine then, and would be dropped.
    """
    names = ("bridge-nf-call-iptables", "bridge-nf-call-ip6tables")
    return all(read_sysctl(f"net/bridge/{name}") == "1" for name in names)


def read_sysctl(name: str) -> str:
    """Return the value of a kernel switch, empty where there is no such switch."""
    try:
        with open(f"/proc/sys/{name}", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def write_sysctl(name: str, value: str) -> bool:
    """Set a kernel switch; return whether it had another value."""
    path = f"/proc/sys/{name}"
    try:
        with open(path, encoding="ascii") as file:
            if file.read().strip() == value:
                return False
        with open(path, "w", encoding="ascii") as file:
            file.write(value)
    except OSError as error:
        log.warning("cannot set %s to %s: %s", name.replace("/", "."), value, error)
        return False
    return True


def remove(connection: Connection, bridge: Bridge, *, force: bool = False) -> None:
    """Delete the bridge if we made it and nothing is in it; with force ports that wait for their removal do not count."""
    if not bridge.made:
        return
    found = route.link_at(connection, bridge.ifindex)
    if found is None or found.name != bridge.name:
        return
    if not force and any(item.master == bridge.ifindex for item in route.links(connection)):
        return
    connection.attempt([route.remove_link(bridge.ifindex)], errno.ENODEV)
