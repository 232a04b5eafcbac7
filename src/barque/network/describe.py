"""What inspect shows of networks and endpoints, in the shape of the newest API. Pure."""

from collections.abc import Iterable, Mapping

from barque.base.times import format_ns
from barque.network.model import Endpoint, Json, Network, Sandbox, Subnet


def network(shown: Network, endpoints: Iterable[Endpoint] = ()) -> Json:
    """Return one network as `network inspect` shows it."""
    configs = [_subnet(item) for item in shown.subnets]
    return {
        "Name": shown.name,
        "Id": shown.id,
        "Created": format_ns(shown.created_ns),
        "Scope": "local",
        "Driver": shown.driver,
        "EnableIPv4": shown.ipv4,
        "EnableIPv6": shown.ipv6,
        "IPAM": {
            "Driver": shown.ipam_driver,
            "Options": dict(shown.ipam_options) if shown.ipam_options is not None else None,
            "Config": configs or None,
        },
        "Internal": shown.internal,
        "Attachable": shown.attachable,
        "Ingress": False,
        "ConfigFrom": {"Network": shown.config_from},
        "ConfigOnly": shown.config_only,
        "Containers": {item.container_id: _member(item) for item in endpoints},
        "Options": dict(shown.options),
        "Labels": dict(shown.labels),
    }


def _subnet(item: Subnet) -> Json:
    shown: Json = {"Subnet": item.subnet}
    if item.ip_range:
        shown["IPRange"] = item.ip_range
    if item.gateway:
        shown["Gateway"] = item.gateway
    if item.auxiliary:
        shown["AuxiliaryAddresses"] = dict(item.auxiliary)
    return shown


def ipam_status(usage: Iterable[tuple[str, int, int]]) -> Json:
    """Return Status of a network: how many addresses of each subnet are in use and free."""
    most = (1 << 64) - 1
    return {
        "IPAM": {
            "Subnets": {
                subnet: {"IPsInUse": min(used, most), "DynamicIPsAvailable": min(free, most)}
                for subnet, used, free in usage
            }
        }
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
    sandbox: Sandbox | None, settings: Mapping[str, Json], ids: Mapping[str, str], *, sandbox_id: str = "",
    sandbox_key: str = "", exposed: Iterable[str] = (), running: bool = False,
) -> Json:  # fmt: skip
    """Return NetworkSettings of a container's inspect.

    Args:
        sandbox: its live namespace; None where it does not run or has none of its own.
        settings: what was asked of each of its networks, by the network's name.
        ids: ids of these networks, shown while the container does not run too.
        sandbox_id: 64 digits that name the namespace, empty while it does not run.
        sandbox_key: path of the namespace.
        exposed: the ports of its configuration ("80/tcp").
        running: whether it runs; Ports are shown then alone.
    """
    live = {item.network: item for item in sandbox.endpoints} if sandbox is not None else {}
    networks = {
        name: endpoint_settings(live.get(name), ids.get(name, ""), asked) for name, asked in settings.items()
    }
    main = endpoint_settings(live.get("bridge"), "", {})
    return {
        "Bridge": "",
        "SandboxID": sandbox_id,
        "SandboxKey": sandbox_key,
        "Ports": port_map(sandbox, exposed) if running else {},
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
    return {
        "IPAMConfig": settings.get("IPAMConfig"),
        "Links": settings.get("Links"),
        "Aliases": settings.get("Aliases"),
        "MacAddress": endpoint.mac if endpoint else settings.get("MacAddress") or "",
        "DriverOpts": settings.get("DriverOpts"),
        "GwPriority": settings.get("GwPriority") or 0,
        "NetworkID": endpoint.network_id if endpoint else network_id,
        "EndpointID": endpoint.endpoint_id if endpoint else "",
        "Gateway": endpoint.gateway if endpoint else "",
        "IPAddress": endpoint.ip if endpoint else "",
        "IPPrefixLen": endpoint.prefix_length if endpoint else 0,
        "IPv6Gateway": endpoint.gateway6 if endpoint else "",
        "GlobalIPv6Address": endpoint.ip6 if endpoint else "",
        "GlobalIPv6PrefixLen": endpoint.prefix_length6 if endpoint and endpoint.ip6 else 0,
        "DNSNames": list(settings["DNSNames"]) if settings.get("DNSNames") else None,
    }


def port_map(sandbox: Sandbox | None, exposed: Iterable[str]) -> Json:
    """Return {"80/tcp": [{"HostIp", "HostPort"}, …]}; ports that are not published have None."""
    found: Json = {}
    for spec in exposed:
        number, _, protocol = spec.partition("/")
        found[f"{number}/{protocol or 'tcp'}"] = None
    for item in sandbox.ports if sandbox is not None else ():
        key = f"{item.container_port}/{item.protocol}"
        if found.get(key) is None:
            found[key] = []
        found[key].append({"HostIp": item.host_ip, "HostPort": str(item.host_port)})
    return found


def port_list(sandbox: Sandbox | None, exposed: Iterable[str]) -> list[Json]:
    """Return Ports of the list of containers: published ones with their host side, then the rest."""
    found: list[Json] = []
    published = set()
    for item in sandbox.ports if sandbox is not None else ():
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
