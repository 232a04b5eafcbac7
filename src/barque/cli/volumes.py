"""`volume ls`, `create` and `rm`."""

import sys
from typing import Any

from barque.base.errors import InvalidInputError, UnsupportedError
from barque.cli.env_files import pairs
from barque.cli.tables import show
from barque.cli.verb import Invocation, filters_json, for_each
from barque.client.api import quote
from barque.client.http import ApiError

CLUSTER_FLAGS = [
    "availability",
    "group",
    "limit-bytes",
    "required-bytes",
    "scope",
    "secret",
    "sharing",
    "topology-preferred",
    "topology-required",
    "type",
]


def ls(call: Invocation) -> int:
    """List volumes."""
    options = call.options
    if options["cluster"]:
        raise UnsupportedError("cluster volumes are not supported")
    rows = (call.api.get("/volumes", filters=filters_json(options["filter"])) or {}).get("Volumes") or []
    rows.sort(key=lambda volume: volume["Name"])
    if options["quiet"] and options["format"] in ("", "table"):
        for row in rows:
            print(row["Name"])
        return 0
    show(rows, columns(), {"Name": "VOLUME NAME"}, options["format"], "Driver Name")
    return 0


def columns() -> dict[str, Any]:
    """Return how each column reads one volume."""
    return {
        "Name": lambda v: v["Name"],
        "Driver": lambda v: v["Driver"],
        "Scope": lambda v: v.get("Scope") or "local",
        "Mountpoint": lambda v: v.get("Mountpoint") or "",
        "Labels": lambda v: ",".join(f"{k}={x}" for k, x in sorted((v.get("Labels") or {}).items())),
        "Links": lambda v: str((v.get("UsageData") or {}).get("RefCount", "N/A")),
        "Size": _size,
        "Status": lambda v: "N/A",
        "Group": lambda v: "N/A",
        "Availability": lambda v: "N/A",
    }


def _size(volume: dict[str, Any]) -> str:
    from barque.cli.units import human_size

    usage = volume.get("UsageData")
    return human_size(usage["Size"]) if usage else "N/A"


def create(call: Invocation) -> int:
    """Create a volume and print its name."""
    options = call.options
    used = [name for name in CLUSTER_FLAGS if options.given(name)]
    if used:
        raise UnsupportedError(f"--{used[0]}: cluster volumes are not supported")
    from barque.cli.run_values import VALIDATORS

    for label in options["label"]:
        try:
            VALIDATORS["label"](label)
        except ValueError as error:
            raise InvalidInputError(str(error)) from error
    body = {
        "Name": call.words[0] if call.words else "",
        "Driver": options["driver"],
        "DriverOpts": pairs(options["opt"]),
        "Labels": pairs(options["label"]),
    }
    print(call.api.post("/volumes/create", body)["Name"])
    return 0


def rm(call: Invocation) -> int:
    """Remove volumes."""
    options = call.options

    def act(name: str) -> str | None:
        try:
            call.api.delete(f"/volumes/{quote(name)}", force=options["force"])
        except ApiError as error:
            if not (options["force"] and error.status == 404):
                raise
            print(error, file=sys.stderr)
            return None
        return name

    return for_each(call.words, act)
