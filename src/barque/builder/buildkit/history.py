"""The builds that were: kept with what they showed, over restarts; the oldest forgotten; told to those who listen."""

import asyncio
import logging
import struct
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from barque.base.errors import NotFoundError
from barque.builder.buildkit.builds import Build
from barque.builder.buildkit.history_records import blobs_of, recorded, row_of
from barque.builder.buildkit.history_store import HistoryStore, Kept
from barque.builder.buildkit.pb import control_pb2
from barque.builder.collecting import HistoryLimits
from barque.builder.filters import HISTORY, passes

log = logging.getLogger(__name__)


class History:
    """Records of builds and listeners for more.

    Args:
        store: keeps the records.
        limits: says how many, called each time, as options may change while the daemon runs.
        attest: returns what is said of a finished build's outcome, by platform: kind and content.
    """

    def __init__(
        self, store: HistoryStore, limits: Callable[[], HistoryLimits],
        attest: "Callable[[Build], dict[str, list[tuple[str, Any]]]]",
    ) -> None:  # fmt: skip
        self._store = store
        self._limits = limits
        self._attest = attest
        self._kept: dict[str, Kept] = {one.record.Ref: one for one in store.load()}
        self._running: dict[str, Any] = {}
        self._listeners: set[asyncio.Queue[Any]] = set()
        self._internal: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def begun(self, build: Build, *, internal: bool) -> None:
        """Note that a build began; internal ones are not recorded."""
        if internal:
            self._internal.add(build.ref)
            return
        self._running[build.ref] = record = recorded(build)
        self._tell(control_pb2.STARTED, record)

    def completed(self, build: Build) -> None:
        """Note that a build is over; its record is written beside what follows."""
        if build.ref in self._internal:
            self._internal.discard(build.ref)
            return
        task = asyncio.create_task(self._keep(build))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _keep(self, build: Build) -> None:
        record = recorded(build)
        blobs = await asyncio.to_thread(blobs_of, record, build.report.said(), self._attest(build))
        try:
            kept = await asyncio.to_thread(self._store.add, record, blobs)
        except OSError as error:
            log.warning("build %s is not recorded: %s", build.ref, error)
            self._running.pop(build.ref, None)
            return
        before = self._kept.pop(build.ref, None)
        self._running.pop(build.ref, None)
        self._kept[build.ref] = kept
        self._tell(control_pb2.COMPLETE, record)
        if before is not None:
            await asyncio.to_thread(self._store.remove, before)
        await self.forget_old()

    @property
    def is_settled(self) -> bool:
        """Whether all builds that are over are recorded."""
        return not self._tasks

    async def settled(self) -> None:
        """Wait until all builds that are over are recorded."""
        while self._tasks:
            await asyncio.wait([*self._tasks])

    async def forget_old(self) -> None:
        """Remove records beyond the limits, the oldest first; pinned ones stay and do not count."""
        limits = self._limits()
        oldest_ns = time.time_ns() - limits.age_ns
        count = size = 0
        for kept in sorted(self._kept.values(), key=lambda one: -one.record.CreatedAt.ToNanoseconds()):
            if kept.record.pinned:
                continue
            count, size = count + 1, size + kept.size
            if count > limits.entries or size > limits.size or kept.record.CompletedAt.ToNanoseconds() < oldest_ns:
                await self._forget(kept.record.Ref)

    async def _forget(self, ref: str) -> None:
        kept = self._kept.pop(ref, None)
        if kept is not None:
            self._tell(control_pb2.DELETED, kept.record)
            await asyncio.to_thread(self._store.remove, kept)

    async def update(self, ref: str, *, pinned: bool, delete: bool, finalize: bool) -> None:
        """Pin, unpin or forget a build, or only wait until it is recorded.

        Raises:
            NotFoundError: there is none of that ref.
        """
        await self.settled()
        kept = self._kept.get(ref)
        if kept is None:
            raise NotFoundError(f"failed to retrieve ref {ref}: no such build")
        if delete:
            await self._forget(ref)
        elif not finalize:
            kept.record.pinned = pinned
            await asyncio.to_thread(self._store.change, kept)
            self._tell(control_pb2.COMPLETE, kept.record)

    def _tell(self, kind: Any, record: Any) -> None:
        for listener in self._listeners:
            listener.put_nowait(control_pb2.BuildHistoryEvent(type=kind, record=record))

    def has(self, ref: str) -> bool:
        """Tell whether a build is recorded."""
        return ref in self._kept

    async def shown(self, ref: str) -> AsyncIterator[Any]:
        """Yield what a recorded build showed.

        Raises:
            NotFoundError: nothing of that is kept.
        """
        kept = self._kept.get(ref)
        file = self._store.open(kept.record.logs.digest) if kept is not None else None
        if file is None:
            raise NotFoundError(f"what build {ref} showed is not kept")
        with file:
            while len(head := file.read(4)) == 4:
                yield control_pb2.StatusResponse.FromString(file.read(struct.unpack("<I", head)[0]))

    async def follow(self, request: Any) -> AsyncIterator[Any]:
        """Yield what is known, and then, unless the client wants no more, what happens.

        Raises:
            InvalidInputError: a filter is malformed.
        """
        fits = passes(list(request.Filter), HISTORY)
        await self.settled()
        await self.forget_old()
        queue: asyncio.Queue[Any] = asyncio.Queue()
        self._listeners.add(queue)
        try:
            events = [control_pb2.BuildHistoryEvent(type=control_pb2.STARTED, record=one) for one in self._running.values()]
            if not request.ActiveOnly:
                events += [control_pb2.BuildHistoryEvent(type=control_pb2.COMPLETE, record=one.record) for one in self._kept.values()]
            events = [one for one in events if request.Ref in ("", one.record.Ref) and fits(row_of(one.record))]
            events.sort(key=lambda one: -one.record.CreatedAt.ToNanoseconds())
            for event in events[: request.Limit or None]:
                yield event
            while not request.EarlyExit:
                event = await queue.get()
                if request.Ref in ("", event.record.Ref) and fits(row_of(event.record)):
                    yield event
        finally:
            self._listeners.discard(queue)
