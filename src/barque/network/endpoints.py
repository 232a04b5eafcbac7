"""One endpoint inside a container's namespace: names of interfaces, addresses, switches, default routes."""

import errno
import os
import re
from collections.abc import Iterable, Mapping, Sequence

from barque.base.errors import InvalidInputError, KernelError
from barque.kernel.netlink import namespace, route
from barque.network import ipam
from barque.network.bridge_options import is_interface_name
from barque.network.model import Endpoint, EndpointRequest

SYSCTLS, IFNAME = "com.docker.network.endpoint.sysctls", "com.docker.network.endpoint.ifname"
_SYSCTL = re.compile(r"net\.(ipv4|ipv6|mpls)\.([a-z0-9_]+)\.(?:IFNAME|ifname)\.([a-z0-9_]+)=(.*)")


def check(request: EndpointRequest) -> None:
    """Refuse driver options and MAC addresses that cannot be.

    Raises:
        InvalidInputError: names what is wrong.
    """
    parse_sysctls(request.options, "eth0")
    name = request.options.get(IFNAME, "")
    if name and (not is_interface_name(name) or name == "lo"):
        raise InvalidInputError(f"invalid interface name: {name!r}")
    if request.mac:
        try:
            raw = route.mac_bytes(request.mac)
        except ValueError:
            raise InvalidInputError(f"invalid MAC address: {request.mac}") from None
        if raw[0] & 1 or not any(raw):
            raise InvalidInputError(f"not the MAC address of one interface: {request.mac}")


def parse_sysctls(options: Mapping[str, str], interface: str) -> dict[str, str]:
    """Return the paths below /proc/sys and values that an endpoint's options ask for.

    Raises:
        InvalidInputError: a switch that is not one of an interface.
    """
    found = {}
    for text in filter(None, options.get(SYSCTLS, "").split(",")):
        match = _SYSCTL.fullmatch(text.strip())
        if match is None:
            raise InvalidInputError(
                f"unrecognised network interface sysctl '{text}'; represent 'net.X.Y.ethN.Z=V' as "
                "'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'"
            )
        found[f"net/{match[1]}/{match[2]}/{interface}/{match[3]}"] = match[4]
    return found


def choose_interface(wanted: str, prefix: str, used: Iterable[str]) -> str:
    """Return the name of the next interface: the wanted one, or the first free of a prefix.

    Raises:
        InvalidInputError: the wanted one is in use.
    """
    taken = set(used)
    if wanted:
        if wanted in taken:
            raise InvalidInputError(f"interface name {wanted} is already in use in the container")
        return wanted
    number = 0
    while f"{prefix}{number}" in taken:
        number += 1
    return f"{prefix}{number}"


def choose_mac(request: EndpointRequest, ip: str) -> str:
    """Return the wanted MAC address, that of the IPv4 address, or a random one."""
    return request.mac or (ipam.mac_of(ip) if ip else ipam.random_mac(os.urandom(4)))


def configure(space: namespace.Namespace, index: int, endpoint: Endpoint, request: EndpointRequest) -> None:
    """Bring an endpoint's interface up with its addresses.

    Raises:
        InvalidInputError: the kernel takes no such switch or value.
        KernelError: the kernel refused.
    """
    switches = _ipv6_switches(endpoint) if endpoint.ip6 else {}
    wished = parse_sysctls(request.options, endpoint.interface)
    if switches:
        namespace.write_sysctls(space.fd, switches)
    # A fixed MAC address is not known to neighbours that remember another one.
    changes = [route.bring_up(index, mac=endpoint.mac, announce=bool(request.mac or request.ip))]
    if endpoint.ip:
        changes.append(route.add_address(index, endpoint.ip, endpoint.prefix_length))
    if endpoint.ip6:
        changes.append(route.add_address(index, endpoint.ip6, endpoint.prefix_length6))
    for address in endpoint.link_local:
        changes.append(route.add_address(index, address, 64 if ":" in address else 16))
    space.connection.run(changes)
    if wished:
        try:
            namespace.write_sysctls(space.fd, wished)
        except OSError as error:
            raise InvalidInputError(f"cannot set {error.filename or 'the interface sysctl'}: {error.strerror}") from None


def _ipv6_switches(endpoint: Endpoint) -> dict[str, str]:
    """Return what IPv6 needs: no waiting for an address that nobody else can have; no router but ours, or none."""
    conf = f"net/ipv6/conf/{endpoint.interface}"
    found = {f"{conf}/accept_dad": "0"}
    if endpoint.gateway6 or endpoint.internal:
        found[f"{conf}/accept_ra"] = "0"
    return {**found, f"{conf}/disable_ipv6": "0"}


def by_gateway(endpoints: Sequence[Endpoint]) -> list[Endpoint]:
    """Return endpoints in the order in which they may give the default route, as Docker orders them."""

    def key(item: Endpoint) -> tuple[int, bool, int, str]:
        return -item.priority, item.internal, -(bool(item.gateway) + bool(item.gateway6)), item.network

    return sorted(endpoints, key=key)


def default_routes(endpoints: Sequence[Endpoint]) -> dict[int, tuple[str, str]]:
    """Return {4: (interface, gateway), 6: …} of the endpoints, without a version that has no gateway."""
    found: dict[int, tuple[str, str]] = {}
    for item in by_gateway(endpoints):
        if item.gateway:
            found.setdefault(4, (item.interface, item.gateway))
        if item.gateway6:
            found.setdefault(6, (item.interface, item.gateway6))
    return found


def set_routes(space: namespace.Namespace, routes: Mapping[int, tuple[str, str]], indexes: Mapping[str, int]) -> None:
    """Give a new namespace its default routes; indexes are those of its interfaces by name.

    Raises:
        KernelError: the kernel refused.
    """
    space.connection.run([route.add_default_route(indexes[name], gateway) for name, gateway in routes.values()])


def change_routes(
    space: namespace.Namespace, before: Mapping[int, tuple[str, str]], after: Mapping[int, tuple[str, str]]
) -> None:
    """Change a running container's default routes.

    Raises:
        KernelError: the kernel refused.
    """
    gone = (errno.ESRCH, errno.ENODEV, errno.ENETUNREACH)
    for version in (4, 6):
        old, new = before.get(version), after.get(version)
        if old == new:
            continue
        if old is not None:
            link = route.link(space.connection, old[0])
            if link is not None:
                space.connection.attempt([route.remove_default_route(link.ifindex, version)], *gone)
        if new is not None:
            link = route.link(space.connection, new[0])
            if link is None:
                raise KernelError(errno.ENODEV, "netlink", new[0])
            space.connection.attempt([route.add_default_route(link.ifindex, new[1])], errno.EEXIST)
