"""Freezing all processes of a container, and letting them run on."""

import asyncio
import errno
from typing import TYPE_CHECKING

from barque.base.errors import ConflictError
from barque.engine.container import Container
from barque.runtime.cgroups import open_manager

if TYPE_CHECKING:
    from barque.engine.engine import Engine

_GONE = (errno.ENOENT, errno.ENODEV)
"""What writing to a control group fails with once it was taken away with its last process."""


async def pause(engine: "Engine", container: Container) -> None:
    """Freeze all its processes.

    Raises:
        ConflictError: it does not run or is frozen.
    """
    async with container.lock:
        if container.status == "paused":
            raise ConflictError(f"Container {container.id} is already paused")
        if container.status == "restarting":
            raise ConflictError(f"Container {container.id} is restarting, wait until the container is running")
        if not container.is_running:
            raise ConflictError(f"Container {container.id} is not running")
        try:
            await asyncio.to_thread(open_manager(engine.cgroup_path(container)).freeze)
        except OSError as error:
            if error.errno not in _GONE:
                raise
            raise ConflictError(f"Container {container.id} is not running") from None
        if not container.is_running:
            # It ended while it was being frozen.
            raise ConflictError(f"Container {container.id} is not running")
        _set_status(engine, container, "paused")
        engine.publish(container, "pause")


async def unpause(engine: "Engine", container: Container) -> None:
    """Let it run on.

    Raises:
        ConflictError: it is not frozen.
    """
    async with container.lock:
        if container.status != "paused":
            raise ConflictError(f"Container {container.id} is not paused")
        await thaw(engine, container)


async def thaw(engine: "Engine", container: Container) -> None:
    """Let it run on where it is frozen, for what needs it so."""
    if container.status != "paused":
        return
    try:
        await asyncio.to_thread(open_manager(engine.cgroup_path(container)).thaw)
    except OSError as error:
        if error.errno not in _GONE:
            raise
        # Its end is being reported: there is nothing left to thaw.
        return
    if container.status == "paused":
        _set_status(engine, container, "running")
        engine.publish(container, "unpause")


def _set_status(engine: "Engine", container: Container, status: str) -> None:
    container.state["status"] = status
    engine.changed(container)
    engine.save(container)
