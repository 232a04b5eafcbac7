"""The engine's API as a client sees it: requests with JSON in and out, streams, hijacked connections."""

from __future__ import annotations

import os

from barque.base import jsontext
from barque.base.errors import UnavailableError
from barque.client.endpoint import Endpoint, TlsFiles, connect
from barque.client.http import ApiError, Request, Response, has_news, send_request

TYPE_CHECKING = False  # the module typing costs every start of the command milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, TypedDict, Unpack

    from barque.client.http import Body

    class Details(TypedDict, total=False):
        """What a request may have besides its method and path."""

        parameters: dict[str, Any] | None
        body: Body
        headers: dict[str, str] | None

_SAFE = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.~")


def quote(text: str, safe: str = "") -> str:
    """Percent-encode text for a URL; characters of `safe` stay."""
    keep = _SAFE | set(safe.encode())
    return "".join(chr(b) if b in keep else f"%{b:02X}" for b in os.fsencode(text))


def query(parameters: dict[str, Any] | None) -> str:
    """Return "?a=b&…" of the parameters that are not None; bools become 1 and are left out when false."""
    parts = []
    for key, value in (parameters or {}).items():
        if value is None or value is False:
            continue
        for item in value if isinstance(value, list) else [value]:
            text = "1" if item is True else str(item)
            parts.append(f"{quote(key)}={quote(text)}")
    return "?" + "&".join(parts) if parts else ""


class Api:
    """One engine. Every call opens its own connection unless the last one is free again."""

    def __init__(
        self,
        endpoint: Endpoint,
        tls: TlsFiles | None = None,
        version: str = "",
        trace: Callable[[str], None] | None = None,
    ) -> None:
        """Keep how to reach the engine.

        Args:
            endpoint: where it listens.
            tls: certificates, None for a connection that is not encrypted.
            version: the API version to ask for, empty for the engine's own.
            trace: is told of each request and answer.
        """
        self.endpoint = endpoint
        self.tls = tls
        self.prefix = f"/v{version}" if version else ""
        self.trace = trace
        self._idle: Any = None

    def beside(self) -> Api:
        """Return another client of the same engine, for requests while a connection of this one is busy."""
        return Api(self.endpoint, self.tls, self.prefix.removeprefix("/v"), self.trace)

    def _socket(self) -> Any:
        sock, self._idle = self._idle, None
        if sock is not None:
            if not has_news(sock):
                return sock
            # The engine, which owes us nothing, has closed it.
            sock.close()
        return connect(self.endpoint, self.tls)

    def request(
        self,
        method: str,
        path: str,
        *,
        parameters: dict[str, Any] | None = None,
        body: Body = None,
        headers: dict[str, str] | None = None,
    ) -> Request:
        """Return a request to this engine, for begin()."""
        host = "localhost" if self.endpoint.kind == "unix" else f"{self.endpoint.host}:{self.endpoint.port}"
        head = {"Host": host, "User-Agent": "barque-client", **(headers or {})}
        return Request(method, self.prefix + path + query(parameters), head, body)

    def send(self, method: str, path: str, **details: Unpack[Details]) -> Response:
        """Send a request and return its response with the body unread.

        Raises:
            ApiError: the engine answered with an error status.
            UnavailableError: the engine is not reachable.
        """
        request = self.request(method, path, **details)
        if self._idle is not None and request.is_repeatable:
            try:
                return self.complete(self.begin(request), request)
            except (OSError, UnavailableError):
                # The engine closed the connection just as it was used again; what changes nothing is asked anew.
                self._idle = None
        try:
            return self.complete(self.begin(request), request)
        except OSError as error:
            raise ApiConnectionError(f"error during connect: {error.strerror or error}") from error

    def begin(self, request: Request) -> Response:
        """Send a request and return the response to come, of which nothing is read: complete() waits for it.

        Raises:
            OSError: the connection broke.
            UnavailableError: the engine is not reachable.
        """
        if self.trace is not None:
            self.trace(f"{request.method} {request.target}")
        sock = self._socket()
        try:
            send_request(sock, request)
        except OSError:
            sock.close()
            raise
        return Response(sock)

    def complete(self, response: Response, request: Request) -> Response:
        """Wait for the head of a response that begin() gave; return it with the body unread.

        Raises:
            ApiError: the engine answered with an error status.
            OSError: the connection broke.
            UnavailableError: the connection ended, or what came is not HTTP.
        """
        try:
            response.read_head(request.method)
        except (OSError, UnavailableError):
            response.close()
            raise
        if self.trace is not None:
            self.trace(f"{response.status} {request.method} {request.target}")
        if response.status >= 400:
            raise self._error(response)
        return response

    def _error(self, response: Response) -> ApiError:
        text = response.read().decode("utf-8", "replace")
        self._done(response)
        try:
            message = jsontext.loads(text).get("message", "").strip()
        except (ValueError, AttributeError):
            message = text.strip()
        return ApiError(response.status, message or f"request returned status {response.status}")

    def _done(self, response: Response) -> None:
        if response.headers.get("connection", "").lower() == "close" or response.buffer or self._idle is not None:
            response.close()
        else:
            self._idle = response.sock

    def call(
        self,
        method: str,
        path: str,
        *,
        parameters: dict[str, Any] | None = None,
        json_body: Any = None,
        headers: dict[str, str] | None = None,
    ) -> Any:
        """Send a request with a JSON body and return the JSON of the answer (None where empty)."""
        body = None
        if json_body is not None:
            body = jsontext.dumps(json_body).encode("utf-8", "surrogateescape")
            headers = {"Content-Type": "application/json", **(headers or {})}
        response = self.send(method, path, parameters=parameters, body=body, headers=headers)
        answer = response.json()
        self._done(response)
        return answer

    def get(self, path: str, **parameters: Any) -> Any:
        """GET and return the JSON of the answer."""
        return self.call("GET", path, parameters=parameters)

    def post(self, path: str, json_body: Any = None, **parameters: Any) -> Any:
        """POST and return the JSON of the answer."""
        return self.call("POST", path, parameters=parameters, json_body=json_body)

    def delete(self, path: str, **parameters: Any) -> Any:
        """DELETE and return the JSON of the answer."""
        return self.call("DELETE", path, parameters=parameters)

    def stream(self, path: str, **parameters: Any) -> Iterator[Any]:
        """GET and yield each JSON value of the answer's stream."""
        response = self.send("GET", path, parameters=parameters)
        try:
            yield from response.json_stream()
        finally:
            response.close()

    def hijack(
        self, path: str, *, parameters: dict[str, Any] | None = None, json_body: Any = None
    ) -> tuple[Any, bytes, str]:
        """Upgrade a POST to a raw stream.

        Returns:
            The socket, bytes already received, and the content type of the stream.
        """
        headers = {"Connection": "Upgrade", "Upgrade": "tcp"}
        body: bytes | None = None
        if json_body is not None:
            headers["Content-Type"] = "application/json"
            body = jsontext.dumps(json_body).encode()
        response = self.send("POST", path, parameters=parameters, body=body, headers=headers)
        return response.sock, response.buffer, response.headers.get("content-type", "")


class ApiConnectionError(ApiError):
    """The connection broke while a request was under way."""

    def __init__(self, message: str) -> None:
        Exception.__init__(self, message)
        self.status = 0
        self.message = message
