"""Reading tar: ustar, GNU and PAX headers, long names, sparse files, extended attributes.

The archive is one buffer (mapped from a file), so an entry is a header and a slice of it: no copy
is made of any file's bytes.
"""

import zlib
from collections.abc import Iterator
from typing import NamedTuple

from barque.base.errors import InvalidInputError
from barque.storage.mapping import forget

BLOCK = 512
EXTENDED_MAX = 8 << 20
_SHOWN_BYTES = 16 << 20
REGULAR, HARDLINK, SYMLINK, CHAR, BLOCK_DEVICE, FOLDER, FIFO = "0", "1", "2", "3", "4", "5", "6"
_ZERO = bytes(BLOCK)
_XATTR = "SCHILY.xattr."


class Entry(NamedTuple):
    """One file of an archive; size is the file's, in bytes, holes included."""

    name: bytes
    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    link: bytes
    device: tuple[int, int]
    xattrs: dict[bytes, bytes]
    data: int
    """Offset of the bytes in the buffer."""
    stored: int
    """How many bytes are stored; less than size where the file has holes."""
    holes: list[tuple[int, int]] | None
    """(offset, length) of every stored piece of a sparse file."""


def entries(buffer: memoryview) -> Iterator[Entry]:
    """Yield the archive's entries in order.

    Raises:
        InvalidInputError: it is no tar, is cut off, or a header is impossible.
    """
    at = shown = 0
    common: dict[str, bytes] = {}
    own: dict[str, bytes] = {}
    long_name = long_link = None
    end = len(buffer)
    while at + BLOCK <= end:
        header = bytes(buffer[at : at + BLOCK])
        if header == _ZERO:
            return
        _verify(header)
        kind = chr(header[156])
        size = _size(header)
        at += BLOCK
        if kind in "xgLK":
            if size > EXTENDED_MAX or at + size > end:
                raise InvalidInputError("unexpected EOF" if at + size > end else _BAD)
            data = bytes(buffer[at : at + size])
            at += padded(size)
            if kind == "x":
                own = records(data)
            elif kind == "g":
                common |= records(data)
            elif kind == "L":
                long_name = data.split(b"\0", 1)[0]
            else:
                long_link = data.split(b"\0", 1)[0]
            continue
        entry, at = _entry(buffer, at, header, kind, {**common, **own} if own else common, long_name, long_link)
        own, long_name, long_link = {}, None, None
        yield entry
        if at - shown > _SHOWN_BYTES:
            # The reader has done with what lies behind: a big archive does not fill the memory.
            forget(buffer, at)
            shown = at
    if at < end or own or long_name is not None:
        raise InvalidInputError("unexpected EOF")


_BAD = "archive/tar: invalid tar header"


def _entry(
    buffer: memoryview,
    at: int,
    header: bytes,
    kind: str,
    pax: dict[str, bytes],
    long_name: bytes | None,
    long_link: bytes | None,
) -> tuple[Entry, int]:
    name = long_name if long_name is not None else pax.get("path")
    if name is None:
        name = short_name(header)
    link = long_link if long_link is not None else pax.get("linkpath")
    if link is None:
        link = header[157:257].split(b"\0", 1)[0]
    stored = decimal(pax["size"]) if "size" in pax else _number(header[124:136])
    if kind in "\x007":
        kind = FOLDER if kind == "\0" and name.endswith(b"/") else REGULAR
    if kind in "123456":
        # Links and nodes have no bytes, whatever the header says (old tars give a hard link's size).
        stored = 0
    size, holes = stored, None
    if kind == "S" or (pax and any(key.startswith("GNU.sparse.") for key in pax)):
        at, stored, size, holes = _sparse(buffer, at, header, kind, stored, pax)
        name = pax.get("GNU.sparse.name", name)
        kind = REGULAR
    if stored < 0 or size < 0 or at + stored > len(buffer):
        raise InvalidInputError("unexpected EOF")
    xattrs = {k[len(_XATTR) :].encode(): v for k, v in pax.items() if k.startswith(_XATTR)} if pax else {}
    mtime = _time(pax["mtime"]) if "mtime" in pax else _number(header[136:148]) * 1_000_000_000
    entry = Entry(
        name,
        kind,
        _number(header[100:108]) & 0o7777,
        decimal(pax["uid"]) if "uid" in pax else _number(header[108:116]),
        decimal(pax["gid"]) if "gid" in pax else _number(header[116:124]),
        size,
        mtime,
        link,
        (_number(header[329:337]), _number(header[337:345])) if kind in "34" else (0, 0),
        xattrs,
        at,
        stored,
        holes,
    )
    if b"\0" in name or b"\0" in link:
        raise InvalidInputError(_BAD)
    return entry, at + padded(stored)


def short_name(header: bytes) -> bytes:
    """Return the name in a header block, with the prefix that ustar keeps apart."""
    name = header[:100].split(b"\0", 1)[0]
    prefix = header[345:500].split(b"\0", 1)[0]
    return prefix + b"/" + name if prefix and header[257:263] == b"ustar\0" else name


def kind_and_size(header: bytes) -> tuple[str, int]:
    """Return the kind and the stored size in a header block.

    Raises:
        InvalidInputError: it is no header.
    """
    _verify(header)
    return chr(header[156]), _size(header)


def _verify(header: bytes) -> None:
    total = _sum(header) - sum(header[148:156]) + 8 * 32
    if total == _number(header[148:156]):
        return
    signed = sum(b - 256 if b > 127 else b for b in header[:148] + header[156:]) + 8 * 32
    if signed != _number(header[148:156]):
        raise InvalidInputError(_BAD)


def _sum(block: bytes) -> int:
    # Adler's first half is 1 + the sum of the bytes modulo 65521, which 256 bytes do not reach: sum() takes 20 times as long.
    return (zlib.adler32(block[:256]) & 0xFFFF) + (zlib.adler32(block[256:]) & 0xFFFF) - 2


def _size(header: bytes) -> int:
    size = _number(header[124:136])
    if size < 0:
        raise InvalidInputError(_BAD)
    return size


def _number(field: bytes) -> int:
    text = field.rstrip(b"\0 ")
    if text.isdigit():
        try:
            return int(text, 8)
        except ValueError:
            raise InvalidInputError(_BAD) from None
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
        return value - (1 << (8 * len(field) - 1)) if field[0] & 0x40 else value
    text = field.split(b"\0", 1)[0].strip(b" ")
    if not text:
        return 0
    if text.strip(b"01234567"):
        raise InvalidInputError(_BAD)
    return int(text, 8)


def decimal(text: bytes) -> int:
    """Return a number of a PAX record.

    Raises:
        InvalidInputError: it is none.
    """
    if not text.isdigit() or len(text) > 20:
        raise InvalidInputError(_BAD)
    return int(text)


def _time(text: bytes) -> int:
    whole, _, fraction = text.partition(b".")
    negative = whole.startswith(b"-")
    digits = whole.removeprefix(b"-")
    if not digits.isdigit() or len(digits) > 18 or (fraction and not fraction.isdigit()):
        raise InvalidInputError(_BAD)
    value = int(digits) * 1_000_000_000 + int(fraction[:9].ljust(9, b"0") or b"0")
    return -value if negative else value


def records(data: bytes) -> dict[str, bytes]:
    """Return PAX records; sparse offsets that repeat are gathered under GNU.sparse.map."""
    found: dict[str, bytes] = {}
    pieces: list[bytes] = []
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 20)
        if space < 0 or not data[at:space].isdigit():
            raise InvalidInputError(_BAD)
        length = int(data[at:space])
        record = data[space + 1 : at + length]
        key, equals, value = record[:-1].partition(b"=")
        if record[-1:] != b"\n" or not equals or at + length > len(data):
            raise InvalidInputError(_BAD)
        at += length
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            pieces.append(value)
        else:
            found[key.decode("utf-8", "surrogateescape")] = value
    if pieces:
        found["GNU.sparse.map"] = b",".join(pieces)
    return found


def _sparse(
    buffer: memoryview, at: int, header: bytes, kind: str, stored: int, pax: dict[str, bytes]
) -> tuple[int, int, int, list[tuple[int, int]]]:
    numbers: list[int]
    if kind == "S":
        size = _number(header[483:495])
        numbers = _old_pieces(header[386:482])
        more = header[482]
        while more:
            block = bytes(buffer[at : at + BLOCK])
            if len(block) < BLOCK:
                raise InvalidInputError("unexpected EOF")
            at += BLOCK
            numbers += _old_pieces(block[:504])
            more = block[504]
    else:
        size = decimal(pax.get("GNU.sparse.realsize") or pax.get("GNU.sparse.size") or b"x")
        if "GNU.sparse.map" in pax:
            numbers = [decimal(n) for n in pax["GNU.sparse.map"].split(b",") if n]
        else:
            numbers, used = _map_in_data(buffer, at, stored)
            at += used
            stored -= used
    if len(numbers) % 2:
        raise InvalidInputError(_BAD)
    pieces = list(zip(numbers[::2], numbers[1::2], strict=True))
    last = 0
    for offset, length in pieces:
        if offset < last or offset + length > size:
            raise InvalidInputError(_BAD)
        last = offset + length
    if sum(length for _, length in pieces) > stored:
        raise InvalidInputError(_BAD)
    return at, stored, size, pieces


def _old_pieces(data: bytes) -> list[int]:
    numbers = []
    for start in range(0, len(data) - 23, 24):
        if data[start] == 0:
            break
        numbers += [_number(data[start : start + 12]), _number(data[start + 12 : start + 24])]
    return numbers


def _map_in_data(buffer: memoryview, at: int, stored: int) -> tuple[list[int], int]:
    numbers: list[int] = []
    want = 1
    used = 0
    rest = b""
    while len(numbers) < want:
        if used + BLOCK > stored or used > EXTENDED_MAX:
            raise InvalidInputError(_BAD)
        rest += bytes(buffer[at + used : at + used + BLOCK])
        used += BLOCK
        *lines, rest = rest.split(b"\n")
        for line in lines:
            if len(numbers) < want:
                numbers.append(decimal(line))
                if len(numbers) == 1:
                    want = 1 + 2 * numbers[0]
    return numbers[1:], used


def padded(size: int) -> int:
    """Return a size with what fills its last block up."""
    return (size + BLOCK - 1) // BLOCK * BLOCK
