"""`network ls`, `create`, `rm`, `rename`, `connect`, `disconnect` and `graph`."""

import sys
from typing import Any

from barque.base.errors import BarqueError, InvalidInputError
from barque.cli.env_files import pairs
from barque.cli.natural import natural_key
from barque.cli.run_networks import EMPTY_ENDPOINT
from barque.cli.tables import show
from barque.cli.timestamps import go_time
from barque.cli.verb import Invocation, filters_json
from barque.client.api import quote
from barque.client.http import ApiError

HEADERS = {"ID": "NETWORK ID", "CreatedAt": "CREATED AT"}
_RAW = "network_id: {{.ID}}\\nname: {{.Name}}\\ndriver: {{.Driver}}\\nscope: {{.Scope}}\\n"


def ls(call: Invocation) -> int:
    """List networks."""
    options = call.options
    rows = call.api.get("/networks", filters=filters_json(options["filter"]))
    rows.sort(key=lambda network: natural_key(network["Name"]))
    truncated = not options["no-trunc"]
    form = options["format"]
    if form == "raw":
        form = "network_id: {{.ID}}\\n" if options["quiet"] else _RAW
    elif options["quiet"] and form in ("", "table"):
        form = "{{.ID}}"
    show(rows, columns(truncated), HEADERS, form, "ID Name Driver Scope", "network.network")
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
        "CreatedAt": lambda n: go_time(n.get("Created") or ""),
    }


def _word(value: bool) -> str:
    return "true" if value else "false"


def create(call: Invocation) -> int:
    """Create a network and print its id."""
    from barque.cli.subnets import ipam_rows

    options = call.options
    body: dict[str, Any] = {
        "Name": call.words[0],
        "Driver": options["driver"],
        "Scope": options["scope"],
        "Options": pairs(options["opt"]),
        "IPAM": {
            "Driver": options["ipam-driver"],
            "Options": pairs(options["ipam-opt"]),
            "Config": ipam_rows(
                options["subnet"], options["ip-range"], options["gateway"], pairs(options["aux-address"])
            ),
        },
        "Internal": options["internal"],
        "Attachable": options["attachable"],
        "Ingress": options["ingress"],
        "ConfigOnly": options["config-only"],
        "ConfigFrom": {"Network": options["config-from"]} if options["config-from"] else None,
        "Labels": pairs(options["label"]),
    }
    if options.given("ipv4"):
        body["EnableIPv4"] = options["ipv4"]
    if options.given("ipv6"):
        body["EnableIPv6"] = options["ipv6"]
    print(call.api.post("/networks/create", body)["Id"])
    return 0


def rm(call: Invocation) -> int:
    """Remove networks."""
    code = 0
    for name in call.words:
        if not _is_given_up(call, name):
            continue
        try:
            call.api.delete(f"/networks/{quote(name)}")
        except ApiError as error:
            if call.options["force"] and error.status == 404:
                continue
            print(error, file=sys.stderr)
            code = 1
        else:
            print(name, flush=True)
    if code:
        print("exit status 1", file=sys.stderr)
    return code


def rename(call: Invocation) -> int:
    """Give a network another name."""
    old, new = call.words
    call.api.post(f"/networks/{quote(old)}/rename", name=new)
    return 0


def _is_given_up(call: Invocation, name: str) -> bool:
    """Ask before the routing mesh of a cluster is removed."""
    try:
        ingress = call.api.get(f"/networks/{quote(name)}").get("Ingress")
    except BarqueError:
        return True
    if not ingress:
        return True
    print("WARNING! Before removing the routing-mesh network, make sure all the nodes in your swarm run the same "
          "docker engine version. Otherwise, removal may not be effective and functionality of newly create "
          "ingress networks will be impaired.\nAre you sure you want to continue? [y/N] ", end="", flush=True)  # fmt: skip
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def connect(call: Invocation) -> int:
    """Connect a container to a network."""
    options = call.options
    network, container = call.words
    if any("=" not in item for item in options["driver-opt"]):
        raise InvalidInputError("invalid key/value pair format in driver options")
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
        "IPAMConfig": ipam,
        "Links": options["link"] or None,
        "Aliases": options["alias"],
        "DriverOpts": pairs(options["driver-opt"]),
        "GwPriority": options["gw-priority"],
    }
    body = {"Container": container, "EndpointConfig": {**EMPTY_ENDPOINT, **endpoint}}
    call.api.post(f"/networks/{quote(network)}/connect", body)
    return 0


def graph(call: Invocation) -> int:
    """Draw the networks."""
    from barque.cli import network_map, network_pictures

    form = call.options["format"]
    if form not in ("tree", "dot", "svg", "json"):
        raise InvalidInputError(f'unknown form "{form}": must be one of "tree", "dot", "svg", "json"')
    for name in call.words:
        call.api.get(f"/networks/{quote(name)}")
    containers = call.api.get("/containers/json", all=call.options["all"] or None)
    drawn = network_map.make(call.api.get("/networks"), containers, call.words)
    if form == "json":
        import json

        print(json.dumps(network_map.to_json(drawn), indent=4, ensure_ascii=False))
    else:
        draw = {"tree": network_map.tree, "dot": network_pictures.dot, "svg": network_pictures.svg}[form]
        print(draw(drawn), end="")
    return 0


def disconnect(call: Invocation) -> int:
    """Disconnect a container from a network."""
    network, container = call.words
    body = {"Container": container, "Force": call.options["force"]}
    call.api.post(f"/networks/{quote(network)}/disconnect", body)
    return 0
