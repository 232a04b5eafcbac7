"""Reading json-file logs: rotated files, the tail from the end, following."""

import asyncio
import gzip
import json
import os
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, BinaryIO

from barque.base.times import parse_ns
from barque.engine.types import LogOptions

Json = dict[str, Any]
_BLOCK = 1 << 16
_CHUNK = 1 << 18
_POLL_S = 0.03
_HEAD = b'{"log":"'
_MIDDLE = (b'","stream":"stdout","time":"', b'","stream":"stderr","time":"')


def files_of(path: str) -> list[str]:
    """Return the existing files of a log, oldest first."""
    found = []
    number = 1
    while True:
        for name in (f"{path}.{number}", f"{path}.{number}.gz"):
            if os.path.exists(name):
                found.append(name)
                break
        else:
            break
        number += 1
    found.reverse()
    return [*found, path] if os.path.exists(path) else found


class Formatter:
    """Turns log lines into what the client wants: frames or raw bytes."""

    def __init__(self, options: LogOptions, *, tty: bool) -> None:
        self._options = options
        self._tty = tty
        self.ended = False

    def lines(self, data: bytes) -> bytes:
        """Return the output of whole lines of a log file."""
        out = []
        for line in data.split(b"\n"):
            if line:
                piece = self._line(line)
                if piece:
                    out.append(piece)
            if self.ended:
                break
        return b"".join(out)

    def _line(self, line: bytes) -> bytes:
        options = self._options
        text, stream, time, attributes = _parse(line)
        if not (options.stdout if stream == 1 else options.stderr):
            return b""
        if options.since_ns or options.until_ns:
            try:
                at_ns = parse_ns(time)
            except ValueError:
                return b""
            if at_ns < options.since_ns:
                return b""
            if options.until_ns and at_ns > options.until_ns:
                self.ended = True
                return b""
        if options.details:
            shown = ",".join(f"{_quote(k)}={_quote(v)}" for k, v in sorted(attributes.items()))
            text = f"{shown} ".encode() + text
        if options.timestamps:
            text = _padded(time).encode() + b" " + text
        if self._tty:
            return text
        return struct.pack(">BxxxI", stream, len(text)) + text


def _quote(text: str) -> str:
    from urllib.parse import quote_plus

    return quote_plus(text)


def _padded(time: str) -> str:
    """Return the time with all nine digits of its fraction."""
    whole, dot, fraction = time.rstrip("Z").partition(".")
    return f"{whole}.{fraction:0<9}Z" if dot else f"{whole}.000000000Z"


def _parse(line: bytes) -> tuple[bytes, int, str, dict[str, str]]:
    """Return (text, 1 or 2, time, attributes); most lines need no JSON decoder."""
    if line.startswith(_HEAD) and line.endswith(b'Z"}'):
        for stream, middle in enumerate(_MIDDLE, 1):
            at = line.rfind(middle, 0, len(line))
            if at > 0 and line.count(b"\\", 0, at) <= 1:
                text = line[8:at]
                if b"\\" not in text:
                    return text, stream, line[at + len(middle) : -2].decode(), {}
                if text.endswith(b"\\n"):
                    return text[:-2] + b"\n", stream, line[at + len(middle) : -2].decode(), {}
    try:
        row = json.loads(line)
        text = str(row.get("log") or "").encode("utf-8", "surrogatepass")
        return text, 2 if row.get("stream") == "stderr" else 1, str(row.get("time") or ""), row.get("attrs") or {}
    except (ValueError, AttributeError):
        return b"", 1, "", {}


def _open(name: str) -> BinaryIO:
    return gzip.open(name, "rb") if name.endswith(".gz") else open(name, "rb")  # type: ignore[return-value]


def tail_start(file: BinaryIO, size: int, count: int) -> tuple[int, int]:
    """Return (offset where the last `count` lines begin, lines found), reading from the end."""
    if count <= 0:
        return size, 0
    position, found = size, 0
    first = True
    while position > 0:
        begin = max(0, position - _BLOCK)
        file.seek(begin)
        block = file.read(position - begin)
        end = len(block)
        if first and block.endswith(b"\n"):
            end -= 1
        first = False
        while (at := block.rfind(b"\n", 0, end)) >= 0:
            found += 1
            if found == count:
                return begin + at + 1, found
            end = at
        position = begin
    return 0, found + (1 if size else 0)


def _chosen(path: str, tail: int) -> list[tuple[str, int]]:
    """Return (file, offset) from which to read, oldest first."""
    names = files_of(path)
    if tail < 0:
        return [(name, 0) for name in names]
    chosen: list[tuple[str, int]] = []
    left = tail
    for name in reversed(names):
        with _open(name) as file:
            size = file.seek(0, os.SEEK_END)
            offset, found = tail_start(file, size, left)
        chosen.append((name, offset))
        left -= found
        if left <= 0:
            break
    chosen.reverse()
    return chosen


def _whole_lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield chunks of whole lines up to the present end of the file."""
    rest = b""
    while data := file.read(_CHUNK):
        data = rest + data
        cut = data.rfind(b"\n") + 1
        rest = data[cut:]
        if cut:
            yield data[:cut]
    if rest:
        file.seek(-len(rest), os.SEEK_CUR)


async def read(path: str, options: LogOptions, *, tty: bool, alive: Callable[[], bool]) -> AsyncIterator[bytes]:
    """Yield the log's output, and with follow what comes until the container has ended.

    Args:
        path: the newest file of the log.
        options: which part.
        tty: raw bytes instead of frames.
        alive: tells whether more may come.
    """
    formatter = Formatter(options, tty=tty)
    chosen = await asyncio.to_thread(_chosen, path, options.tail)
    current: BinaryIO | None = None
    try:
        for name, offset in chosen:
            try:
                file = _open(name)
            except FileNotFoundError:
                continue
            if name == path:
                current = file
            try:
                file.seek(offset)
                for chunk in _whole_lines(file):
                    out = (
                        await asyncio.to_thread(formatter.lines, chunk)
                        if len(chunk) > _BLOCK
                        else formatter.lines(chunk)
                    )
                    if out:
                        yield out
                    if formatter.ended:
                        return
            finally:
                if name != path:
                    file.close()
        if options.follow:
            async for out in _follow(path, current, formatter, options, alive):
                yield out
            current = None
    finally:
        if current is not None:
            current.close()


async def _follow(
    path: str, file: BinaryIO | None, formatter: Formatter, options: LogOptions, alive: Callable[[], bool]
) -> AsyncIterator[bytes]:
    import time

    try:
        while True:
            last = not alive()
            if options.until_ns and time.time_ns() > options.until_ns:
                last = True
            if file is None and os.path.exists(path):
                file = open(path, "rb")  # noqa: SIM115
            rotated = file is not None and _moved(path, file)
            if file is not None:
                for chunk in _whole_lines(file):
                    out = formatter.lines(chunk)
                    if out:
                        yield out
                    if formatter.ended:
                        return
            if rotated:
                assert file is not None
                file.close()
                file = None
                continue
            if last:
                return
            await asyncio.sleep(_POLL_S)
    finally:
        if file is not None:
            file.close()


def _moved(path: str, file: BinaryIO) -> bool:
    try:
        return os.stat(path).st_ino != os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return False
