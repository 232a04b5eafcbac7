"""The place of a Dockerfile that an error or a warning is about, as it is shown."""

from __future__ import annotations

import json
from typing import Any

_SOURCE = "errdefs.Source"
_AROUND = 3
_RULE = "--------------------"


def excerpt(details: list[tuple[str, bytes]], dockerfile: str) -> list[str]:
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
            info, ranges = found["info"], found["ranges"]
            import base64

            text = base64.b64decode(info.get("data") or "").decode("utf-8", "replace")
            places = [(int(r["start"]["line"]), int(r.get("end", r["start"])["line"])) for r in ranges]
            return source_lines(info.get("filename") or dockerfile or "Dockerfile", text, places)
        except (ValueError, KeyError, TypeError, AttributeError):
            return []
    return []


def source_lines(name: str, text: str, places: list[tuple[int, int]]) -> list[str]:
    """Return a file's lines around places (first and last line, counted from 1), those marked."""
    if not places or not text:
        return []
    lines = text.rstrip("\n").split("\n")
    first, last = places[0]
    last = max(first, last)
    if not 1 <= first <= len(lines):
        return []
    last = min(last, len(lines))
    start, end = max(1, first - _around(first, last)), min(len(lines), last + _around(first, last))
    made = [f"{name}:{first}", _RULE]
    for number in range(start, end + 1):
        marked = any(low <= number <= max(low, high) for low, high in places)
        made.append(f"{number:4} | {'>>>' if marked else '   '} {lines[number - 1]}")
    return [*made, _RULE]


def _around(first: int, last: int) -> int:
    pad = 0
    while pad < _AROUND and (last - first + 1) + 2 * pad < 5 + _AROUND - 1:
        pad += 1
    return pad


def place_of(one: Any) -> tuple[int, int]:
    """Return the first and last line of a range message."""
    return one.start.line, one.end.line
