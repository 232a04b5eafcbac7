"""Reading of json-file logs: from the end, by time, followed across rotation.

The keeper writes `<path>` and keeps `<path>.1` (newest) and up, `.gz` where compressed. A reader never
takes more memory than a chunk: the tail is found by counting newlines backwards.

    async for chunk in read(path, options, tty=False, ended=lambda: not running, attributes={}):
        ...
"""

import asyncio
import gzip
import json
import os
import struct
from collections.abc import AsyncIterator, Callable, Iterator

from barque.base import times
from barque.engine.types import LogOptions

_CHUNK = 1 << 16
_POLL_S = 0.05
_STREAMS = {"stdin": 0, "stdout": 1, "stderr": 2}


def frame(stream: str, data: bytes) -> bytes:
    """Return data behind Docker's 8-byte head that names the stream."""
    return struct.pack(">BxxxL", _STREAMS.get(stream, 1), len(data)) + data


def rotated(path: str) -> list[str]:
    """Return the files of a log that exist, oldest first, the living one last."""
    older: list[str] = []
    number = 1
    while True:
        found = next((name for name in (f"{path}.{number}", f"{path}.{number}.gz") if os.path.exists(name)), None)
        if found is None:
            break
        older.append(found)
        number += 1
    return [*reversed(older), path]


def _open(path: str) -> gzip.GzipFile | None:
    try:
        return gzip.open(path, "rb") if path.endswith(".gz") else open(path, "rb")  # type: ignore[return-value]
    except FileNotFoundError:
        return None


def _count_lines(path: str) -> int:
    file = _open(path)
    if file is None:
        return 0
    with file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(_CHUNK), b""))


def _tail_offset(path: str, lines: int) -> tuple[int, int]:
    """Return where the last `lines` lines of a plain file start, and how many it has of them."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0, 0
    try:
        end = os.fstat(fd).st_size
        # The newline that ends the last line does not begin one.
        position, found = end, 0
        while position > 0:
            start = max(0, position - _CHUNK)
            chunk = os.pread(fd, position - start, start)
            at = len(chunk) - 1 if position == end and chunk.endswith(b"\n") else len(chunk)
            while (at := chunk.rfind(b"\n", 0, at)) >= 0:
                found += 1
                if found == lines:
                    return start + at + 1, lines
            position = start
        return 0, found + (1 if end else 0)
    finally:
        os.close(fd)


def _start(path: str, tail: int) -> tuple[list[str], int]:
    """Return the files to read and the offset (or lines to skip) in the first of them."""
    files = rotated(path)
    if tail < 0:
        return files, 0
    if tail == 0:
        return [path], os.path.getsize(path) if os.path.exists(path) else 0
    wanted = tail
    for index in range(len(files) - 1, -1, -1):
        name = files[index]
        if name.endswith(".gz"):
            have = _count_lines(name)
            if have >= wanted:
                return files[index:], have - wanted
            offset = 0
        else:
            offset, have = _tail_offset(name, wanted)
            if have >= wanted:
                return files[index:], offset
        wanted -= have
    return files, 0


class _Selection:
    """What of each line is wanted, and how it is shown."""

    def __init__(self, options: LogOptions, tty: bool) -> None:
        self.options = options
        self.tty = tty
        self.past_end = False

    def shown(self, line: bytes) -> bytes:
        """Return what a line of the file gives; empty for none."""
        try:
            entry = json.loads(line)
            text, stream, stamp = entry["log"], entry["stream"], entry["time"]
        except (ValueError, KeyError, TypeError):
            return b""
        options = self.options
        if options.since_ns or options.until_ns:
            at = times.parse_ns(stamp)
            if at < options.since_ns:
                return b""
            if options.until_ns and at > options.until_ns:
                self.past_end = True
                return b""
        if not (options.stdout if stream == "stdout" else options.stderr):
            return b""
        data: bytes = text.encode("utf-8", "surrogateescape")
        if options.details and entry.get("attrs"):
            details = ",".join(f"{key}={value}" for key, value in sorted(entry["attrs"].items()))
            data = details.encode() + b" " + data
        if options.timestamps:
            data = stamp.encode() + b" " + data
        return data if self.tty else frame(stream, data)

    def chunk(self, block: bytes) -> bytes:
        """Return what whole lines give."""
        return b"".join(map(self.shown, block.splitlines(keepends=True)))


def _blocks(path: str, offset: int) -> Iterator[bytes]:
    """Yield whole lines of a finished file, a chunk at a time."""
    file = _open(path)
    if file is None:
        return
    with file:
        if path.endswith(".gz"):
            for _ in range(offset):
                file.readline()
        else:
            file.seek(offset)
        rest = b""
        while block := file.read(_CHUNK):
            whole, newline, rest = (rest + block).rpartition(b"\n")
            if newline:
                yield whole + newline


async def read(path: str, options: LogOptions, *, tty: bool, ended: Callable[[], bool]) -> AsyncIterator[bytes]:
    """Yield a log's wanted part, framed unless tty; with follow until the container has ended.

    Args:
        path: the living file.
        options: which part.
        tty: whether output goes out raw.
        ended: tells whether no more lines will be written.
    """
    selection = _Selection(options, tty)
    files, offset = await asyncio.to_thread(_start, path, options.tail)
    for older in files[:-1]:
        for block in _blocks(older, offset):
            if data := selection.chunk(block):
                yield data
            await asyncio.sleep(0)
        offset = 0
    async for data in _living(path, offset, selection, ended):
        yield data


async def _living(path: str, offset: int, selection: _Selection, ended: Callable[[], bool]) -> AsyncIterator[bytes]:
    """Read the living file, and go on with its successor when it is rotated away."""
    follow = selection.options.follow
    fd, rest = -1, b""
    try:
        while True:
            last = ended() or not follow
            if fd < 0:
                try:
                    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                    os.lseek(fd, offset, os.SEEK_SET)
                except FileNotFoundError:
                    pass
            moved = fd >= 0 and not _same(fd, path)
            while fd >= 0 and (block := os.read(fd, _CHUNK)):
                whole, newline, rest = (rest + block).rpartition(b"\n")
                if newline and (data := selection.chunk(whole + newline)):
                    yield data
                if selection.past_end:
                    return
                await asyncio.sleep(0)
            if moved:
                os.close(fd)
                fd, offset = -1, 0
                continue
            if last:
                return
            await asyncio.sleep(_POLL_S)
    finally:
        if fd >= 0:
            os.close(fd)


def _same(fd: int, path: str) -> bool:
    """Tell whether path still is the file behind fd."""
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return True
    here = os.fstat(fd)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
