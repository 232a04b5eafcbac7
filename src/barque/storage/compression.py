"""Undoing compression (gzip, zstd, bzip2, xz or none, told by the first bytes) and doing it (gzip).

Output comes in pieces of bounded size whatever the input expands to, so that a small archive that
means terabytes costs time, which its reader may end, and never memory.
"""

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Protocol, cast

from isal import igzip_lib, isal_zlib

from barque.base.errors import InvalidInputError

PIECE_BYTES = 1 << 18
_FEED_BYTES = 1 << 18
_ZSTD_WINDOW_MAX = 1 << 27
_GZIP_LEVEL = 1
GZIP, ZSTD, UNCOMPRESSED = "gzip", "zstd", "uncompressed"
_HIGHEST_LEVELS = {GZIP: 9, ZSTD: 22}


class Form(NamedTuple):
    """How layers are to be compressed: the level, None for the fast one; `force`: forms known before do not count."""

    kind: str = GZIP
    level: int | None = None
    force: bool = False

    def check(self) -> "Form":
        """Return itself.

        Raises:
            InvalidInputError: there is no such kind or level.
        """
        if self.kind not in (GZIP, ZSTD, UNCOMPRESSED):
            raise InvalidInputError(f"unsupported layer compression type {self.kind}: use gzip, zstd or uncompressed")
        highest = _HIGHEST_LEVELS.get(self.kind)
        if self.level is not None and (highest is None or not 0 <= self.level <= highest):
            levels = f"has levels from 0 to {highest}" if highest is not None else "has no levels"
            raise InvalidInputError(f"invalid compression-level {self.level}: {self.kind} {levels}")
        return self

    def packed(self, chunks: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
        """Yield the bytes of chunks in this form: equal input gives equal output."""
        if self.kind == ZSTD:
            return _zstandard(chunks, 3 if self.level is None else self.level)
        if self.kind == UNCOMPRESSED:
            return iter(chunks)
        return gzipped(chunks) if self.level is None else _zlib(chunks, self.level)


class _Decoder(Protocol):
    @property
    def unused_data(self) -> bytes: ...

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    def decompress(self, data: bytes | memoryview, max_length: int = -1) -> bytes: ...


def _gzip() -> _Decoder:
    decoder: _Decoder = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
    return decoder


_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_KINDS: tuple[tuple[bytes, Callable[[], _Decoder]], ...] = (
    (b"\x1f\x8b", _gzip),
    (b"BZh", bz2.BZ2Decompressor),
    (b"\xfd7zXZ\0", lzma.LZMADecompressor),
)
_ERRORS: tuple[type[BaseException], ...] = (
    EOFError,
    OSError,
    lzma.LZMAError,
    cast("type[BaseException]", igzip_lib.IsalError),
    cast("type[BaseException]", isal_zlib.error),
)


def plain(chunks: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    """Yield the bytes of chunks, decompressed where they are compressed, in pieces of at most 256 KiB if so.

    Raises:
        InvalidInputError: the compressed data is broken or cut off.
    """
    source = iter(chunks)
    head = b""
    for chunk in source:
        head += chunk
        if len(head) >= 6:
            break
    if head.startswith(_ZSTD_MAGIC):
        yield from _zstd(head, source)
        return
    for magic, make in _KINDS:
        if head.startswith(magic):
            yield from _decoded(head, source, make)
            return
    if head:
        yield head
    yield from source


def is_compressed(head: bytes | memoryview) -> bool:
    """Tell whether data that begins with head is compressed in a way that is known here."""
    start = bytes(head[:6])
    return start.startswith((_ZSTD_MAGIC, *(magic for magic, _ in _KINDS)))


def gzipped(chunks: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    """Yield the bytes of chunks as one gzip member without a name and a time: equal input gives equal output."""
    packer = isal_zlib.compressobj(level=_GZIP_LEVEL, wbits=31)
    for chunk in chunks:
        if out := packer.compress(chunk):
            yield out
    yield packer.flush()


def _zlib(chunks: Iterable[bytes | memoryview], level: int) -> Iterator[bytes]:
    packer = zlib.compressobj(level, wbits=31)
    for chunk in chunks:
        if out := packer.compress(chunk):
            yield out
    yield packer.flush()


def _zstandard(chunks: Iterable[bytes | memoryview], level: int) -> Iterator[bytes]:
    import zstandard

    packer = zstandard.ZstdCompressor(level=level).compressobj()
    for chunk in chunks:
        if out := packer.compress(chunk):
            yield out
    yield packer.flush()


def _decoded(head: bytes, source: Iterator[bytes | memoryview], make: Callable[[], _Decoder]) -> Iterator[bytes]:
    decoder = make()
    pieces = _fed(head, source)
    data: bytes | memoryview = next(pieces)
    while True:
        try:
            out = decoder.decompress(data, PIECE_BYTES)
        except _ERRORS as error:
            raise InvalidInputError(f"invalid compressed data: {error}") from None
        if out:
            yield out
        data = b""
        if decoder.eof:
            rest = _after_member(decoder.unused_data, pieces)
            if rest is None:
                return
            decoder, data = make(), rest
        elif decoder.needs_input:
            following = next(pieces, None)
            if following is None:
                raise InvalidInputError("unexpected EOF")
            data = following


def _after_member(rest: bytes, pieces: Iterator[bytes | memoryview]) -> bytes | None:
    """Return what follows the end of a compressed member, None at the end; zeros only fill blocks up."""
    while not rest.strip(b"\0"):
        following = next(pieces, None)
        if following is None:
            return None
        rest = bytes(following)
    return rest


def _fed(head: bytes, source: Iterator[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    """Yield the input in pieces that a decoder may copy without harm."""
    yield from _slices(head)
    for chunk in source:
        yield from _slices(chunk)


def _slices(chunk: bytes | memoryview) -> Iterator[bytes | memoryview]:
    if len(chunk) <= _FEED_BYTES:
        yield chunk
        return
    view = memoryview(chunk)
    for start in range(0, len(view), _FEED_BYTES):
        yield view[start : start + _FEED_BYTES]


class _Readable:
    """Chunks as a file that a reader asks for bytes."""

    def __init__(self, head: bytes, source: Iterator[bytes | memoryview]) -> None:
        self._rest: bytes | memoryview = head
        self._source = source

    def read(self, size: int = -1) -> bytes:
        while not self._rest:
            following = next(self._source, None)
            if following is None:
                return b""
            self._rest = memoryview(following)
        if size < 0:
            size = len(self._rest)
        piece, self._rest = self._rest[:size], self._rest[size:]
        return bytes(piece)


def _zstd(head: bytes, source: Iterator[bytes | memoryview]) -> Iterator[bytes]:
    import zstandard

    decoder = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_MAX)
    readable = _Readable(head, source)
    reader = decoder.stream_reader(readable, read_size=_FEED_BYTES, read_across_frames=True)  # type: ignore[arg-type]
    while True:
        try:
            out = reader.read(PIECE_BYTES)
        except zstandard.ZstdError as error:
            raise InvalidInputError(f"invalid compressed data: {error}") from None
        if not out:
            return
        yield out
