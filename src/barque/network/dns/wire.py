"""DNS messages (RFC 1035, 6891): questions read, answers packed, foreign answers checked. Pure.

Everything here reads bytes that an attacker may have written: every length is checked, compression
pointers lead strictly backwards, and nothing but WireError comes out.
"""

import struct
from typing import NamedTuple

A, NS, CNAME, SOA, PTR, MX, TXT, AAAA, SRV, OPT, ANY = 1, 2, 5, 6, 12, 15, 16, 28, 33, 41, 255
IN = 1
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 2, 3, 4, 5, 16
QR, AA, TC, RD, RA, AD, CD = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080, 0x0020, 0x0010
OPCODE = 0x7800
DO = 0x8000
HEADER = 12
PLAIN_UDP = 512
OWN_UDP = 4096
LARGEST = 65535
_MOST_RECORDS = 2048

_head = struct.Struct("!HHHHHH")
_record = struct.Struct("!HHIH")
_pair = struct.Struct("!HH")


class WireError(ValueError):
    """The bytes are no message that can be used; `rcode` is what the asker is told."""

    def __init__(self, text: str, rcode: int = FORMERR) -> None:
        super().__init__(text)
        self.rcode = rcode


class Query(NamedTuple):
    """A question as it came.

    `question` is its section as sent, `name` in lower case without the last dot, `limit` the
    largest answer in bytes that UDP may carry to the asker, `edns` tells whether he sent an OPT
    record, `wants_dnssec` its DO bit.
    """

    ident: int
    flags: int
    question: bytes
    name: str
    kind: int
    klass: int
    limit: int
    edns: bool
    wants_dnssec: bool


class Answer(NamedTuple):
    """A foreign answer that was checked.

    `ttls` are the offsets of the records' times to live, `lifetime_s` how long all of it may be
    kept; `end` is where the message ends without its OPT record, `additional` how many records the
    last section then has.
    """

    ident: int
    flags: int
    rcode: int
    question: bytes
    ttls: tuple[int, ...]
    lifetime_s: int
    end: int
    additional: int
    answers: int


def read_query(data: bytes) -> Query:
    """Return the question of a message.

    Raises:
        WireError: it is none; `rcode` says how to answer.
    """
    if len(data) < HEADER:
        raise WireError("shorter than a header")
    ident, flags, questions, answers, authorities, additional = _head.unpack_from(data)
    if flags & QR:
        raise WireError("an answer came as a question")
    if flags & OPCODE:
        raise WireError("not a standard query", NOTIMP)
    if questions != 1:
        raise WireError("not exactly one question")
    labels, end = _plain_name(data, HEADER)
    if end + 4 > len(data):
        raise WireError("the question is cut")
    kind, klass = _pair.unpack_from(data, end)
    end += 4
    limit, edns, dnssec = PLAIN_UDP, False, False
    count = answers + authorities + additional
    if count > _MOST_RECORDS:
        raise WireError("too many records")
    at = end
    for number in range(count):
        owner = at
        at = skip_name(data, at)
        rtype, size, ttl, length = _read_record(data, at)
        at += 10 + length
        if rtype != OPT:
            continue
        if edns or number < answers + authorities or data[owner]:
            raise WireError("a misplaced OPT record")
        if ttl >> 16 & 0xFF:
            raise WireError("an unknown version of EDNS", BADVERS)
        limit, edns, dnssec = min(max(size, PLAIN_UDP), OWN_UDP), True, bool(ttl & DO)
    return Query(ident, flags, data[HEADER:end], labels, kind, klass, limit, edns, dnssec)


def _plain_name(data: bytes, at: int) -> tuple[str, int]:
    """Return a name that is written out, as labels joined by dots in lower case, and where it ends."""
    labels = []
    start = at
    while True:
        if at >= len(data):
            raise WireError("the name is cut")
        length = data[at]
        at += 1
        if length == 0:
            break
        if length > 63:
            raise WireError("a compressed or overlong label")
        label = data[at : at + length]
        at += length
        if at - start >= 255 or len(label) < length:
            raise WireError("the name is too long or cut")
        # A dot inside a label must not pass for one between labels.
        labels.append(label.replace(b"\\", b"\\\\").replace(b".", b"\\."))
    return b".".join(labels).lower().decode("latin-1"), at


def skip_name(data: bytes, at: int) -> int:
    """Return where the name at `at` ends, having followed its pointers.

    Raises:
        WireError: it is cut, too long, or its pointers do not lead backwards.
    """
    end = -1
    floor = at
    total = 0
    while True:
        if at >= len(data):
            raise WireError("a name is cut")
        length = data[at]
        if length >= 0xC0:
            if at + 2 > len(data):
                raise WireError("a pointer is cut")
            target = (length & 0x3F) << 8 | data[at + 1]
            if end < 0:
                end = at + 2
            if target >= floor or target < HEADER:
                raise WireError("a pointer that does not lead backwards")
            at = floor = target
            continue
        if length > 63:
            raise WireError("a label of an unknown kind")
        total += length + 1
        at += length + 1
        if total > 255:
            raise WireError("a name is too long")
        if length == 0:
            return end if end >= 0 else at


def _read_record(data: bytes, at: int) -> tuple[int, int, int, int]:
    if at + 10 > len(data):
        raise WireError("a record is cut")
    kind, klass, ttl, length = _record.unpack_from(data, at)
    if at + 10 + length > len(data):
        raise WireError("a record's data is cut")
    return kind, klass, ttl, length


def read_answer(data: bytes) -> Answer:
    """Check an answer of another server and return what is needed to keep and pass it on.

    Raises:
        WireError: it is damaged.
    """
    if len(data) < HEADER:
        raise WireError("shorter than a header")
    ident, flags, questions, answers, authorities, additional = _head.unpack_from(data)
    if not flags & QR or flags & OPCODE:
        raise WireError("not an answer")
    if questions != 1:
        raise WireError("not exactly one question")
    _, at = _plain_name(data, HEADER)
    at += 4
    if at > len(data):
        raise WireError("the question is cut")
    question = data[HEADER:at]
    if answers + authorities + additional > _MOST_RECORDS:
        raise WireError("too many records")
    rcode, ttls, lives, end, kept = flags & 0xF, [], [], -1, 0
    for number in range(answers + authorities + additional):
        start = at
        at = skip_name(data, at)
        kind, _, ttl, length = _read_record(data, at)
        if kind == OPT:
            if number < answers + authorities or data[start]:
                raise WireError("a misplaced OPT record")
            rcode |= ttl >> 24 << 4
            end = start if end < 0 else end
        elif end < 0:
            ttls.append(at + 4)
            lives.append(_lifetime(data, at, kind, ttl, length, answered=bool(answers)))
            kept += number >= answers + authorities
        at += 10 + length
    lifetime = min(lives, default=0)
    return Answer(ident, flags, rcode, question, tuple(ttls), lifetime, end if end >= 0 else at, kept, answers)


def _lifetime(data: bytes, at: int, kind: int, ttl: int, length: int, *, answered: bool) -> int:
    """Return how long a record may be kept; what has the top bit set means zero (RFC 2181)."""
    if ttl & 0x80000000:
        return 0
    if kind == SOA and not answered and length >= 20:
        # Its last field is the time to live of "there is none" (RFC 2308).
        (least,) = struct.unpack_from("!I", data, at + 10 + length - 4)
        return min(ttl, int(least))
    return ttl


def question(name: str, kind: int, klass: int = IN) -> bytes:
    """Return a question section for a name of labels of ASCII text.

    Raises:
        ValueError: the name has an empty or overlong label, or other characters.
    """
    return encode_name(name) + _pair.pack(kind, klass)


def encode_name(name: str) -> bytes:
    """Return a name as labels with their lengths.

    Raises:
        ValueError: it has an empty or overlong label, is too long, or has other characters than ASCII.
    """
    out = bytearray()
    for label in name.rstrip(".").split(".") if name.rstrip(".") else ():
        raw = label.encode("ascii")
        if not 0 < len(raw) < 64:
            raise ValueError(f"not a label: {label!r}")
        out.append(len(raw))
        out += raw
    out.append(0)
    if len(out) > 255:
        raise ValueError(f"too long for a name: {name!r}")
    return bytes(out)


def record(kind: int, ttl_s: int, data: bytes) -> bytes:
    """Return a record of the name that the question asks."""
    return b"\xc0\x0c" + _record.pack(kind, IN, ttl_s, len(data)) + data


def opt_record(rcode: int = 0, *, size: int = OWN_UDP, dnssec: bool = False) -> bytes:
    """Return an OPT record, which carries the upper bits of `rcode`."""
    return b"\0" + _record.pack(OPT, size, rcode >> 4 << 24 | (DO if dnssec else 0), 0)


def reply(query: Query, rcode: int = NOERROR, records: bytes = b"", count: int = 0, *, truncated: bool = False) -> bytes:
    """Return an answer of our own to a query."""
    flags = QR | (query.flags & (RD | CD)) | RA | (TC if truncated else 0) | (rcode & 0xF)
    tail = opt_record(rcode, dnssec=query.wants_dnssec) if query.edns else b""
    return _head.pack(query.ident, flags, 1, count, 0, 1 if tail else 0) + query.question + records + tail


def refusal(data: bytes, rcode: int) -> bytes:
    """Return an answer without a question to bytes of which no more than a header could be read."""
    ident, flags = struct.unpack_from("!HH", data)
    tail = opt_record(rcode) if rcode > 0xF else b""
    flags = QR | (flags & (OPCODE | RD)) | RA | rcode & 0xF
    return _head.pack(ident, flags, 0, 0, 0, 1 if tail else 0) + tail


def forwarded(query: Query, ident: int, *, edns: bool, size: int) -> bytes:
    """Return the query that another server is asked for this one."""
    flags = RD | (query.flags & (CD | AD))
    tail = opt_record(size=size, dnssec=query.wants_dnssec) if edns else b""
    return _head.pack(ident, flags, 1, 0, 0, 1 if tail else 0) + query.question + tail


def passed_on(query: Query, data: bytes, answer: Answer, age_s: int, limit: int) -> bytes:
    """Return a foreign answer as the answer to this query.

    Args:
        query: the question, whose spelling of the name is kept.
        data: the foreign message.
        answer: what read_answer() found in it.
        age_s: seconds since it came, taken off the times to live.
        limit: the largest message that may be sent, in bytes.
    """
    flags = QR | RA | (answer.flags & (AA | AD)) | (query.flags & (RD | CD)) | answer.rcode & 0xF
    tail = opt_record(answer.rcode, dnssec=query.wants_dnssec) if query.edns else b""
    if answer.end + len(tail) > limit or answer.flags & TC:
        head = _head.pack(query.ident, flags | TC, 1, 0, 0, 1 if tail else 0)
        return head + query.question + tail
    out = bytearray(data[: answer.end])
    (authorities,) = struct.unpack_from("!H", data, 8)
    _head.pack_into(out, 0, query.ident, flags, 1, answer.answers, authorities, answer.additional + bool(tail))
    out[HEADER : HEADER + len(query.question)] = query.question
    if age_s > 0:
        for at in answer.ttls:
            (ttl,) = struct.unpack_from("!I", out, at)
            struct.pack_into("!I", out, at, max(0, ttl - age_s))
    return bytes(out) + tail


def address_of_reverse(name: str) -> str:
    """Return the address that a name of in-addr.arpa or ip6.arpa means, empty where it means none."""
    if name.endswith(".in-addr.arpa"):
        parts = name[: -len(".in-addr.arpa")].split(".")
        if len(parts) == 4 and all(p.isascii() and p.isdigit() and str(int(p)) == p and int(p) < 256 for p in parts):
            return ".".join(reversed(parts))
    elif name.endswith(".ip6.arpa"):
        nibbles = name[: -len(".ip6.arpa")].split(".")
        if len(nibbles) == 32 and all(len(n) == 1 and n in "0123456789abcdef" for n in nibbles):
            import socket

            raw = bytes.fromhex("".join(reversed(nibbles)))
            return socket.inet_ntop(socket.AF_INET6, raw)
    return ""
