"""A live connection between our standard streams and a container's or an exec's."""

from __future__ import annotations

import os
import select

from barque.base.errors import BarqueError
from barque.base.record import Record
from barque.cli.terminal import DetachKeys, RawMode, parse_keys, size
from barque.client.api import Api

TYPE_CHECKING = False  # the module typing costs every start of the command milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from barque.cli.signals import SignalPipe

READ_BYTES = 1 << 16


class Ends(Record):
    """What a session joins: our input or not, our outputs or not, and whether a terminal lies behind."""

    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool


class StreamError(BarqueError):
    """The engine reported an error inside a stream."""


class Demultiplexer:
    """Splits the engine's frames into output and errors."""

    def __init__(self, write: Callable[[int, bytes], None]) -> None:
        self.write = write
        self.pending = b""

    def feed(self, data: bytes) -> None:
        """Take received bytes; complete frames go to descriptor 1 or 2.

        Raises:
            StreamError: a frame says that the engine failed.
        """
        data = self.pending + data if self.pending else data
        start, end = 0, len(data)
        while end - start >= 8:
            length = int.from_bytes(data[start + 4 : start + 8], "big")
            if end - start - 8 < length:
                break
            payload = data[start + 8 : start + 8 + length]
            kind = data[start]
            if kind == 3:
                raise StreamError(f"error from daemon in stream: {payload.decode('utf-8', 'replace')}")
            if kind > 3:
                raise StreamError(f"Unrecognized input header: {kind}")
            self.write(2 if kind == 2 else 1, payload)
            start += 8 + length
        self.pending = data[start:]


def write_all(descriptor: int, data: bytes) -> None:
    """Write all bytes to a descriptor."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            select.select([], [descriptor], [])


class Session:
    """Carries bytes both ways until the engine's side ends or the user detaches."""

    def __init__(self, connection: tuple[Any, bytes, str], ends: Ends, keys: str, *, raw: bool | None = None) -> None:
        self.sock, self.early, _ = connection
        self.ends = ends
        self.keys = DetachKeys(parse_keys(keys)) if ends.tty and ends.stdin else None
        self.raw = ends.tty if raw is None else raw
        self.detached = False
        self.demultiplexer = Demultiplexer(self._output)

    def _output(self, descriptor: int, data: bytes) -> None:
        if self.ends.stderr if descriptor == 2 else self.ends.stdout:
            write_all(descriptor, data)

    def _received(self, data: bytes) -> None:
        if self.raw:
            self._output(1, data)
        else:
            self.demultiplexer.feed(data)

    def run(self, signals: SignalPipe | None = None) -> None:
        """Carry bytes until the end.

        Args:
            signals: signals that arrive meanwhile are handed to its handler.
        """
        try:
            if self.ends.tty and self.ends.stdin:
                with RawMode(0):
                    self._carry(signals)
            else:
                self._carry(signals)
        finally:
            self.sock.close()
        if self.detached:
            write_all(2, b"read escape sequence\n")

    def _carry(self, signals: SignalPipe | None) -> None:
        if self.early:
            self._received(self.early)
        self._loop(signals)

    def _loop(self, signals: SignalPipe | None) -> None:
        poller = select.poll()
        sock_fd = self.sock.fileno()
        poller.register(sock_fd, select.POLLIN)
        if self.ends.stdin:
            poller.register(0, select.POLLIN)
        if signals:
            poller.register(signals.descriptor, select.POLLIN)
        while True:
            for descriptor, _ in poller.poll():
                if descriptor == sock_fd:
                    if not self._from_engine():
                        return
                elif descriptor == 0:
                    if not self._from_user():
                        poller.unregister(0)
                    if self.detached:
                        return
                elif signals:
                    signals.handle()

    def _from_engine(self) -> bool:
        while True:
            try:
                data = self.sock.recv(READ_BYTES)
            except ConnectionResetError:
                return False
            if not data:
                return False
            self._received(data)
            if not getattr(self.sock, "pending", int)():
                return True

    def _from_user(self) -> bool:
        try:
            data = os.read(0, READ_BYTES)
        except OSError:
            data = b""
        if data and self.keys:
            data, self.detached = self.keys.feed(data)
            if not data:
                return True
        try:
            if data:
                self.sock.sendall(data)
                return True
            half_close(self.sock)
        except OSError:
            pass
        return False


def half_close(sock: Any) -> None:
    """Tell the other side that no more input comes."""
    import _socket

    sock.shutdown(_socket.SHUT_WR)


def resize(api: Api, path: str) -> None:
    """Tell the engine the size of our terminal; it may have gone already."""
    rows, columns = size()
    if not rows and not columns:
        return
    try:
        api.post(f"{path}/resize", h=rows, w=columns)
    except BarqueError:
        return
