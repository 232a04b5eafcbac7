"""The networks of a create request: NetworkMode and EndpointsConfig out of run's flags."""

from __future__ import annotations

from barque.base.errors import InvalidInputError
from barque.cli.addresses import is_hardware_address
from barque.cli.flags import Options

TYPE_CHECKING = False  # the module typing costs every start of the command milliseconds
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]

# What a request says of an endpoint besides what was asked for.
EMPTY_ENDPOINT: Json = {
    "IPAMConfig": None,
    "Links": None,
    "Aliases": None,
    "MacAddress": "",
    "DriverOpts": None,
    "GwPriority": 0,
    "NetworkID": "",
    "EndpointID": "",
    "Gateway": "",
    "IPAddress": "",
    "IPPrefixLen": 0,
    "IPv6Gateway": "",
    "GlobalIPv6Address": "",
    "GlobalIPv6PrefixLen": 0,
    "DNSNames": None,
}
BUILT_IN = ("default", "bridge", "host", "none")


def endpoints(options: Options) -> tuple[str, Json]:
    """Return NetworkMode and EndpointsConfig.

    Raises:
        InvalidInputError: a network is named twice, or what is asked does not fit it.
    """
    networks = [dict(one) for one in [*options["network"], *options["net"]]]
    given = len(networks)
    if not networks:
        networks = [{"target": "default", "aliases": [], "options": {}, "link-local": []}]
    for network in networks:
        if not network["target"]:
            raise InvalidInputError("no name set for network")
    if len({_user_defined(network["target"]) for network in networks}) > 1:
        raise InvalidInputError(
            "conflicting options: cannot attach both user-defined and non-user-defined network-modes"
        )
    _apply_flags(networks[0], options)
    mode = networks[0]["target"]
    result: Json = {}
    for network in networks:
        target = network["target"]
        if target in result:
            raise InvalidInputError(f'network "{target}" is specified multiple times')
        _check(network)
        if given != 1 or _has_settings(network):
            result[target] = _endpoint(network)
    return mode, result


def _has_settings(network: Json) -> bool:
    keys = ("ip", "ip6", "mac-address", "gw-priority", "aliases", "options", "link-local", "links")
    return any(network.get(key) for key in keys)


def _user_defined(target: str) -> bool:
    return target not in BUILT_IN and not target.startswith("container:")


def _apply_flags(network: Json, options: Options) -> None:
    aliases = options["network-alias"] + options["net-alias"]
    for name, value, flag, noun in (
        ("aliases", aliases, "network-alias", "alias"),
        ("link-local", options["link-local-ip"], "link-local-ip", "link-local IP addresses"),
    ):
        if value and network[name]:
            raise InvalidInputError(f"conflicting options: cannot specify both --{flag} and per-network {noun}")
        network[name] = network[name] or list(value)
    network["links"] = list(options["link"]) if _user_defined(network["target"]) else []
    for key in ("ip", "ip6", "mac-address"):
        if not options[key]:
            continue
        if network.get(key):
            shown = {"ip": "ip", "ip6": "ip6", "mac-address": "mac-address"}[key]
            noun = {"ip": "IPv4 address", "ip6": "IPv6 address", "mac-address": "MAC address"}[key]
            raise InvalidInputError(f"conflicting options: cannot specify both --{shown} and per-network {noun}")
        network[key] = options[key].strip()


def _check(network: Json) -> None:
    target = network["target"]
    if not _user_defined(target):
        if network["aliases"]:
            raise InvalidInputError("network-scoped aliases are only supported for user-defined networks")
        if target != "default" and network.get("links"):
            raise InvalidInputError("links are only supported for user-defined networks")
    if network.get("mac-address") and not is_hardware_address(network["mac-address"]):
        raise InvalidInputError(f"{network['mac-address']} is not a valid mac address")


def _endpoint(network: Json) -> Json:
    ipam = {}
    if network.get("ip"):
        ipam["IPv4Address"] = network["ip"]
    if network.get("ip6"):
        ipam["IPv6Address"] = network["ip6"]
    if network["link-local"]:
        ipam["LinkLocalIPs"] = network["link-local"]
    return {
        **EMPTY_ENDPOINT,
        "IPAMConfig": ipam or None,
        "Links": network.get("links") or None,
        "Aliases": network["aliases"] or None,
        "MacAddress": network.get("mac-address", ""),
        "DriverOpts": network["options"] or None,
        "GwPriority": network.get("gw-priority", 0),
    }
