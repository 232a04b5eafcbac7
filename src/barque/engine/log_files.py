"""The files of a log: which there are, and where in them reading begins, found without reading what lies before."""

import gzip
import io
import json
import os
from bisect import bisect_left
from collections.abc import Iterator
from typing import BinaryIO

from barque.base.times import parse_ns

_BLOCK = 1 << 16
_CHUNK = 1 << 18
_PROBE = 1 << 12
_PARTS = 32
"""A file is looked at in so many places before a moment is searched between two of them: clocks are set back."""
_SLACK_NS = 1_000_000_000
"""By so much a clock may be set back anywhere, and nothing is missed."""
_LONGEST_LINE = 1 << 20
_TIME = b'"time":"'


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


def size(path: str) -> int:
    """Return the bytes that the files of a log take."""
    found = 0
    for name in files_of(path):
        try:
            found += os.stat(name).st_size
        except FileNotFoundError:
            # It was rotated meanwhile.
            continue
    return found


def opened(path: str) -> Iterator[tuple[bool, BinaryIO]]:
    """Open the files of a log, newest first; True for the newest.

    A rotation meanwhile gives files higher numbers, and leaves a gap in them for a moment: by going up a file may be
    met twice, which is noticed, but none is missed.
    """
    seen: set[tuple[int, int]] = set()
    gaps = number = 0
    while gaps < 2:
        names = (f"{path}.{number}", f"{path}.{number}.gz") if number else (path,)
        number += 1
        file = _first(names)
        if file is None:
            gaps += 1
            continue
        gaps = 0
        key = identity(file)
        if key in seen:
            file.close()
            continue
        seen.add(key)
        yield names == (path,), file


def _first(names: tuple[str, ...]) -> BinaryIO | None:
    for name in names:
        try:
            return gzip.open(name, "rb") if name.endswith(".gz") else open(name, "rb")  # type: ignore[return-value]
        except FileNotFoundError:
            continue
    return None


def identity(file: BinaryIO) -> tuple[int, int]:
    """Return what tells a file from all others, whatever its name is by now."""
    found = os.fstat(file.fileno())
    return found.st_dev, found.st_ino


def is_packed(file: BinaryIO) -> bool:
    """Tell whether a file is compressed."""
    return isinstance(file, gzip.GzipFile)


def chosen(path: str, tail: int, since_ns: int) -> list[tuple[bool, BinaryIO]]:
    """Open the files from which to read, oldest first, each where reading begins; True for the newest.

    Args:
        path: the newest file.
        tail: begin with so many lines before the end; below zero: with the first.
        since_ns: what was written a second or more before this moment may be left out; 0: nothing.
    """
    found: list[tuple[bool, BinaryIO]] = []
    left = tail
    try:
        for newest, file in opened(path):
            found.append((newest, file))
            if tail >= 0:
                left -= seek_tail(file, left)
                if left <= 0:
                    break
            elif since_ns and is_packed(file):
                if _ended_before(file, since_ns):
                    found.pop()[1].close()
            elif since_ns:
                file.seek(since_start(file, os.fstat(file.fileno()).st_size, since_ns))
    except BaseException:
        for _, file in found:
            file.close()
        raise
    found.reverse()
    return found


def at_hand(path: str, tail: int) -> list[tuple[bool, BinaryIO]]:
    """Do as `chosen` where that takes no time: the lines are in the kernel's memory; empty where they are not."""
    file = _first((path,)) if tail > 0 else None
    if file is None:
        return []
    size = os.fstat(file.fileno()).st_size
    begin = max(0, size - _BLOCK)
    block = bytearray(size - begin)
    try:
        # It gives what is in memory, and does not wait for the disk.
        is_whole = bool(block) and os.preadv(file.fileno(), [block], begin, os.RWF_NOWAIT) == len(block)
    except OSError:
        is_whole = False
    offset, found = tail_start(io.BytesIO(block), len(block), tail) if is_whole else (0, 0)
    # The first line of a block may be the end of one that begins before it.
    if found < tail or not offset:
        file.close()
        return []
    file.seek(begin + offset)
    return [(True, file)]


def whole_lines(file: BinaryIO) -> Iterator[bytes]:
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


# The last lines.


def seek_tail(file: BinaryIO, count: int) -> int:
    """Go to where the last `count` lines begin; return how many lines are behind it."""
    if is_packed(file):
        return _seek_packed_tail(file, count)
    offset, found = tail_start(file, file.seek(0, os.SEEK_END), count)
    file.seek(offset)
    return found


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


def _seek_packed_tail(file: BinaryIO, count: int) -> int:
    """Do so in a compressed file, which can only be read forwards: count its lines, then pass over the first."""
    lines = [0]
    last = b""
    while data := file.read(_CHUNK):
        lines.append(lines[-1] + data.count(b"\n"))
        last = data[-1:]
    # What follows the last newline is a line too.
    whole = lines[-1] + (last not in (b"", b"\n"))
    passed = max(0, whole - max(0, count))
    file.seek(0)
    # The chunk in which the last line that is left out ends.
    chunk = max(0, bisect_left(lines, passed) - 1)
    for _ in range(chunk):
        file.read(_CHUNK)
    for _ in range(passed - lines[chunk]):
        file.readline()
    return whole - passed


# Lines since a moment.


def since_start(file: BinaryIO, size: int, since_ns: int) -> int:
    """Return an offset before which no line is as young as a moment, by a search of a few blocks.

    Lines are in the order of their times but where a clock was set back. Of that nothing is missed where it was by less
    than a second, or can be seen in one of a few places spread over the file.
    """
    if size <= _BLOCK:
        return 0
    wanted_ns = since_ns - _SLACK_NS
    places = [size * part // _PARTS for part in range(_PARTS)]
    end = tail_start(file, size, 1)[0]
    last = _time_from(file, end, size)
    times = [_time_from(file, place, size) for place in places] + [last]
    for part, place in enumerate(places):
        before, after = times[part], times[part + 1]
        if before is None or after is None or before >= wanted_ns:
            # Something is there that is no log, or it is the file's first line already.
            return _line_before(file, place)
        if after >= wanted_ns:
            return _search(file, place, places[part + 1] if part + 1 < _PARTS else size, wanted_ns)
    return end


def _search(file: BinaryIO, low: int, high: int, wanted_ns: int) -> int:
    """Return the offset of a line before which all is older, where that at `low` is and that at `high` is not."""
    while high - low > _BLOCK:
        middle = (low + high) // 2
        at_ns = _time_from(file, middle, high)
        if at_ns is None or at_ns >= wanted_ns:
            high = middle
        else:
            low = middle
    return _line_before(file, low)


def _line_before(file: BinaryIO, offset: int) -> int:
    """Return where the line begins of which the byte at an offset is part."""
    return tail_start(file, offset, 1)[0] if offset else 0


def _time_from(file: BinaryIO, offset: int, end: int) -> int | None:
    """Return the time of the first line that begins at an offset or behind it; None where there is none soon."""
    file.seek(max(0, offset - 1))
    data = b"" if offset else b"\n"
    start = -1
    while len(data) < _LONGEST_LINE:
        piece = file.read(max(_PROBE, len(data)))
        if not piece:
            break
        data += piece
        if start < 0:
            start = data.find(b"\n") + 1 or -1
        while start > 0 and (stop := data.find(b"\n", start)) >= 0:
            found = line_time_ns(data[start:stop])
            if found is not None:
                return found
            start = stop + 1
        if file.tell() - len(piece) > end:
            break
    return None


def line_time_ns(line: bytes) -> int | None:
    """Return when a line was written; None where it is no line of a log."""
    at = line.rfind(_TIME) + len(_TIME)
    try:
        if at >= len(_TIME) and line.endswith(b'"}'):
            return parse_ns(line[at:-2].decode())
        return parse_ns(json.loads(line)["time"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _ended_before(file: BinaryIO, since_ns: int) -> bool:
    """Tell whether all of a compressed file is older than a moment: it was compressed after its last line."""
    wanted_ns = since_ns - _SLACK_NS
    if os.fstat(file.fileno()).st_mtime_ns >= wanted_ns:
        return False
    first_ns = line_time_ns(file.readline(_LONGEST_LINE).rstrip(b"\n"))
    file.seek(0)
    return first_ns is not None and first_ns < wanted_ns
