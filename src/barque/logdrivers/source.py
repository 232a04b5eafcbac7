"""Reading a container's log file behind the keeper, with a position that outlives the daemon.

The position is one packed value, written by one pwrite into `<log>.sent`:

    inode of the file, offset of what is not yet delivered, crc32 of the file's first bytes, their number

Files are found by inode, so that the keeper may rename them meanwhile. The keeper reads the first two values
where it must not drop what is not delivered.
"""

import json
import os
import struct
import zlib
from collections.abc import Callable
from typing import Any

from barque.base.times import parse_ns
from barque.logdrivers.entry import Entry

_RECORD = struct.Struct("=QQII")
_KEEPERS = struct.Struct("=QQ")
_HEAD = 256
_PIECE = 16 * 1024
_CHUNK = 1 << 18


class LogSource:
    """The entries of one log, oldest first, from the position on.

    Args:
        path: the newest file.
        finished: called with the inode of each rotated file that was read to its end.
        record: the keeper's record beside its spools (inode and length of the log); what lies beyond may be
            cut off and written anew when the keeper is killed, and is not read yet.

    `lost` counts how often files had gone before they were read.
    """

    def __init__(self, path: str, finished: Callable[[int], None] = lambda inode: None, record: str = "") -> None:
        self._path = path
        self._keepers_record = record
        self._finished = finished
        self._record_fd = os.open(f"{path}.sent", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._fd = -1
        self._inode = 0
        self._offset = 0
        self._ends: list[int] = []
        self._partial: dict[str, tuple[str, int]] = {}
        self.lost = 0

    def read(self) -> list[Entry]:
        """Return the next entries, none where there are no more now; `taken` tells what became of them."""
        if self._fd < 0 and not self._find():
            return []
        while True:
            data = os.pread(self._fd, max(0, min(_CHUNK, self._limit() - self._offset)), self._offset)
            cut = data.rfind(b"\n") + 1
            if cut:
                return self._parsed(data[:cut])
            if len(data) >= _CHUNK:
                return self._parsed(self._long_line())
            if os.fstat(self._fd).st_size < self._offset:
                # Cleared: it begins anew.
                self._offset = 0
                continue
            if not self._next_file():
                return []

    def _limit(self) -> int:
        """Return up to where the file will not change any more."""
        if self._keepers_record:
            try:
                with open(self._keepers_record, "rb", buffering=0) as file:
                    inode, size = _KEEPERS.unpack(file.read(_KEEPERS.size))
                if inode == self._inode:
                    return int(size)
            except (OSError, struct.error):
                pass
        return 1 << 62

    def move(self, path: str) -> None:
        """Go on under another name: the log's folder was renamed."""
        self._path = path

    def _long_line(self) -> bytes:
        size = _CHUNK * 2
        while b"\n" not in (data := os.pread(self._fd, size, self._offset)) and len(data) == size:
            size *= 2
        return data[: data.find(b"\n") + 1]

    def _parsed(self, data: bytes) -> list[Entry]:
        entries, self._ends = [], []
        position = self._offset
        for line in data.split(b"\n")[:-1]:
            position += len(line) + 1
            entry = self._entry(line)
            if entry is not None:
                entries.append(entry)
                self._ends.append(position)
            elif self._ends:
                self._ends[-1] = position
        if not entries:
            self._offset = position
            self._record()
            return self.read()
        return entries

    def _entry(self, line: bytes) -> Entry | None:
        try:
            row: Any = json.loads(line)
            text, stream, time_ns = row["log"].encode("utf-8", "surrogatepass"), row["stream"], parse_ns(row["time"])
        except (ValueError, KeyError, TypeError, AttributeError):
            return None
        # The keeper cuts at 16 KiB, up to three bytes less within a character; what is shorter ended with its stream.
        whole = text.endswith(b"\n") or len(text) < _PIECE - 3
        partial = self._partial.pop(stream, None)
        text = text.removesuffix(b"\n")
        if whole and partial is None:
            return Entry(text, stream, time_ns)
        identity, ordinal = partial or (os.urandom(32).hex(), 0)
        if not whole:
            self._partial[stream] = (identity, ordinal + 1)
        return Entry(text, stream, time_ns, identity, ordinal + 1, last=whole)

    def taken(self, count: int) -> None:
        """Write down that the first `count` entries of the last read were delivered."""
        if count:
            self._offset = self._ends[count - 1]
            self._record()

    def behind(self) -> int:
        """Return how many bytes of the log are not delivered."""
        files = self.files()
        total = 0
        for inode, path in files:
            try:
                size = os.stat(path).st_size
            except FileNotFoundError:
                continue
            total = total + size if inode != self._inode else max(0, size - self._offset)
        return total

    def files(self) -> list[tuple[int, str]]:
        """Return (inode, path) of the log's files, oldest first."""
        found = []
        number = 1
        while True:
            path = f"{self._path}.{number}"
            try:
                found.append((os.stat(path).st_ino, path))
            except FileNotFoundError:
                if not os.path.exists(f"{path}.gz"):
                    break
            number += 1
        found.reverse()
        try:
            found.append((os.stat(self._path).st_ino, self._path))
        except FileNotFoundError:
            pass
        return found

    def _find(self) -> bool:
        files = self.files()
        if not files:
            return False
        record = os.pread(self._record_fd, _RECORD.size, 0)
        if len(record) == _RECORD.size:
            inode, offset, crc, length = _RECORD.unpack(record)
            for found, path in files:
                if found == inode and self._open(path, found):
                    if zlib.crc32(os.pread(self._fd, length, 0)) == crc or not offset:
                        self._offset = offset
                        return True
                    os.close(self._fd)
                    self._fd = -1
            self.lost += 1
        for found, path in files:
            if self._open(path, found):
                self._offset = 0
                self._record()
                return True
        return False

    def _open(self, path: str, inode: int) -> bool:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        if os.fstat(fd).st_ino != inode:
            # Rotated between the two calls.
            os.close(fd)
            return False
        self._fd, self._inode = fd, inode
        return True

    def _next_file(self) -> bool:
        """Go on with the file after this one, if this one was rotated."""
        files = self.files()
        numbers = [number for number, (inode, _) in enumerate(files) if inode == self._inode]
        if numbers and numbers[0] == len(files) - 1:
            return False
        if os.fstat(self._fd).st_size > self._offset and numbers:
            # Written between the read and the rotation, or a line without an end that a crash left.
            data = os.pread(self._fd, _CHUNK, self._offset)
            if b"\n" in data:
                return True
        after = files[numbers[0] + 1 :] if numbers else files
        if not numbers:
            self.lost += os.fstat(self._fd).st_size > self._offset
        if not after:
            return False
        old, done = self._fd, self._inode
        if not self._open(after[0][1], after[0][0]):
            return True
        os.close(old)
        self._offset = 0
        self._record()
        if numbers:
            self._finished(done)
        return True

    def _record(self) -> None:
        head = os.pread(self._fd, min(_HEAD, self._offset), 0)
        os.pwrite(self._record_fd, _RECORD.pack(self._inode, self._offset, zlib.crc32(head), len(head)), 0)

    def close(self) -> None:
        """Close all files."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        os.close(self._record_fd)
