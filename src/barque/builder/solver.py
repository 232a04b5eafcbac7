"""Solving graphs: every step once, side by side, from the cache where its key is known."""

import asyncio
import logging
import os
import shutil
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

from barque.base.errors import BarqueError
from barque.builder.graph import Source, Vertex
from barque.builder.results import Result

Emit = Callable[[int, bytes], Awaitable[None]]
log = logging.getLogger(__name__)
_REPLAYED = 1 << 20


class Progress(Protocol):
    """Told what happens to a build's steps, in the order in which it happens to each."""

    def started(self, vertex: Vertex) -> None:
        """A step is looked at."""
        ...

    async def running(self, vertex: Vertex) -> None:
        """A step is not in the cache and is carried out."""
        ...

    async def output(self, vertex: Vertex, stream: int, data: bytes) -> None:
        """A step said something on its standard output (1) or error (2)."""
        ...

    def finished(self, vertex: Vertex, result: Result | None, error: BaseException | None) -> None:
        """A step is over."""
        ...


class Operations(Protocol):
    """Carries steps out."""

    async def key(self, vertex: Vertex, inputs: list[Result], session: "Session") -> str:
        """Return what tells the step apart, empty where it is never cached or needs no work."""
        ...

    def recall(self, vertex: Vertex, key: str, inputs: list[Result]) -> Result | None:
        """Return the result of an earlier run, None without one."""
        ...

    async def borrowed(self, vertex: Vertex, key: str, inputs: list[Result], session: "Session") -> Result | None:
        """Return the result out of a cache that the build was given, None without one."""
        ...

    def settled(self, vertex: Vertex, inputs: list[Result], result: Result, session: "Session") -> Result:
        """Return a result, which other builds may share, as the build wants it."""
        ...

    async def run(self, vertex: Vertex, key: str, inputs: list[Result], session: "Session", emit: Emit) -> Result:
        """Carry the step out; cancelled, leave nothing behind."""
        ...


class Foresight(Protocol):
    """Knows results before anything is carried out; a session's option `imports`."""

    async def foresee(self, wanted: Sequence[Vertex]) -> tuple[dict[Vertex, Result], set[Vertex]]:
        """Return the results that are known of steps (each after its inputs), and what is not needed because of them."""
        ...


class Session:
    """One build: its steps under way, its progress, and what it brings along for operations to find."""

    def __init__(self, progress: Progress | None = None) -> None:
        self.progress = progress
        self.closed = False
        self.tasks: dict[Vertex, asyncio.Task[Result]] = {}
        self.trees: dict[str, Result] = {}
        """Results of `local://` sources by name."""
        self.skipped: set[Vertex] = set()
        """Steps that were shown and not carried out, as a later one's result was known."""
        self.options: dict[str, Any] = {}
        self.facts: dict[Vertex, dict[str, Any]] = {}
        """What steps' keys were made of."""
        self.aside: list[asyncio.Task[Any]] = []
        """What goes on for its steps and is none."""
        self.folders: list[str] = []
        """Folders that are removed at its end."""
        self.descriptors: list[int] = []
        """Descriptors that are closed at its end."""
        self._holders = 0
        self._over = False

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Keep what the build brought along for a step that other builds share, and that may outlive this one."""
        self._holders += 1
        try:
            yield
        finally:
            self._holders -= 1
            if self._over:
                await self._let_go()

    async def close(self) -> None:
        """Cancel what runs, wait until it has ended, and let go what the build brought along once no step holds it."""
        self.closed = True
        every: list[asyncio.Task[Any]] = [*self.tasks.values(), *self.aside]
        running = [task for task in every if not task.done()]
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
        for task in every:
            if not task.cancelled():
                task.exception()
        self._over = True
        await self._let_go()

    async def _let_go(self) -> None:
        if self._holders:
            return
        for end in self.options.pop("ends", []):
            try:
                end()
            except Exception:
                # All that a build brought along goes, whatever becomes of one.
                log.exception("something that a build brought along did not end well")
        for fd in self.descriptors:
            os.close(fd)
        self.descriptors.clear()
        for folder in self.folders:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        self.folders.clear()


class _Job:
    """One run of a step for all builds that want it; it ends when none does any more."""

    def __init__(self) -> None:
        self.task: asyncio.Task[Result] | None = None
        self.listeners: list[Emit] = []
        self.said: list[tuple[int, bytes]] = []
        self._size = 0

    async def emit(self, stream: int, data: bytes) -> None:
        if self._size < _REPLAYED:
            self.said.append((stream, data))
            self._size += len(data)
        for listener in list(self.listeners):
            await listener(stream, data)


class Solver:
    """Solves vertices by means of operations; one for all builds."""

    def __init__(self, operations: Operations, *, parallel: int) -> None:
        self._operations = operations
        self._jobs: dict[str, _Job] = {}
        self._room = asyncio.Semaphore(parallel)
        self._sessions: weakref.WeakSet[Session] = weakref.WeakSet()

    def in_use(self) -> set[str]:
        """Return the chain ids of the layers that builds under way stand on."""
        found: set[str] = set()
        for session in [*self._sessions]:
            for task in [*session.tasks.values()] if not session.closed else ():
                if task.done() and not task.cancelled() and task.exception() is None:
                    found.update(chain for chain, _ in task.result().layers)
        return found

    async def solve(self, vertex: Vertex, session: Session) -> Result:
        """Return a vertex's result; its inputs are solved first, side by side.

        Raises:
            BarqueError: a step failed.
        """
        self._sessions.add(session)
        wanted = order(vertex)
        skipped = await self._foreseen(wanted, session)
        for item in wanted:
            if item not in session.tasks and item not in skipped:
                waited = [session.tasks[needed] for needed in item.inputs]
                session.tasks[item] = asyncio.create_task(self._solve(item, waited, session))
        return await asyncio.shield(session.tasks[vertex])

    async def _foreseen(self, wanted: list[Vertex], session: Session) -> set[Vertex]:
        """Take results from the caches that the build was given; return the steps that need not be solved."""
        foresight: Foresight | None = session.options.get("imports")
        if foresight is None or wanted[-1] in session.tasks:
            return set()
        for item in wanted:
            if isinstance(item, Source) and item not in session.tasks:
                session.tasks[item] = asyncio.create_task(self._solve(item, [], session))
        known, skipped = await foresight.foresee(wanted)
        for item, result in known.items():
            if item not in session.tasks:
                session.tasks[item] = asyncio.create_task(_given(item, result, session))
        for item in skipped - session.skipped - set(session.tasks):
            await _given(item, Result(cached=True), session)
        session.skipped |= skipped
        return skipped - set(session.tasks)

    async def _solve(self, vertex: Vertex, waited: list[asyncio.Task[Result]], session: Session) -> Result:
        inputs = [await asyncio.shield(task) for task in waited]
        progress = session.progress
        if progress is not None:
            progress.started(vertex)
        try:
            result = self._operations.settled(vertex, inputs, await self._keyed(vertex, inputs, session), session)
        except BaseException as error:
            if progress is not None:
                progress.finished(vertex, None, error)
            raise
        if progress is not None:
            progress.finished(vertex, result, None)
        return result

    async def _keyed(self, vertex: Vertex, inputs: list[Result], session: Session) -> Result:
        async def emit(stream: int, data: bytes) -> None:
            if session.progress is not None:
                await session.progress.output(vertex, stream, data)

        key = await self._operations.key(vertex, inputs, session)
        if not key:
            return await self._operations.run(vertex, "", inputs, session, emit)
        if not vertex.no_cache:
            found = self._operations.recall(vertex, key, inputs)
            if found is not None:
                return found
            found = await self._operations.borrowed(vertex, key, inputs, session)
            if found is not None:
                return found
        if session.progress is not None:
            await session.progress.running(vertex)
        while True:
            job = self._jobs.get(key)
            if job is None:
                job = self._start(vertex, key, inputs, session)
            assert job.task is not None
            try:
                return await self._follow(job, job.task, emit)
            except asyncio.CancelledError:
                if not job.task.cancelled() or _being_cancelled():
                    raise
                # The build that ran it went away: it is ours now.

    def _start(self, vertex: Vertex, key: str, inputs: list[Result], session: Session) -> _Job:
        job = _Job()

        async def work() -> Result:
            try:
                async with session.held(), self._room:
                    return await self._operations.run(vertex, key, inputs, session, job.emit)
            finally:
                self._jobs.pop(key, None)

        self._jobs[key] = job
        job.task = asyncio.create_task(work())
        return job

    async def _follow(self, job: _Job, task: "asyncio.Task[Result]", emit: Emit) -> Result:
        said = list(job.said)
        job.listeners.append(emit)
        try:
            for stream, data in said:
                await emit(stream, data)
            return await asyncio.shield(task)
        finally:
            job.listeners.remove(emit)
            if not job.listeners and not task.done():
                task.cancel()
                await asyncio.wait([task])


async def _given(vertex: Vertex, result: Result, session: Session) -> Result:
    """Return a result that is known, showing its step."""
    if session.progress is not None:
        session.progress.started(vertex)
        session.progress.finished(vertex, result, None)
    return result


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def order(vertex: Vertex) -> list[Vertex]:
    """Return a vertex and all that it needs, each after its inputs.

    Raises:
        BarqueError: steps need each other in a circle.
    """
    done: dict[Vertex, None] = {}
    under_way: set[Vertex] = set()
    stack: list[tuple[Vertex, bool]] = [(vertex, False)]
    while stack:
        item, visited = stack.pop()
        if visited:
            under_way.discard(item)
            done[item] = None
            continue
        if item in done:
            continue
        if item in under_way:
            raise BarqueError("the steps of the build need each other in a circle")
        under_way.add(item)
        stack.append((item, True))
        stack += [(needed, False) for needed in item.inputs if needed not in done]
    return list(done)


def now_ns() -> int:
    """Return the time since the epoch in nanoseconds."""
    return time.time_ns()
