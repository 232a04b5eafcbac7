"""Reading json-file logs: rotated files, the tail from the end, following."""

import asyncio
import json
import os
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, BinaryIO

from barque.base.times import parse_ns
from barque.engine import log_files
from barque.engine.log_changes import Changes, Polling
from barque.engine.types import LogOptions

Json = dict[str, Any]
_BLOCK = 1 << 16
_RENAMES = 100
_HEAD = b'{"log":"'
_MIDDLE = (b'","stream":"stdout","time":"', b'","stream":"stderr","time":"')


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


async def read(
    path: str,
    options: LogOptions,
    *,
    tty: bool,
    alive: Callable[[], bool],
    changes: Callable[[], Changes] = Polling,
) -> AsyncIterator[bytes]:
    """Yield the log's output, and with follow what comes until the container has ended.

    Args:
        path: the newest file of the log.
        options: which part.
        tty: raw bytes instead of frames.
        alive: tells whether more may come.
        changes: gives what to wait for while following.
    """
    formatter = Formatter(options, tty=tty)
    watched = changes() if options.follow else None
    chosen = log_files.at_hand(path, options.tail)
    if not chosen:
        chosen = await asyncio.to_thread(log_files.chosen, path, options.tail, options.since_ns)
    current: BinaryIO | None = None
    try:
        while chosen:
            newest, file = chosen.pop(0)
            if newest:
                current = file
            try:
                for chunk in log_files.whole_lines(file):
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
                if not newest:
                    file.close()
        if watched is not None:
            follower = Follower(path, current, formatter, options.until_ns)
            current = None
            async for out in follower.run(watched, alive):
                yield out
    finally:
        for _, file in chosen:
            file.close()
        if current is not None:
            current.close()
        if watched is not None:
            watched.close()


class Follower:
    """Reads what is appended to a log, over its rotations."""

    def __init__(self, path: str, file: BinaryIO | None, formatter: Formatter, until_ns: int) -> None:
        self._path = path
        self._file = file
        self._formatter = formatter
        self._until_ns = until_ns

    async def run(self, changes: Changes, alive: Callable[[], bool]) -> AsyncIterator[bytes]:
        """Yield output until no more may come."""
        try:
            while True:
                changes.clear()
                last = not alive() or self._is_late()
                for chunk in self._news():
                    out = self._formatter.lines(chunk)
                    if out:
                        yield out
                    if self._formatter.ended:
                        return
                if last:
                    return
                await changes.wait()
        finally:
            self._close()

    def _is_late(self) -> bool:
        return bool(self._until_ns) and time.time_ns() > self._until_ns

    def _news(self) -> Iterator[bytes]:
        """Yield what has come, from all files that have begun since the present one."""
        while True:
            newer = self._newer()
            try:
                if self._file is not None:
                    if os.fstat(self._file.fileno()).st_size < self._file.tell():
                        # It was cleared.
                        self._file.seek(0)
                    yield from log_files.whole_lines(self._file)
                if not newer:
                    return
                while newer:
                    self._close()
                    self._file = newer.pop(0)
                    if newer:
                        yield from log_files.whole_lines(self._file)
            finally:
                for file in newer:
                    file.close()

    def _newer(self) -> list[BinaryIO]:
        """Open the files behind the present one, oldest first; it may have been rotated more than once."""
        for _ in range(_RENAMES):
            found: list[BinaryIO] = []
            for _, file in log_files.opened(self._path):
                if self._file is None:
                    found.append(file)
                    break
                if log_files.identity(file) == log_files.identity(self._file):
                    file.close()
                    return found[::-1]
                found.append(file)
            if self._file is None:
                return found
            if not os.fstat(self._file.fileno()).st_nlink:
                return self._younger(found)
            # It is being renamed at this moment.
            for file in found:
                file.close()
        return []

    def _younger(self, found: list[BinaryIO]) -> list[BinaryIO]:
        """Choose what is behind a file that was compressed or removed, by time."""
        assert self._file is not None
        end = os.fstat(self._file.fileno()).st_mtime_ns
        kept = []
        for file in found:
            if os.fstat(file.fileno()).st_mtime_ns > end and not log_files.is_packed(file):
                kept.append(file)
            else:
                file.close()
        return kept[::-1]

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
