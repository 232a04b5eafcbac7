"""What `network graph` draws: networks, the containers in them, addresses, published ports. Pure."""

from collections.abc import Iterable
from typing import Any

from barque.base.record import Record
from barque.cli.natural import natural_key

Json = dict[str, Any]


class Port(Record):
    """A published port: "0.0.0.0:8080" and "80/tcp"."""

    host: str
    container: str


class Member(Record):
    """A container's place in a network."""

    network: str
    addresses: tuple[str, ...]
    mac: str
    aliases: tuple[str, ...]


class Box(Record):
    """A container; `guests` are the names of those that share its network namespace."""

    id: str
    name: str
    image: str
    state: str
    members: tuple[Member, ...]
    ports: tuple[Port, ...]
    guests: tuple[str, ...]


class Net(Record):
    """A network."""

    id: str
    name: str
    driver: str
    internal: bool
    subnets: tuple[str, ...]
    gateways: tuple[str, ...]


class Map(Record):
    """All of it, in order."""

    networks: tuple[Net, ...]
    boxes: tuple[Box, ...]

    def members(self, network: str) -> list[tuple[Box, Member]]:
        """Return who is in a network."""
        return [(box, member) for box in self.boxes for member in box.members if member.network == network]


def make(networks: Iterable[Json], containers: Iterable[Json], wanted: Iterable[str] = ()) -> Map:
    """Return the map of what the engine lists.

    Args:
        networks: the answer of GET /networks.
        containers: the answer of GET /containers/json.
        wanted: names or beginnings of ids of networks; all where empty.
    """
    listed = [*containers]
    nets = sorted(map(_net, networks), key=lambda net: natural_key(net.name))
    refs = [*wanted]
    if refs:
        nets = [net for net in nets if any(ref == net.name or net.id.startswith(ref) for ref in refs)]
    guests: dict[str, list[str]] = {}
    for row in listed:
        kind, _, host = str((row.get("HostConfig") or {}).get("NetworkMode") or "").partition(":")
        if kind == "container":
            guests.setdefault(host, []).append(_name(row))
    known = {net.name for net in nets}
    boxes = []
    for row in listed:
        box = _box(row, sorted([*guests.get(row["Id"], ()), *guests.get(_name(row), ())], key=natural_key))
        members = tuple(member for member in box.members if member.network in known)
        if members:
            boxes.append(Box(box.id, box.name, box.image, box.state, members, box.ports, box.guests))
    return Map(tuple(nets), tuple(sorted(boxes, key=lambda box: natural_key(box.name))))


def _name(row: Json) -> str:
    # Of several names those with more slashes are links.
    names: list[str] = [name for name in row.get("Names") or [] if name.count("/") == 1]
    return (names or [str(row["Id"])[:12]])[0].lstrip("/")


def _net(row: Json) -> Net:
    configs = (row.get("IPAM") or {}).get("Config") or []
    return Net(
        row["Id"], row["Name"], row.get("Driver") or "", bool(row.get("Internal")),
        tuple(config["Subnet"] for config in configs if config.get("Subnet")),
        tuple(config["Gateway"] for config in configs if config.get("Gateway")),
    )  # fmt: skip


def _box(row: Json, guests: list[str]) -> Box:
    networks = (row.get("NetworkSettings") or {}).get("Networks") or {}
    members = tuple(_member(name, networks[name] or {}) for name in sorted(networks, key=natural_key))
    ports = {
        (int(port["PublicPort"]), _host(port), f"{port['PrivatePort']}/{port['Type']}")
        for port in row.get("Ports") or []
        if port.get("PublicPort")
    }
    shown = tuple(Port(host, container) for _, host, container in sorted(ports))
    return Box(row["Id"], _name(row), row.get("Image") or "", row.get("State") or "", members, shown, tuple(guests))


def _host(port: Json) -> str:
    ip = port.get("IP") or "0.0.0.0"
    return f"[{ip}]:{port['PublicPort']}" if ":" in ip else f"{ip}:{port['PublicPort']}"


def _member(network: str, row: Json) -> Member:
    addresses = []
    for address, prefix in (("IPAddress", "IPPrefixLen"), ("GlobalIPv6Address", "GlobalIPv6PrefixLen")):
        if row.get(address):
            addresses.append(f"{row[address]}/{row.get(prefix) or 0}")
    return Member(network, tuple(addresses), row.get("MacAddress") or "", tuple(row.get("Aliases") or ()))


def to_json(drawn: Map) -> list[Json]:
    """Return the map as JSON: networks with their containers."""
    return [
        {
            "Id": net.id,
            "Name": net.name,
            "Driver": net.driver,
            "Internal": net.internal,
            "Subnets": list(net.subnets),
            "Gateways": list(net.gateways),
            "Containers": [
                {
                    "Id": box.id,
                    "Name": box.name,
                    "Image": box.image,
                    "State": box.state,
                    "Addresses": list(member.addresses),
                    "MacAddress": member.mac,
                    "Aliases": list(member.aliases),
                    "Ports": [{"Host": port.host, "Container": port.container} for port in box.ports],
                    "SharedBy": list(box.guests),
                }
                for box, member in drawn.members(net.name)
            ],
        }
        for net in drawn.networks
    ]


def tree(drawn: Map) -> str:
    """Return the map as a tree in text."""
    lines: list[str] = []
    for net in drawn.networks:
        lines.append(_net_line(net))
        members = drawn.members(net.name)
        for number, (box, member) in enumerate(members):
            last = number == len(members) - 1
            lines.append(("└── " if last else "├── ") + _member_line(box, member))
            leaves = _leaves(box, member)
            for at, leaf in enumerate(leaves):
                branch = "└── " if at == len(leaves) - 1 else "├── "
                lines.append(("    " if last else "│   ") + branch + leaf)
    return "".join(line + "\n" for line in lines)


def _net_line(net: Net) -> str:
    facts = [net.driver, *net.subnets, *(["internal"] if net.internal else [])]
    return f"{net.name} ({', '.join(facts)})"


def _member_line(box: Box, member: Member) -> str:
    parts = [box.name, *(address.partition("/")[0] for address in member.addresses)]
    if box.state != "running":
        parts.append(f"({box.state})")
    return "  ".join(parts)


def _leaves(box: Box, member: Member) -> list[str]:
    leaves = [f"{port.host} -> {port.container}" for port in box.ports]
    if member.aliases:
        leaves.append("also called " + ", ".join(member.aliases))
    others = [other.network for other in box.members if other.network != member.network]
    if others:
        leaves.append("also in " + ", ".join(others))
    if box.guests:
        leaves.append("shared by " + ", ".join(box.guests))
    return leaves
