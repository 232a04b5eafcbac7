"""`history`."""

import time
from typing import Any

from barque.base.durations import human_duration
from barque.cli.images import platform_json
from barque.cli.ps import ellipsis
from barque.cli.tables import show
from barque.cli.units import human_size
from barque.cli.verb import Invocation
from barque.client.api import quote

HEADERS = {"ID": "IMAGE", "CreatedSince": "CREATED", "CreatedAt": "CREATED AT", "CreatedBy": "CREATED BY"}


def history(call: Invocation) -> int:
    """Show how an image came to be."""
    options = call.options
    platform = platform_json(options["platform"]) if options["platform"] else None
    layers = call.api.get(f"/images/{quote(call.words[0], '/')}/history", platform=platform)
    truncated, human = not options["no-trunc"], options["human"]
    if options["quiet"] and options["format"] in ("", "table"):
        for layer in layers:
            print(_identity(layer["Id"], truncated))
        return 0
    created = "CreatedSince" if human else "CreatedAt"
    show(
        layers,
        columns(truncated, human),
        {**HEADERS, "CreatedAt": "CREATED AT"},
        options["format"],
        f"ID {created} CreatedBy Size Comment",
    )
    return 0


def _identity(text: str, truncated: bool) -> str:
    return text.partition(":")[2][:12] if truncated and ":" in text else text


def columns(truncated: bool, human: bool) -> dict[str, Any]:
    """Return how each column reads one layer."""
    return {
        "ID": lambda layer: _identity(layer["Id"], truncated),
        "CreatedAt": lambda layer: time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(layer["Created"])) + _zone(layer),
        "CreatedSince": lambda layer: _since(layer["Created"]) if human else "",
        "CreatedBy": lambda layer: _text(layer.get("CreatedBy") or "", truncated),
        "Size": lambda layer: human_size(layer["Size"], 3) if human else str(layer["Size"]),
        "Comment": lambda layer: layer.get("Comment") or "",
    }


def _since(created: int) -> str:
    return human_duration(time.time() - created) + " ago" if created > 0 else "N/A"


def _text(text: str, truncated: bool) -> str:
    text = text.replace("\t", " ")
    return ellipsis(text, 45) if truncated else text


def _zone(layer: dict[str, Any]) -> str:
    offset = time.localtime(layer["Created"]).tm_gmtoff
    if offset == 0:
        return "Z"
    return f"{'-' if offset < 0 else '+'}{abs(offset) // 3600:02d}:{abs(offset) % 3600 // 60:02d}"
