"""HTTP/1.1 over a connected socket: one request, its response, or the raw stream behind it."""

from __future__ import annotations

import _socket

from barque.base import jsontext
from barque.base.errors import BarqueError, UnavailableError

TYPE_CHECKING = False  # the module typing costs every start of the command milliseconds
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    Body = bytes | Iterable[bytes] | None

HEAD_LIMIT_BYTES = 1 << 20
READ_BYTES = 1 << 16


class ApiError(BarqueError):
    """The engine refused a request; str() is its message, `status` its HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"Error response from daemon: {message}")
        self.status = status
        self.message = message


class Request:
    """What is asked: method, target with its query, headers and body."""

    __slots__ = ("body", "headers", "method", "target")

    def __init__(self, method: str, target: str, headers: dict[str, str], body: Body = None) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.body = body

    @property
    def is_repeatable(self) -> bool:
        """Tell whether asking twice is as good as once, by RFC 9110, section 9.2.2."""
        return self.method in ("GET", "HEAD") and self.body is None


class Response:
    """Status, headers (names in lower case) and a body that is read as it comes."""

    def __init__(self, sock: Any) -> None:
        self.sock = sock
        self.buffer = b""
        self.status = 0
        self.headers: dict[str, str] = {}
        self._left: int | None = None
        self._chunked = False
        self._ended = False

    def read_head(self, method: str) -> None:
        """Read the status line and the headers.

        Raises:
            UnavailableError: the connection ended, or what came is not HTTP.
        """
        while True:
            while b"\r\n\r\n" not in self.buffer:
                more = self.sock.recv(READ_BYTES)
                if not more:
                    raise UnavailableError("error during connect: the daemon closed the connection (EOF)")
                self.buffer += more
                if len(self.buffer) > HEAD_LIMIT_BYTES:
                    raise UnavailableError("error during connect: the daemon's answer has no end of headers")
            head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
            self._parse_head(head.decode("latin-1"))
            if self.status != 100:
                break
        self._chunked = "chunked" in self.headers.get("transfer-encoding", "").lower()
        length = self.headers.get("content-length")
        self._left = int(length) if length is not None and length.isdigit() and not self._chunked else None
        if method == "HEAD" or self.status in (204, 304):
            self._ended = True

    def _parse_head(self, head: str) -> None:
        lines = head.split("\r\n")
        parts = lines[0].split(" ", 2)
        if not parts[0].startswith("HTTP/1.") or len(parts) < 2 or not parts[1].isdigit():
            raise UnavailableError("error during connect: the daemon's answer is not HTTP")
        self.status = int(parts[1])
        self.headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            self.headers[name.strip().lower()] = value.strip()

    def _fill(self) -> bool:
        more = self.sock.recv(READ_BYTES)
        self.buffer += more
        return bool(more)

    def chunks(self) -> Iterator[bytes]:
        """Yield the body's bytes as they arrive, up to its end.

        Raises:
            UnavailableError: the connection ended before the body did.
        """
        if self._ended:
            return
        yield from self._chunked_body() if self._chunked else self._plain_body()
        self._ended = True

    def _plain_body(self) -> Iterator[bytes]:
        left = self._left
        while left is None or left > 0:
            if not self.buffer and not self._fill():
                if left is not None:
                    raise UnavailableError("unexpected EOF")
                return
            piece, self.buffer = self.buffer, b""
            if left is not None:
                piece, self.buffer = piece[:left], piece[left:]
                left -= len(piece)
            yield piece

    def _chunked_body(self) -> Iterator[bytes]:
        while True:
            text = self._line().split(b";", 1)[0].strip()
            if not text or text.strip(b"0123456789abcdefABCDEF"):
                raise UnavailableError("unexpected answer: a chunk without its size")
            left = size = int(text, 16)
            while left:
                if not self.buffer and not self._fill():
                    raise UnavailableError("unexpected EOF")
                piece, self.buffer = self.buffer[:left], self.buffer[left:]
                left -= len(piece)
                yield piece
            if not size:
                while self._line():
                    pass
                return
            self._line()

    def _line(self) -> bytes:
        while b"\r\n" not in self.buffer:
            if not self._fill():
                raise UnavailableError("unexpected EOF")
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line

    def read(self) -> bytes:
        """Return the whole body."""
        return b"".join(self.chunks())

    def json(self) -> Any:
        """Return the whole body as JSON, None where it is empty."""
        body = self.read()
        return jsontext.loads(body) if body.strip() else None

    def json_stream(self) -> Iterator[Any]:
        """Yield each JSON value of a stream of values, as they come."""
        pending = b""
        for piece in self.chunks():
            pending += piece
            *lines, pending = pending.split(b"\n")
            for line in lines:
                yield from _values(line.decode("utf-8", "replace"))
            if pending.endswith(b"}"):
                try:
                    value = jsontext.loads(pending.decode("utf-8", "replace"))
                except ValueError:
                    continue
                pending = b""
                yield value
        yield from _values(pending.decode("utf-8", "replace"))

    def close(self) -> None:
        """Close the connection."""
        self.sock.close()


def _values(text: str) -> Iterator[Any]:
    text = text.strip()
    while text:
        value, end = jsontext.raw_decode(text)
        yield value
        text = text[end:].lstrip()


def has_news(sock: Any) -> bool:
    """Tell whether a connection over which nothing is to come has something to read: its end, as a rule."""
    if type(sock) is _socket.socket:
        try:
            sock.recv(1, _socket.MSG_PEEK | _socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True
    # What is encrypted cannot be looked at; importing this costs as much as half a request.
    import select

    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def send_request(sock: Any, request: Request) -> None:
    """Send a request; an iterable body goes out chunked."""
    body = request.body
    lines = [f"{request.method} {request.target} HTTP/1.1",
             *(f"{name}: {value}" for name, value in request.headers.items())]  # fmt: skip
    if body is None:
        if request.method in ("POST", "PUT"):
            lines.append("Content-Length: 0")
        sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace"))
    elif isinstance(body, bytes):
        lines.append(f"Content-Length: {len(body)}")
        sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace") + body)
    else:
        lines.append("Transfer-Encoding: chunked")
        sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace"))
        _send_chunks(sock, body)


def _send_chunks(sock: Any, body: Iterable[bytes]) -> None:
    try:
        for piece in body:
            if piece:
                sock.sendall(b"%x\r\n" % len(piece) + piece + b"\r\n")
        sock.sendall(b"0\r\n\r\n")
    except (BrokenPipeError, ConnectionResetError):
        # The engine has answered early (an error); its response is read next.
        return
