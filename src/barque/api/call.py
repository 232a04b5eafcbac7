"""One request on its way to the engine: query, body and answers in the forms that Docker's clients use."""

from __future__ import annotations

import json
import re
from typing import Any

from aiohttp import web

from barque.api import backends
from barque.base.errors import BarqueError, InvalidInputError

MIN_VERSION = (1, 24)
MAX_VERSION = (1, 51)
MAX_JSON_BYTES = 8 << 20
_CHUNK_BYTES = 1 << 18
_SURROGATE = re.compile("[\ud800-\udfff]")
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_FALSE = frozenset(("", "0", "no", "false", "none"))


class Call:
    """A request with its API version and the parts of its path."""

    __slots__ = ("backend", "params", "request", "version")

    def __init__(
        self, request: web.BaseRequest, backend: backends.Backend, version: tuple[int, int], params: dict[str, str]
    ) -> None:
        self.request = request
        self.backend = backend
        self.version = version
        self.params = params

    def text(self, name: str, default: str = "") -> str:
        """Return a query parameter."""
        return self.request.query.get(name, default)

    def texts(self, name: str) -> list[str]:
        """Return all values of a query parameter."""
        return self.request.query.getall(name, [])

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Return a query parameter as truth: anything but "", 0, no, false and none is true."""
        value = self.request.query.get(name)
        return default if value is None else value.strip().lower() not in _FALSE

    def number(self, name: str, default: int = 0) -> int:
        """Return a query parameter as a whole number.

        Raises:
            InvalidInputError: it is no number of 64 bits.
        """
        value = self.request.query.get(name, "")
        if value == "":
            return default
        return whole_number(value)

    def filters(self) -> backends.Filters:
        """Return the query parameter `filters`.

        Raises:
            InvalidInputError: it is not JSON of one of the two shapes.
        """
        return parse_filters(self.text("filters"))

    async def body(self, *, limit: int = MAX_JSON_BYTES) -> backends.Json | None:
        """Return the JSON object in the request's body, None where there is no body.

        Raises:
            InvalidInputError: broken JSON, not an object, another content type, too big.
        """
        request = self.request
        if not request.body_exists or request.content_length == 0:
            return None
        data = await self._read(limit)
        kind = request.headers.get("Content-Type", "")
        if not data and not kind:
            return None
        _check_content_type(kind)
        return decode_object(data)

    async def _read(self, limit: int) -> bytes:
        length = self.request.content_length
        if length is not None and length > limit:
            raise TooLargeError(f"request body is larger than {limit} bytes")
        parts: list[bytes] = []
        total = 0
        while chunk := await self.request.content.readany():
            total += len(chunk)
            if total > limit:
                raise TooLargeError(f"request body is larger than {limit} bytes")
            parts.append(chunk)
        return b"".join(parts)

    def auth(self) -> str:
        """Return the credentials for a registry that came with the request, still encoded."""
        return self.request.headers.get("X-Registry-Auth", "")

    def reader(self) -> backends.ReadChunk:
        """Return a function that gives the body piece by piece."""
        content = self.request.content

        async def read() -> bytes:
            return await content.read(_CHUNK_BYTES)

        return read


class TooLargeError(BarqueError):
    """A body is beyond what is read into memory."""

    http_status = 413


def whole_number(text: str) -> int:
    """Return text as a signed number of 64 bits.

    Raises:
        InvalidInputError: it is none; the text is Go's.
    """
    try:
        if not text.lstrip("+-").isascii() or not text.lstrip("+-").isdigit():
            raise ValueError(text)
        value = int(text)
    except ValueError:
        raise InvalidInputError(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None
    if not -(1 << 63) <= value < 1 << 63:
        raise InvalidInputError(f'strconv.ParseInt: parsing "{text}": value out of range')
    return value


def parse_filters(text: str) -> backends.Filters:
    """Return filters from {"key": ["value"]} or {"key": {"value": true}}.

    Raises:
        InvalidInputError: text is neither.
    """
    if not text:
        return {}
    try:
        value = _whole(json.loads(text))
    except (ValueError, RecursionError):
        raise InvalidInputError("invalid filter") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidInputError("invalid filter")
    return {key: _filter_values(wanted) for key, wanted in value.items()}


def _filter_values(wanted: Any) -> list[str]:
    if isinstance(wanted, dict) and all(isinstance(on, bool) for on in wanted.values()):
        return list(wanted)
    if isinstance(wanted, list) and all(isinstance(item, str) for item in wanted):
        return list(dict.fromkeys(wanted))
    raise InvalidInputError("invalid filter")


def _check_content_type(kind: str) -> None:
    media = kind.partition(";")[0].strip().lower()
    if "/" not in media:
        raise InvalidInputError(f"malformed Content-Type header ({kind}): mime: no media type")
    if media != "application/json":
        raise InvalidInputError(f"unsupported Content-Type header ({kind}): must be 'application/json'")


def decode_object(data: bytes) -> backends.Json | None:
    """Return the JSON object in data; None for JSON's null.

    Raises:
        InvalidInputError: data is no JSON or no object.
    """
    if not data.strip():
        raise InvalidInputError("invalid JSON: got EOF while reading request body")
    try:
        value = json.loads(data)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            raise InvalidInputError("unexpected content after JSON") from None
        raise InvalidInputError(f"invalid JSON: {error}") from None
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"invalid JSON: {error}") from None
    if b"\\u" in data:
        value = _whole(value)
    if value is not None and not isinstance(value, dict):
        raise InvalidInputError(f"invalid JSON: json: cannot unmarshal {json_kind(value)} into an object")
    return value


def _whole(value: Any) -> Any:
    """Return a value without halves of surrogate pairs, which no text may hold: U+FFFD stands for them, as in Go."""
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, list):
        return [_whole(item) for item in value]
    if isinstance(value, dict):
        return {_SURROGATE.sub("\ufffd", key): _whole(item) for key, item in value.items()}
    return value


def json_kind(value: Any) -> str:
    """Return what Go's decoder calls a JSON value."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def encode(value: Any) -> bytes:
    """Return value as a line of JSON."""
    text = _encode(value)
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:
        # Names of files need not be text.
        return _SURROGATE.sub("\ufffd", text).encode() + b"\n"


def answer(value: Any, status: int = 200) -> web.Response:
    """Return a JSON answer."""
    return web.Response(body=encode(value), status=status, content_type="application/json")


def nothing(status: int = 204) -> web.Response:
    """Return an answer without a body."""
    return web.Response(status=status)


def error_answer(status: int, message: str) -> web.Response:
    """Return an error in the form that clients read."""
    if status in (204, 304):
        return web.Response(status=status)
    return answer({"message": message}, status)
