"""`buildx history ls|inspect|logs|rm`: the builds that the engine has recorded."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from grpclib.exceptions import GRPCError

from barque.base.durations import human_duration
from barque.base.errors import InvalidInputError, NotFoundError
from barque.builder.buildkit.connection import refused
from barque.builder.buildkit.pb import content_pb2, control_pb2
from barque.cli.building.command import check_builder
from barque.cli.building.excerpt import excerpt
from barque.cli.building.link import CONTROL, Link
from barque.cli.building.plain import Plain, RawJson
from barque.cli.building.running import told

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from barque.cli.verb import Invocation

_CONTENT = "containerd.services.content.v1.Content"
_PREDICATE = "in-toto.io/predicate-type"
_SLSA = "https://slsa.dev/provenance/"
_NS = 1_000_000_000
_LONGEST_NAME = 30


async def _streamed(link: Link, method: str, request: Any) -> AsyncIterator[Any]:
    try:
        async with link.stream(method) as stream:
            await stream.send_message(request, end=True)
            while (one := await stream.recv_message()) is not None:
                yield one
    except GRPCError as error:
        raise refused(error) from None


async def _records(link: Link, *filters: str) -> list[Any]:
    """Return the records, the newest first."""
    request = control_pb2.BuildHistoryRequest(EarlyExit=True, Filter=filters)
    found = [event.record async for event in _streamed(link, f"{CONTROL}/ListenBuildHistory", request)]
    return sorted(found, key=lambda one: -one.CreatedAt.ToNanoseconds())


async def _record(link: Link, word: str) -> Any:
    """Return the record that a word means: a ref, the first letters of one, `^2` for the third newest, nothing for the newest."""
    found = await _records(link)
    if not word or word.startswith("^"):
        number = int(word[1:] or 0) if (word[1:].isascii() and word[1:].isdigit()) or not word[1:] else -1
        if number < 0:
            raise InvalidInputError(f"invalid offset {word!r}: use ^0 for the newest build, ^1 for the one before")
        if number >= len(found):
            raise NotFoundError(f"no build {word or 'is recorded'}: {len(found)} builds are recorded")
        return found[number]
    ref = word.rpartition("/")[2]
    exact = [one for one in found if one.Ref == ref] or [one for one in found if one.Ref.startswith(ref)]
    if len(exact) != 1:
        raise NotFoundError(f"no build {word} is recorded" if not exact else f"more than one build begins with {word}")
    return exact[0]


def _name(record: Any) -> str:
    given = record.FrontendAttrs
    context = given.get("context", "") or given.get("vcs:source", "")
    name = os.path.basename(context.partition("#")[0].rstrip("/")).removesuffix(".git")
    file = given.get("filename", "Dockerfile")
    target = given.get("target", "")
    shown = "/".join(part for part in (name, file if file != "Dockerfile" or not name else "") if part)
    return f"{shown} ({target})" if target else shown


def _status(record: Any) -> str:
    if not record.HasField("CompletedAt"):
        return "Running"
    if not record.HasField("error"):
        return "Completed"
    return "Canceled" if record.error.code == 1 else "Error"


def _seconds(record: Any) -> float:
    end = record.CompletedAt.ToNanoseconds() if record.HasField("CompletedAt") else time.time_ns()
    return float(end - record.CreatedAt.ToNanoseconds()) / _NS


def _duration(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}m {int(rest):2d}s" if minutes else f"{rest:.1f}s"


@told
def ls(call: Invocation) -> int:
    """List the builds."""
    options = call.options
    check_builder(options)
    if options["format"] not in ("", "table", "json"):
        raise InvalidInputError(f"invalid --format {options['format']!r}: use table or json")
    records = asyncio.run(_with_link(call, _records, *options["filter"]))
    if options["format"] == "json":
        for record in records:
            print(json.dumps(_row(record)))
        return 0
    rows = [("BUILD ID", "NAME", "STATUS", "CREATED AT", "DURATION")]
    for record in records:
        name = _name(record)
        if len(name) > _LONGEST_NAME and not options["no-trunc"]:
            name = name[: _LONGEST_NAME - 3] + "..."
        ago = human_duration(time.time() - record.CreatedAt.ToNanoseconds() / _NS)
        rows.append((record.Ref, name, _status(record), f"{ago} ago", _duration(_seconds(record))))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for row in rows:
        print("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


async def _with_link(call: Invocation, work: Any, *words: Any) -> Any:
    async with Link(call.api) as link:
        return await work(link, *words)


def _row(record: Any) -> dict[str, Any]:
    made = {
        "ref": record.Ref, "name": _name(record), "status": _status(record), "created_at": record.CreatedAt.ToJsonString(),
        "completed_at": record.CompletedAt.ToJsonString() if record.HasField("CompletedAt") else None,
        "pinned": record.pinned, "total_steps": record.numTotalSteps, "completed_steps": record.numCompletedSteps,
        "cached_steps": record.numCachedSteps,
    }  # fmt: skip
    return {key: value for key, value in made.items() if value not in (None, "", False)}


async def _inspected(link: Link, word: str) -> tuple[Any, dict[str, Any]]:
    """Return a record, and the provenance of what the build made, empty without it."""
    record = await _record(link, word)
    infos = [record.Result, *record.Results.values()]
    for one in (described for info in infos for described in info.Attestations):
        if one.annotations.get(_PREDICATE, "").startswith(_SLSA):
            request = content_pb2.ReadContentRequest(digest=one.digest)
            data = [piece.data async for piece in _streamed(link, f"{_CONTENT}/Read", request)]
            return record, json.loads(b"".join(data))
    return record, {}


@told
def inspect(call: Invocation) -> int:
    """Show what is recorded of a build."""
    options = call.options
    check_builder(options)
    if options["format"] not in ("", "pretty", "json"):
        raise InvalidInputError(f"invalid --format {options['format']!r}: use pretty or json")
    record, provenance = asyncio.run(_with_link(call, _inspected, call.words[0] if call.words else ""))
    materials = provenance.get("materials") or provenance.get("buildDefinition", {}).get("resolvedDependencies") or []
    if options["format"] == "json":
        row = _row(record) | {"attributes": dict(sorted(record.FrontendAttrs.items())), "materials": materials}
        row |= {"error": record.error.message} if record.HasField("error") else {}
        print(json.dumps(row, indent=2))
        return 0
    _show(record, materials)
    return 0


def _show(record: Any, materials: list[dict[str, Any]]) -> None:
    given = record.FrontendAttrs
    facts = [
        ("Name:", _name(record)), ("Context:", given.get("context", "")), ("Dockerfile:", given.get("filename", "Dockerfile")),
        ("VCS Repository:", given.get("vcs:source", "")), ("VCS Revision:", given.get("vcs:revision", "")),
        ("Target:", given.get("target", "")), ("Platforms:", given.get("platform", "")), ("Status:", _status(record)),
        ("Started:", record.CreatedAt.ToJsonString()), ("Duration:", _duration(_seconds(record))),
        ("Build Steps:", f"{record.numCompletedSteps}/{record.numTotalSteps} ({record.numCachedSteps} cached)"),
        ("Warnings:", str(record.numWarnings or "")), ("Pinned:", "true" if record.pinned else ""),
    ]  # fmt: skip
    for label, value in facts:
        if value:
            print(f"{label:<16}{value}")
    arguments = {key.removeprefix("build-arg:"): value for key, value in given.items() if key.startswith("build-arg:")}
    for title, rows in (("BUILD ARG", sorted(arguments.items())), ("MATERIAL", [_material(one) for one in materials])):
        if rows:
            width = max(len(title), *(len(name) for name, _ in rows))
            print(f"\n{title:<{width}}   {'VALUE' if title == 'BUILD ARG' else 'DIGEST'}")
            for name, value in rows:
                print(f"{name:<{width}}   {value}".rstrip())
    if record.HasField("error"):
        print()
        for line in excerpt([(one.type_url, one.value) for one in record.error.details], given.get("filename", "")):
            print(line)
        print(f"ERROR: {record.error.message}")


def _material(one: dict[str, Any]) -> tuple[str, str]:
    return str(one.get("uri")), ", ".join(f"{kind}:{value}" for kind, value in (one.get("digest") or {}).items())


@told
def logs(call: Invocation) -> int:
    """Print what a build showed."""
    check_builder(call.options)
    form = call.options["progress"]
    if form not in ("", "plain", "rawjson"):
        raise InvalidInputError(f"invalid --progress {form!r}: use plain or rawjson")
    asyncio.run(_with_link(call, _show_logs, call.words[0] if call.words else "", form))
    return 0


async def _show_logs(link: Link, word: str, form: str) -> None:
    record = await _record(link, word)
    display = RawJson(sys.stdout) if form == "rawjson" else Plain(sys.stdout, "")
    try:
        async for status in _streamed(link, f"{CONTROL}/Status", control_pb2.StatusRequest(Ref=record.Ref)):
            display.take(status, "")
    finally:
        display.close()


@told
def rm(call: Invocation) -> int:
    """Forget builds."""
    options = call.options
    check_builder(options)
    if bool(options["all"]) == bool(call.words):
        raise InvalidInputError("name the builds to remove, or use --all")
    asyncio.run(_with_link(call, _remove, call.words))
    return 0


async def _remove(link: Link, words: list[str]) -> None:
    if words:
        records = [await _record(link, word) for word in words]
    else:
        records = [one for one in await _records(link) if one.HasField("CompletedAt")]
    for one in records:
        request = control_pb2.UpdateBuildHistoryRequest(Ref=one.Ref, Delete=True)
        await link.call(f"{CONTROL}/UpdateBuildHistory", request, control_pb2.UpdateBuildHistoryResponse)
        if words:
            print(one.Ref)
