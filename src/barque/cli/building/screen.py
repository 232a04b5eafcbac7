"""Progress on a terminal: a table of steps that is redrawn in place, with the last output of those that run."""

from __future__ import annotations

import asyncio
import os
import time
import unicodedata
from typing import TYPE_CHECKING, Any

from barque.cli.building.trace import CANCELED, Step, Trace, failure_lines, size_text

if TYPE_CHECKING:
    from typing import TextIO

_EVERY_S = 0.1
_LOG_LINES = 6
_DEFAULT_SIZE = os.terminal_size((80, 24))
_BLUE, _RED, _YELLOW, _OFF = "\x1b[34m", "\x1b[31m", "\x1b[33m", "\x1b[0m"


class Screen:
    """Redraws itself while it is open; `close` draws it a last time."""

    def __init__(self, out: TextIO, title: str, *, colour: bool) -> None:
        self.trace = Trace()
        self._out = out
        self._title = title
        self._colour = colour
        self._began = time.time_ns()
        self._lines = 0
        self._task: asyncio.Task[None] | None = None

    def take(self, status: Any, name: str) -> None:
        """Show what a build says, at the next redrawing."""
        self.trace.take(status, name)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._redraw())

    async def _redraw(self) -> None:
        while True:
            self.draw(over=False)
            await asyncio.sleep(_EVERY_S)

    def close(self) -> None:
        """Show how it ended."""
        if self._task is not None:
            self._task.cancel()
        if self.trace.steps:
            self.draw(over=True)
        for line in failure_lines(self.trace):
            self._out.write(line + "\n")
        self._out.flush()

    def draw(self, *, over: bool) -> None:
        """Draw it over what was drawn before."""
        try:
            size = os.get_terminal_size(self._out.fileno())
        except OSError:
            size = _DEFAULT_SIZE
        width, height = size.columns or 80, size.lines or 24
        lines = self._rows(width, height, over=over)
        out = [f"\x1b[{self._lines}A" if self._lines else "", "\x1b[?25l"]
        out += [f"\r{line}\x1b[K\n" for line in lines]
        extra = self._lines - len(lines)
        if extra > 0:
            out += ["\x1b[K\n"] * extra + [f"\x1b[{extra}A"]
        self._lines = len(lines)
        if over:
            out.append("\x1b[?25h")
            self._lines = 0
        self._out.write("".join(out))
        self._out.flush()

    def _rows(self, width: int, height: int, *, over: bool) -> list[str]:
        now = time.time_ns()
        steps = [one for one in self.trace.steps.values() if one.started]
        done = sum(1 for one in steps if one.completed)
        head = f"[+] Building {(now - self._began) / 1e9:.1f}s ({done}/{len(self.trace.steps)})"
        head += " FINISHED" if over and not self.trace.failed() else ""
        rows: list[tuple[str, Step | None]] = [(_spread(head, self._title, width), None)]
        for step in steps:
            rows += [(text, step) for text in self._step(step, now, width, over=over)]
        room = height - 1
        if len(rows) > room and not over:
            rows = _fitted(rows, room)
        return [self._coloured(text, step) for text, step in rows]

    def _step(self, step: Step, now: int, width: int, *, over: bool) -> list[str]:
        mark = "CACHED " if step.cached else "CANCELED " if step.error.endswith(CANCELED) else "ERROR " if step.error else ""
        rows = [_spread(f" => {mark}{step.name}", f"{step.seconds(now):.1f}s", width)]
        for status in step.statuses.values():
            text = f" => => {status.name}"
            if status.total:
                text += f" {size_text(status.current)} / {size_text(status.total)}"
            elif status.current:
                text += f" {size_text(status.current)}"
            ended = status.completed or (status.seen if step.completed else now)
            seconds = max(0.0, (ended - status.started) / 1e9) if status.started else 0.0
            rows.append(_spread(text, f"{seconds:.1f}s", width))
        rows += [_spread(f" => WARN: {warning.short.decode('utf-8', 'replace')}", "0.0s", width) for warning in step.warnings]
        if step.running and not over:
            rows += [_spread(f" => => # {line.partition(' ')[2]}", "", width) for line in step.output[-_LOG_LINES:]]
        return rows

    def _coloured(self, text: str, step: Step | None) -> str:
        if not self._colour or step is None or text.startswith(" => => # "):
            return text
        if step.error.endswith(CANCELED):
            return f"{_YELLOW}{text}{_OFF}"
        if step.error:
            return f"{_RED}{text}{_OFF}"
        return f"{_BLUE}{text}{_OFF}" if step.completed else text


def _fitted(rows: list[tuple[str, Step | None]], room: int) -> list[tuple[str, Step | None]]:
    """Leave out the oldest steps that are over, then the first lines, until the rest has room."""
    excess = len(rows) - room
    kept = [rows[0]]
    for row in rows[1:]:
        if excess > 0 and row[1] is not None and row[1].completed and not row[1].error:
            excess -= 1
            continue
        kept.append(row)
    return kept if len(kept) <= room else [kept[0], *kept[len(kept) - room + 1 :]]


def _spread(left: str, right: str, width: int) -> str:
    """Return text at both sides of a line; the left side is cut where there is no room."""
    left = "".join(character if character.isprintable() else " " for character in left)
    room = width - len(right) - 1
    cut, used = [], 0
    for character in left:
        used += 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if used > room:
            break
        cut.append(character)
    text = "".join(cut)
    used = min(used, room) if used <= room else sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in cut)
    return f"{text}{' ' * max(1, width - used - len(right))}{right}" if right else text
