"""The place of a Dockerfile that an error or a warning is about, as it is shown."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

_SOURCE = "errdefs.Source"
_RULE = "--------------------"


def excerpt(details: Sequence[tuple[str, bytes]], dockerfile: str) -> list[str]:
    """Return the lines around the place that an error's details name; nothing where they name none.

    Args:
        details: names of types, and bytes.
        dockerfile: the Dockerfile's path as the user knows it.
    """
    for kind, raw in details:
        if _SOURCE not in kind:
            continue
        try:
            found = json.loads(raw)
            text = base64.b64decode(found["info"].get("data") or "").decode("utf-8", "replace")
            places = [(int(r["start"]["line"]), int(r.get("end", r["start"])["line"])) for r in found["ranges"]]
            return source_lines(found["info"].get("filename") or dockerfile or "Dockerfile", text, places)
        except (ValueError, KeyError, TypeError, AttributeError):
            return []
    return []


def source_lines(name: str, text: str, places: list[tuple[int, int]]) -> list[str]:
    """Return a file's lines around places (first and last line, counted from 1), those marked."""
    if not places or not text:
        return []
    lines = text.split("\n")
    first, last = places[0]
    if not 1 <= first <= len(lines):
        return []
    last = min(max(first, last), len(lines))
    start, end = _widened(first, last, len(lines))
    made = [f"{name}:{first}", _RULE]
    for number in range(start, end + 1):
        marked = any(low <= number <= max(low, high) for low, high in places)
        made.append(f"{number:4} | {'>>>' if marked else '   '} {lines[number - 1]}")
    return [*made, _RULE]


def _widened(start: int, end: int, count: int) -> tuple[int, int]:
    """Return the lines that are shown around a place: more around a single one."""
    wanted = 4 if start == end else 2
    added = 0
    while added < wanted:
        if start > 1:
            start, added = start - 1, added + 1
        if end < count:
            end, added = end + 1, added + 1
        added += 1
    return start, end


def place_of(one: Any) -> tuple[int, int]:
    """Return the first and last line of a range message."""
    return one.start.line, one.end.line
