"""What the manager needs of a driver of networks."""

import ipaddress
from typing import Protocol

from barque.kernel.netlink.namespace import Namespace
from barque.network.bridge_options import BridgeOptions
from barque.network.firewall import BridgeRules
from barque.network.model import Network
from barque.network.pool import Wire


class Driver(Protocol):
    """Makes the interfaces of one kind of network.

    `publishes`: ports of this machine may lead into its containers. `own_mac`: each interface has a MAC address of its
    own; else it has that of its parent, which nobody can choose.
    """

    publishes: bool
    own_mac: bool

    def prepare(self, network: Network) -> Network:
        """Check a new network's options and return it, completed where the driver decides.

        Raises:
            InvalidInputError: an option cannot be.
            ForbiddenError: it collides with another network.
            UnsupportedError: this kernel has no such networks.
        """
        ...

    def gateways(self, network: Network) -> tuple[bool, bool]:
        """Tell whether its IPv4 and IPv6 subnets need a gateway."""
        ...

    def open(self, network: Network) -> None:
        """Make what the network needs on this machine, or find it again.

        Raises:
            BarqueError: an interface is missing or of another kind.
            KernelError: the kernel refused; nothing is left behind.
        """
        ...

    def close(self, network: Network) -> None:
        """Remove what open() made; fine where it is gone."""
        ...

    def plug(self, network: Network, space: Namespace, interface: str, mac: str) -> Wire:
        """Make an interface of this name in a namespace, down.

        Raises:
            KernelError: the kernel refused; nothing is left behind.
        """
        ...

    def default_gateways(self, network: Network, ip: str, ip6: str) -> tuple[str, str]:
        """Return the gateways of an endpoint with these addresses, empty where it has none."""
        ...

    def settings(self, network: Network) -> BridgeOptions:
        """Return how ports are published and interfaces named."""
        ...

    def rules(self, network: Network) -> BridgeRules | None:
        """Return what the firewall must know, None where it need not know the network."""
        ...


def gateway_of(network: Network, address: str) -> str:
    """Return the gateway of the subnet that an address is of, empty where there is none."""
    if not address:
        return ""
    parsed = ipaddress.ip_address(address)
    for item in network.subnets:
        subnet = ipaddress.ip_network(item.subnet)
        if subnet.version == parsed.version and parsed in subnet:
            return item.gateway
    return ""


def prefix_length_of(network: Network, address: str) -> int:
    """Return the prefix length of the subnet that an address is of, 0 for no address."""
    if not address:
        return 0
    parsed = ipaddress.ip_address(address)
    for item in network.subnets:
        subnet = ipaddress.ip_network(item.subnet)
        if subnet.version == parsed.version and parsed in subnet:
            return subnet.prefixlen
    return parsed.max_prefixlen
