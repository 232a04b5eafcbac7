"""Files mapped into memory: read as one buffer, without a copy."""

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO


@contextmanager
def mapped(file: BinaryIO) -> Iterator[memoryview]:
    """Yield a file's bytes without reading them into memory."""
    if os.fstat(file.fileno()).st_size == 0:
        yield memoryview(b"")
        return
    area = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    view = memoryview(area)
    try:
        yield view
    finally:
        # An exception's traceback may still hold slices; they go with it.
        try:
            view.release()
            area.close()
        except BufferError:
            pass


def forget(buffer: memoryview, end: int) -> None:
    """Let go of the memory that shows a mapped file's first bytes; they are read again if they are needed again."""
    area = buffer.obj
    whole = end // mmap.PAGESIZE * mmap.PAGESIZE
    if isinstance(area, mmap.mmap) and whole:
        area.madvise(mmap.MADV_DONTNEED, 0, whole)


def pieces(buffer: memoryview, size: int = 1 << 20) -> Iterator[memoryview]:
    """Yield the buffer in pieces of at most size bytes."""
    for start in range(0, len(buffer), size):
        yield buffer[start : start + size]
