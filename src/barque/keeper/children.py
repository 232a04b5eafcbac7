"""Ends of the keeper's children, each told to whoever started it; orphans are reaped in passing."""

import os
import signal
from collections.abc import Callable
from select import EPOLLIN

from barque.kernel.poller import Poller

# What the keeper ignores or catches, and its children must not.
IGNORED = (signal.SIGCHLD, signal.SIGPIPE, signal.SIGHUP, signal.SIGINT, signal.SIGTERM)

# Ends of orphans that are remembered until their runtime has said which process is whose.
_UNCLAIMED_LIMIT = 64

Ended = Callable[[int], None]


class Children:
    """The one place that waits for processes. Statuses are raw wait statuses."""

    __slots__ = ("_by_pid", "_poller", "_unclaimed", "_wake")

    def __init__(self, poller: Poller) -> None:
        self._by_pid: dict[int, Ended] = {}
        self._unclaimed: dict[int, int] = {}
        self._poller = poller
        self._wake, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        poller.watch(self._wake, EPOLLIN, self._woken)

    def expect(self, pid: int, ended: Ended) -> None:
        """Call ended with the status when the child pid has ended; must follow its start at once."""
        self._unclaimed.pop(pid, None)
        self._by_pid[pid] = ended

    def expect_orphan(self, pid: int, ended: Ended) -> None:
        """Call ended with the status of a child inherited from another child, had it ended already."""
        status = self._unclaimed.pop(pid, None)
        if status is None:
            self._by_pid[pid] = ended
        else:
            self._poller.later(0, lambda: ended(status))

    def forget(self, pid: int) -> None:
        """Reap the child silently when it ends."""
        self._by_pid.pop(pid, None)

    def is_idle(self) -> bool:
        """Tell whether no end is waited for."""
        return not self._by_pid

    def spawn(self, argv: list[str], ended: Ended, stdio: tuple[int, int, int]) -> int:
        """Start a program with these descriptors as 0, 1 and 2 and nothing else; return its pid.

        Raises:
            OSError: it cannot be executed.
        """
        # Copies first: a wanted descriptor may itself be 0, 1 or 2.
        copies = [os.dup(fd) for fd in stdio]
        try:
            actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(copies)]
            pid = os.posix_spawn(argv[0], argv, os.environ, file_actions=actions, setsigdef=IGNORED)
        finally:
            for fd in copies:
                os.close(fd)
        self.expect(pid, ended)
        return pid

    def _woken(self, _: int) -> None:
        try:
            os.read(self._wake, 4096)
        except BlockingIOError:
            pass
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            ended = self._by_pid.pop(pid, None)
            if ended is not None:
                ended(status)
                continue
            self._unclaimed[pid] = status
            if len(self._unclaimed) > _UNCLAIMED_LIMIT:
                del self._unclaimed[next(iter(self._unclaimed))]
