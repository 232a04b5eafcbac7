"""`system df`."""

import time
from typing import Any

from barque.base.durations import human_duration
from barque.base.errors import InvalidInputError
from barque.cli.image_list import rows_of
from barque.cli.ps import columns as container_columns
from barque.cli.tables import align, show
from barque.cli.units import human_size
from barque.cli.verb import Invocation


class Kind:
    """One kind of objects with its counts and sizes in bytes."""

    def __init__(self, name: str, total: int, active: int, size: int, reclaimable: int, share: bool = True) -> None:
        self.name, self.total, self.active = name, total, active
        self.size, self.reclaimable, self.share = size, reclaimable, share

    def reclaimable_text(self) -> str:
        """Return what could be given back, with its part of the whole in percent."""
        text = human_size(self.reclaimable)
        if self.share and self.size > 0:
            return f"{text} ({self.reclaimable * 100 // self.size}%)"
        return text


def df(call: Invocation) -> int:
    """Show what the engine's objects take on the disk."""
    options = call.options
    usage = call.api.get("/system/df")
    if options["verbose"]:
        if options["format"] not in ("", "json"):
            raise InvalidInputError("the verbose and the format options conflict")
        _verbose(usage, options["format"])
        return 0
    columns = {
        "Type": lambda k: k.name,
        "TotalCount": lambda k: str(k.total),
        "Active": lambda k: str(k.active),
        "Size": lambda k: human_size(k.size),
        "Reclaimable": lambda k: k.reclaimable_text(),
    }
    headers = {"TotalCount": "TOTAL"}
    show(kinds(usage), columns, headers, options["format"], "Type TotalCount Active Size Reclaimable")
    return 0


def kinds(usage: dict[str, Any]) -> list[Kind]:
    """Return the four rows of the table."""
    images = usage.get("Images") or []
    containers = usage.get("Containers") or []
    volumes = usage.get("Volumes") or []
    caches = usage.get("BuildCache") or []
    whole = usage.get("LayersSize", 0)
    used = sum(_unique(image) for image in images if image.get("Containers", 0) > 0)
    alive = [c for c in containers if c.get("State") in ("running", "paused", "restarting")]
    container_size = sum(c.get("SizeRw") or 0 for c in containers)
    volume_data = [(v.get("UsageData") or {}) for v in volumes]
    cache_size = sum(c.get("Size", 0) for c in caches if not c.get("Shared"))
    cache_used = sum(c.get("Size", 0) for c in caches if not c.get("Shared") and c.get("InUse"))
    return [
        Kind("Images", len(images), sum(1 for i in images if i.get("Containers", 0) > 0), whole, whole - used),
        Kind(
            "Containers",
            len(containers),
            len(alive),
            container_size,
            container_size - sum(c.get("SizeRw") or 0 for c in alive),
        ),
        Kind(
            "Local Volumes",
            len(volumes),
            sum(1 for d in volume_data if d.get("RefCount", 0) > 0),
            sum(max(d.get("Size", 0), 0) for d in volume_data),
            sum(max(d.get("Size", 0), 0) for d in volume_data if d.get("RefCount", 0) == 0),
        ),
        Kind(
            "Build Cache",
            len(caches),
            sum(1 for c in caches if c.get("InUse")),
            cache_size,
            cache_size - cache_used,
            share=False,
        ),
    ]


def _unique(image: dict[str, Any]) -> int:
    size, shared = image.get("Size", -1), image.get("SharedSize", -1)
    return 0 if size == -1 or shared == -1 else int(size - shared)


def _verbose(usage: dict[str, Any], form: str) -> None:
    if form == "json":
        from barque.base.go_functions import to_json

        print(to_json(usage))
        return
    _images(usage.get("Images") or [])
    _containers(usage.get("Containers") or [])
    _volumes(usage.get("Volumes") or [])
    caches = usage.get("BuildCache") or []
    print(f"Build cache usage: {human_size(sum(c.get('Size', 0) for c in caches if not c.get('Shared')))}\n")
    rows = [["CACHE ID", "CACHE TYPE", "SIZE", "CREATED", "LAST USED", "USAGE", "SHARED"]]
    for cache in caches:
        rows.append(
            [
                cache["ID"][:12],
                cache.get("Type", ""),
                human_size(cache.get("Size", 0), 3),
                "",
                "",
                str(cache.get("UsageCount", 0)),
                "true" if cache.get("Shared") else "false",
            ]
        )
    print(align(rows), end="")


def _images(images: list[dict[str, Any]]) -> None:
    print("Images space usage:\n")
    rows = [["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE", "SHARED SIZE", "UNIQUE SIZE", "CONTAINERS"]]
    for image in images:
        for row in rows_of(image, want_digest=False)[:1]:
            rows.append(
                [
                    row["repository"],
                    row["tag"],
                    row["Id"].partition(":")[2][:12],
                    human_duration(time.time() - row["Created"]) + " ago",
                    human_size(row["Size"], 3),
                    human_size(max(row.get("SharedSize", 0), 0), 4),
                    human_size(_unique(row), 4),
                    str(row.get("Containers", 0)),
                ]
            )
    print(align(rows))


def _containers(containers: list[dict[str, Any]]) -> None:
    print("Containers space usage:\n")
    shown = container_columns(truncated=True)
    names = ("ID", "Image", "Command", "LocalVolumes", "_size", "RunningFor", "Status", "Names")
    rows = [["CONTAINER ID", "IMAGE", "COMMAND", "LOCAL VOLUMES", "SIZE", "CREATED", "STATUS", "NAMES"]]
    for container in containers:
        size = human_size(container.get("SizeRw") or 0, 3)
        rows.append([size if name == "_size" else str(shown[name](container)) for name in names])
    print(align(rows))


def _volumes(volumes: list[dict[str, Any]]) -> None:
    print("Local Volumes space usage:\n")
    rows = [["VOLUME NAME", "LINKS", "SIZE"]]
    for volume in volumes:
        data = volume.get("UsageData") or {}
        rows.append([volume["Name"], str(data.get("RefCount", 0)), human_size(max(data.get("Size", 0), 0))])
    print(align(rows))
