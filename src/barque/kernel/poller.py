"""Readiness of descriptors and timers: a small process's only place of waiting."""

import heapq
import os
import select
import sys
import time
from collections.abc import Callable

Handler = Callable[[int], object]


class Poller:
    """An epoll instance with a handler per descriptor, and timers."""

    __slots__ = ("_epoll", "_handlers", "_timers", "_turn", "stopped")

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._turn = 0
        self.stopped = False

    def watch(self, fd: int, events: int, handler: Handler) -> None:
        """Call handler with the events seen whenever fd is ready; replaces what was watched before."""
        if fd in self._handlers:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._handlers[fd] = handler

    def forget(self, fd: int) -> None:
        """Stop watching fd; must come before it is closed. Nothing happens where it is not watched."""
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def close(self, fd: int) -> None:
        """Stop watching fd and close it; negative numbers are passed over."""
        if fd >= 0:
            self.forget(fd)
            os.close(fd)

    def later(self, delay_s: float, action: Callable[[], None]) -> None:
        """Call action once after delay_s seconds."""
        self._turn += 1
        heapq.heappush(self._timers, (time.monotonic() + delay_s, self._turn, action))

    def run(self) -> None:
        """Serve until `stopped`. An error in a handler is printed and costs that event only."""
        while not self.stopped:
            timeout_s = -1.0
            if self._timers:
                timeout_s = max(0.0, self._timers[0][0] - time.monotonic())
            for fd, events in self._epoll.poll(timeout_s, 64):
                # A handler earlier in this batch may have closed it.
                handler = self._handlers.get(fd)
                if handler is not None:
                    self._guarded(lambda handler=handler, events=events: handler(events))  # type: ignore[misc]
            now = time.monotonic()
            while self._timers and self._timers[0][0] <= now:
                self._guarded(heapq.heappop(self._timers)[2])

    def _guarded(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception:
            # One container's trouble must not end the minding of all others.
            sys.excepthook(*sys.exc_info())
