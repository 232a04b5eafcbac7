"""Who carries a published port: the firewall, or the userland proxy. Pure."""

from typing import NamedTuple, Protocol

from barque.base.errors import InvalidInputError
from barque.network import ports
from barque.network.firewall import Forward
from barque.network.model import NetworkOptions, PortRequest


class Proxied(NamedTuple):
    """A reserved socket whose traffic the userland proxy carries to (address, port)."""

    reservation: ports.Reservation
    address: str
    port: int


class Proxy(Protocol):
    """Carries what the firewall cannot; the manager keeps owning the sockets."""

    def start(self, container_id: str, sockets: list[Proxied]) -> None:
        """Serve the sockets."""
        ...

    def stop(self, container_id: str) -> None:
        """Stop serving them; called before they are closed."""
        ...


def host_addresses(item: PortRequest, options: NetworkOptions, *, has_ipv6: bool) -> list[str]:
    """Return the host addresses that a port is bound on.

    Raises:
        InvalidInputError: an IPv6 host address that neither firewall nor proxy can serve.
    """
    carried6 = options.userland_proxy or (has_ipv6 and options.iptables and options.ip6tables)
    host = item.host_ip or options.host_ip
    if ":" in host and not carried6:
        raise InvalidInputError(
            f"cannot publish on {host}: the container has no IPv6 address and the userland proxy is switched off"
        )
    if item.host_ip or host not in ("", "0.0.0.0"):
        return [host]
    if host == "" and carried6 and ports.host_has_ipv6():
        return ["0.0.0.0", "::"]
    return ["0.0.0.0"]


def forwards(
    reservations: list[ports.Reservation], options: NetworkOptions, addresses: tuple[str, str]
) -> list[Forward]:
    """Return what the firewall leads to a container; addresses are its IPv4 and IPv6 ones."""
    if not options.iptables:
        return []
    return [
        Forward(item.binding, addresses[":" in item.binding.host_ip])
        for item in reservations
        if ":" not in item.binding.host_ip or (addresses[1] and options.ip6tables)
    ]


def unled(reservations: list[ports.Reservation], led: list[Forward], address: str) -> list[Proxied]:
    """Return what the proxy must carry: all IPv6 sockets, since ::1 is never led, and the rest."""
    by_firewall = {item.binding for item in led if ":" not in item.binding.host_ip}
    return [
        Proxied(item, address, item.binding.container_port) for item in reservations if item.binding not in by_firewall
    ]
