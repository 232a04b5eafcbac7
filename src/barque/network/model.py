"""Values that cross the border of the network room; nothing here touches the kernel."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from barque.network.resolving import Upstream

Json = dict[str, Any]


class NetworkOptions(NamedTuple):
    """What the daemon's flags say about networks; empty text and None mean "choose".

    `bridge` is the name of the default bridge ("none": no default bridge). `bip` is the bridge's
    own address with its prefix length, `fixed_cidr` the range that containers get addresses of,
    `host_ip` the address that ports are published on where the request names none. `table` is the
    name of our nftables table; `mtu` is in bytes, 0 means 1500. `firewall` is "respect-host" where published
    ports are to obey the host's own rules for incoming packets; with `direct_routing` other machines
    reach published ports at containers' addresses too; packets whose mark, cut by the mask, is that of
    `accept_mark` reach all containers. `default_network_options` are options of new networks by driver.
    """

    bridge: str = ""
    bip: str = ""
    bip6: str = ""
    fixed_cidr: str = ""
    fixed_cidr_v6: str = ""
    default_gateway: str = ""
    ipv6: bool = False
    mtu: int = 0
    icc: bool = True
    ip_forward: bool = True
    ip_masq: bool = True
    iptables: bool = True
    ip6tables: bool = True
    userland_proxy: bool = True
    host_ip: str = ""
    table: str = ""
    default_address_pools: tuple[tuple[str, int], ...] = ()
    pool_size: int = 8
    firewall: str = ""
    default_gateway6: str = ""
    direct_routing: bool = False
    accept_mark: tuple[int, int] | None = None
    default_network_options: Mapping[str, Mapping[str, str]] = {}


class PortRequest(NamedTuple):
    """A container port to publish; host_port 0 asks for an ephemeral one, else the first free of a range."""

    container_port: int
    protocol: str
    host_ip: str = ""
    host_port: int = 0
    host_port_end: int = 0


class PortBinding(NamedTuple):
    """A published port as it is bound on the host."""

    container_port: int
    protocol: str
    host_ip: str
    host_port: int


class Subnet(NamedTuple):
    """One subnet of a network; texts are empty where nothing was asked for or given yet.

    `auxiliary` are addresses that are kept free, by name; a network of the driver bridge takes the default
    gateway of its containers from the names DefaultGatewayIPv4 and DefaultGatewayIPv6. `chosen` where the engine
    chose the subnet: addresses may be asked for by hand only in those that the user chose.
    """

    subnet: str = ""
    ip_range: str = ""
    gateway: str = ""
    auxiliary: Mapping[str, str] = {}
    chosen: bool = False


class Network(NamedTuple):
    """A network as it was asked for, its subnets filled in."""

    id: str
    name: str
    driver: str
    created_ns: int
    ipv4: bool = True
    ipv6: bool = False
    internal: bool = False
    attachable: bool = False
    config_only: bool = False
    config_from: str = ""
    options: Mapping[str, str] = {}
    labels: Mapping[str, str] = {}
    ipam_driver: str = "default"
    ipam_options: Mapping[str, str] | None = None
    subnets: tuple[Subnet, ...] = ()

    @property
    def is_predefined(self) -> bool:
        """Tell whether it is one of bridge, host and none."""
        return self.name in ("bridge", "host", "none")

    @property
    def is_default_bridge(self) -> bool:
        """Tell whether it is the network of containers that name none."""
        return self.name == "bridge"


class Endpoint(NamedTuple):
    """One container's place in one network.

    `netns_fd` belongs to the manager and stays open until release(); it is -1 for an endpoint
    that was found again after a restart of the daemon. `ports` are those published through it.
    """

    container_id: str
    container_name: str
    network: str
    network_id: str
    endpoint_id: str
    netns_fd: int
    interface: str
    host_interface: str
    ip: str
    prefix_length: int
    gateway: str
    mac: str
    ip6: str
    prefix_length6: int
    gateway6: str
    ports: tuple[PortBinding, ...] = ()
    priority: int = 0
    link_local: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    links: Mapping[str, str] = {}
    internal: bool = False


class EndpointRequest(NamedTuple):
    """What is asked of one endpoint: fixed addresses, driver options, names, the order of gateways.

    `network` is a name or an id. `links` maps names to the names that are meant, for this container
    alone.
    """

    network: str = "bridge"
    mac: str = ""
    ip: str = ""
    ip6: str = ""
    link_local: tuple[str, ...] = ()
    options: Mapping[str, str] = {}
    priority: int = 0
    names: tuple[str, ...] = ()
    links: Mapping[str, str] = {}


class SandboxRequest(NamedTuple):
    """What a container asks for at its start: its endpoints in the order of their interfaces, its ports."""

    container_id: str
    container_name: str
    endpoints: tuple[EndpointRequest, ...] = (EndpointRequest(),)
    ports: tuple[PortRequest, ...] = ()
    upstreams: tuple[Upstream, ...] = ()
    dns_options: tuple[str, ...] = ()


class Sandbox(NamedTuple):
    """A container's network namespace with its endpoints in the order of their interfaces.

    `netns_fd` is as an endpoint's. The first of `by_gateway` (endpoint ids) gives the default route.
    """

    container_id: str
    netns_fd: int
    endpoints: tuple[Endpoint, ...]
    by_gateway: tuple[str, ...] = ()

    @property
    def ports(self) -> tuple[PortBinding, ...]:
        """Return all published ports."""
        return tuple(port for endpoint in self.endpoints for port in endpoint.ports)

    def named(self, network: str) -> Endpoint | None:
        """Return the endpoint in a network of this name."""
        return next((item for item in self.endpoints if item.network == network), None)
