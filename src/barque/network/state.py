"""What the network room keeps on disk.

<state>/networks.json              the networks' rows and the default bridge's name and address
<exec>/network/<container>.json    one endpoint that is in use; gone with the machine's restart
"""

import contextlib
import json
import logging
import os
from typing import Any

from barque.base import files, ids, times
from barque.network.model import Endpoint, Json, PortBinding

log = logging.getLogger(__name__)

PREDEFINED = (("bridge", "bridge"), ("host", "host"), ("none", "null"))


def load_networks(state_dir: str, now_ns: int) -> Json:
    """Return the stored rows; make the three predefined networks where they are missing.

    Raises:
        OSError: the folder cannot be written.
    """
    path = f"{state_dir}/networks.json"
    try:
        with open(path, encoding="utf-8") as file:
            stored: Json = json.load(file)
    except FileNotFoundError:
        stored = {}
    except ValueError as error:
        log.warning("the file of networks is broken and is made anew: %s", error)
        stored = {}
    rows = stored.setdefault("networks", {})
    for name, driver in PREDEFINED:
        if name not in rows:
            rows[name] = {
                "id": ids.new_id(),
                "driver": driver,
                "created": times.format_ns(now_ns),
            }
    stored.setdefault("bridge_name", "")
    stored.setdefault("bridge_address", "")
    return stored


def save_networks(state_dir: str, stored: Json) -> None:
    """Write the rows durably."""
    os.makedirs(state_dir, mode=0o700, exist_ok=True)
    data = json.dumps(stored, indent=1).encode()
    files.write_atomic(f"{state_dir}/networks.json", data, mode=0o600)


def save_endpoint(folder: str, endpoint: Endpoint) -> None:
    """Write an endpoint for the next daemon."""
    row: dict[str, Any] = endpoint._asdict() | {"ports": [list(item) for item in endpoint.ports]}
    path = f"{folder}/{endpoint.container_id}.json"
    files.write_atomic(path, json.dumps(row).encode(), mode=0o600, durable=False)


def load_endpoints(folder: str) -> list[Endpoint]:
    """Return the endpoints that an earlier daemon left; broken files are removed."""
    found = []
    for name in sorted(os.listdir(folder)):
        path = f"{folder}/{name}"
        if not name.endswith(".json") or name.startswith("."):
            continue
        try:
            with open(path, encoding="utf-8") as file:
                row = json.load(file)
            row |= {"netns_fd": -1, "ports": tuple(PortBinding(*item) for item in row["ports"])}
            found.append(Endpoint(**row))
        except (OSError, ValueError, TypeError, KeyError) as error:
            log.warning("endpoint file %s is broken and is removed: %s", name, error)
            with contextlib.suppress(OSError):
                os.unlink(path)
    return found


def forget_endpoint(folder: str, container_id: str) -> None:
    """Remove an endpoint's file; fine where there is none."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{folder}/{container_id}.json")
