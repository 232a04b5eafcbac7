"""One daemon's connection: requests in, replies and events out, never blocking."""

import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from select import EPOLLIN, EPOLLOUT
from typing import Any

from barque.kernel import packets
from barque.kernel.poller import Poller

# A daemon that reads nothing for this many messages is cut off; it can connect anew and list.
_QUEUE_LIMIT = 10_000
_BATCH = 32

Request = Callable[["Connection", dict[str, Any], list[int]], None]


class Connection:
    """A connected packet socket; `ended` is called once when it is over."""

    __slots__ = ("_ended", "_poller", "_queue", "_request", "hello", "said_goodbye", "sock", "stderr")

    def __init__(
        self, poller: Poller, sock: socket.socket, request: Request, ended: Callable[["Connection"], None]
    ) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.hello: dict[str, Any] | None = None
        self.said_goodbye = False
        self.stderr = -1
        self._poller = poller
        self._request = request
        self._ended = ended
        self._queue: deque[tuple[dict[str, Any], list[int]]] = deque()
        poller.watch(sock.fileno(), EPOLLIN, self._ready)

    def send(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        """Send or queue a message; descriptors are copied where they must wait."""
        if self.sock.fileno() < 0:
            return
        if not self._queue:
            try:
                packets.send(self.sock, message, fds)
                return
            except BlockingIOError:
                self._poller.watch(self.sock.fileno(), EPOLLIN | EPOLLOUT, self._ready)
            except OSError:
                self.close()
                return
        self._queue.append((message, [os.dup(fd) for fd in fds]))
        if len(self._queue) > _QUEUE_LIMIT:
            self.close()

    def close(self) -> None:
        """End the connection."""
        if self.sock.fileno() < 0:
            return
        self._poller.forget(self.sock.fileno())
        self.sock.close()
        for _, fds in self._queue:
            packets.close_all(fds)
        self._queue.clear()
        self._ended(self)

    def _ready(self, events: int) -> None:
        if events & EPOLLOUT:
            self._flush()
        if events & ~EPOLLOUT:
            self._read()

    def _flush(self) -> None:
        try:
            while self._queue:
                message, fds = self._queue[0]
                packets.send(self.sock, message, fds)
                self._queue.popleft()
                packets.close_all(fds)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        self._poller.watch(self.sock.fileno(), EPOLLIN, self._ready)

    def _read(self) -> None:
        try:
            for _ in range(_BATCH):
                if self.sock.fileno() < 0:
                    return
                message, fds = packets.receive(self.sock)
                if message is None:
                    self.close()
                    return
                self._request(self, message, fds)
        except BlockingIOError:
            return
        except (OSError, ValueError):
            self.close()
