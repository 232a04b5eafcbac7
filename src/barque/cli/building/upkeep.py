"""`buildx du|prune|ls|inspect` and `builder prune`: what the build cache holds, and the one builder."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING, Any

from barque.base.durations import human_duration, parse_duration
from barque.base.errors import InvalidInputError
from barque.builder.buildkit.pb import control_pb2
from barque.cli.building.command import check_builder
from barque.cli.building.link import CONTROL, Link
from barque.cli.building.running import told
from barque.cli.units import human_size

if TYPE_CHECKING:
    from barque.cli.verb import Invocation

_HEAD = "ID\t\t\t\t\t\tRECLAIMABLE\tSIZE\t\tLAST ACCESSED"
_SECOND = 1_000_000_000
_DAY_S = 86_400


@told
def du(call: Invocation) -> int:
    """Show the records of the build cache."""
    check_builder(call.options)
    request = control_pb2.DiskUsageRequest(filter=_filters(call.options["filter"])[0])
    records = list(asyncio.run(_ask(call, "DiskUsage", request, control_pb2.DiskUsageResponse)).record)
    records.sort(key=lambda one: -one.Size)
    if call.options["verbose"]:
        for record in records:
            _show_whole(record)
    elif records:
        print(_HEAD)
        for record in records:
            print(_row(record))
    shared = sum(one.Size for one in records if one.Shared)
    total = sum(one.Size for one in records)
    if shared:
        print(f"Shared:\t\t{human_size(shared)}\nPrivate:\t{human_size(total - shared)}")
    print(f"Reclaimable:\t{human_size(sum(one.Size for one in records if not one.InUse))}")
    print(f"Total:\t\t{human_size(total)}")
    return 0


@told
def prune(call: Invocation) -> int:
    """Remove records of the build cache."""
    options = call.options
    check_builder(options)
    filters, keep_ns = _filters(options["filter"])
    if not _confirmed(call):
        return 0
    request = control_pb2.PruneRequest(
        filter=filters, all=options["all"], keepDuration=keep_ns, reservedSpace=options["reserved-space"] or options["keep-storage"],
        maxUsedSpace=options["max-used-space"], minFreeSpace=options["min-free-space"],
    )  # fmt: skip
    removed = asyncio.run(_pruned(call, request))
    if options["verbose"]:
        for record in removed:
            _show_whole(record)
    elif removed:
        print(_HEAD)
        for record in removed:
            print(_row(record))
    print(f"Total:\t{human_size(sum(one.Size for one in removed))}")
    return 0


def _confirmed(call: Invocation) -> bool:
    if call.options["force"]:
        return True
    what = "all" if call.options["all"] else "all dangling"
    print(f"WARNING! This will remove {what} build cache. Are you sure you want to continue? [y/N] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def builder_prune(call: Invocation) -> int:
    """Remove records of the build cache, told as Docker tells it."""
    from barque.cli.verb import filters_json

    options = call.options
    if not options["dry-run"] and not _confirmed(call):
        return 0
    answer = call.api.post(
        "/build/prune", all=options["all"], filters=filters_json(options["filter"]),
        **{"keep-storage": options["keep-storage"] or None, "dry-run": options["dry-run"] or None},
    )  # fmt: skip
    names = answer.get("CachesDeleted") or []
    if names:
        print("Deleted build cache objects:\n" + "\n".join(names) + "\n")
    print(f"Total reclaimed space: {human_size(answer.get('SpaceReclaimed') or 0)}")
    return 0


def _filters(pairs: list[str]) -> tuple[list[str], int]:
    """Return filters as BuildKit has them, and how long ago what stays was used, in nanoseconds."""
    filters, keep_ns = [], 0
    for pair in pairs:
        key, _, value = pair.partition("=")
        if key in ("until", "unused-for"):
            days = value.removesuffix("d")
            try:
                seconds = int(days) * _DAY_S if days != value else parse_duration(value) // _SECOND
            except ValueError as error:
                raise InvalidInputError(f"invalid filter {pair}: {error}") from None
            keep_ns = seconds * _SECOND
        else:
            filters.append(f"{key}~={value[1:]}" if value.startswith("~") else f"{key}=={value}")
    return filters, keep_ns


async def _ask(call: Invocation, method: str, request: Any, answer: Any) -> Any:
    async with Link(call.api) as link:
        return await link.call(f"{CONTROL}/{method}", request, answer)


async def _pruned(call: Invocation, request: Any) -> list[Any]:
    from grpclib.exceptions import GRPCError

    from barque.builder.buildkit.connection import refused

    async with Link(call.api) as link:
        try:
            async with link.stream(f"{CONTROL}/Prune") as stream:
                await stream.send_message(request, end=True)
                return [record async for record in stream]
        except GRPCError as error:
            raise refused(error) from None


def _last(record: Any) -> str:
    if not record.HasField("LastUsedAt"):
        return ""
    return str(human_duration(time.time() - record.LastUsedAt.ToNanoseconds() / _SECOND)) + " ago"


def _truth(value: object) -> str:
    return "true" if value else "false"


def _row(record: Any) -> str:
    name = record.ID + ("*" if record.Mutable else "")
    size = human_size(record.Size) + ("*" if record.Shared else "")
    return f"{name:<40}\t{_truth(not record.InUse):<5}\t\t{size:<10}\t{_last(record)}"


def _show_whole(record: Any) -> None:
    rows = [("ID", record.ID)]
    if record.Parents:
        rows.append(("Parents", ",".join(record.Parents)))
    rows += [("Created at", _instant(record.CreatedAt)), ("Mutable", _truth(record.Mutable)),
             ("Reclaimable", _truth(not record.InUse)), ("Shared", _truth(record.Shared)), ("Size", human_size(record.Size))]  # fmt: skip
    if record.Description:
        rows.append(("Description", record.Description))
    rows.append(("Usage count", str(record.UsageCount)))
    if record.HasField("LastUsedAt"):
        rows.append(("Last used", _last(record)))
    if record.RecordType:
        rows.append(("Type", record.RecordType))
    for name, value in rows:
        label = name + ":"
        print(label + "\t" * (1 if len(label) >= 8 else 2) + value)
    print()


def _instant(message: Any) -> str:
    text = message.ToJsonString().removesuffix("Z").replace("T", " ")
    return f"{text} +0000 UTC"


def _worker(call: Invocation) -> tuple[str, list[str], dict[str, str]]:
    """Return the version, the platforms and the labels of the engine's builder."""
    answer = asyncio.run(_ask(call, "ListWorkers", control_pb2.ListWorkersRequest(), control_pb2.ListWorkersResponse))
    found = answer.record[0]
    texts = ["/".join(filter(None, (one.OS, one.Architecture, one.Variant))) for one in found.platforms]
    return found.BuildkitVersion.version, texts, dict(found.Labels)


@told
def ls(call: Invocation) -> int:
    """List the builders: the engine's one."""
    version, texts, _ = _worker(call)
    rows = [("NAME/NODE", "DRIVER/ENDPOINT", "STATUS", "BUILDKIT", "PLATFORMS"), ("default*", "docker", "", "", ""),
            (r" \_ default", r" \_ default", "running", version, ", ".join(texts))]  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        print("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)) + "   " + row[4])
    return 0


@told
def inspect(call: Invocation) -> int:
    """Show the engine's builder."""
    if call.words and call.words[0] != "default":
        raise InvalidInputError(f'no builder "{call.words[0]}" found: the engine has one builder, "default"')
    version, texts, labels = _worker(call)
    print("Name:   default\nDriver: docker\n\nNodes:\nName:             default\nEndpoint:         default\nStatus:           running")
    print(f"BuildKit version: {version}\nPlatforms:        {', '.join(texts)}")
    if labels:
        print("Labels:")
        for key, value in sorted(labels.items()):
            print(f" {key}: {value}")
    return 0
