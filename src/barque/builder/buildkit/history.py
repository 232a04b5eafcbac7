"""The builds that were: kept in memory, the oldest forgotten, told to those who listen."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from typing import Any

from barque.base.errors import NotFoundError
from barque.builder.buildkit.builds import Build
from barque.builder.buildkit.pb import control_pb2, status_pb2
from barque.builder.buildkit.progress import timestamp

_KEPT = 50
_UNKNOWN = 2


class History:
    """Records of builds and listeners for more."""

    def __init__(self) -> None:
        self._records: OrderedDict[str, Any] = OrderedDict()
        self._running: dict[str, Any] = {}
        self._listeners: set[asyncio.Queue[Any]] = set()
        self._internal: set[str] = set()

    def begun(self, build: Build, *, internal: bool) -> None:
        """Note that a build began; internal ones are not recorded."""
        if internal:
            self._internal.add(build.ref)
            return
        self._running[build.ref] = record = self._record(build)
        self._tell(control_pb2.STARTED, record)

    def completed(self, build: Build) -> None:
        """Note that a build is over."""
        if build.ref in self._internal:
            self._internal.discard(build.ref)
            return
        self._running.pop(build.ref, None)
        record = self._record(build)
        record.CompletedAt.CopyFrom(timestamp(build.completed_ns))
        record.ExporterResponse.update(build.response)
        if build.error:
            record.error.CopyFrom(status_pb2.Status(code=_UNKNOWN, message=build.error))
        report = build.report
        record.numCachedSteps, record.numTotalSteps = report.cached, report.total
        record.numCompletedSteps, record.numWarnings = report.completed, report.warnings
        self._records[build.ref] = record
        for ref in [ref for ref, one in self._records.items() if not one.pinned][: -_KEPT or None]:
            self._tell(control_pb2.DELETED, self._records.pop(ref))
        self._tell(control_pb2.COMPLETE, record)

    def _record(self, build: Build) -> Any:
        return control_pb2.BuildHistoryRecord(
            Ref=build.ref, Frontend=build.frontend, FrontendAttrs=build.options, CreatedAt=timestamp(build.created_ns)
        )

    def update(self, ref: str, *, pinned: bool, delete: bool) -> None:
        """Pin, unpin or forget a build.

        Raises:
            NotFoundError: there is none of that ref.
        """
        record = self._records.get(ref)
        if record is None:
            raise NotFoundError(f"failed to retrieve ref {ref}: no such build")
        if delete:
            self._tell(control_pb2.DELETED, self._records.pop(ref))
            return
        record.pinned = pinned
        self._tell(control_pb2.COMPLETE, record)

    def _tell(self, kind: Any, record: Any) -> None:
        for listener in self._listeners:
            listener.put_nowait(control_pb2.BuildHistoryEvent(type=kind, record=record))

    async def follow(self, *, active_only: bool, ref: str, early_exit: bool, limit: int) -> AsyncIterator[Any]:
        """Yield what is known, and then, unless `early_exit`, what happens."""
        queue: asyncio.Queue[Any] = asyncio.Queue()
        self._listeners.add(queue)
        try:
            for record in list(self._running.values()):
                if not ref or record.Ref == ref:
                    yield control_pb2.BuildHistoryEvent(type=control_pb2.STARTED, record=record)
            done = [] if active_only else [one for one in self._records.values() if not ref or one.Ref == ref]
            for record in done[-limit:] if limit else done:
                yield control_pb2.BuildHistoryEvent(type=control_pb2.COMPLETE, record=record)
            while not early_exit:
                event = await queue.get()
                if not ref or event.record.Ref == ref:
                    yield event
        finally:
            self._listeners.discard(queue)
