"""Reading tar as it comes: names, kinds and the bytes of each file, without the whole archive on disk.

For archives that carry other archives (`load`): no owners, modes or times are read.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from barque.base.errors import InvalidInputError
from barque.storage.archive import tar

_EXTENDED_MAX = 1 << 20


class Member(NamedTuple):
    """One entry: its name and link as they are written, its kind and its size in bytes."""

    name: bytes
    kind: str
    link: bytes
    size: int


class TarStream:
    """The entries of a tar in order.

    Args:
        chunks: the tar, not compressed.
    """

    def __init__(self, chunks: Iterable[bytes | memoryview]) -> None:
        self._source = iter(chunks)
        self._rest: bytes | memoryview = b""
        self._left = 0
        self._padding = 0

    def members(self) -> Iterator[Member]:
        """Yield the entries; the bytes of each are to be had from `data` before the next is asked for.

        Raises:
            InvalidInputError: it is no tar, or is cut off.
        """
        pax: dict[str, bytes] = {}
        long_name = long_link = None
        while True:
            self._skip()
            header = self._exactly(tar.BLOCK, end_is_fine=True)
            if not header or header == bytes(tar.BLOCK):
                if pax or long_name is not None:
                    raise InvalidInputError("unexpected EOF")
                return
            kind, size = tar.kind_and_size(header)
            if kind in "xgLK":
                if size > _EXTENDED_MAX:
                    raise InvalidInputError("archive/tar: invalid tar header")
                data = self._exactly(tar.padded(size))[:size]
                if kind == "x":
                    pax = tar.records(data)
                elif kind == "L":
                    long_name = data.split(b"\0", 1)[0]
                elif kind == "K":
                    long_link = data.split(b"\0", 1)[0]
                continue
            member = _member(header, kind, size, pax, long_name, long_link)
            self._left, self._padding = member.size, tar.padded(member.size) - member.size
            pax, long_name, long_link = {}, None, None
            yield member

    def data(self) -> Iterator[bytes | memoryview]:
        """Yield the bytes of the entry that came last.

        Raises:
            InvalidInputError: the archive is cut off.
        """
        while self._left:
            piece = self._next()[: self._left]
            self._rest = self._rest[len(piece) :]
            self._left -= len(piece)
            yield piece

    def _skip(self) -> None:
        self._left += self._padding
        self._padding = 0
        for _ in self.data():
            pass

    def _next(self) -> bytes | memoryview:
        while not self._rest:
            following = next(self._source, None)
            if following is None:
                raise InvalidInputError("unexpected EOF")
            self._rest = memoryview(following)
        return self._rest

    def _exactly(self, size: int, *, end_is_fine: bool = False) -> bytes:
        parts = b""
        while len(parts) < size:
            try:
                piece = self._next()[: size - len(parts)]
            except InvalidInputError:
                if end_is_fine and not parts:
                    return b""
                raise
            parts += piece
            self._rest = self._rest[len(piece) :]
        return parts


def _member(
    header: bytes, kind: str, size: int, pax: dict[str, bytes], long_name: bytes | None, long_link: bytes | None
) -> Member:
    name = long_name if long_name is not None else pax.get("path")
    if name is None:
        name = tar.short_name(header)
    link = long_link if long_link is not None else pax.get("linkpath")
    if link is None:
        link = header[157:257].split(b"\0", 1)[0]
    if "size" in pax:
        size = tar.decimal(pax["size"])
    if kind in "\x007":
        kind = tar.FOLDER if kind == "\0" and name.endswith(b"/") else tar.REGULAR
    if kind in "123456":
        size = 0
    if kind == "S" or any(key.startswith("GNU.sparse.") for key in pax):
        raise InvalidInputError("invalid archive: sparse files are not expected here")
    if size < 0 or b"\0" in name:
        raise InvalidInputError("archive/tar: invalid tar header")
    return Member(name, kind, link, size)
