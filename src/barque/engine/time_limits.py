"""Containers that may run for a time only: stopped when it is over, also by a daemon that started meanwhile."""

import asyncio
import logging
from typing import TYPE_CHECKING

from barque.base.errors import BarqueError
from barque.engine import uptime
from barque.engine.container import Container

if TYPE_CHECKING:
    from barque.engine.engine import Engine

log = logging.getLogger(__name__)


class TimeLimits:
    """The clocks of the containers that have a limit (HostConfig.TimeLimit, nanoseconds since the start)."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def begin(self, container: Container) -> None:
        """Let the clock of a container that runs tick."""
        self.end(container)
        limit_ns = container.host.get("TimeLimit") or 0
        if limit_ns:
            self._tasks[container.id] = self._engine.spawn(self._wait(container, limit_ns))

    def end(self, container: Container) -> None:
        """Stop the clock."""
        task = self._tasks.pop(container.id, None)
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    async def _wait(self, container: Container, limit_ns: int) -> None:
        left_ns = container.began_ns + limit_ns - uptime.now_ns()
        await asyncio.sleep(max(left_ns, 0) / 1e9)
        self._tasks.pop(container.id, None)
        log.info("container %s has run for as long as it may: it is stopped", container.name)
        self._engine.publish(container, "time_limit")
        try:
            await self._engine.lifecycle.stop(container, "", None)
        except BarqueError as error:
            log.warning("container %s could not be stopped: %s", container.name, error)
