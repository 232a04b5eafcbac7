"""What a build has said so far, kept step by step for the displays."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

_EXPLAIN = "explain: "
_LAST_LINES = 10
_SECOND = 1_000_000_000
CANCELED = "context canceled"


@dataclass(slots=True, eq=False)
class Status:
    """A part of a step: bytes done and to do, times in nanoseconds since the epoch."""

    name: str
    current: int = 0
    total: int = 0
    started: int = 0
    completed: int = 0
    seen: int = 0


@dataclass(slots=True, eq=False)
class Step:
    """A vertex; times in nanoseconds since the epoch, 0 while they are not known."""

    digest: str
    name: str = ""
    started: int = 0
    completed: int = 0
    spent: int = 0
    cached: bool = False
    error: str = ""
    index: int = 0
    statuses: dict[str, Status] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)
    lines: list[str] = field(default_factory=list)
    partial: bool = False
    last: deque[str] = field(default_factory=lambda: deque(maxlen=_LAST_LINES))
    warnings: list[Any] = field(default_factory=list)
    output: list[str] = field(default_factory=list)
    explained: list[str] = field(default_factory=list)

    @property
    def running(self) -> bool:
        """Whether it has begun and is not over."""
        return bool(self.started and not self.completed)

    def seconds(self, now: int) -> float:
        """Return how long it has taken."""
        return (self.spent + (max(0, now - self.started) if self.running else 0)) / _SECOND


class Trace:
    """All steps of all builds of one display, in the order in which they were told of."""

    def __init__(self) -> None:
        self.steps: dict[str, Step] = {}
        self.changed: dict[str, None] = {}
        self.warnings: list[Any] = []

    def take(self, status: Any, name: str) -> None:
        """Take what a build says; name goes before the steps' names where several builds are shown."""
        for vertex in status.vertexes:
            self._vertex(vertex, name)
        for one in status.statuses:
            self._status(one)
        for log in status.logs:
            self._log(log)
        for warning in status.warnings:
            self.warnings.append(warning)
            step = self.steps.get(warning.vertex)
            if step is not None:
                step.warnings.append(warning)
                self.changed[step.digest] = None

    def _vertex(self, vertex: Any, name: str) -> None:
        step = self.steps.setdefault(vertex.digest, Step(vertex.digest))
        step.name = _prefixed(vertex.name, name)
        started = vertex.started.ToNanoseconds() if vertex.HasField("started") else 0
        completed = vertex.completed.ToNanoseconds() if vertex.HasField("completed") else 0
        if completed and not step.completed:
            step.spent += max(0, completed - started) if started else 0
        elif started and not completed:
            step.completed = 0
        step.started, step.completed = started or step.started, completed
        step.cached = vertex.cached
        step.error = vertex.error
        if step.started:
            self.changed[step.digest] = None

    def _status(self, one: Any) -> None:
        step = self.steps.get(one.vertex)
        if step is None:
            return
        found = step.statuses.setdefault(one.ID, Status(one.ID))
        found.current, found.total = one.current, one.total
        found.seen = one.timestamp.ToNanoseconds()
        found.started = one.started.ToNanoseconds() if one.HasField("started") else 0
        found.completed = one.completed.ToNanoseconds() if one.HasField("completed") else 0
        step.changed.add(one.ID)
        self.changed[step.digest] = None

    def _log(self, log: Any) -> None:
        step = self.steps.get(log.vertex)
        if step is None:
            return
        seconds = max(0.0, (log.timestamp.ToNanoseconds() - step.started) / _SECOND) if step.started else 0.0
        digits = 3 if seconds < 10 else 2 if seconds < 100 else 1
        pieces = log.msg.decode("utf-8", "replace").split("\n")
        whole = pieces[-1] == ""
        if whole:
            pieces.pop()
        for number, piece in enumerate(pieces):
            if piece.startswith(_EXPLAIN):
                step.explained.append(piece.removeprefix(_EXPLAIN))
            if number == 0 and step.partial and step.output:
                step.output[-1] += piece
                if step.lines:
                    step.lines[-1] += piece
                else:
                    step.lines.append(step.output[-1])
                continue
            line = f"{seconds:.{digits}f} {piece}"
            step.lines.append(line)
            step.output.append(line)
            del step.output[:-200]
        step.partial = not whole
        self.changed[step.digest] = None

    def failed(self) -> list[Step]:
        """Return the steps that failed and were not merely called off."""
        return [one for one in self.steps.values() if one.error and not one.error.endswith(CANCELED)]


def _prefixed(text: str, name: str) -> str:
    if not name:
        return text
    return f"[{name} {text[1:]}" if text.startswith("[") else f"[{name}] {text}"


def size_text(size: int) -> str:
    """Return bytes in powers of 1000 with two digits behind the point, such as 3.15MB; plain bytes without."""
    if size < 1000:
        return f"{size}B"
    value, unit = float(size), "B"
    for larger in ("kB", "MB", "GB", "TB", "PB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.2f}{unit}"


def failure_lines(trace: Trace) -> list[str]:
    """Return the last output of the steps that failed, as it stands below the display."""
    found: list[str] = []
    for step in trace.failed():
        found += ["------", f" > {step.name}:", *step.output[-_LAST_LINES:], "------"]
    return found


def explained_lines(trace: Trace) -> list[str]:
    """Return why each step was or was not in the cache, below the steps' names."""
    found: list[str] = []
    for step in trace.steps.values():
        if step.explained:
            found += [f" => {step.name}", *(f"    {text}" for text in step.explained)]
    return found
