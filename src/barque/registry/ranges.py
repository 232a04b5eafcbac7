"""Byte ranges: of downloads (RFC 9110, section 14) and of uploads' chunks (distribution specification). Pure."""

import re
from typing import NamedTuple

from barque.registry.errors import upload_invalid

_RANGE = re.compile(r"bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})\s*")
_CHUNK = re.compile(r"(?:bytes\s+)?(\d{1,18})-(\d{1,18})(?:/(?:\d{1,18}|\*))?")


class Span(NamedTuple):
    """Bytes from start up to, not including, end."""

    start: int
    end: int


class UnsatisfiableError(Exception):
    """The range lies behind the end, or holds nothing."""


def of_request(header: str | None, size: int) -> Span | None:
    """Return the bytes that a Range header asks for, None for all.

    A malformed header, another unit and several ranges mean all, as the RFC allows.

    Raises:
        UnsatisfiableError: none of them is there.
    """
    match = _RANGE.fullmatch(header) if header else None
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:
        count = min(int(match[2]), size)
        if count == 0:
            raise UnsatisfiableError
        return Span(size - count, size)
    start = int(match[1])
    # An end before its start: the distribution specification's suite wants a refusal, not the whole.
    if start >= size or (match[2] and int(match[2]) < start):
        raise UnsatisfiableError
    return Span(start, min(int(match[2]) + 1, size) if match[2] else size)


def of_chunk(header: str | None) -> Span | None:
    """Return the bytes that a chunk's Content-Range says it is, None without one.

    Raises:
        RegistryError: it is malformed.
    """
    if header is None:
        return None
    match = _CHUNK.fullmatch(header.strip())
    if match is None or int(match[2]) < int(match[1]):
        raise upload_invalid("malformed Content-Range", status=416)
    return Span(int(match[1]), int(match[2]) + 1)
