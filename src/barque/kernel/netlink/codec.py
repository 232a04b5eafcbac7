"""Netlink messages and attributes as bytes; no input or output happens here.

Layout of linux/netlink.h: every message and attribute is padded to four bytes, headers in the
machine's byte order.
"""

import struct
from collections.abc import Container, Iterator
from typing import NamedTuple

NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_EXCL = 0x200
NLM_F_DUMP = 0x300
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800

NLMSG_ERROR = 2
NLMSG_DONE = 3

NLA_F_NESTED = 0x8000
_NLA_TYPE_MASK = 0x3FFF

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")


class Request(NamedTuple):
    """A message to send: its type, flags besides REQUEST and ACK, and its body."""

    kind: int
    flags: int
    body: bytes


class Message(NamedTuple):
    """A message as received."""

    kind: int
    flags: int
    sequence: int
    payload: bytes


def attribute(kind: int, payload: bytes) -> bytes:
    """Return one attribute, padded."""
    size = len(payload)
    return _ATTRIBUTE.pack(size + 4, kind) + payload + _PADDING[size & 3]


def nested(kind: int, *children: bytes) -> bytes:
    """Return an attribute that holds attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(children))


def text(kind: int, value: str) -> bytes:
    """Return an attribute with a string that ends in a zero byte."""
    return attribute(kind, value.encode() + b"\0")


def u8(kind: int, value: int) -> bytes:
    """Return an attribute of one byte."""
    return attribute(kind, bytes((value,)))


def u32(kind: int, value: int) -> bytes:
    """Return an attribute with a 32-bit number in the machine's byte order."""
    return attribute(kind, struct.pack("=I", value))


def be32(kind: int, value: int) -> bytes:
    """Return an attribute with a 32-bit number in network byte order; negative numbers wrap."""
    return attribute(kind, struct.pack("!I", value & 0xFFFFFFFF))


def pack(request: Request, sequence: int, *, acknowledge: bool = True) -> bytes:
    """Return the bytes of a request."""
    flags = request.flags | NLM_F_REQUEST | (NLM_F_ACK if acknowledge else 0)
    size = _HEADER.size + len(request.body)
    header = _HEADER.pack(size, request.kind, flags, sequence, 0)
    return header + request.body + _PADDING[size & 3]


def unpack(data: bytes) -> Iterator[Message]:
    """Yield the messages of one datagram.

    Raises:
        ValueError: a length points outside the datagram.
    """
    at = 0
    while at + _HEADER.size <= len(data):
        size, kind, flags, sequence, _ = _HEADER.unpack_from(data, at)
        if size < _HEADER.size or at + size > len(data):
            raise ValueError("netlink message with a wrong length")
        yield Message(kind, flags, sequence, data[at + _HEADER.size : at + size])
        at += (size + 3) & ~3


def attributes(data: bytes, wanted: Container[int] | None = None) -> dict[int, bytes]:
    """Return attributes by type, or those of the types that are wanted; of a repeated type the last one wins.

    Raises:
        ValueError: a length points outside the data.
    """
    return dict(attribute_list(data, wanted))


def attribute_list(data: bytes, wanted: Container[int] | None = None) -> list[tuple[int, bytes]]:
    """Return attributes in their order, or those of the types that are wanted.

    Raises:
        ValueError: a length points outside the data.
    """
    found = []
    at, end = 0, len(data)
    while at + 4 <= end:
        size, kind = _ATTRIBUTE.unpack_from(data, at)
        if size < 4 or at + size > end:
            raise ValueError("netlink attribute with a wrong length")
        kind &= _NLA_TYPE_MASK
        if wanted is None or kind in wanted:
            found.append((kind, data[at + 4 : at + size]))
        at += (size + 3) & ~3
    return found


def unpack_error(payload: bytes, flags: int) -> tuple[int, str]:
    """Return errno (0: all went well) and the kernel's own words of an NLMSG_ERROR."""
    (number,) = struct.unpack_from("=i", payload)
    words = ""
    if number and flags & 0x200:  # NLM_F_ACK_TLVS
        skip = 20
        if not flags & 0x100:  # NLM_F_CAPPED: the whole request is not repeated
            (size,) = struct.unpack_from("=I", payload, 4)
            skip = 4 + ((size + 3) & ~3)
        words = attributes(payload[skip:]).get(1, b"").rstrip(b"\0").decode(errors="replace")
    return -number, words
