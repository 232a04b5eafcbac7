"""Values of log options: truth, numbers, durations, sizes, addresses. Pure."""

import re
from typing import NamedTuple
from urllib.parse import urlsplit

from barque.base.errors import InvalidInputError

_TRUE, _FALSE = ("1", "t", "T", "TRUE", "true", "True"), ("0", "f", "F", "FALSE", "false", "False")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)i?b?", re.IGNORECASE)
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def truth(text: str) -> bool:
    """Return a truth value.

    Raises:
        InvalidInputError: it is none.
    """
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise InvalidInputError(f'strconv.ParseBool: parsing "{text}": invalid syntax')


def whole(text: str) -> int:
    """Return a whole number.

    Raises:
        InvalidInputError: it is none.
    """
    if not re.fullmatch(r"[+-]?\d{1,18}", text):
        raise InvalidInputError(f'strconv.Atoi: parsing "{text}": invalid syntax')
    return int(text)


def size(text: str) -> int:
    """Return the bytes of `10m`.

    Raises:
        InvalidInputError: it is no size.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise InvalidInputError(f"invalid size: '{text}'")
    return int(float(match[1]) * 1024 ** " kmgtp".index(match[2].lower() or " "))


def duration_s(text: str) -> float:
    """Return the seconds of `1m30s`.

    Raises:
        InvalidInputError: it is no duration.
    """
    sign = -1 if text.startswith("-") else 1
    rest = text.lstrip("+-")
    parts = _DURATION.findall(rest)
    if rest == "0":
        return 0.0
    if not parts or "".join(number + unit for number, unit in parts) != rest:
        raise InvalidInputError(f'time: invalid duration "{text}"')
    return sign * sum(float(number) * _UNITS[unit] for number, unit in parts)


class Address(NamedTuple):
    """Where a server is: a scheme with a host and port, or with a path."""

    scheme: str
    host: str = ""
    port: int = 0
    path: str = ""


def address(text: str, schemes: tuple[str, ...], default_port: int) -> Address:
    """Return the parts of `tcp://host:port` or `unix:///path`.

    Raises:
        InvalidInputError: another scheme, or a port that cannot be.
    """
    parts = urlsplit(text)
    if parts.scheme not in schemes:
        raise InvalidInputError(f"unsupported scheme: '{parts.scheme}'")
    if parts.scheme in ("unix", "unixgram"):
        return Address(parts.scheme, path=parts.path)
    try:
        port = parts.port
    except ValueError:
        raise InvalidInputError(f"invalid port: {text}") from None
    return Address(parts.scheme, parts.hostname or "", port or default_port, parts.path)
