"""What inspect shows of networks and endpoints, in the shape of the newest API. Pure."""

import ipaddress
from collections.abc import Iterable

from barque.network.bridge import Bridge
from barque.network.model import Endpoint, Json, NetworkOptions, PortRequest

_OPTION = "com.docker.network.bridge."


def network(
    name: str, row: Json, endpoints: Iterable[Endpoint], bridge: Bridge | None,
    options: NetworkOptions,
) -> Json:  # fmt: skip
    """Return one network as `network inspect` shows it."""
    configs: list[Json] = []
    shown: dict[str, str] = {}
    ipv6 = False
    if name == "bridge" and bridge is not None:
        configs = _ipam(bridge, options)
        shown = _bridge_options(bridge, options)
        ipv6 = bool(bridge.address6)
    return {
        "Name": name,
        "Id": row["id"],
        "Created": row["created"],
        "Scope": "local",
        "Driver": row["driver"],
        "EnableIPv4": True,
        "EnableIPv6": ipv6,
        "IPAM": {"Driver": "default", "Options": None, "Config": configs or None},
        "Internal": False,
        "Attachable": False,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {item.container_id: _member(item) for item in endpoints},
        "Options": shown,
        "Labels": {},
    }


def _ipam(bridge: Bridge, options: NetworkOptions) -> list[Json]:
    subnet = ipaddress.ip_network((bridge.address, bridge.prefix_length), strict=False)
    first: Json = {"Subnet": str(subnet)}
    if options.fixed_cidr:
        first["IPRange"] = options.fixed_cidr
    first["Gateway"] = bridge.address
    if options.default_gateway:
        first["AuxiliaryAddresses"] = {"DefaultGatewayIPv4": options.default_gateway}
    if not bridge.address6:
        return [first]
    subnet6 = ipaddress.ip_network((bridge.address6, bridge.prefix_length6), strict=False)
    return [first, {"Subnet": str(subnet6), "Gateway": bridge.address6}]


def _bridge_options(bridge: Bridge, options: NetworkOptions) -> dict[str, str]:
    def flag(value: bool) -> str:
        return "true" if value else "false"

    return {
        _OPTION + "default_bridge": "true",
        _OPTION + "enable_icc": flag(options.icc),
        _OPTION + "enable_ip_masquerade": flag(options.ip_masq),
        _OPTION + "host_binding_ipv4": options.host_ip or "0.0.0.0",
        _OPTION + "name": bridge.name,
        "com.docker.network.driver.mtu": str(bridge.mtu),
    }


def _member(endpoint: Endpoint) -> Json:
    return {
        "Name": endpoint.container_name,
        "EndpointID": endpoint.endpoint_id,
        "MacAddress": endpoint.mac,
        "IPv4Address": f"{endpoint.ip}/{endpoint.prefix_length}" if endpoint.ip else "",
        "IPv6Address": f"{endpoint.ip6}/{endpoint.prefix_length6}" if endpoint.ip6 else "",
    }


def network_settings(
    endpoint: Endpoint | None, *, network_mode: str, network_id: str = "", sandbox_id: str = "",
    sandbox_key: str = "", bridge_name: str = "", exposed: Iterable[str] = (),
    settings: Json | None = None,
) -> Json:  # fmt: skip
    """Return NetworkSettings of a container's inspect.

    Args:
        endpoint: its live endpoint; None where it does not run or has no network of its own.
        network_mode: the network's name, or "container:<id>".
        network_id: id of that network, shown while the container does not run too.
        sandbox_id: 64 digits that name the namespace, empty while it does not run.
        sandbox_key: path of the namespace.
        bridge_name: shown as Bridge; Docker leaves it empty.
        exposed: the ports of its configuration ("80/tcp").
        settings: the endpoint's settings of the request (aliases, links, driver options).
    """
    networks: Json = {}
    if not network_mode.startswith("container:"):
        name = "bridge" if network_mode == "default" else network_mode
        networks[name] = endpoint_settings(endpoint, network_id, settings or {})
    main = endpoint_settings(endpoint, network_id, {})
    return {
        "Bridge": bridge_name,
        "SandboxID": sandbox_id,
        "SandboxKey": sandbox_key,
        "Ports": port_map(endpoint, exposed) if endpoint is not None or sandbox_id else {},
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        "EndpointID": main["EndpointID"],
        "Gateway": main["Gateway"],
        "GlobalIPv6Address": main["GlobalIPv6Address"],
        "GlobalIPv6PrefixLen": main["GlobalIPv6PrefixLen"],
        "IPAddress": main["IPAddress"],
        "IPPrefixLen": main["IPPrefixLen"],
        "IPv6Gateway": main["IPv6Gateway"],
        "MacAddress": main["MacAddress"],
        "Networks": networks,
    }


def endpoint_settings(endpoint: Endpoint | None, network_id: str, settings: Json) -> Json:
    """Return one entry of NetworkSettings.Networks."""
    live = endpoint is not None
    return {
        "IPAMConfig": settings.get("IPAMConfig"),
        "Links": settings.get("Links"),
        "Aliases": settings.get("Aliases"),
        "MacAddress": endpoint.mac if endpoint else settings.get("MacAddress", ""),
        "DriverOpts": settings.get("DriverOpts"),
        "GwPriority": settings.get("GwPriority", 0),
        "NetworkID": endpoint.network_id if endpoint else network_id,
        "EndpointID": endpoint.endpoint_id if endpoint else "",
        "Gateway": endpoint.gateway if endpoint else "",
        "IPAddress": endpoint.ip if endpoint else "",
        "IPPrefixLen": endpoint.prefix_length if endpoint else 0,
        "IPv6Gateway": endpoint.gateway6 if endpoint else "",
        "GlobalIPv6Address": endpoint.ip6 if endpoint else "",
        "GlobalIPv6PrefixLen": endpoint.prefix_length6 if endpoint and endpoint.ip6 else 0,
        "DNSNames": settings.get("DNSNames") if live else None,
    }


def port_map(endpoint: Endpoint | None, exposed: Iterable[str]) -> Json:
    """Return {"80/tcp": [{"HostIp", "HostPort"}, …]}; ports that are not published have None."""
    found: Json = {}
    for spec in exposed:
        number, _, protocol = spec.partition("/")
        found[f"{number}/{protocol or 'tcp'}"] = None
    for item in endpoint.ports if endpoint is not None else ():
        key = f"{item.container_port}/{item.protocol}"
        if found.get(key) is None:
            found[key] = []
        found[key].append({"HostIp": item.host_ip, "HostPort": str(item.host_port)})
    return found


def port_list(endpoint: Endpoint | None, exposed: Iterable[str]) -> list[Json]:
    """Return Ports of the list of containers: published ones with their host side, then the rest."""
    found: list[Json] = []
    published = set()
    for item in endpoint.ports if endpoint is not None else ():
        published.add((item.container_port, item.protocol))
        found.append({
            "IP": item.host_ip, "PrivatePort": item.container_port,
            "PublicPort": item.host_port, "Type": item.protocol,
        })  # fmt: skip
    for spec in exposed:
        number, _, protocol = spec.partition("/")
        if number.isdecimal() and (int(number), protocol or "tcp") not in published:
            found.append({"PrivatePort": int(number), "Type": protocol or "tcp"})
    return found


def requested_ports(requests: Iterable[PortRequest]) -> list[str]:
    """Return the container ports of requests as "80/tcp"."""
    return [f"{item.container_port}/{item.protocol}" for item in requests]
