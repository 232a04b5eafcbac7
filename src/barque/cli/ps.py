"""`ps` and `container ls`."""

from __future__ import annotations

import time

from barque.base.durations import human_duration
from barque.cli.tables import show
from barque.cli.units import human_size
from barque.cli.verb import Invocation, filters_json

TYPE_CHECKING = False  # the module typing costs every start of the command milliseconds
if TYPE_CHECKING:
    from typing import Any

HEADERS = {"ID": "CONTAINER ID", "RunningFor": "CREATED", "LocalVolumes": "LOCAL VOLUMES", "CreatedAt": "CREATED AT"}
DEFAULT = "ID Image Command RunningFor Status Ports Names"


def ls(call: Invocation) -> int:
    """List containers."""
    options = call.options
    form = options["format"] or _configured_format(call)
    limit = 1 if options["latest"] else options["last"]
    show_size = options["size"] or ((".Size" in form or "{{json .}}" in form) and not options.given("size"))
    rows = call.api.get(
        "/containers/json",
        all=options["all"] or None,
        limit=limit if limit > 0 else None,
        size=show_size or None,
        filters=filters_json(options["filter"]),
    )
    if options["quiet"] and form in ("", "table"):
        for row in rows:
            print(row["Id"] if options["no-trunc"] else row["Id"][:12])
        return 0
    default = DEFAULT + (" Size" if options["size"] else "")
    show(rows, columns(truncated=not options["no-trunc"]), HEADERS, form, default, "Container")
    return 0


def _configured_format(call: Invocation) -> str:
    from barque.cli.configuration import configured

    return str(configured(call.global_options, "psFormat", ""))


def columns(*, truncated: bool) -> dict[str, Any]:
    """Return how each column reads one container of the list."""
    return {
        "ID": lambda c: c["Id"][:12] if truncated else c["Id"],
        "Image": lambda c: image_name(c, truncated),
        "Command": lambda c: f'"{ellipsis(c["Command"], 20) if truncated else c["Command"]}"',
        "CreatedAt": lambda c: time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(c["Created"])),
        "RunningFor": lambda c: human_duration(time.time() - c["Created"]) + " ago",
        "Ports": lambda c: ports_text(c.get("Ports") or []),
        "State": lambda c: c["State"],
        "Status": lambda c: c["Status"],
        "Size": _size,
        "Names": lambda c: _names(c, truncated),
        "Labels": lambda c: ",".join(f"{k}={v}" for k, v in sorted((c.get("Labels") or {}).items())),
        "Mounts": lambda c: _mounts(c, truncated),
        "LocalVolumes": lambda c: str(sum(1 for m in c.get("Mounts") or [] if m.get("Driver") == "local")),
        "Networks": lambda c: ",".join((c.get("NetworkSettings") or {}).get("Networks") or {}),
        "Platform": lambda c: c.get("ImageManifestDescriptor", {}).get("platform") if c else None,
    }


def image_name(container: dict[str, Any], truncated: bool) -> str:
    """Return the image as the list shows it: an id shortened, a digest left out."""
    image = str(container.get("Image") or "")
    if not image:
        return "<no image>"
    if not truncated:
        return image
    identity = container.get("ImageID", "").partition(":")[2]
    if identity and image.partition(":")[2] == identity:
        return image.partition(":")[2][:12]
    if identity and image in (identity, identity[:12]):
        return image[:12]
    name, at, _ = image.partition("@")
    return name if at else image


def _names(container: dict[str, Any], truncated: bool) -> str:
    names = [name.removeprefix("/") for name in container.get("Names") or []]
    if truncated:
        names = [name for name in names if "/" not in name] or names
    return ",".join(names)


def _mounts(container: dict[str, Any], truncated: bool) -> str:
    names = [mount.get("Name") or mount.get("Source") or "" for mount in container.get("Mounts") or []]
    return ",".join(ellipsis(name, 15) if truncated else name for name in names)


def _size(container: dict[str, Any]) -> str:
    own = human_size(container.get("SizeRw") or 0, 3)
    whole = container.get("SizeRootFs") or 0
    return f"{own} (virtual {human_size(whole, 3)})" if whole > 0 else own


def ellipsis(text: str, width: int) -> str:
    """Return text cut to a width, its last place taken by … where something is missing."""
    return text if len(text) <= width else text[: width - 1] + "…"


def ports_text(ports: list[dict[str, Any]]) -> str:
    """Return published and exposed ports, neighbours joined to ranges."""
    groups: dict[tuple[str, str], list[list[int]]] = {}
    lines: list[str] = []
    single: list[tuple[int, str, str]] = []
    for port in sorted(ports, key=_port_order):
        protocol, private, public = port.get("Type", "tcp"), port["PrivatePort"], port.get("PublicPort", 0)
        ip = port.get("IP", "")
        if ip and public and public != private:
            single.append((private, protocol, f"{_host(ip)}:{public}->{private}/{protocol}"))
            continue
        ranges = groups.setdefault((ip if public else "", protocol), [])
        if ranges and ranges[-1][1] + 1 == private:
            ranges[-1][1] = private
        elif not ranges or ranges[-1][1] != private:
            ranges.append([private, private])
    for (ip, protocol), ranges in groups.items():
        for first, last in ranges:
            text = str(first) if first == last else f"{first}-{last}"
            lines.append(f"{_host(ip)}:{text}->{text}/{protocol}" if ip else f"{text}/{protocol}")
    return ", ".join(lines + [text for _, _, text in single])


def _host(ip: str) -> str:
    return f"[{ip}]" if ":" in ip else ip


def _port_order(port: dict[str, Any]) -> tuple[int, str, int, str]:
    return port["PrivatePort"], port.get("IP", ""), port.get("PublicPort", 0), port.get("Type", "")
