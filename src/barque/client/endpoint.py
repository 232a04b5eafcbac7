"""Where an engine listens: host strings parsed, and connected sockets made of them."""

from __future__ import annotations

import _socket
import os

from barque.base.errors import InvalidInputError, UnavailableError
from barque.base.record import Record

TYPE_CHECKING = False  # the module typing costs every start of the command milliseconds
if TYPE_CHECKING:
    from typing import Any

DEFAULT_HOST = "unix:///run/barque.sock"


class TlsFiles(Record):
    """Certificate files of a TLS client; `verify` checks the server against `ca`."""

    ca: str
    cert: str
    key: str
    verify: bool


class Endpoint(Record):
    """A parsed host string: `unix` with a path, or `tcp` with a host and a port."""

    kind: str
    path: str
    host: str
    port: int
    text: str


def parse_host(text: str, *, tls: bool = False) -> Endpoint:
    """Parse a host string such as unix:///run/barque.sock or tcp://127.0.0.1:2375.

    Args:
        text: the host string; the scheme defaults to tcp.
        tls: picks the default port 2376 instead of 2375.

    Raises:
        InvalidInputError: the scheme or the address is not one that can be connected to.
    """
    text = text.strip()
    scheme, found, rest = text.partition("://")
    if not found:
        if text.startswith("/"):
            return Endpoint("unix", text, "", 0, "unix://" + text)
        scheme, rest = "tcp", text
    if scheme == "unix":
        return Endpoint("unix", rest or "/run/barque.sock", "", 0, f"unix://{rest or '/run/barque.sock'}")
    if scheme not in ("tcp", "http", "https"):
        raise InvalidInputError(
            f"Failed to initialize: unable to resolve docker endpoint: invalid bind address format: {text}"
        )
    address = rest.split("/", 1)[0]
    host, port_text = _split_port(address)
    if port_text and not (port_text.isdigit() and int(port_text) < 65536):
        raise InvalidInputError(
            f"Failed to initialize: unable to resolve docker endpoint: invalid bind address format: {text}"
        )
    return Endpoint("tcp", "", host or "127.0.0.1", int(port_text or (2376 if tls else 2375)), text)


def _split_port(address: str) -> tuple[str, str]:
    if address.startswith("["):
        host, _, tail = address[1:].partition("]")
        return host, tail.removeprefix(":")
    host, _, port = address.partition(":")
    return host, port


def connect(endpoint: Endpoint, tls: TlsFiles | None = None) -> Any:
    """Return a connected blocking socket.

    Raises:
        UnavailableError: nothing answers there.
    """
    try:
        if endpoint.kind == "unix":
            sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
            try:
                sock.connect(endpoint.path)
            except BaseException:
                sock.close()
                raise
            return sock
        if tls is None:
            return _connect_tcp(endpoint)
        from barque.client.tls import connect_tls

        return connect_tls(endpoint, tls)
    except PermissionError as error:
        raise UnavailableError(
            "permission denied while trying to connect to the Docker daemon socket at "
            f"{endpoint.text}: {os.strerror(error.errno or 0).lower()}"
        ) from error
    except OSError as error:
        raise UnavailableError(
            f"Cannot connect to the Docker daemon at {endpoint.text}. Is the docker daemon running?"
        ) from error


def _connect_tcp(endpoint: Endpoint) -> Any:
    found = _socket.getaddrinfo(endpoint.host, endpoint.port, 0, _socket.SOCK_STREAM)
    problem: OSError | None = None
    for family, kind, protocol, _, address in found:
        sock = _socket.socket(family, kind, protocol)
        try:
            sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
            sock.connect(address)
            return sock
        except OSError as error:
            sock.close()
            problem = error
    raise problem or OSError("no address found")
