"""One container's log file: appended in chunks, rotated by size, consistent with its spool.

The record, `spool.state` beside the spool files on tmpfs, is one packed value written by one pwrite:

    inode of the log file, its size, offset consumed of spool.1, of spool.2

Output is first spliced into a spool file, then formatted into the log, then the record says both how
far the spool is consumed and how long the log is. A keeper killed anywhere in between leaves either the
old record (the log is cut back and the spool is formatted again) or the new one: no line is lost or
doubled. Rotation writes the record right before and right after; a log of another inode than the
record's was made by a rotation that did not finish, and is empty of consumed output.
"""

import os
import struct
from typing import Any

from barque.kernel.packets import close_all

_RECORD = struct.Struct("=QQQQ")
_GUARD = struct.Struct("=QQ")


class LogSettings:
    """What the log options say; max_size in bytes, -1 without limit.

    guard names a file that says how far another process has read: packed inode and offset. No file of the
    log is dropped before it was read; empty: dropped by number alone.
    """

    __slots__ = ("attrs", "compress", "guard", "max_file", "max_size", "path")

    def __init__(self, raw: dict[str, Any]) -> None:
        """Check and take over the daemon's log settings.

        Raises:
            ValueError: a key has a wrong type or value, or is unknown.
        """
        unknown = raw.keys() - {"driver", "path", "max_size", "max_file", "compress", "attrs", "guard"}
        if unknown:
            raise ValueError(f"unknown log settings: {', '.join(sorted(unknown))}")
        self.path = raw.get("path", "")
        self.max_size: int = raw.get("max_size", -1)
        self.max_file: int = raw.get("max_file", 1)
        self.compress = raw.get("compress", False)
        self.attrs: dict[str, str] = raw.get("attrs") or {}
        self.guard: str = raw.get("guard") or ""
        if not (isinstance(self.path, str) and self.path.startswith("/")):
            raise ValueError("log path must be absolute")
        if type(self.max_size) is not int or type(self.max_file) is not int or self.max_file < 1:
            raise ValueError("log max_size and max_file must be whole numbers")
        if not isinstance(self.attrs, dict):
            raise ValueError("log attrs must be an object")

    def to_dict(self) -> dict[str, Any]:
        """Return what the constructor takes."""
        return {name: getattr(self, name) for name in self.__slots__}


class LogFile:
    """The open log file and its record."""

    __slots__ = ("_fd", "_inode", "_record_fd", "consumed", "failed", "rotated", "settings", "size")

    def __init__(self, settings: LogSettings, folder: str) -> None:
        """Open or make the log, cutting off what the record does not know.

        Args:
            settings: where the log is and how it is rotated.
            folder: the container's folder on tmpfs, for the record.

        Raises:
            OSError: the log or the record cannot be opened.
        """
        self.settings = settings
        self._fd = -1
        self._inode = 0
        self.size = 0
        self.consumed = [0, 0, 0]
        self.rotated: list[int] = []
        self.failed = ""
        self._record_fd = os.open(f"{folder}/spool.state", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._open()
            record = os.pread(self._record_fd, _RECORD.size, 0)
            if len(record) == _RECORD.size:
                inode, size, self.consumed[1], self.consumed[2] = _RECORD.unpack(record)
                _close_gap(settings.path, settings.max_file)
                known = size if inode == self._inode else 0
                if self.size > known:
                    os.ftruncate(self._fd, known)
                    self.size = known
            self.record()
        except BaseException:
            close_all((self._fd, self._record_fd))
            raise

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(self.settings.path, flags, 0o640)
        status = os.fstat(self._fd)
        self._inode = status.st_ino
        self.size = status.st_size

    def record(self) -> None:
        """Write down how far the spools are consumed and how long the log is."""
        data = _RECORD.pack(self._inode, self.size, self.consumed[1], self.consumed[2])
        os.pwrite(self._record_fd, data, 0)

    def is_full(self) -> bool:
        """Tell whether the next line goes to a new file."""
        return 0 < self.settings.max_size <= self.size

    def fits(self, length: int) -> bool:
        """Tell whether no rotation falls within so many bytes."""
        return self.settings.max_size <= 0 or self.size + length < self.settings.max_size

    def append(self, *parts: bytes | memoryview) -> None:
        """Write parts of one text at the end; where the disk refuses, it is dropped and `failed` says why."""
        position = self.size
        try:
            position += os.pwritev(self._fd, parts, position)
            missing = self.size + sum(map(len, parts)) - position
            while missing:
                # A disk that is nearly full takes less than it is given.
                rest = memoryview(b"".join(parts))[-missing:]
                written = os.pwrite(self._fd, rest, position)
                missing -= written
                position += written
        except OSError as error:
            self.failed = f"{self.settings.path}: {error.strerror}"
            try:
                os.ftruncate(self._fd, self.size)
            except OSError:
                self.size = position
            return
        self.size = position

    def is_held(self) -> bool:
        """Tell whether the log is full and the file that would be dropped was not read yet."""
        if not self.settings.guard or not self.is_full():
            return False
        path, oldest = self.settings.path, self.settings.max_file - 1
        try:
            status = os.stat(f"{path}.{oldest}")
        except FileNotFoundError:
            # It is compressed, which is done to what was read, or there is room still.
            return False
        try:
            with open(self.settings.guard, "rb", buffering=0) as file:
                inode, offset = _GUARD.unpack(file.read(_GUARD.size))
        except (OSError, struct.error):
            return True
        if inode == status.st_ino:
            return bool(offset < status.st_size)
        return inode != self._inode and find_rotated(path, inode) is None

    def rotate(self) -> None:
        """Start a new file; `rotated` gets the inode of a file to compress, if any."""
        if self.is_held():
            # It grows beyond its size by what is being written just now; then output is left in the pipe.
            return
        self.record()
        path, keep = self.settings.path, self.settings.max_file
        try:
            if keep < 2:
                os.ftruncate(self._fd, 0)
                self.size = 0
                self.record()
                return
            # Up to the first number that is free, which also fills what a rotation cut short left.
            free = next((n for n in range(1, keep) if not _exists(path, n)), keep)
            for number in range(free - 1, 0, -1):
                _shift(path, number, number + 1 if number < keep - 1 else 0)
            os.rename(path, f"{path}.1")
            inode, old = self._inode, self._fd
            self._open()
            os.close(old)
        except OSError as error:
            self.failed = f"{path}: cannot rotate: {error.strerror}"
            self.settings.max_size = -1
            return
        self.record()
        if self.settings.compress:
            self.rotated.append(inode)

    def clear(self) -> None:
        """Forget all that was logged.

        Raises:
            OSError: a file cannot be cut or removed.
        """
        os.ftruncate(self._fd, 0)
        self.size = 0
        self.record()
        for number in range(1, self.settings.max_file):
            _shift(self.settings.path, number, 0)

    def reopen(self) -> None:
        """Open the path anew.

        Raises:
            OSError: it cannot be opened; the old file stays in use.
        """
        old = self._fd
        self._open()
        os.close(old)
        self.record()

    def close(self) -> None:
        """Close both files."""
        os.close(self._fd)
        os.close(self._record_fd)


def _exists(path: str, number: int) -> bool:
    return os.path.exists(f"{path}.{number}") or os.path.exists(f"{path}.{number}.gz")


def _close_gap(path: str, keep: int) -> None:
    """Bring the numbers of older files together again after a rotation that was cut short."""
    free = next((n for n in range(1, keep) if not _exists(path, n)), keep)
    for number in range(free + 1, keep):
        if not _exists(path, number):
            return
        _shift(path, number, number - 1)


def _shift(path: str, number: int, target: int) -> None:
    """Rename an older file, compressed or not, to its next number, or remove it for target 0."""
    for suffix in ("", ".gz"):
        old = f"{path}.{number}{suffix}"
        try:
            if target:
                os.rename(old, f"{path}.{target}{suffix}")
            else:
                os.unlink(old)
        except FileNotFoundError:
            continue


def compress(path: str, inode: int) -> None:
    """Compress the rotated file with this inode into `<path>.<inode>.gz.tmp`; runs in a process of its own.

    Raises:
        OSError: reading or writing failed.
    """
    import zlib

    source = find_rotated(path, inode)
    if source is None:
        return
    deflate = zlib.compressobj(6, zlib.DEFLATED, 31)
    with open(source, "rb", buffering=0) as plain, open(f"{path}.{inode}.gz.tmp", "wb") as packed:
        while chunk := plain.read(1 << 20):
            packed.write(deflate.compress(chunk))
        packed.write(deflate.flush())


def compressed(path: str, inode: int, succeeded: bool) -> None:
    """Put the compressed file into the place which the plain one has by now."""
    temporary = f"{path}.{inode}.gz.tmp"
    source = find_rotated(path, inode)
    try:
        if source is None or not succeeded:
            os.unlink(temporary)
        else:
            os.rename(temporary, f"{source}.gz")
            os.unlink(source)
    except FileNotFoundError:
        return


def find_rotated(path: str, inode: int) -> str | None:
    """Return the name that a rotated file has now, None when it is gone."""
    folder, base = os.path.split(path)
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        # The container was removed meanwhile.
        return None
    for entry in entries:
        suffix = entry.name[len(base) + 1 :]
        if entry.name.startswith(f"{base}.") and suffix.isdecimal() and entry.inode() == inode:
            return entry.path
    return None
