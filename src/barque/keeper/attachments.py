"""Clients attached to a process: fan-out of its output, its stdin from them."""

import os
import socket
import struct
from collections import deque
from select import EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from barque.keeper.task import Task

# Over this a client is slow, and the process's output is not read until it has caught up.
QUEUE_LIMIT = 256 * 1024
_READ_SIZE = 64 * 1024
_HEAD = struct.Struct(">BxxxL")


class Attachment:
    """One client's socket; what it wants of the process."""

    __slots__ = ("_ending", "_queue", "_read_ended", "queued", "sock", "task", "wants", "writes_stdin")

    def __init__(self, fd: int, wants: tuple[int, ...], writes_stdin: bool) -> None:
        """Take over a connected stream socket.

        Args:
            fd: the socket, from now on this object's.
            wants: 1, 2 or both: the streams the client gets.
            writes_stdin: what the client sends is the process's stdin; else it is dropped.
        """
        self.sock = socket.socket(fileno=fd)
        self.sock.setblocking(False)
        self.wants = wants
        self.writes_stdin = writes_stdin
        self.task: Task | None = None
        self.queued = 0
        self._queue: deque[bytes | memoryview] = deque()
        self._ending = False
        self._read_ended = False

    def begin(self, task: "Task") -> None:
        """Join a running process."""
        self.task = task
        task.attachments.append(self)
        self._watch()

    def put(self, stream: int, data: bytes) -> None:
        """Send or queue output of a stream, framed where the process has no terminal."""
        assert self.task is not None
        if stream not in self.wants or self._ending:
            return
        if not self.task.tty:
            self._send(_HEAD.pack(stream, len(data)))
        self._send(data)
        if self.queued > QUEUE_LIMIT:
            self.task.pause_output()

    def end(self) -> None:
        """Close once all queued output has been sent."""
        self._ending = True
        if not self._queue:
            self.drop()

    def drop(self) -> None:
        """Close now."""
        if self.sock.fileno() < 0:
            return
        task = self.task
        if task is not None:
            task.poller.forget(self.sock.fileno())
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.sock.close()
        self._queue.clear()
        self.queued = 0
        if task is not None:
            if self in task.attachments:
                task.attachments.remove(self)
            task.output_may_flow()

    def refresh(self) -> None:
        """Watch anew for what can be done now; stdin that is backed up stops the reading."""
        self._watch()

    def _send(self, data: bytes) -> None:
        if not self._queue:
            try:
                sent = self.sock.send(data, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                sent = 0
            except OSError:
                # The client is gone; the hang-up event removes it.
                self._ending = True
                return
            if sent == len(data):
                return
            self._queue.append(memoryview(data)[sent:])
            self.queued += len(data) - sent
            self._watch()
        else:
            self._queue.append(data)
            self.queued += len(data)

    def _watch(self) -> None:
        task = self.task
        if task is None or self.sock.fileno() < 0:
            return
        events = EPOLLOUT if self._queue else 0
        if not self._read_ended and not (self.writes_stdin and task.stdin_is_backed_up()):
            events |= EPOLLIN | EPOLLRDHUP
        task.poller.watch(self.sock.fileno(), events, self._ready)

    def _ready(self, events: int) -> None:
        if events & EPOLLOUT:
            self._flush()
        if events & (EPOLLIN | EPOLLRDHUP) and self.sock.fileno() >= 0 and not self._read_ended:
            self._read()
        elif events & EPOLLHUP:
            self.drop()

    def _flush(self) -> None:
        try:
            while self._queue:
                data = self._queue[0]
                sent = self.sock.send(data, socket.MSG_NOSIGNAL)
                self.queued -= sent
                if sent < len(data):
                    self._queue[0] = memoryview(data)[sent:]
                    return
                self._queue.popleft()
        except BlockingIOError:
            return
        except OSError:
            self.drop()
            return
        if self._ending:
            self.drop()
            return
        self._watch()
        assert self.task is not None
        self.task.output_may_flow()

    def _read(self) -> None:
        assert self.task is not None
        try:
            data = self.sock.recv(_READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            self.drop()
            return
        if data:
            if self.writes_stdin:
                self.task.write_stdin(data)
        else:
            self._read_ended = True
            if self.writes_stdin:
                self.task.client_ended_stdin()
        self._watch()


class StdinPipe:
    """The keeper's end of a process's stdin, a pipe or a pty master."""

    __slots__ = ("_closing", "_queue", "fd", "task")

    def __init__(self, task: "Task", fd: int) -> None:
        """Write to fd, which is non-blocking."""
        self.task = task
        self.fd = fd
        self._queue: deque[bytes | memoryview] = deque()
        self._closing = False

    def is_backed_up(self) -> bool:
        """Tell whether data waits for the process to read."""
        return bool(self._queue)

    def write(self, data: bytes) -> None:
        """Write or queue; data for a closed stdin is dropped."""
        if self.fd < 0 or self._closing:
            return
        self._queue.append(data)
        if len(self._queue) == 1:
            self.flush()

    def flush(self) -> None:
        """Write what the process takes now and watch for the rest."""
        try:
            while self._queue:
                data = self._queue[0]
                written = os.write(self.fd, data)
                if written < len(data):
                    self._queue[0] = memoryview(data)[written:]
                else:
                    self._queue.popleft()
        except BlockingIOError:
            self.task.watch_stdin(True)
            return
        except OSError:
            # The process has closed its stdin.
            self._queue.clear()
            self.task.watch_stdin(False)
            self.task.close_stdin()
            return
        self.task.watch_stdin(False)
        if self._closing:
            self.task.close_stdin()

    def close_after_queue(self) -> bool:
        """Refuse more data; tell whether nothing is queued, so that it can be closed now."""
        self._closing = True
        return not self._queue
