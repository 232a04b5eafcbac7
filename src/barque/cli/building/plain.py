"""Progress as lines of text, in the form of buildx's plain display, and as lines of JSON."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from typing import TYPE_CHECKING, Any

from barque.cli.building.trace import CANCELED, Status, Step, Trace, failure_lines, size_text

if TYPE_CHECKING:
    from typing import TextIO

_EVERY_S = 0.1
_LONGEST_NAME = 72
_LEAST_CHANGE = 0.05
_PATIENCE_NS = 5_000_000_000
_SECOND = 1_000_000_000


class Plain:
    """Prints what is new of each step below the step's name; `#4 ...` where another step interrupts it."""

    def __init__(self, out: TextIO, title: str) -> None:
        self.trace = Trace()
        self._out = out
        self._title = title
        self._current: Step | None = None
        self._count = 0
        self._began = 0
        self._shown: dict[tuple[str, str], Status] = {}
        self._told: dict[str, int] = {}
        self._open_line: set[str] = set()
        self._over: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    def take(self, status: Any, name: str) -> None:
        """Show what a build says, a moment later: what follows at once belongs to it."""
        self.trace.take(status, name)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._tell())

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(_EVERY_S)
            self._show_changed()

    def _show_changed(self) -> None:
        steps = [self.trace.steps[one] for one in self.trace.changed]
        self.trace.changed.clear()
        over = sorted((one for one in steps if one.completed), key=lambda one: (one is not self._current, one.completed))
        for step in over:
            self._show(step)
        running = [one for one in steps if not one.completed]
        current = self._current
        if current is not None and current in running:
            self._show(current)
        waited = time.time_ns() - self._began
        for step in running:
            # Others are shown when the current one is over, or has been shown for a while.
            if self._current is None or (step is not self._current and waited > _PATIENCE_NS):
                self._show(step)
                break
            if step is not self._current:
                self.trace.changed[step.digest] = None

    def _print(self, text: str = "", end: str = "\n") -> None:
        self._out.write(text + end)

    def _show(self, step: Step) -> None:
        if step.digest in self._over and not step.lines and not step.changed and not step.warnings:
            return
        if not step.index:
            self._count += 1
            step.index = self._count
        if step is not self._current:
            self._turn_to(step)
        number = step.index
        open_status = False
        for name in [one for one in step.statuses if one in step.changed]:
            open_status |= self._status(step, step.statuses[name])
        step.changed.clear()
        for warning in step.warnings[self._told.get(step.digest, 0) :]:
            self._print(f"#{number} WARN: {warning.short.decode('utf-8', 'replace')}")
        self._told[step.digest] = len(step.warnings)
        for place, line in enumerate(step.lines):
            last = place == len(step.lines) - 1
            self._print(f"#{number} {line}", end="" if last and step.partial else "\n")
        if step.lines:
            if step.partial:
                self._open_line.add(step.digest)
            else:
                self._open_line.discard(step.digest)
            step.lines.clear()
        self._current = step
        if step.completed and not open_status:
            self._end(step)
        self._out.flush()

    def _turn_to(self, step: Step) -> None:
        if self._current is not None:
            self._close_line(self._current)
            self._print(f"#{self._current.index} ...")
        if self._began:
            self._print()
        elif self._title:
            self._print(f"#0 {self._title}\n")
        self._began = time.time_ns()
        name = step.name if len(step.name) <= _LONGEST_NAME else step.name[:_LONGEST_NAME] + "..."
        self._print(f"#{step.index} {name}")

    def _close_line(self, step: Step) -> None:
        if step.digest in self._open_line:
            self._open_line.discard(step.digest)
            self._print()

    def _status(self, step: Step, status: Status) -> bool:
        """Show a part's progress unless little has changed; tell whether it is under way."""
        before = self._shown.get((step.digest, status.name))
        if before is not None and not status.completed:
            change = (status.current - before.current) / status.total if status.total else 0.0
            if change < _LEAST_CHANGE and status.seen - before.seen < _PATIENCE_NS:
                return False
        self._shown[step.digest, status.name] = Status(status.name, status.current, seen=status.seen)
        text = f"#{step.index} {status.name}"
        if status.total:
            text += f" {size_text(status.current)} / {size_text(status.total)}"
        elif status.current:
            text += f" {size_text(status.current)}"
        if status.started:
            seconds = ((status.completed or status.seen) - status.started) / _SECOND
            text += f" {seconds:.1f}s" if seconds > 0.01 else ""
        self._print(text + (" done" if status.completed else ""))
        return not status.completed

    def _end(self, step: Step) -> None:
        self._close_line(step)
        self._current = None
        self._over.add(step.digest)
        number = step.index
        if step.error.endswith(CANCELED):
            self._print(f"#{number} CANCELED")
        elif step.error:
            self._print(f"#{number} ERROR: {step.error}")
        elif step.cached:
            self._print(f"#{number} CACHED")
        else:
            self._print(f"#{number} DONE {step.seconds(0):.1f}s")

    def close(self) -> None:
        """Show what was held back, and the last output of what failed."""
        if self._task is not None:
            self._task.cancel()
        self._show_changed()
        for step in [self.trace.steps[one] for one in self.trace.changed]:
            self._show(step)
        if self._current is not None:
            self._close_line(self._current)
        for line in failure_lines(self.trace):
            self._print(line)
        self._out.flush()


class Quiet:
    """Shows nothing but the last output of what failed."""

    def __init__(self, out: TextIO) -> None:
        self.trace = Trace()
        self._out = out

    def take(self, status: Any, name: str) -> None:
        """Remember what a build says."""
        self.trace.take(status, name)

    def close(self) -> None:
        """Show what failed."""
        for line in failure_lines(self.trace):
            self._out.write(line + "\n")
        self._out.flush()


class RawJson:
    """Prints each message as a line of JSON, with BuildKit's names."""

    def __init__(self, out: TextIO) -> None:
        self.trace = Trace()
        self._out = out

    def take(self, status: Any, name: str) -> None:
        """Show what a build says."""
        self.trace.take(status, name)
        made: dict[str, Any] = {
            "vertexes": [_vertex(one, self.trace.steps[one.digest].name) for one in status.vertexes],
            "statuses": [_status(one) for one in status.statuses],
            "logs": [
                {"vertex": one.vertex, "stream": one.stream, "data": base64.b64encode(one.msg).decode(),
                 "timestamp": _time(one.timestamp)} for one in status.logs
            ],
            "warnings": [_warning(one) for one in status.warnings],
        }  # fmt: skip
        made = {key: value for key, value in made.items() if value}
        if made:
            self._out.write(json.dumps(made, separators=(",", ":")) + "\n")
            self._out.flush()

    def close(self) -> None:
        """Show nothing more."""


def _time(message: Any) -> str:
    return str(message.ToJsonString())


def _times(message: Any, names: dict[str, str]) -> dict[str, str]:
    return {shown: _time(getattr(message, name)) for name, shown in names.items() if message.HasField(name)}


_BOTH = {"started": "started", "completed": "completed"}


def _vertex(one: Any, name: str) -> dict[str, Any]:
    made: dict[str, Any] = {"digest": one.digest, "name": name}
    if one.inputs:
        made["inputs"] = list(one.inputs)
    made |= _times(one, _BOTH)
    if one.cached:
        made["cached"] = True
    if one.error:
        made["error"] = one.error
    return made


def _status(one: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"id": one.ID, "vertex": one.vertex, "name": one.name}
    if one.total:
        made["total"] = one.total
    return {**made, "current": one.current, "timestamp": _time(one.timestamp), **_times(one, _BOTH)}


def _warning(one: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"vertex": one.vertex, "level": one.level, "short": base64.b64encode(one.short).decode()}
    if one.detail:
        made["detail"] = [base64.b64encode(text).decode() for text in one.detail]
    if one.url:
        made["url"] = one.url
    if one.ranges:
        made["range"] = [
            {"start": {"line": r.start.line, "character": r.start.character},
             "end": {"line": r.end.line, "character": r.end.character}} for r in one.ranges
        ]  # fmt: skip
    return made
