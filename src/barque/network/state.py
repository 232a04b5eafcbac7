"""What the network room keeps on disk.

The engine's store, kinds `network` (a row each, by id) and `engine` (key `bridge`: name and address of the
default bridge); and <exec>/network/<container>.json, one sandbox in use, gone with the machine's restart.
"""

import contextlib
import json
import logging
import os
from typing import Any, NamedTuple, Protocol

from barque.base import files
from barque.network.model import Endpoint, Json, PortBinding, PortRequest
from barque.network.resolving import Upstream

log = logging.getLogger(__name__)


class Store(Protocol):
    """Rows by kind and key; what is put or deleted is on disk soon."""

    def load(self, kind: str) -> dict[str, Json]:
        """Return all rows of a kind."""
        ...

    def put(self, kind: str, key: str, row: Json) -> None:
        """Write a row."""
        ...

    def delete(self, kind: str, key: str) -> None:
        """Remove a row."""
        ...


class SavedSandbox(NamedTuple):
    """A sandbox as the next daemon must find it."""

    container_id: str
    container_name: str
    endpoints: tuple[Endpoint, ...]
    ports: tuple[PortRequest, ...]
    upstreams: tuple[Upstream, ...]
    dns_options: tuple[str, ...]


def save_sandbox(folder: str, saved: SavedSandbox) -> None:
    """Write a sandbox for the next daemon."""
    path = f"{folder}/{saved.container_id}.json"
    row = saved._asdict() | {"endpoints": [item._asdict() for item in saved.endpoints]}
    files.write_atomic(path, json.dumps(row).encode(), mode=0o600, durable=False)


def load_sandboxes(folder: str) -> list[SavedSandbox]:
    """Return the sandboxes that an earlier daemon left; broken files are removed."""
    found = []
    for name in sorted(os.listdir(folder)):
        path = f"{folder}/{name}"
        if not name.endswith(".json") or name.startswith("."):
            continue
        try:
            with open(path, encoding="utf-8") as file:
                found.append(_sandbox(json.load(file)))
        except (OSError, ValueError, TypeError, KeyError) as error:
            log.warning("the file %s of a container's network is broken and is removed: %s", name, error)
            with contextlib.suppress(OSError):
                os.unlink(path)
    return found


def _sandbox(row: dict[str, Any]) -> SavedSandbox:
    return SavedSandbox(
        row["container_id"],
        row["container_name"],
        tuple(map(_endpoint, row["endpoints"])),
        tuple(PortRequest(*item) for item in row["ports"]),
        tuple(Upstream(*item) for item in row["upstreams"]),
        tuple(row["dns_options"]),
    )


def _endpoint(row: dict[str, Any]) -> Endpoint:
    row |= {"netns_fd": -1, "ports": tuple(PortBinding(*item) for item in row["ports"])}
    row |= {"link_local": tuple(row["link_local"]), "names": tuple(row["names"])}
    return Endpoint(**row)


def forget_sandbox(folder: str, container_id: str) -> None:
    """Remove a sandbox's file; fine where there is none."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{folder}/{container_id}.json")
