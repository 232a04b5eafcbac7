"""TLS in front of the API, with half-closed connections.

asyncio's own TLS ends a connection as soon as the client ends its half, but clients of attach and
exec end their input and still wait for output. So TLS is spoken here, over memory buffers, and each
connection is carried on to the server over a socket pair, where half-closing works.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable

from barque.api.flow import set_reading

log = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 16
_HANDSHAKE_S = 30.0
_LINGER_S = 5.0


class _Inner(asyncio.Protocol):
    """The plain end of a connection."""

    def __init__(self, outer: "Secured") -> None:
        self._outer = outer
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._outer.send(data)

    def eof_received(self) -> bool:
        self._outer.end()
        return True

    def pause_writing(self) -> None:
        self._outer.pause(on=True)

    def resume_writing(self) -> None:
        self._outer.pause(on=False)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._outer.close()


class Secured(asyncio.Protocol):
    """The encrypted end of a connection.

    Args:
        context: certificates and what is asked of clients.
        server: makes the protocol that serves the plain end.
    """

    def __init__(self, context: ssl.SSLContext, server: Callable[[], asyncio.Protocol]) -> None:
        self._server = server
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._inner = _Inner(self)
        self._transport: asyncio.Transport | None = None
        self._shaken = False
        self._ended = False
        self._input_over = False
        self._opening: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the handshake, not for ever."""
        self._transport = transport  # type: ignore[assignment]
        self._timer = asyncio.get_running_loop().call_later(_HANDSHAKE_S, self.close)

    def data_received(self, data: bytes) -> None:
        """Decrypt."""
        self._incoming.write(data)
        try:
            if self._shake():
                self._deliver()
        except ssl.SSLError as error:
            log.info("TLS: %s", error)
            self._flush()
            self.close()

    def _shake(self) -> bool:
        if self._shaken:
            return self._inner.transport is not None
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return False
        self._flush()
        self._shaken = True
        if self._timer is not None:
            self._timer.cancel()
        self.pause(on=True)
        self._opening = asyncio.get_running_loop().create_task(self._open())
        return False

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs):
            sock.setblocking(False)
        await loop.create_unix_connection(lambda: self._inner, sock=ours)
        await loop.connect_accepted_socket(self._server, theirs)
        if self._transport is None:
            self.close()
            return
        self.pause(on=False)
        self.data_received(b"")

    def _deliver(self) -> None:
        inner = self._inner.transport
        while inner is not None and not inner.is_closing() and not self._input_over and not self._ended:
            try:
                data = self._tls.read(_CHUNK_BYTES)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:
                data = b""
            if data:
                inner.write(data)
            else:
                self._input_over = True
                inner.write_eof()
        self._flush()

    def eof_received(self) -> bool:
        """Pass the client's end on; without one of TLS before it, too."""
        inner = self._inner.transport
        if self._ended or inner is None:
            self.close()
        elif not self._input_over:
            self._input_over = True
            inner.write_eof()
        return True

    def send(self, data: bytes) -> None:
        """Encrypt."""
        if self._ended:
            return
        try:
            self._tls.write(data)
        except ssl.SSLError as error:
            log.info("TLS: %s", error)
            self.close()
            return
        self._flush()

    def end(self) -> None:
        """Tell the client that nothing more comes; the connection goes when it has ended too."""
        if self._ended or self._transport is None:
            return
        self._ended = True
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            # The client's own end of TLS need not be waited for.
            pass
        self._flush()
        if self._input_over:
            self.close()
            return
        self._timer = asyncio.get_running_loop().call_later(_LINGER_S, self.close)

    def _flush(self) -> None:
        if self._transport is not None and self._outgoing.pending:
            self._transport.write(self._outgoing.read())

    def pause(self, *, on: bool) -> None:
        """Stop or go on reading from the client."""
        set_reading(self._transport, on=not on)

    def pause_writing(self) -> None:
        """Read no more to send while the client is slow."""
        set_reading(self._inner.transport, on=False)

    def resume_writing(self) -> None:
        """Go on."""
        set_reading(self._inner.transport, on=True)

    def close(self) -> None:
        """Close both ends, sending what is buffered."""
        for transport in (self._transport, self._inner.transport):
            if transport is not None and not transport.is_closing():
                transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Close the other end."""
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        self.close()
