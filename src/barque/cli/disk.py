"""`system df`."""

import time
from typing import Any

from barque.base.durations import human_duration
from barque.base.go_functions import to_json
from barque.base.go_lexer import TemplateError
from barque.base.times import parse_ns
from barque.cli.image_list import HEADERS as IMAGE_HEADERS, columns as image_columns, rows_of
from barque.cli.ps import HEADERS as CONTAINER_HEADERS, columns as container_columns
from barque.cli.tables import Row, parse_template, render, show
from barque.cli.units import human_size
from barque.cli.verb import Invocation
from barque.cli.volumes import columns as volume_columns


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
    if options["logs"]:
        columns = {"Container": lambda r: r["Container"][:12], "Name": lambda r: r["Name"], "Size": lambda r: human_size(r["Size"])}
        show(logs_of(call), columns, {"Container": "CONTAINER ID"}, options["format"], "Container Name Size")
        return 0
    usage = call.api.get("/system/df")
    if options["verbose"]:
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


def logs_of(call: Invocation) -> list[dict[str, Any]]:
    """Return Container, Name and Size of each container's log, the longest first."""
    return sorted(call.api.get("/system/df", type="log")["Logs"], key=lambda row: -row["Size"])


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


class _Whole:
    """All objects as a template sees them: under each kind's name its rows."""

    def __init__(self, kinds: dict[str, list[Row]]) -> None:
        self._kinds = kinds

    def template_field(self, name: str) -> list[Row]:
        """Return the rows of a kind.

        Raises:
            TemplateError: there is no such kind.
        """
        if name not in self._kinds:
            raise TemplateError(
                f'template: :1:2: executing "" at <.{name}>: '
                f"can't evaluate field {name} in type *formatter.diskUsageContext"
            )
        return self._kinds[name]

    def template_json(self) -> dict[str, Any]:
        """Return all as one JSON object."""
        return {kind: [row.template_json() for row in rows] for kind, rows in self._kinds.items()}


def _verbose(usage: dict[str, Any], form: str) -> None:
    images = [rows_of(image, want_digest=False)[0] for image in usage.get("Images") or []]
    # What they have of their images counts among the images.
    containers = [{**container, "SizeRootFs": 0} for container in usage.get("Containers") or []]
    volumes = usage.get("Volumes") or []
    caches = sorted(usage.get("BuildCache") or [], key=lambda cache: (cache.get("LastUsedAt") or "", cache["CreatedAt"]))
    if form not in ("", "table"):
        whole = _Whole({
            "Images": [Row({**image, "digest": ""}, image_columns(truncated=False)) for image in images],
            "Containers": [Row(container, container_columns(truncated=False)) for container in containers],
            "Volumes": [Row(volume, volume_columns()) for volume in volumes],
            "BuildCache": [Row(cache, _cache_columns(truncated=False)) for cache in caches],
        })  # fmt: skip
        print(to_json(whole) if form == "json" else render(parse_template(form), whole), end="")
        return
    print("Images space usage:\n")
    names = "Repository Tag ID CreatedSince Size SharedSize UniqueSize Containers"
    show(images, image_columns(truncated=True), {**IMAGE_HEADERS, **_SIZE_HEADERS}, "", names)
    print("\nContainers space usage:\n")
    names = "ID Image Command LocalVolumes Size RunningFor Status Names"
    show(containers, container_columns(truncated=True), CONTAINER_HEADERS, "", names)
    print("\nLocal Volumes space usage:\n")
    show(volumes, volume_columns(), {"Name": "VOLUME NAME"}, "", "Name Links Size")
    size = sum(cache.get("Size", 0) for cache in caches if not cache.get("Shared"))
    print(f"\nBuild cache usage: {human_size(size)}\n")
    show(caches, _cache_columns(truncated=True), _CACHE_HEADERS, "", "ID CacheType Size CreatedSince LastUsedSince UsageCount Shared")


_SIZE_HEADERS = {"SharedSize": "SHARED SIZE", "UniqueSize": "UNIQUE SIZE"}
_CACHE_HEADERS = {
    "ID": "CACHE ID", "CacheType": "CACHE TYPE", "CreatedSince": "CREATED", "LastUsedSince": "LAST USED", "UsageCount": "USAGE",
}  # fmt: skip


def _cache_columns(*, truncated: bool) -> dict[str, Any]:
    """Return how each column reads one record of the build cache."""
    return {
        "ID": lambda c: (c["ID"][:12] if truncated else c["ID"]) + ("*" if c.get("InUse") else ""),
        "Parent": lambda c: c.get("Parent") or "",
        "CacheType": lambda c: c.get("Type") or "",
        "Description": lambda c: c.get("Description") or "",
        "Size": lambda c: human_size(c.get("Size", 0), 3),
        "CreatedAt": lambda c: _moment(c.get("CreatedAt")),
        "CreatedSince": lambda c: _since(c.get("CreatedAt")),
        "LastUsedAt": lambda c: _moment(c.get("LastUsedAt")),
        "LastUsedSince": lambda c: _since(c.get("LastUsedAt")),
        "UsageCount": lambda c: str(c.get("UsageCount", 0)),
        "InUse": lambda c: "true" if c.get("InUse") else "false",
        "Shared": lambda c: "true" if c.get("Shared") else "false",
    }


def _since(text: str | None) -> str:
    return human_duration((time.time_ns() - parse_ns(text)) / 1e9) + " ago" if text else ""


def _moment(text: str | None) -> str:
    """Return an API's time in UTC as Go shows it."""
    return text.replace("T", " ").removesuffix("Z") + " +0000 UTC" if text else ""
