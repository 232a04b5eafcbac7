"""Values that cross the border of the network room; nothing here touches the kernel."""

from collections.abc import Mapping
from typing import Any, NamedTuple

Json = dict[str, Any]


class NetworkOptions(NamedTuple):
    """What the daemon's flags say about networks; empty text and None mean "choose".

    `bridge` is the name of the default bridge ("none": no default bridge). `bip` is the bridge's
    own address with its prefix length, `fixed_cidr` the range that containers get addresses of,
    `host_ip` the address that ports are published on where the request names none. `table` is the
    name of our nftables table; `mtu` is in bytes, 0 means 1500.
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


class Endpoint(NamedTuple):
    """One container's place in one network.

    `netns_fd` belongs to the manager and stays open until release(); it is -1 for an endpoint
    that was found again after a restart of the daemon.
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
    ports: tuple[PortBinding, ...]


class EndpointRequest(NamedTuple):
    """What allocate() needs to know of a container."""

    container_id: str
    container_name: str
    network: str = "bridge"
    ports: tuple[PortRequest, ...] = ()
    mac: str = ""
    ip: str = ""
    ip6: str = ""
    settings: Mapping[str, Any] = {}  # the request's EndpointConfig, read only
