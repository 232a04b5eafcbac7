"""The engine's progress messages of pulling, pushing, loading and importing.

On a terminal each part has a line of its own that changes in place; elsewhere each step is a line and
bars are left out.
"""

from __future__ import annotations

import os
import sys

from barque.client.http import ApiError

TYPE_CHECKING = False  # the module typing costs every start of the command milliseconds
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, TextIO

_WIDE = 110
_BAR = 50


def show_progress(messages: Iterator[Any], *, quiet: bool = False, to_stdout: bool = False) -> None:
    """Print a stream of progress messages.

    Raises:
        ApiError: a message says that the engine failed.
    """
    out = sys.stdout if to_stdout else sys.stderr
    screen = _Screen(out) if out.isatty() else None
    for message in messages:
        if message.get("error") or message.get("errorDetail"):
            detail = message.get("errorDetail") or {}
            error = ApiError(500, detail.get("message") or message.get("error", ""))
            error.args = (error.message,)
            raise error
        if quiet:
            continue
        if screen is not None:
            screen.show(message)
        elif "stream" in message:
            out.write(message["stream"])
        elif "status" in message and not message.get("progressDetail"):
            out.write(_named(message) + "\n")
        out.flush()


def _named(message: dict[str, Any]) -> str:
    return f"{message['id']}: {message['status']}" if message.get("id") else str(message["status"])


class _Screen:
    """A terminal: parts by their ids, lines from the first one's."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._lines: dict[str, int] = {}

    def show(self, message: dict[str, Any]) -> None:
        identity = message.get("id") or ""
        if not identity or "progressDetail" not in message:
            # What is said here scrolls the parts above it away.
            self._lines.clear()
            self._print(message)
            return
        if identity not in self._lines:
            self._lines[identity] = len(self._lines)
            self._out.write("\n")
        up = len(self._lines) - self._lines[identity]
        self._out.write(f"\x1b[{up}A")
        self._print(message)
        self._out.write(f"\x1b[{up}B")

    def _print(self, message: dict[str, Any]) -> None:
        if "stream" in message:
            self._out.write(message["stream"])
        elif "status" not in message:
            return
        elif "progressDetail" in message:
            detail = message["progressDetail"] or {}
            shown = _bar(detail.get("current") or 0, detail.get("total") or 0)
            self._out.write(f"\x1b[2K\r{_named(message)} {shown}\r")
        else:
            self._out.write(_named(message) + "\n")


def _bar(current: int, total: int) -> str:
    from barque.cli.units import human_size

    if current <= 0 and total <= 0:
        return ""
    if total <= 0:
        return f"{human_size(current, 4):>8}"
    numbers = f"{human_size(current, 4):>8}/{human_size(total, 4)}"
    try:
        wide = os.get_terminal_size(1).columns > _WIDE
    except OSError:
        wide = False
    if not wide:
        return numbers
    part = min(_BAR, int(current / total * 100) // 2)
    return f"[{'=' * part}>{' ' * (_BAR - part)}] {numbers}"
