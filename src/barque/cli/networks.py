"""`network ls`, `create`, `rm`, `connect` and `disconnect`."""

import sys
from typing import Any

from barque.base.errors import InvalidInputError
from barque.cli.env_files import pairs
from barque.cli.tables import show
from barque.cli.verb import Invocation, filters_json, for_each
from barque.client.api import quote
from barque.client.http import ApiError

HEADERS = {"ID": "NETWORK ID", "CreatedAt": "CREATED AT"}


def ls(call: Invocation) -> int:
    """List networks."""
    options = call.options
    rows = call.api.get("/networks", filters=filters_json(options["filter"]))
    rows.sort(key=lambda network: network["Name"])
    truncated = not options["no-trunc"]
    if options["quiet"] and options["format"] in ("", "table"):
        for row in rows:
            print(row["Id"][:12] if truncated else row["Id"])
        return 0
    show(rows, columns(truncated), HEADERS, options["format"], "ID Name Driver Scope")
    return 0


def columns(truncated: bool) -> dict[str, Any]:
    """Return how each column reads one network."""
    return {
        "ID": lambda n: n["Id"][:12] if truncated else n["Id"],
        "Name": lambda n: n["Name"],
        "Driver": lambda n: n["Driver"],
        "Scope": lambda n: n["Scope"],
        "IPv4": lambda n: _word(n.get("EnableIPv4", True)),
        "IPv6": lambda n: _word(n.get("EnableIPv6", False)),
        "Internal": lambda n: _word(n.get("Internal", False)),
        "Labels": lambda n: ",".join(f"{k}={v}" for k, v in sorted((n.get("Labels") or {}).items())),
        "CreatedAt": lambda n: n.get("Created", ""),
    }


def _word(value: bool) -> str:
    return "true" if value else "false"


def create(call: Invocation) -> int:
    """Create a network and print its id."""
    options = call.options
    if options["config-from"] and options["config-only"]:
        raise InvalidInputError("can't specify both --config-from and --config-only")
    body: dict[str, Any] = {
        "Name": call.words[0],
        "Driver": options["driver"],
        "Scope": options["scope"],
        "Options": pairs(options["opt"]),
        "IPAM": {
            "Driver": options["ipam-driver"],
            "Options": pairs(options["ipam-opt"]),
            "Config": _ipam(options),
        },
        "Internal": options["internal"],
        "Attachable": options["attachable"],
        "Ingress": options["ingress"],
        "ConfigOnly": options["config-only"],
        "Labels": pairs(options["label"]),
    }
    if options.given("ipv4"):
        body["EnableIPv4"] = options["ipv4"]
    if options.given("ipv6"):
        body["EnableIPv6"] = options["ipv6"]
    if options["config-from"]:
        body["ConfigFrom"] = {"Network": options["config-from"]}
    answer = call.api.post("/networks/create", body)
    if answer.get("Warning"):
        print(f"WARNING: {answer['Warning']}", file=sys.stderr)
    print(answer["Id"])
    return 0


def _ipam(options: Any) -> list[dict[str, Any]]:
    import ipaddress

    subnets = options["subnet"]
    if len(subnets) < len(options["ip-range"]) or len(subnets) < len(options["gateway"]):
        raise InvalidInputError("every ip-range or gateway must have a corresponding subnet")
    rows: dict[str, dict[str, Any]] = {}
    try:
        parsed = {text: ipaddress.ip_network(text, strict=False) for text in subnets}
        for text in subnets:
            rows[text] = {"Subnet": text}
        for flag, key in (("ip-range", "IPRange"), ("gateway", "Gateway")):
            for value in options[flag]:
                rows[_owner(parsed, value, flag)][key] = value
        for value in options["aux-address"]:
            name, _, address = value.partition("=")
            rows[_owner(parsed, address, "aux-address")].setdefault("AuxiliaryAddresses", {})[name] = address
    except ValueError as error:
        raise InvalidInputError(str(error)) from error
    return list(rows.values())


def _owner(subnets: dict[str, Any], value: str, flag: str) -> str:
    import ipaddress

    address = ipaddress.ip_network(value, strict=False).network_address
    for text, network in subnets.items():
        if address in network:
            return text
    raise ValueError(f"no matching subnet for {flag} {value}")


def rm(call: Invocation) -> int:
    """Remove networks."""
    options = call.options

    def act(name: str) -> str | None:
        try:
            call.api.delete(f"/networks/{quote(name)}")
        except ApiError as error:
            if not (options["force"] and error.status == 404):
                raise
            return None
        return name

    return for_each(call.words, act)


def connect(call: Invocation) -> int:
    """Connect a container to a network."""
    options = call.options
    network, container = call.words
    ipam = {
        key: value
        for key, value in (
            ("IPv4Address", options["ip"]),
            ("IPv6Address", options["ip6"]),
            ("LinkLocalIPs", options["link-local-ip"]),
        )
        if value
    }
    endpoint = {
        "IPAMConfig": ipam or None,
        "Links": options["link"] or None,
        "Aliases": options["alias"] or None,
        "DriverOpts": pairs(options["driver-opt"]) or None,
        "GwPriority": options["gw-priority"],
    }
    call.api.post(f"/networks/{quote(network)}/connect", {"Container": container, "EndpointConfig": endpoint})
    return 0


def disconnect(call: Invocation) -> int:
    """Disconnect a container from a network."""
    network, container = call.words
    body = {"Container": container, "Force": call.options["force"]}
    call.api.post(f"/networks/{quote(network)}/disconnect", body)
    return 0
