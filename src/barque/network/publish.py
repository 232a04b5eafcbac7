"""Who carries a published port: the firewall, or the userland proxy. Pure."""

import ipaddress
from collections.abc import Collection, Iterable
from typing import NamedTuple, Protocol

from barque.base.errors import InvalidInputError
from barque.network import ports
from barque.network.bridge_options import BridgeOptions
from barque.network.firewall import Forward
from barque.network.model import NetworkOptions, PortBinding, PortRequest

RESPECT_HOST = "respect-host"


class Proxied(NamedTuple):
    """A reserved socket whose traffic the userland proxy carries to (address, port).

    With a mark the proxy's sockets speak as the client and bear it. Clients in the subnets `near` are answered without
    a way through this machine, so that the proxy must speak for itself to be answered.
    """

    reservation: ports.Reservation
    address: str
    port: int
    mark: int = 0
    near: tuple[str, ...] = ()

    def keeps(self, client: str) -> bool:
        """Tell whether the container can see this client's own address."""
        found = ipaddress.ip_address(client.partition("%")[0])
        return bool(self.mark) and found.version == ipaddress.ip_address(self.address).version and not (
            found.is_loopback or found.is_link_local or any(found in ipaddress.ip_network(item) for item in self.near)
        )  # fmt: skip


class Proxy(Protocol):
    """Carries what the firewall cannot; the manager keeps owning the sockets."""

    def start(self, container_id: str, sockets: list[Proxied]) -> None:
        """Serve the sockets."""
        ...

    def stop(self, container_id: str, bindings: Collection[PortBinding] | None = None) -> None:
        """Stop serving these of a container's sockets, or all; called before they are closed."""
        ...


class Target(NamedTuple):
    """The container's side of published ports: its addresses in one network, that network's settings and subnets.

    `through_us` where the container's way to others is this machine.
    """

    ip: str
    ip6: str
    settings: BridgeOptions
    subnets: tuple[str, ...] = ()
    through_us: bool = False

    def routed(self, version: int) -> bool:
        """Tell whether its ports of an IP version are reached at its own address, not at this machine's."""
        return bool(self.ip6 if version == 6 else self.ip) and \
            (self.settings.mode6 if version == 6 else self.settings.mode4) == "routed"  # fmt: skip


def carried_by_proxy(options: NetworkOptions) -> bool:
    """Tell whether all published ports go through the proxy, so that the host's own rules hold for them."""
    return options.firewall == RESPECT_HOST


def host_addresses(item: PortRequest, options: NetworkOptions, target: Target) -> list[str]:
    """Return the host addresses that a port is bound on; none where the container is reached directly.

    Raises:
        InvalidInputError: a host address that neither firewall nor proxy can serve.
    """
    proxied = options.userland_proxy or carried_by_proxy(options)
    led6 = bool(target.ip6 and options.iptables and options.ip6tables)
    host = item.host_ip or target.settings.host_binding or options.host_ip
    if ":" in host and not (proxied or led6):
        raise InvalidInputError(
            f"cannot publish on {host}: the container has no IPv6 address and the userland proxy is switched off"
        )
    if host and ":" not in host and not (proxied or target.ip):
        raise InvalidInputError(
            f"cannot publish on {host}: the container has no IPv4 address and the userland proxy is switched off"
        )
    hosts = [host]
    if host in ("", "0.0.0.0") and not item.host_ip:
        both = host == "" and (proxied or led6) and ports.host_has_ipv6()
        hosts = ["0.0.0.0", "::"] if both else ["0.0.0.0"]
        if not target.ip and not proxied:
            hosts.remove("0.0.0.0")
    return [host for host in hosts if not target.routed(ipaddress.ip_address(host).version)]


def forwards(
    reservations: Iterable[ports.Reservation], options: NetworkOptions, target: Target
) -> list[Forward]:  # fmt: skip
    """Return what the firewall leads to a container from this machine's addresses."""
    if not options.iptables or carried_by_proxy(options):
        return []
    found = []
    for item in reservations:
        v6 = ":" in item.binding.host_ip
        address = target.ip6 if v6 else target.ip
        if address and (not v6 or options.ip6tables):
            found.append(Forward(item.binding, address))
    return found


def directs(requests: Iterable[PortRequest], options: NetworkOptions, target: Target) -> list[Forward]:
    """Return the published ports that are reached at the container's own addresses."""
    found = []
    for item in requests:
        for version, address in ((4, target.ip), (6, target.ip6)):
            wanted = target.routed(version) or (options.direct_routing and address)
            if wanted and options.iptables and (version == 4 or options.ip6tables):
                binding = PortBinding(item.container_port, item.protocol, address, 0)
                found.append(Forward(binding, address, direct=True))
    return list(dict.fromkeys(found))


def unled(
    reservations: Iterable[ports.Reservation], led: list[Forward], target: Target, mark: int = 0
) -> list[Proxied]:  # fmt: skip
    """Return what the proxy must carry: all IPv6 sockets, since ::1 is never led, and the rest.

    Args:
        reservations: all ports of a container.
        led: what the firewall leads.
        target: where to.
        mark: of sockets that speak as the client, 0 for none.
    """
    by_firewall = {item.binding for item in led if ":" not in item.binding.host_ip}
    found = []
    for item in reservations:
        if item.binding not in by_firewall:
            same = target.ip6 if ":" in item.binding.host_ip and mark else ""
            address = same or target.ip or target.ip6
            own_mark = mark if target.through_us else 0
            found.append(Proxied(item, address, item.binding.container_port, own_mark, target.subnets))
    return found
