"""Undoing compression: gzip, zstd, bzip2, xz or none, told by the first bytes."""

import bz2
import lzma
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, cast

import zstandard
from isal import igzip_lib, isal_zlib

from barque.base.errors import InvalidInputError


class _Decoder(Protocol):
    @property
    def unused_data(self) -> bytes: ...

    @property
    def eof(self) -> bool: ...

    def decompress(self, data: bytes, /) -> bytes: ...


_ZSTD_WINDOW_MAX = 1 << 27


def _zstd() -> _Decoder:
    decoder = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_MAX)
    return decoder.decompressobj(read_across_frames=False)


def _gzip() -> _Decoder:
    decoder: _Decoder = isal_zlib.decompressobj(wbits=31)
    return decoder


_KINDS: tuple[tuple[bytes, Callable[[], _Decoder]], ...] = (
    (b"\x1f\x8b", _gzip),
    (b"\x28\xb5\x2f\xfd", _zstd),
    (b"BZh", bz2.BZ2Decompressor),
    (b"\xfd7zXZ\0", lzma.LZMADecompressor),
)
_ERRORS: tuple[type[BaseException], ...] = (
    EOFError,
    OSError,
    lzma.LZMAError,
    zstandard.ZstdError,
    cast("type[BaseException]", igzip_lib.IsalError),
    cast("type[BaseException]", isal_zlib.error),
)


def plain(chunks: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    """Yield the bytes of chunks, decompressed where they are compressed.

    Raises:
        InvalidInputError: the compressed data is broken or cut off.
    """
    source = iter(chunks)
    head = b""
    for chunk in source:
        head += chunk
        if len(head) >= 6:
            break
    for magic, make in _KINDS:
        if head.startswith(magic):
            yield from _decoded(head, source, make)
            return
    if head:
        yield head
    yield from source


def _decoded(head: bytes, source: Iterator[bytes | memoryview], make: Callable[[], _Decoder]) -> Iterator[bytes]:
    decoder = make()
    data: bytes | memoryview = head
    while True:
        try:
            out = decoder.decompress(bytes(data))
        except _ERRORS as error:
            raise InvalidInputError(f"invalid compressed data: {error}") from None
        if out:
            yield out
        if decoder.eof:
            rest = decoder.unused_data or next(source, b"")
            while not rest.strip(b"\0") if isinstance(rest, bytes) else False:
                # Zeros after the end only fill blocks up.
                following = next(source, None)
                if following is None:
                    return
                rest = bytes(following)
            decoder = make()
            data = rest
            continue
        following = next(source, None)
        if following is None:
            raise InvalidInputError("unexpected EOF")
        data = following
