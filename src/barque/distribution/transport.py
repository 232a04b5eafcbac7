"""HTTP/1.1 to registries: kept connections, TLS, proxies, redirects without credentials, calling off.

Plain blocking http.client: for bytes that are hashed, inflated and written as they come, one thread a
transfer costs a third of what an event loop costs, and a broken connection is an exception where it
is read.
"""

import base64
import http.client
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

import barque
from barque.distribution.errors import CancelledError, TransportError, of_exception
from barque.distribution.settings import Settings, bypasses_proxy

PIECE_BYTES = 1 << 18
TEXT_MAX = 4 << 20
_REDIRECTS_MAX = 10
_REDIRECTS = (301, 302, 303, 307, 308)
USER_AGENT = f"Barque/{barque.__version__} (linux)"

Headers = Mapping[str, str]
Key = tuple[str, str]


class Calls:
    """The sockets of one action, so that it can be called off from another thread.

    A part of it may be called off alone.
    """

    def __init__(self) -> None:
        self._parts: list[Calls] = []
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._event = threading.Event()

    @property
    def cancelled(self) -> bool:
        """Whether the action was called off."""
        return self._event.is_set()

    def cancel(self) -> None:
        """Call the action off: its reads and writes end at once."""
        self._event.set()
        with self._lock:
            for part in self._parts:
                part.cancel()
            for sock in self._sockets:
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def part(self) -> "Calls":
        """Return a part of the action, which ends with it."""
        made = Calls()
        with self._lock:
            self._parts.append(made)
        if self.cancelled:
            made.cancel()
        return made

    def check(self) -> None:
        """Raise CancelledError once the action was called off."""
        if self._event.is_set():
            raise CancelledError("context canceled")

    def wait(self, seconds: float) -> None:
        """Wait; CancelledError as soon as the action is called off."""
        self._event.wait(seconds)
        self.check()

    def add(self, sock: socket.socket) -> None:
        """Let a socket end with the action."""
        with self._lock:
            self._sockets.add(sock)
        self.check()

    def discard(self, sock: socket.socket) -> None:
        """A socket is closed."""
        with self._lock:
            self._sockets.discard(sock)


class Answer:
    """An answer whose body is read in pieces; close it, or read it to its end."""

    def __init__(self, transport: "Transport", key: Key, connection: http.client.HTTPConnection, url: str) -> None:
        self._transport = transport
        self._key = key
        self._connection = connection
        self._response = connection.getresponse()
        self.url = url
        self.status = self._response.status
        self.headers: http.client.HTTPMessage = self._response.headers

    @property
    def length(self) -> int | None:
        """Return the body's length in bytes, None where it is not told."""
        text = self.headers.get("Content-Length", "")
        return int(text) if text.isdigit() else None

    def pieces(self, size: int = PIECE_BYTES) -> Iterator[bytes]:
        """Yield the body.

        Raises:
            TransportError: the connection broke.
            CancelledError: the action was called off.
        """
        try:
            # What has come is given on at once: it is kept even if nothing comes behind it.
            while data := self._response.read1(size):
                self._transport.calls.check()
                yield data
            if self._response.length:
                raise TransportError("unexpected EOF")
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._transport.calls.check()
            raise of_exception("Get", self.url, error, self._key[1]) from None
        finally:
            self.close()

    def text(self, limit: int = TEXT_MAX) -> bytes:
        """Return the body, at most limit bytes of it and then no more.

        Raises:
            TransportError: the connection broke, or there was more.
        """
        parts, total = [], 0
        for data in self.pieces():
            total += len(data)
            if total > limit:
                raise TransportError(f"{self.url}: the answer is larger than {limit} bytes")
            parts.append(data)
        return b"".join(parts)

    def close(self) -> None:
        """Keep the connection if the whole body was read, else close it."""
        connection, self._connection = self._connection, None  # type: ignore[assignment]
        if connection is None:
            return
        done = self._response.isclosed() or self._response.length == 0
        self._response.close()
        self._transport.put_back(self._key, connection, reusable=done)


class Transport:
    """Sends requests over kept connections; safe to use from several threads.

    Args:
        settings: proxies and timeouts.
        calls: what can be called off together.
    """

    def __init__(self, settings: Settings, calls: Calls) -> None:
        self.settings = settings
        self.calls = calls
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._lock = threading.Lock()
        self._idle: dict[Key, list[http.client.HTTPConnection]] = {}

    def trust(self, host: str, context: ssl.SSLContext) -> None:
        """Use a TLS context for a host (`host[:port]`); others get the system's."""
        self._contexts[host] = context

    def close(self) -> None:
        """Close all kept connections."""
        with self._lock:
            kept = [c for connections in self._idle.values() for c in connections]
            self._idle.clear()
        for connection in kept:
            self._close(connection)

    def request(
        self, method: str, url: str, headers: Headers | None = None, body: Any = None, *, follow: bool = True
    ) -> Answer:
        """Send a request and return the answer's head with its body to come.

        A redirect is followed for GET and HEAD; credentials go to no other host.

        Args:
            method: the method.
            url: the whole URL.
            headers: its headers.
            body: bytes, or an iterable of bytes that is sent once.
            follow: follow redirects.

        Raises:
            TransportError: no HTTP answer came.
            CancelledError: the action was called off.
        """
        sent = {"User-Agent": USER_AGENT, **(headers or {})}
        for _ in range(_REDIRECTS_MAX):
            answer = self._send(method, url, sent, body)
            if not follow or method not in ("GET", "HEAD") or answer.status not in _REDIRECTS:
                return answer
            target = joined(url, answer.headers.get("Location", ""))
            answer.close()
            if not same_host(url, target):
                sent.pop("Authorization", None)
            url = target
        raise TransportError(f'{method.capitalize()} "{url}": stopped after {_REDIRECTS_MAX} redirects')

    def _send(self, method: str, url: str, headers: Headers, body: Any) -> Answer:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise TransportError(f'unsupported protocol scheme "{parts.scheme}" in "{url[:200]}"')
        key = (parts.scheme, parts.netloc.rpartition("@")[2])
        self.calls.check()
        connection = self._take(key)
        try:
            if connection is not None:
                try:
                    return self._exchange(connection, key, method, url, parts, headers, body)
                except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                    # The other side closed it while it was idle; a body that has begun is gone.
                    self._close(connection)
                    if body is not None and not isinstance(body, bytes):
                        raise
            connection = self._connect(key, parts)
            return self._exchange(connection, key, method, url, parts, headers, body)
        except (OSError, http.client.HTTPException, ValueError) as error:
            if connection is not None:
                self._close(connection)
            self.calls.check()
            raise of_exception(method, url, error, _address(parts)) from None
        except BaseException:
            # The body could not be had, or all was called off: what has begun cannot go on.
            if connection is not None:
                self._close(connection)
            raise

    def _exchange(
        self, connection: http.client.HTTPConnection, key: Key, method: str, url: str,
        parts: SplitResult, headers: Headers, body: Any,
    ) -> Answer:  # fmt: skip
        target = parts._replace(scheme="", netloc="", fragment="").geturl() or "/"
        sent = dict(headers)
        proxy = self._proxy(parts)
        if proxy and parts.scheme == "http":
            target = parts._replace(fragment="").geturl()
            sent |= _proxy_headers(proxy)
        sent["Host"] = key[1]
        chunked = body is not None and not isinstance(body, bytes) and "Content-Length" not in sent
        if chunked:
            sent["Transfer-Encoding"] = "chunked"
        try:
            connection.request(method, target, body, sent, encode_chunked=chunked)
        except (BrokenPipeError, ConnectionResetError):
            # An answer that refuses the request comes before the body has gone; it is read next.
            if body is None or isinstance(body, bytes):
                raise
        return Answer(self, key, connection, url)

    def _take(self, key: Key) -> http.client.HTTPConnection | None:
        with self._lock:
            kept = self._idle.get(key)
            return kept.pop() if kept else None

    def put_back(self, key: Key, connection: http.client.HTTPConnection, *, reusable: bool) -> None:
        """Keep a connection for the next request, or close it."""
        if not reusable or connection.sock is None or self.calls.cancelled:
            self._close(connection)
            return
        with self._lock:
            self._idle.setdefault(key, []).append(connection)

    def _close(self, connection: http.client.HTTPConnection) -> None:
        if connection.sock is not None:
            self.calls.discard(connection.sock)
        connection.close()

    def _proxy(self, parts: SplitResult) -> SplitResult | None:
        text = self.settings.https_proxy if parts.scheme == "https" else self.settings.http_proxy
        if not text or bypasses_proxy(self.settings, parts.netloc.rpartition("@")[2]):
            return None
        proxy = urlsplit(text if "://" in text else f"http://{text}")
        if proxy.scheme != "http" or not proxy.hostname:
            raise TransportError(f"proxy {text!r}: only http:// proxies are supported")
        return proxy

    def _connect(self, key: Key, parts: SplitResult) -> http.client.HTTPConnection:
        proxy = self._proxy(parts)
        near = proxy or parts
        host, port = near.hostname or "", near.port or (443 if near.scheme == "https" else 80)
        timeout = self.settings.connect_timeout_s
        secure = parts.scheme == "https"
        connection = http.client.HTTPConnection(host, port, timeout=timeout)
        if proxy and secure:
            far = parts.hostname or ""
            connection.set_tunnel(far, parts.port or 443, _proxy_headers(proxy))
        connection.connect()
        sock: socket.socket = connection.sock
        try:
            sock.settimeout(self.settings.stall_timeout_s)
            if secure:
                context = self._contexts.get(key[1]) or self._system_context()
                sock = connection.sock = context.wrap_socket(sock, server_hostname=parts.hostname)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.calls.add(sock)
        except BaseException:
            sock.close()
            raise
        return connection

    def _system_context(self) -> ssl.SSLContext:
        with self._lock:
            context = self._contexts.get("")
            if context is None:
                context = self._contexts[""] = ssl.create_default_context()
            return context


def joined(url: str, other: str) -> str:
    """Return what a server's URL, perhaps relative to the one that was asked, means.

    Raises:
        TransportError: it is none.
    """
    try:
        target = urljoin(url, other)
        urlsplit(target)
    except ValueError:
        raise TransportError(f"{url}: the server leads to an invalid URL {other[:200]!r}") from None
    return target


def same_host(one: str, other: str) -> bool:
    """Tell whether two URLs have one scheme, host and port, so that credentials of one may go to the other."""
    first, second = urlsplit(one), urlsplit(other)
    return (first.scheme, _address(first)) == (second.scheme, _address(second))


def _address(parts: SplitResult) -> str:
    try:
        port = parts.port
    except ValueError:
        port = None
    return f"{parts.hostname}:{port or (443 if parts.scheme == 'https' else 80)}"


def _proxy_headers(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}
