"""Output of one stream on its way into the log: pipe, spool file, whole lines, log file."""

import os

from barque.keeper import jsonlog
from barque.keeper.jsonlog import PIECE_SIZE, Clock, LineFormat
from barque.keeper.logfile import LogFile
from barque.kernel import holes

# The memory of so much that is in the log is given back at once: oftener would cost more than it gives.
_GIVE_BACK_FROM = 64 * 1024


class Sink:
    """Spool and format of one stream; the log file is shared by the container's streams."""

    __slots__ = ("_clock", "_format", "_given_back", "_log", "_number", "_piece_stamp", "_spool", "_tail", "size")

    def __init__(self, log: LogFile, clock: Clock, folder: str, number: int) -> None:
        """Open the stream's spool and take up what a former keeper left in it.

        Args:
            log: the container's log file.
            clock: the container's time stamps.
            folder: the container's folder on tmpfs.
            number: 1 for stdout, 2 for stderr.

        Raises:
            OSError: the spool cannot be opened.
        """
        self._log = log
        self._clock = clock
        self._number = number
        self._format = LineFormat("stdout" if number == 1 else "stderr", log.settings.attrs)
        self._piece_stamp = b""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._spool = os.open(f"{folder}/spool.{number}", flags, 0o600)
        self.size = os.fstat(self._spool).st_size
        if log.consumed[number] > self.size:
            # Killed between emptying the spool and writing that down.
            log.consumed[number] = 0
        start = self._given_back = log.consumed[number]
        self._tail = os.pread(self._spool, self.size - start, start)
        if self._tail:
            self._consume(self._tail)
            log.record()

    def splice(self, fd: int, limit: int) -> bytes:
        """Move up to limit bytes from the pipe fd into the spool and the log, and return them.

        Returns:
            b"" at the end of the stream.

        Raises:
            BlockingIOError: nothing is there now.
            OSError: the spool's file system is full.
        """
        count = os.splice(fd, self._spool, limit, offset_dst=self.size, flags=os.SPLICE_F_NONBLOCK)
        if not count:
            return b""
        data = os.pread(self._spool, count, self.size)
        self._taken(data)
        return data

    def write(self, data: bytes) -> None:
        """Take output that came otherwise than through a pipe.

        Raises:
            OSError: the spool's file system is full.
        """
        view = memoryview(data)
        position = self.size
        while view:
            written = os.pwrite(self._spool, view, position)
            view = view[written:]
            position += written
        self._taken(data)

    def finish(self) -> None:
        """Log what is left of an unfinished line."""
        if self._tail:
            self._consume(self._tail, final=True)
            self._log.record()

    def close(self) -> None:
        """Close the spool."""
        os.close(self._spool)

    def _taken(self, data: bytes) -> None:
        self.size += len(data)
        start = 0
        if self._tail:
            # Joined with its own line alone: a copy of all of data would cost as much as its formatting.
            start = data.find(b"\n") + 1 or len(data)
            self._consume(self._tail + data[:start])
        if start < len(data):
            self._consume(data, start)
        self._log.record()
        if self._log.consumed[self._number] - self._given_back >= _GIVE_BACK_FROM:
            self._give_back()

    def _give_back(self) -> None:
        """Empty the spool of what is in the log and recorded to be there."""
        if not self._tail:
            os.ftruncate(self._spool, 0)
            self.size = self._log.consumed[self._number] = 0
            self._log.record()
        else:
            try:
                holes.punch(self._spool, 0, self._log.consumed[self._number])
            except OSError:
                # A file system without holes: the spool grows until a chunk ends with a line.
                pass
        self._given_back = self._log.consumed[self._number]

    def _consume(self, text: bytes, start: int = 0, *, final: bool = False) -> None:
        """Format all whole lines of text from start on; then long lines' pieces; then, if final, the rest: else the tail."""
        stamp = self._clock.stamp()
        while start < len(text):
            end = jsonlog.whole_part(text, start)
            if end > start:
                length = self._put_lines(text[start:end], stamp)
            else:
                # What is too long is cut, of which no more is looked at than the next piece takes.
                rest = text[start : start + PIECE_SIZE + 1]
                if len(rest) > PIECE_SIZE or (len(rest) == PIECE_SIZE and b"\n" not in rest):
                    length = jsonlog.piece_length(rest)
                    self._put_piece(rest[:length], stamp)
                elif final:
                    length = len(rest)
                    self._put_piece(rest, stamp)
                else:
                    break
            start += length
            self._log.consumed[self._number] += length
        self._tail = text[start:]

    def _put_lines(self, text: bytes, stamp: bytes) -> int:
        """Log whole lines, all or as many as come before a rotation; return the bytes consumed."""
        log = self._log
        if log.is_full():
            log.rotate()
        if self._piece_stamp:
            # The end of a long line bears the time of its first piece.
            text = text[: text.index(b"\n") + 1]
            stamp, self._piece_stamp = self._piece_stamp, b""
        parts = self._format.lines(text, stamp)
        if log.fits(len(parts[0]) + len(parts[1])) or log.is_full():
            log.append(*parts)
            return len(text)
        lines = b"".join(parts)
        end = lines.find(b"\n", log.settings.max_size - log.size - 1) + 1
        if 0 < end < len(lines):
            # As many input lines as output lines, since a log line ends with its only newline.
            count = lines.count(b"\n", 0, end)
            lines = lines[:end]
            text = b"\n".join(text.split(b"\n", count)[:count]) + b"\n"
        log.append(lines)
        return len(text)

    def _put_piece(self, text: bytes, stamp: bytes) -> None:
        if self._log.is_full():
            self._log.rotate()
        self._piece_stamp = self._piece_stamp or stamp
        self._log.append(self._format.piece(text, self._piece_stamp))
