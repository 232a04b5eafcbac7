"""What a frontend answers to `--call` and `--check`, and the warnings of a build, as they are shown."""

from __future__ import annotations

import base64
import json
import sys
from typing import TYPE_CHECKING, Any

from barque.cli.building.excerpt import place_of, source_lines

if TYPE_CHECKING:
    from barque.cli.building.request import BuildRequest
    from barque.cli.flags import Options


def show(request: BuildRequest, response: dict[str, str], options: Options) -> int:
    """Print an answer; return 1 where a check found something, else 0."""
    text, raw = response.get("result.txt", ""), response.get("result.json", "")
    wanted = "json" if options["call"].endswith("format=json") else ""
    if request.call != "frontend.lint":
        print(raw if wanted else text, end="" if text.endswith("\n") and not wanted else "\n")
        return 0
    found = json.loads(raw or "{}")
    if wanted:
        print(json.dumps(found, indent=2))
    else:
        _show_lint(found, request.inputs.dockerfile)
    return 1 if found.get("warnings") or found.get("buildError") else 0


def _show_lint(found: dict[str, Any], dockerfile: str) -> None:
    warnings = found.get("warnings") or []
    if not warnings and not found.get("buildError"):
        print("Check complete, no warnings found.")
        return
    if warnings:
        print(f"Check complete, {len(warnings)} warning{'s have' if len(warnings) > 1 else ' has'} been found!")
    sources = found.get("sources") or []
    for warning in warnings:
        print()
        name = warning.get("ruleName") or ""
        print(f"WARNING: {name}" + (f" - {warning['url']}" if warning.get("url") else ""))
        print(warning.get("detail") or warning.get("description") or "")
        location = warning.get("location") or {}
        index = int(location.get("sourceIndex") or 0)
        ranges = location.get("ranges") or []
        if index < len(sources) and ranges:
            text = base64.b64decode(sources[index].get("data") or "").decode("utf-8", "replace")
            places = [(int(r["start"]["line"]), int(r.get("end", r["start"])["line"])) for r in ranges]
            lines = source_lines(sources[index].get("filename") or dockerfile or "Dockerfile", text, places)
            if lines:
                print("\n" + "\n".join(lines))
    if found.get("buildError"):
        print(f"\nERROR: {found['buildError'].get('message', '')}", file=sys.stderr)


def show_warnings(warnings: list[Any], *, debug: bool) -> None:
    """Print a build's warnings below its progress: one line each, whole with `--debug`."""
    hint = "" if debug else " (use barque --debug to expand)"
    count = f"{len(warnings)} warning{'s' if len(warnings) > 1 else ''} found"
    print(f"\n {count}{hint}:", file=sys.stderr)
    for warning in warnings:
        short = warning.short.decode("utf-8", "replace")
        place = place_of(warning.ranges[0])[0] if warning.ranges else 0
        print(f" - {short}" + (f" (line {place})" if place and "(line" not in short else ""), file=sys.stderr)
        if not debug:
            continue
        for text in warning.detail:
            print(text.decode("utf-8", "replace"), file=sys.stderr)
        if warning.url:
            print(f"More info: {warning.url}", file=sys.stderr)
        text = warning.info.data.decode("utf-8", "replace") if warning.HasField("info") else ""
        for line in source_lines(warning.info.filename, text, [place_of(one) for one in warning.ranges]):
            print(line, file=sys.stderr)
