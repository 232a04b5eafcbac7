"""One question put to one server outside: by UDP, and by TCP where the answer was cut."""

import os
import select
import socket
import struct
from collections.abc import Callable

from barque.kernel.poller import Poller
from barque.network.dns import wire

PORT = 53
# What passes every path without fragments (the flag day's number of 2020).
UDP_SIZE = 1232
_FOREIGN_AT_ONCE = 16

Opener = Callable[[int, int], socket.socket]
Done = Callable[["Exchange", bytes | None, wire.Answer | None], None]


class Exchange:
    """Ends with one call of `done`: with an answer that fits the question, or with None.

    `done` is called from within start() too. What does not fit, be it in number, question, or
    sender, is passed over: it may be a forgery, and the true answer may follow.
    """

    __slots__ = ("_buffer", "_done", "_edns", "_ident", "_open", "_poller", "_query", "_server", "_socket", "_stream",
                 "index", "is_over", "no_edns")  # fmt: skip

    def __init__(
        self, poller: Poller, index: int, server: str, query: wire.Query, opener: Opener, edns: bool, done: Done
    ) -> None:
        self._poller, self._server, self._query = poller, server, query
        self._open, self._edns, self._done = opener, edns, done
        self._socket: socket.socket | None = None
        self._stream = False
        self._buffer = b""
        self._ident = 0
        self.index = index
        self.is_over = False
        self.no_edns = False

    def start(self) -> None:
        """Send the question."""
        try:
            self._socket = self._connected(socket.SOCK_DGRAM)
            self._poller.watch(self._socket.fileno(), select.EPOLLIN, self._datagrams)
        except (OSError, ValueError):
            self._end(None, None)
            return
        self.repeat()

    def repeat(self) -> None:
        """Send it again, if it went by UDP."""
        if self.is_over or self._stream or self._socket is None:
            return
        try:
            self._socket.send(self._message())
        except BlockingIOError:
            pass
        except OSError:
            self._end(None, None)

    def close(self) -> None:
        """End without a word."""
        self.is_over = True
        if self._socket is not None:
            self._poller.forget(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _message(self) -> bytes:
        if not self._ident:
            self._ident = int.from_bytes(os.urandom(2), "big") or 1
        return wire.forwarded(self._query, self._ident, edns=self._edns, size=UDP_SIZE)

    def _connected(self, kind: int) -> socket.socket:
        host, _, zone = self._server.partition("%")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        made = self._open(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            if family == socket.AF_INET6:
                made.connect((host, PORT, 0, socket.if_nametoindex(zone) if zone else 0))
            else:
                made.connect((host, PORT))
        except BlockingIOError:
            pass
        except BaseException:
            made.close()
            raise
        return made

    def _end(self, data: bytes | None, answer: wire.Answer | None) -> None:
        if not self.is_over:
            self.close()
            self._done(self, data, answer)

    def _datagrams(self, events: int) -> None:
        for _ in range(_FOREIGN_AT_ONCE):
            if self._socket is None or self._stream:
                return
            try:
                data = self._socket.recv(wire.LARGEST)
            except BlockingIOError:
                return
            except OSError:
                # Nobody listens there.
                self._end(None, None)
                return
            self._look_at(data)

    def _look_at(self, data: bytes) -> None:
        try:
            answer = wire.read_answer(data)
        except wire.WireError:
            self._damaged(data)
            return
        if answer.ident != self._ident or answer.question.lower() != self._query.question.lower():
            if self._stream:
                self._end(None, None)
            return
        if self._edns and answer.rcode in (wire.FORMERR, wire.NOTIMP, wire.BADVERS):
            self._without_edns()
        elif answer.flags & wire.TC and not self._stream:
            self._by_tcp()
        else:
            self._end(data, answer)

    def _damaged(self, data: bytes) -> None:
        """See whether an old server refused EDNS with a bare header; all else is passed over."""
        bare = len(data) >= wire.HEADER and int.from_bytes(data[:2], "big") == self._ident and data[2] & 0x80
        if bare and self._edns and data[3] & 0xF in (wire.FORMERR, wire.NOTIMP):
            self._without_edns()
        elif bare and data[2] & 0x02 and not self._stream:
            self._by_tcp()
        elif self._stream:
            self._end(None, None)

    def _without_edns(self) -> None:
        self._edns, self.no_edns, self._ident = False, True, 0
        if self._stream:
            self._by_tcp()
        else:
            self.repeat()

    def _by_tcp(self) -> None:
        if self._socket is not None:
            self._poller.forget(self._socket.fileno())
            self._socket.close()
            self._socket = None
        self._stream, self._buffer, self._ident = True, b"", 0
        try:
            self._socket = self._connected(socket.SOCK_STREAM)
        except (OSError, ValueError):
            self._end(None, None)
            return
        self._poller.watch(self._socket.fileno(), select.EPOLLOUT, self._writable)

    def _writable(self, events: int) -> None:
        if self._socket is None:
            return
        message = self._message()
        try:
            # A few hundred bytes always fit into a new connection's buffer.
            self._socket.send(struct.pack("!H", len(message)) + message)
        except OSError:
            self._end(None, None)
            return
        self._poller.watch(self._socket.fileno(), select.EPOLLIN, self._stream_bytes)

    def _stream_bytes(self, events: int) -> None:
        if self._socket is None:
            return
        try:
            data = self._socket.recv(wire.LARGEST)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._buffer += data
        if not data:
            self._end(None, None)
            return
        size = int.from_bytes(self._buffer[:2], "big")
        if len(self._buffer) >= 2 and len(self._buffer) >= 2 + size:
            self._look_at(self._buffer[2 : 2 + size])
