"""Sockets to log servers: connected when needed, found dead before they are written to."""

import select
import socket
import ssl
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

from barque.logdrivers.entry import DriverError
from barque.logdrivers.values import Address

CONNECT_S = 10.0
_IO_S = 30.0
_READ = 4096
_SEND_BUFFER = 1 << 16


def go_words(error: OSError) -> str:
    """Return what went wrong as log messages put it."""
    return (error.strerror or str(error)).lower() if not isinstance(error, TimeoutError) else "i/o timeout"


class Stream:
    """A stream or datagram socket to one address."""

    def __init__(
        self, address: Address, context: ssl.SSLContext | None = None, *, write_s: float = _IO_S, read_s: float = _IO_S
    ) -> None:
        self._address = address
        self._context = context
        self._write_s, self._read_s = write_s, read_s
        self._sock: socket.socket | None = None
        self._early = b""

    def open(self) -> None:
        """Connect unless connected.

        Raises:
            DriverError: nobody is there.
        """
        if self._sock is not None:
            return
        try:
            self._sock = self._connect()
        except OSError as error:
            raise DriverError(f"dial {self._named()}: {go_words(error)}") from None

    def _named(self) -> str:
        address = self._address
        if address.path and not address.host:
            return f"{address.scheme} {address.path}: connect"
        kind = "udp" if address.scheme == "udp" else "tcp"
        return f"{kind} {address.host}:{address.port}: connect"

    def _connect(self) -> socket.socket:
        address = self._address
        if address.scheme in ("unix", "unixgram"):
            kind = socket.SOCK_DGRAM if address.scheme == "unixgram" else socket.SOCK_STREAM
            sock = socket.socket(socket.AF_UNIX, kind)
            sock.settimeout(CONNECT_S)
            sock.connect(address.path)
        elif address.scheme == "udp":
            family, _, _, _, place = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_DGRAM)[0]
            sock = socket.socket(family, socket.SOCK_DGRAM)
            sock.connect(place)
        else:
            sock = socket.create_connection((address.host, address.port), CONNECT_S)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            # What lies here when a server dies is lost unless its protocol acknowledges; the kernel would keep megabytes.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
            if self._context is not None:
                sock = self._context.wrap_socket(sock, server_hostname=address.host)
        sock.settimeout(self._write_s or None)
        return sock

    def write(self, data: bytes) -> None:
        """Send all of data.

        Raises:
            DriverError: the connection is gone; it is closed.
        """
        self.open()
        assert self._sock is not None
        try:
            if self._address.scheme not in ("udp", "unixgram"):
                self._check_alive()
            self._sock.sendall(data)
        except OSError as error:
            self.close()
            raise DriverError(f"write {self._named()}: {go_words(error)}") from None

    def _check_alive(self) -> None:
        """Notice that the other side has closed, which a write into the kernel's buffer would not."""
        assert self._sock is not None
        # A socket with a time limit waits for something to read even with MSG_DONTWAIT.
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        if poll.poll(0) and self._has_ended(self._sock):
            raise ConnectionResetError(104, "connection reset by peer")

    def _has_ended(self, sock: socket.socket) -> bool:
        if not isinstance(sock, ssl.SSLSocket):
            return sock.recv(1, socket.MSG_PEEK) == b""
        # Nothing can be looked at without taking it; and what came may concern the encryption alone.
        sock.settimeout(0)
        try:
            data = sock.recv(_READ)
        except ssl.SSLWantReadError:
            return False
        finally:
            sock.settimeout(self._write_s or None)
        self._early += data
        return not data

    def read(self) -> bytes:
        """Return some bytes.

        Raises:
            DriverError: none came; the connection is closed.
        """
        self.open()
        assert self._sock is not None
        early, self._early = self._early, b""
        if early:
            return early
        try:
            self._sock.settimeout(self._read_s or None)
            data = self._sock.recv(_READ)
            self._sock.settimeout(self._write_s or None)
        except OSError as error:
            self.close()
            raise DriverError(f"read {self._named()}: {go_words(error)}") from None
        if not data:
            self.close()
            raise DriverError(f"read {self._named()}: connection closed")
        return data

    def close(self) -> None:
        """Close it; a later write connects again."""
        sock, self._sock = self._sock, None
        self._early = b""
        if sock is not None:
            try:
                sock.close()
            except OSError:
                pass


class HttpClient:
    """One kept-alive connection to an HTTP server."""

    def __init__(self, url: str, context: ssl.SSLContext | None = None, *, server_name: str = "") -> None:
        parts = urlsplit(url)
        self._host, self._tls = parts.hostname or "", parts.scheme == "https"
        self._port = parts.port or (443 if self._tls else 80)
        self._context = context
        self._server_name = server_name
        self._connection: HTTPConnection | None = None

    def request(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, bytes]:
        """Return the status and the body of the answer.

        Raises:
            DriverError: the server is not reachable.
        """
        for fresh in (self._connection is None, True):
            try:
                return self._once(method, path, body, headers)
            except (OSError, HTTPException) as error:
                self.close()
                # A kept-alive connection may have been closed meanwhile; a new one has no such excuse.
                if fresh:
                    words = go_words(error) if isinstance(error, OSError) else str(error)
                    raise DriverError(f"dial tcp {self._host}:{self._port}: connect: {words}") from None
        raise AssertionError("unreachable")

    def _once(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, bytes]:
        if self._connection is None:
            self._connection = self._made()
        self._connection.request(method, path, body, headers)
        answer = self._connection.getresponse()
        return answer.status, answer.read()

    def _made(self) -> HTTPConnection:
        if not self._tls:
            return HTTPConnection(self._host, self._port, timeout=_IO_S)
        context = self._context or ssl.create_default_context()
        if self._server_name:
            return _NamedTls(self._host, self._port, context, self._server_name)
        return HTTPSConnection(self._host, self._port, timeout=_IO_S, context=context)

    def close(self) -> None:
        """Close it."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class _NamedTls(HTTPConnection):
    """TLS to a server whose certificate bears another name than its address."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext, name: str) -> None:
        super().__init__(host, port, timeout=_IO_S)
        self._context, self._name = context, name

    def connect(self) -> None:
        super().connect()
        self.sock: Any = self._context.wrap_socket(self.sock, server_hostname=self._name)


def tls_context(
    read: Callable[[str], str], *, ca: str = "", cert: str = "", key: str = "", skip_verify: bool = False
) -> ssl.SSLContext:
    """Return a client's TLS settings; the files are named by options that `read` gives.

    Raises:
        DriverError: a file is missing or is none of its kind.
    """
    try:
        context = ssl.create_default_context(cafile=read(ca) or None if ca else None)
        if skip_verify:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if cert and read(cert):
            context.load_cert_chain(read(cert), read(key) or None)
    except (OSError, ssl.SSLError) as error:
        raise DriverError(f"could not load TLS files: {error}") from None
    return context
