"""How many messages the daemon has sent, seen without a system call.

The daemon counts its messages in memory that both processes share, after it sent each. A question
that comes after that is answered only when as many messages were acted on: once the daemon says
that a container is stopped, nobody is told its address any more.
"""

import mmap
import os
import struct
from collections.abc import Callable

_COUNT = struct.Struct("=Q")


class Gate:
    """The name server's side; `shared` starts with the daemon's count, `done` is its own."""

    __slots__ = ("_catch_up", "_count", "done", "shared")

    def __init__(self, catch_up: Callable[[], None]) -> None:
        self._catch_up = catch_up
        self._count = 0
        self.done = _COUNT.pack(0)
        self.shared: mmap.mmap | bytes = self.done

    def open(self, fd: int) -> None:
        """Share the count of a new daemon.

        Raises:
            OSError: the descriptor is no memory file.
        """
        self.shared = mmap.mmap(fd, _COUNT.size, prot=mmap.PROT_READ)
        self._count = 0
        self.done = _COUNT.pack(0)

    def leave(self) -> None:
        """Go on without a daemon."""
        self.shared = self.done

    def acted(self) -> None:
        """Count one message that was acted on."""
        self._count += 1
        self.done = _COUNT.pack(self._count)

    def pass_through(self) -> None:
        """Act on all messages that were sent before; callers first compare `shared` with `done`."""
        self._catch_up()


class Counter:
    """The daemon's side."""

    def __init__(self) -> None:
        """Make the shared memory; `fd` is to be sent to the name server, then closed."""
        self.fd = os.memfd_create("name-server-count", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, _COUNT.size)
        self._shared = mmap.mmap(self.fd, _COUNT.size)
        self._count = 0

    def sent(self) -> None:
        """Count one message."""
        self._count += 1
        _COUNT.pack_into(self._shared, 0, self._count)

    def close_fd(self) -> None:
        """Close the descriptor; the memory stays."""
        os.close(self.fd)
