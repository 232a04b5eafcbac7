"""A build's progress as BuildKit's clients read it: vertices, their statuses, their output, warnings."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import contextmanager
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from barque.builder.buildkit.pb import control_pb2
from barque.builder.execution import ExitError
from barque.builder.explaining import Explainer
from barque.builder.graph import Vertex
from barque.builder.results import Result

LOG_LIMIT = 2 << 20
_CLIPPED = b"\n[output clipped, log limit 2MiB reached]\n"


def timestamp(ns: int | None = None) -> Timestamp:
    """Return a time since the epoch in nanoseconds, now by default, as a message."""
    found = Timestamp()
    found.FromNanoseconds(time.time_ns() if ns is None else ns)
    return found


class Step:
    """One line of the display: a vertex of the graph, or work that is none, such as an export."""

    def __init__(self, report: "Report", name: str, inputs: Iterable[str] = ()) -> None:
        self._report = report
        self.name = name
        self.digest = report.next_digest(name)
        self.inputs = list(inputs)
        self.began: Timestamp | None = None
        self.ended: Timestamp | None = None
        self._said = 0

    def begin(self) -> None:
        """Show that it is under way."""
        if self.began is None:
            self.began = timestamp()
            self._report.add(vertexes=[self._vertex()])

    def end(self, *, cached: bool = False, error: str = "") -> None:
        """Show that it is over."""
        self.begin()
        self.ended = timestamp()
        self._report.add(vertexes=[self._vertex(cached=cached, error=error)])

    def _vertex(self, *, cached: bool = False, error: str = "") -> Any:
        return control_pb2.Vertex(
            digest=self.digest, inputs=self.inputs, name=self.name, cached=cached, started=self.began,
            completed=self.ended, error=error,
        )  # fmt: skip

    def say(self, stream: int, data: bytes) -> None:
        """Show output (1 standard output, 2 standard error); more than 2 MiB is cut off."""
        if self._said > LOG_LIMIT:
            return
        self._said += len(data)
        if self._said > LOG_LIMIT:
            data += _CLIPPED
        log = control_pb2.VertexLog(vertex=self.digest, timestamp=timestamp(), stream=stream, msg=data)
        self._report.add(logs=[log])

    def status(self, name: str, *, current: int = 0, total: int = 0, began: Timestamp, done: bool = False) -> None:
        """Show how far a part of it is; a total of 0 shows only what is done."""
        now = timestamp()
        self._report.add(statuses=[
            control_pb2.VertexStatus(
                ID=name, vertex=self.digest, name=name, current=current, total=total, timestamp=now, started=began,
                completed=now if done else None,
            )
        ])  # fmt: skip

    def transferred(self, name: str, size: int) -> None:
        """Show how many bytes came over."""
        self.status(name, current=size, began=self.began or timestamp(), done=True)

    @contextmanager
    def part(self, name: str) -> Any:
        """Show a part of it while the context lasts."""
        began = timestamp()
        self.status(name, began=began)
        yield
        self.status(name, began=began, done=True)


class Report:
    """All that was shown of one build, for any number of readers; implements the solver's Progress."""

    def __init__(self, ref: str) -> None:
        self._ref = ref
        self._number = 0
        self._said: list[Any] = []
        self._changed = asyncio.Event()
        self._closed = False
        self._steps: dict[Vertex, Step] = {}
        self.cached = self.total = self.completed = self.warnings = 0
        self.explainer: Explainer | None = None

    def next_digest(self, name: str) -> str:
        """Return a digest that no other step of any build has."""
        self._number += 1
        text = f"{self._ref}\0{self._number}\0{name}"
        return f"sha256:{hashlib.sha256(text.encode('utf-8', 'surrogateescape')).hexdigest()}"

    def add(self, **parts: Any) -> None:
        """Show something."""
        self._said.append(control_pb2.StatusResponse(**parts))
        self._changed.set()

    def said(self) -> list[Any]:
        """Return all that was shown so far."""
        return [*self._said]

    def close(self) -> None:
        """Say that no more comes."""
        self._closed = True
        self._changed.set()

    async def follow(self) -> AsyncIterator[Any]:
        """Yield all that was said, and what is said from now on, until the build is over."""
        place = 0
        while True:
            fresh = self._said[place:]
            if fresh:
                place += len(fresh)
                together = control_pb2.StatusResponse()
                for one in fresh:
                    together.MergeFrom(one)
                yield together
            elif self._closed:
                return
            else:
                self._changed.clear()
                await self._changed.wait()

    @contextmanager
    def work(self, name: str) -> Any:
        """Show a step that is no vertex while the context lasts."""
        step = Step(self, name)
        step.begin()
        try:
            yield step
        except BaseException as error:
            step.end(error=str(error) or type(error).__name__)
            raise
        step.end()

    def warn(self, step: Step | None, short: str, **parts: Any) -> None:
        """Show a warning."""
        self.warnings += 1
        self.add(warnings=[
            control_pb2.VertexWarning(vertex=step.digest if step else "", short=short.encode(), **parts)
        ])  # fmt: skip

    def step_of(self, vertex: Vertex) -> Step | None:
        """Return the step of a vertex that has a name."""
        if not vertex.name:
            return None
        found = self._steps.get(vertex)
        if found is None:
            inputs = [step.digest for step in map(self._steps.get, vertex.inputs) if step is not None]
            found = self._steps[vertex] = Step(self, vertex.name, inputs)
            self.total += 1
        return found

    def started(self, vertex: Vertex) -> None:
        """Show that a vertex is looked at."""
        step = self.step_of(vertex)
        if step is not None:
            step.begin()

    async def running(self, vertex: Vertex) -> None:
        """Know that a vertex is carried out; it is shown as begun already. Say why, where that is wanted."""
        step = self.step_of(vertex) if self.explainer is not None else None
        if self.explainer is not None and step is not None:
            for text in self.explainer.missed(vertex):
                step.say(2, f"explain: {text}\n".encode("utf-8", "surrogateescape"))

    async def output(self, vertex: Vertex, stream: int, data: bytes) -> None:
        """Show a vertex's output."""
        step = self.step_of(vertex)
        if step is not None:
            step.say(stream, bytes(data))

    def finished(self, vertex: Vertex, result: Result | None, error: BaseException | None) -> None:
        """Show that a vertex is over."""
        step = self.step_of(vertex)
        if step is None:
            return
        self.completed += 1
        cached = result is not None and result.cached
        self.cached += cached
        if cached and self.explainer is not None and result is not None:
            for text in self.explainer.hit(vertex, result):
                step.say(2, f"explain: {text}\n".encode("utf-8", "surrogateescape"))
        step.end(cached=cached, error="" if error is None else told(error))


def told(error: BaseException) -> str:
    """Return an error in the words of BuildKit."""
    if isinstance(error, asyncio.CancelledError):
        return "context canceled"
    if isinstance(error, ExitError):
        command = " ".join(error.step.args)
        return f'process "{command}" did not complete successfully: exit code: {error.code}'
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if isinstance(error.filename, str) else ""
        return f"{place}{error.strerror.lower()}"
    return str(error) or type(error).__name__
