"""What a follower of a log waits for: a change in the log's folder, or the container's end."""

import asyncio
import logging
from typing import Protocol

from barque.base.errors import KernelError
from barque.engine.container import Container
from barque.kernel import inotify

log = logging.getLogger(__name__)
_POLL_S = 0.03
_AT_MOST_S = 1.0
_GATHER_S = 0.002
_WATCHED = inotify.MODIFY | inotify.MOVED_TO | inotify.CREATE


class Changes(Protocol):
    """Something to wait for, made for one follower."""

    def clear(self) -> None:
        """Forget what has happened: it is looked at now."""
        ...

    async def wait(self) -> None:
        """Return when there may be news."""
        ...

    def close(self) -> None:
        """Give up waiting."""
        ...


class Polling:
    """Looks again after a moment: where nothing tells of changes."""

    def clear(self) -> None:
        """Have nothing to forget."""

    async def wait(self) -> None:
        """Wait for the moment."""
        await asyncio.sleep(_POLL_S)

    def close(self) -> None:
        """Have nothing to give up."""


class FolderWatch:
    """One inotify instance for all followers of an engine; used from the event loop alone."""

    def __init__(self) -> None:
        self._fd = -1
        self._events: dict[int, set[asyncio.Event]] = {}

    def open(self, folder: str, event: asyncio.Event) -> int:
        """Let an event be set at each change in a folder; return the number to close by.

        Raises:
            KernelError: the user has too many watches, or there is no such folder.
        """
        if self._fd < 0:
            self._fd = inotify.init()
            asyncio.get_running_loop().add_reader(self._fd, self._readable)
        number = inotify.add_watch(self._fd, folder, _WATCHED)
        self._events.setdefault(number, set()).add(event)
        return number

    def _readable(self) -> None:
        for number, mask in inotify.read(self._fd):
            if mask & inotify.OVERFLOW:
                for events in self._events.values():
                    for event in events:
                        event.set()
            for event in self._events.get(number, ()):
                event.set()

    def close(self, number: int, event: asyncio.Event) -> None:
        """Let an event rest; the last one of a folder ends its watch, the last of all the instance."""
        events = self._events.get(number, set())
        events.discard(event)
        if events:
            return
        self._events.pop(number, None)
        inotify.remove_watch(self._fd, number)
        if not self._events:
            self.end()

    def end(self) -> None:
        """Close the instance."""
        if self._fd >= 0:
            import os

            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1


class ContainerChanges:
    """News of a container's log: its folder changed, or the container ended or was removed."""

    def __init__(self, watch: FolderWatch, folder: str, container: Container) -> None:
        self._watch = watch
        self._event = asyncio.Event()
        self._container = container
        self._number = watch.open(folder, self._event)

    def clear(self) -> None:
        """Forget what has happened."""
        self._event.clear()

    async def wait(self) -> None:
        """Return at the next change, the container's end, or a second later at most."""
        if self._event.is_set():
            await asyncio.sleep(_GATHER_S)
            return
        awaited = [self._event, self._container.removed]
        if not self._container.exited.is_set():
            awaited.append(self._container.exited)
        tasks = [asyncio.ensure_future(event.wait()) for event in awaited]
        try:
            await asyncio.wait(tasks, timeout=_AT_MOST_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
        if self._event.is_set():
            # A writer seldom writes once: its next lines are taken along.
            await asyncio.sleep(_GATHER_S)

    def close(self) -> None:
        """Give up waiting."""
        self._watch.close(self._number, self._event)


def changes_of(watch: FolderWatch, folder: str, container: Container) -> Changes:
    """Return what tells of a container's log; a clock where the kernel has no watch to give."""
    try:
        return ContainerChanges(watch, folder, container)
    except KernelError as error:
        log.warning("logs are followed by the clock: %s", error)
        return Polling()
