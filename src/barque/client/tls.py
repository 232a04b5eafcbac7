"""TLS connections that can be half-closed, as attach and exec need it.

`ssl.SSLSocket` ends both ways at once. Over memory buffers our own end can be told (close_notify) while the
engine's output is still read to its end.
"""

from __future__ import annotations

import os
import socket
import ssl

from barque.base.errors import InvalidInputError, UnavailableError

TYPE_CHECKING = False  # the module typing costs every start of the command milliseconds
if TYPE_CHECKING:
    from barque.client.endpoint import Endpoint, TlsFiles

_CHUNK_BYTES = 1 << 16


class TlsConnection:
    """A blocking connection with the methods of a socket that clients use."""

    def __init__(self, plain: socket.socket, context: ssl.SSLContext, host: str) -> None:
        self._plain = plain
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._ready = b""
        self._over = False
        self._shake()

    def _shake(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                if not self._fill():
                    raise ConnectionResetError("the connection ended during the TLS handshake") from None
            else:
                self._flush()
                return

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._plain.sendall(self._outgoing.read())

    def _fill(self) -> bool:
        data = self._plain.recv(_CHUNK_BYTES)
        if data:
            self._incoming.write(data)
        return bool(data)

    def _decrypt(self) -> None:
        """Take all that is whole: a poll on the socket tells nothing of what lies here."""
        pieces = [self._ready]
        try:
            while piece := self._tls.read(_CHUNK_BYTES):
                pieces.append(piece)
            self._over = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self._over = True
        self._ready = b"".join(pieces)
        self._flush()

    def fileno(self) -> int:
        """Return the descriptor to poll for reading."""
        return self._plain.fileno()

    def pending(self) -> int:
        """Return how many bytes can be received without waiting for the socket."""
        return len(self._ready)

    def recv(self, most: int) -> bytes:
        """Return up to so many bytes, none at the end."""
        while not self._ready and not self._over:
            if not self._fill():
                self._over = True
                break
            self._decrypt()
        data, self._ready = self._ready[:most], self._ready[most:]
        return data

    def sendall(self, data: bytes) -> None:
        """Send bytes."""
        view = memoryview(data)
        while view:
            view = view[self._tls.write(view) :]
            self._flush()

    def shutdown(self, how: int) -> None:
        """Tell the engine that nothing more comes (SHUT_WR)."""
        if how != socket.SHUT_WR:
            self._plain.shutdown(how)
            return
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            # Wants the other end's close, which comes later, behind its output.
            pass
        self._flush()

    def close(self) -> None:
        """Close the connection."""
        self._plain.close()


def connect_tls(endpoint: Endpoint, tls: TlsFiles) -> TlsConnection:
    """Return a connection to an engine that serves TLS.

    Raises:
        InvalidInputError: a certificate file is missing or wrong.
        UnavailableError: the engine's certificate is not trusted, or ours is not.
        OSError: nothing answers there.
    """
    context = client_context(tls)
    plain = socket.create_connection((endpoint.host, endpoint.port))
    try:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return TlsConnection(plain, context, endpoint.host)
    except ssl.SSLError as error:
        plain.close()
        words = getattr(error, "verify_message", "") or (error.reason or str(error)).replace("_", " ").lower()
        raise UnavailableError(f"error during connect: TLS with {endpoint.text} failed: {words}") from error
    except BaseException:
        plain.close()
        raise


def client_context(tls: TlsFiles) -> ssl.SSLContext:
    """Return what a client trusts, and the certificate that it shows.

    Raises:
        InvalidInputError: a certificate file is missing or wrong.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = tls.verify
    if not tls.verify:
        context.verify_mode = ssl.CERT_NONE
    elif os.path.exists(tls.ca):
        context.load_verify_locations(tls.ca)
    else:
        raise InvalidInputError(f"could not read CA certificate {tls.ca!r}: no such file or directory")
    if os.path.exists(tls.cert) and os.path.exists(tls.key):
        try:
            context.load_cert_chain(tls.cert, tls.key)
        except (OSError, ssl.SSLError) as error:
            reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
            raise InvalidInputError(f"could not load X509 key pair {tls.cert!r}, {tls.key!r}: {reason}") from error
    return context
