"""Connections that stop being HTTP: attach and exec give the client the container's streams raw.

The client's transport gets a protocol of ours, the container's socket another; each pauses its
peer's reading while its own buffer is full, so a slow side slows the other down and nothing piles up.
"""

from __future__ import annotations

import asyncio
import fcntl
import re
import socket
import struct
import termios
import time
from collections.abc import Callable
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from barque.api.detach import Detector
from barque.api.flow import set_reading
from barque.engine import types

RAW = "application/vnd.docker.raw-stream"
MULTIPLEXED = "application/vnd.docker.multiplexed-stream"
_LINGER_S = 1.0
_HEAD_TAKEN_S = 0.1
_LONGEST_HEAD = 1 << 17
_UPGRADE = re.compile(rb"\r\nupgrade:[ \t]*(tcp|h2c)[ \t]*\r\n", re.IGNORECASE)
UPGRADE_HEADER = "X-Raw-Upgrade"


class UpgradableHandler(RequestHandler):
    """aiohttp's handler, taught that `Upgrade: tcp` ends HTTP on a connection.

    aiohttp keeps the bytes behind a request only for websockets and parses them as the next request
    otherwise. The header is therefore rewritten before it is parsed, and its value kept in another.
    """

    __slots__ = ("_partial_head",)

    def data_received(self, data: bytes) -> None:
        """Take bytes of the client; of a head that comes in pieces only the whole is passed on."""
        held = getattr(self, "_partial_head", b"")
        if data and (held or (data[:1].isupper() and self._expects_head())):
            data = held + data
            self._partial_head = b""
            end = data.find(b"\r\n\r\n")
            if end < 0 and len(data) < _LONGEST_HEAD:
                self._partial_head = data
                return
            match = _UPGRADE.search(data, 0, end + 2) if end >= 0 else None
            if match is not None:
                header = b"\r\nUpgrade: websocket\r\n" + UPGRADE_HEADER.encode() + b": " + match[1] + b"\r\n"
                data = data[: match.start()] + header + data[match.end() :]
        super().data_received(data)

    def _expects_head(self) -> bool:
        """Tell whether the next byte begins a request: all before it have been taken."""
        return not self._messages and (self._waiter is not None or self._request_count == 0)


class Finished(web.Response):
    """Stands for an answer that was already written, past aiohttp."""

    def __init__(self) -> None:
        super().__init__()
        self.force_close()

    async def prepare(self, request: web.BaseRequest) -> None:
        """Write nothing."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Write nothing."""


class _Side(asyncio.Protocol):
    """One end of the connection; what it reads goes to the other."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.peer: _Side = self
        self.writable = asyncio.Event()
        self.writable.set()
        self.on_lost: Callable[[Exception | None], None] = lambda _: None
        self.detector: Detector | None = None
        self.on_detached: Callable[[], None] = lambda: None
        self.ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if self.ended:
            return
        if self.detector is not None:
            data, detached = self.detector.feed(data)
            if detached:
                self.ended = True
        target = self.peer.transport
        if data and target is not None and not target.is_closing():
            target.write(data)
        if self.ended:
            self.on_detached()

    def eof_received(self) -> bool:
        target = self.peer.transport
        if target is not None and not target.is_closing() and target.can_write_eof():
            target.write_eof()
        return True

    def pause_writing(self) -> None:
        self.writable.clear()
        set_reading(self.peer.transport, on=False)

    def resume_writing(self) -> None:
        self.writable.set()
        set_reading(self.peer.transport, on=True)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self.writable.set()
        self.on_lost(exc)


class _Output(_Side):
    """The container's end: when its output is over, so is the connection."""

    def __init__(self, over: asyncio.Event, *, framed: bool) -> None:
        super().__init__()
        self._over = over
        self._framed = framed

    def data_received(self, data: bytes) -> None:
        super().data_received(struct.pack(">BxxxL", 1, len(data)) + data if self._framed else data)

    def eof_received(self) -> bool:
        self._over.set()
        return True


async def _until_read(transport: asyncio.Transport) -> None:
    """Wait until the client has taken what was sent, at most 0.1 s.

    Clients that read the head through a buffer and the streams from the socket below it (docker-py does)
    lose output that arrives together with the head; other engines are too slow for that to happen.
    """
    connection = transport.get_extra_info("socket")
    if connection is None or transport.get_extra_info("sslcontext") is not None:
        return
    deadline = time.monotonic() + _HEAD_TAKEN_S
    try:
        while _unread(connection.fileno()) and time.monotonic() < deadline:  # noqa: ASYNC110 - the kernel tells nobody
            # Less is no wait to the event loop: it would take the processor from the very client.
            await asyncio.sleep(0.001)
    except OSError:
        return


def _unread(fd: int) -> int:
    """Return how many bytes a socket's peer has not taken (SIOCOUTQ, unix(7) and tcp(7))."""
    answer = fcntl.ioctl(fd, termios.TIOCOUTQ, b"\0\0\0\0")
    return int.from_bytes(answer, "little")


def head(*, upgrade: bool, content_type: str, headers: dict[str, str]) -> bytes:
    """Return the head of the answer that ends HTTP on a connection."""
    lines = ["HTTP/1.1 101 UPGRADED" if upgrade else "HTTP/1.1 200 OK", f"Content-Type: {content_type}"]
    if upgrade:
        lines += ["Connection: Upgrade", "Upgrade: tcp"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


class _Whole(asyncio.Protocol):
    """A protocol that owns a connection from its upgrade on, watched for its end."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.over = asyncio.Event()
        for name in ("data_received", "eof_received", "pause_writing", "resume_writing", "connection_made"):
            setattr(self, name, getattr(inner, name))

    def connection_lost(self, exc: Exception | None) -> None:
        self._inner.connection_lost(exc)
        self.over.set()


async def hand_over(request: web.BaseRequest, protocol: asyncio.Protocol, upgrade: str) -> web.Response:
    """Give the connection to another protocol, with the bytes that came early, and wait until it ends."""
    handler: Any = request.protocol
    transport: Any = request.transport
    if transport is None or transport.is_closing():
        return Finished()
    whole = _Whole(protocol)
    transport.write(f"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\n\r\n".encode())
    transport.set_protocol(whole)
    whole.connection_made(transport)
    early, handler._message_tail = handler._message_tail, b""
    if early:
        whole.data_received(early)
    try:
        await whole.over.wait()
    finally:
        if not transport.is_closing():
            transport.close()
        # aiohttp's own protocol still counts this connection as its own.
        handler.connection_lost(None)
    return Finished()


class Session:
    """A client that has taken its connection over."""

    def __init__(self, request: web.BaseRequest, attachment: types.Attachment, *, framed: bool = False) -> None:
        self._protocol: Any = request.protocol
        self._transport: Any = request.transport
        self._attachment = attachment
        self._over = asyncio.Event()
        self._client = _Side()
        self._output = _Output(self._over, framed=framed)
        self._detached = False

    async def run(self, answer_head: bytes) -> web.Response:
        """Carry bytes both ways until the container's output or the client ends."""
        sock = self._attachment.sock
        if self._transport is None or self._transport.is_closing():
            if sock is not None:
                sock.close()
            return Finished()
        self._take_over()
        try:
            self._transport.write(answer_head)
            await _until_read(self._transport)
            await self._carry(sock)
        finally:
            self._end()
        return Finished()

    def _take_over(self) -> None:
        client = self._client
        client.connection_made(self._transport)
        client.on_lost = self._lost
        client.peer = self._output
        self._output.peer = client
        # Without a terminal the input is data, in which no key is special.
        if self._attachment.detach_keys and self._attachment.tty:
            client.detector = Detector(self._attachment.detach_keys)
            client.on_detached = self._detach
        # Nothing is read until the container's end is there to take it.
        set_reading(self._transport, on=False)
        self._transport.set_protocol(client)

    async def _carry(self, sock: socket.socket | None) -> None:
        if sock is not None:
            sock.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.create_connection(lambda: self._output, sock=sock)
            set_reading(self._output.transport, on=False)
            self._output.on_lost = lambda _: self._over.set()
        early, self._protocol._message_tail = self._protocol._message_tail, b""
        if early:
            self._client.data_received(early)
        set_reading(self._transport, on=True)
        await self._send_prelude()
        if sock is not None:
            if self._client.writable.is_set():
                set_reading(self._output.transport, on=True)
            await self._over.wait()
        if not self._detached:
            await self._linger()

    async def _send_prelude(self) -> None:
        if self._attachment.prelude is None:
            return
        async for chunk in self._attachment.prelude:
            # That the output is over already is no reason to keep back what comes before it.
            if self._client.transport is None or self._detached:
                return
            self._transport.write(chunk)
            await self._client.writable.wait()

    async def _linger(self) -> None:
        """Let the client read to the end before the connection goes.

        Closing a socket that still holds unread input resets it, and the reset overtakes output.
        """
        if self._client.transport is None or self._transport.is_closing() or not self._transport.can_write_eof():
            return
        gone = asyncio.Event()
        lost = self._client.on_lost
        self._client.ended = True

        def ended(exc: Exception | None) -> None:
            lost(exc)
            gone.set()

        self._client.on_lost = ended
        self._client.eof_received = gone.set  # type: ignore[method-assign,assignment]
        set_reading(self._transport, on=True)
        self._transport.write_eof()
        try:
            await asyncio.wait_for(gone.wait(), _LINGER_S)
        except TimeoutError:
            pass

    def _detach(self) -> None:
        self._detached = True
        if self._attachment.on_detach is not None:
            self._attachment.on_detach()
        self._over.set()

    def _lost(self, exc: Exception | None) -> None:
        self._over.set()
        # aiohttp's own protocol still counts this connection as its own.
        self._protocol.connection_lost(exc)

    def _end(self) -> None:
        for transport in (self._output.transport, self._client.transport):
            if transport is not None and not transport.is_closing():
                transport.close()
