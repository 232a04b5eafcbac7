"""How far compressed layers may expand: in proportion to what they are, and never until the disk is full."""

import os
from collections.abc import Iterable, Iterator

from barque.base.errors import BarqueError, InvalidInputError
from barque.storage import compression

RATIO_MAX = 1200
"""How many times its size a big layer may expand to: gzip reaches 1032."""
FREE_MIN = 256 << 20
"""Bytes that must stay free on the disk while a layer expands."""
_RATIO_FROM_BYTES = 64 << 20
_DISK_LOOKED_AT_BYTES = 32 << 20


def bounded(
    chunks: Iterable[bytes | memoryview], packed_size: int, folder: str, *, ratio_max: int = RATIO_MAX, free_min: int = FREE_MIN
) -> Iterator[bytes | memoryview]:
    """Yield a layer's plain bytes as long as they are in proportion to what was sent and fit the disk.

    Args:
        chunks: the plain bytes.
        packed_size: bytes that they were inflated from.
        folder: on the disk they go to.
        ratio_max: how many times packed_size they may be.
        free_min: bytes that must stay free.

    Raises:
        InvalidInputError: the layer expands beyond every measure.
        BarqueError: it would fill the disk.
    """
    total, looked = 0, 0
    limit = max(_RATIO_FROM_BYTES, packed_size * ratio_max)
    for chunk in chunks:
        total += len(chunk)
        if total > limit:
            raise InvalidInputError(
                f"decompression bomb: a layer of {packed_size} bytes expands to more than {limit} bytes "
                f"({ratio_max} times its size)"
            )
        if total - looked >= _DISK_LOOKED_AT_BYTES:
            looked = total
            check_disk(folder, f"a layer expands to more than {total} bytes", free_min)
        yield chunk


def inflated(
    chunks: Iterable[bytes | memoryview], folder: str, *, free_min: int = FREE_MIN
) -> Iterator[bytes | memoryview]:
    """Yield plain bytes of data of a size that nobody told, as long as their expanding does not fill the disk.

    Args:
        chunks: the data, perhaps compressed.
        folder: on the disk the plain bytes go to.
        free_min: bytes that must stay free.

    Raises:
        InvalidInputError: the compressed data is broken.
        BarqueError: it would fill the disk.
    """
    taken = total = looked = 0

    def counted() -> Iterator[bytes | memoryview]:
        nonlocal taken
        for chunk in chunks:
            taken += len(chunk)
            yield chunk

    for chunk in compression.plain(counted()):
        total += len(chunk)
        # What is not compressed does not expand: a full disk says so itself.
        if total - taken - looked >= _DISK_LOOKED_AT_BYTES:
            looked = total - taken
            check_disk(folder, f"a layer expands to more than {total} bytes", free_min)
        yield chunk


def check_disk(folder: str, what: str, free_min: int = FREE_MIN) -> None:
    """Go on as long as so many bytes are free on a folder's disk.

    Args:
        folder: on the disk.
        what: said of what comes.
        free_min: bytes that must stay free.

    Raises:
        BarqueError: fewer are.
    """
    found = os.statvfs(folder)
    if found.f_bavail * found.f_frsize < free_min:
        raise BarqueError(f"no space left on device: {what} and would leave less than {free_min} bytes free")
