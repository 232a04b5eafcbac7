"""One minded process: a container's first, or an exec'd one. Its streams, stdin, clients and end."""

import errno
import fcntl
import os
import signal
import struct
import termios
import time
from collections.abc import Callable
from select import EPOLLIN, EPOLLOUT
from typing import Any, Protocol

from barque.keeper.attachments import Attachment, StdinPipe
from barque.keeper.logfile import LogFile
from barque.keeper.records import exit_record
from barque.keeper.sink import Sink
from barque.kernel.poller import Poller

# First reads are small; a stream that fills them is read, and its pipe made, this large.
_SMALL = 64 * 1024
_LARGE = 1024 * 1024
# After the process's end others may still hold its output open.
_LINGER_S = 2.0
_RETRY_S = 0.1


class CgroupLike(Protocol):
    """What the minding of a process needs of its control group."""

    path: str

    def oom_kills(self) -> int:
        """Return how many processes the kernel killed for lack of memory."""

    def kill(self, signo: int) -> object:
        """Send a signal to every process in it."""

    def delete(self) -> object:
        """Remove it."""


class Task:
    """A process and all that belongs to it."""

    __slots__ = (
        "_paused", "_streams", "_when_ended", "attachments", "bridge", "cgroup", "console",
        "exec_id", "exit", "external", "folder", "id", "log", "open_stdin", "pid", "pidfd", "poller",
        "raw_status", "reported", "sinks", "start_time", "stdin", "stdin_once", "tell", "tty", "uid_maps",
    )  # fmt: skip

    def __init__(self, poller: Poller, container: str, exec_id: str | None, folder: str) -> None:
        self.poller = poller
        self.id = container
        self.exec_id = exec_id
        self.folder = folder
        self.pid = 0
        self.start_time = 0
        self.pidfd = -1
        self.tty = False
        self.console = -1
        # A pipe on the way from a terminal to its spool: what is in it outlives the keeper, as the daemon has it too.
        self.bridge = -1
        self.open_stdin = False
        self.stdin_once = False
        self.stdin: StdinPipe | None = None
        self.log: LogFile | None = None
        self.sinks: dict[int, Sink] = {}
        self.attachments: list[Attachment] = []
        self.cgroup: CgroupLike | None = None
        self.external: str | None = None
        self.exit: dict[str, Any] | None = None
        # The container's maps of users, which each process that enters it needs; None: not read yet.
        self.uid_maps: list[dict[str, Any]] | None = None
        self.raw_status: int | None = None
        self.reported = False
        self.tell: Callable[[dict[str, Any]], None] = lambda event: None
        self._streams: dict[int, int] = {}
        self._paused = False
        self._when_ended: Callable[[], None] | None = None

    # Output.

    def mind(self, stream: int, fd: int) -> None:
        """Read the stream (1 or 2) from fd, which is non-blocking, until its end."""
        self._streams[stream] = fd
        if self._paused:
            return
        if fd == self.console:
            self._watch_console()
        else:
            self.poller.watch(fd, EPOLLIN, self._stdout_ready if stream == 1 else self._stderr_ready)

    def streams(self) -> dict[int, int]:
        """Return the descriptors of the streams that have not ended."""
        return self._streams

    def pause_output(self) -> None:
        """Leave output in the pipes until every client has caught up."""
        if self._paused:
            return
        self._paused = True
        for fd in self._streams.values():
            self.poller.forget(fd)

    def output_may_flow(self) -> None:
        """Read again if no client is behind."""
        if self._paused and all(client.queued == 0 for client in self.attachments):
            self._paused = False
            for stream, fd in self._streams.items():
                self.mind(stream, fd)

    def _stdout_ready(self, _: int) -> None:
        self._readable(1)

    def _stderr_ready(self, _: int) -> None:
        self._readable(2)

    def _readable(self, stream: int) -> bool:
        """Move one chunk; return whether more may be there."""
        fd = self._streams[stream]
        sink = self.sinks.get(stream)
        if self.log is not None and self.raw_status is None and self.log.is_held():
            self.pause_output()
            self.poller.later(_RETRY_S, self.output_may_flow)
            return False
        try:
            if sink is not None and not self.tty:
                data = sink.splice(fd, _LARGE)
            elif sink is not None and self.bridge >= 0:
                data = self._cross(fd, sink)
            elif sink is not None:
                data = self._through_memory(fd, sink)
            else:
                data = os.read(fd, _SMALL)
        except BlockingIOError:
            return False
        except OSError as error:
            # A pty whose last holder is gone says EIO; all else means the spool cannot take it.
            if self.tty and error.errno == 5:
                data = b""
            else:
                self._spool_refused(error)
                return False
        if not data:
            self._stream_ended(stream)
            return False
        if len(data) == _SMALL and not self.tty:
            self._enlarge(fd)
        for client in tuple(self.attachments):
            client.put(stream, data)
        self._report_log()
        return True

    def _cross(self, fd: int, sink: Sink) -> bytes:
        """Move a terminal's output over the bridge into the spool and return it.

        Raises:
            BlockingIOError: nothing is there now.
            OSError: EIO at the terminal's end; else the spool cannot take it, and the bridge keeps it.
        """
        try:
            os.splice(fd, self.bridge, _SMALL, flags=os.SPLICE_F_NONBLOCK)
        except OSError as error:
            if error.errno == errno.EINVAL:
                # A kernel that cannot splice from terminals.
                self.poller.close(self.bridge)
                self.bridge = -1
                return self._through_memory(fd, sink)
            if error.errno != errno.EAGAIN:
                self.drain_bridge()
                raise
        return sink.splice(self.bridge, _LARGE)

    @staticmethod
    def _through_memory(fd: int, sink: Sink) -> bytes:
        data = os.read(fd, _SMALL)
        if data:
            sink.write(data)
        return data

    def drain_bridge(self) -> None:
        """Spool and log what is on the bridge."""
        try:
            while self.bridge >= 0 and 1 in self.sinks:
                self.sinks[1].splice(self.bridge, _LARGE)
        except BlockingIOError:
            return

    @staticmethod
    def _enlarge(fd: int) -> None:
        try:
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _LARGE)
        except OSError:
            # The user's share of pipe pages is used up: the small pipe is only slower.
            return

    def _spool_refused(self, error: OSError) -> None:
        self.tell({"event": "log_error", "id": self.id, "message": f"spool: {error.strerror}"})
        self.pause_output()
        self.poller.later(_RETRY_S, self.output_may_flow)

    def _report_log(self) -> None:
        if self.log is None:
            return
        if self.log.failed:
            message, self.log.failed = self.log.failed, ""
            self.tell({"event": "log_error", "id": self.id, "message": message})
        if self.log.rotated:
            inodes, self.log.rotated = self.log.rotated, []
            self.tell({"event": "compress", "path": self.log.settings.path, "inodes": inodes})

    def _stream_ended(self, stream: int) -> None:
        fd = self._streams.pop(stream)
        self.poller.forget(fd)
        if fd != self.console:
            os.close(fd)
        sink = self.sinks.pop(stream, None)
        if sink is not None:
            sink.finish()
            sink.close()
        self._report_log()
        if not self._streams and self._when_ended is not None:
            self._finish()

    # Input.

    def stdin_is_backed_up(self) -> bool:
        """Tell whether the process has to read before clients may send more."""
        return self.stdin is not None and self.stdin.is_backed_up()

    def write_stdin(self, data: bytes) -> None:
        """Give data to the process."""
        if self.stdin is not None:
            self.stdin.write(data)

    def watch_stdin(self, backed_up: bool) -> None:
        """Watch for room in stdin, or stop that and let clients send."""
        if self.stdin is None:
            return
        if self.stdin.fd == self.console:
            if 1 in self._streams and not self._paused:
                self._watch_console()
        elif backed_up:
            self.poller.watch(self.stdin.fd, EPOLLOUT, self._stdin_has_room)
        else:
            self.poller.forget(self.stdin.fd)
        for client in self.attachments:
            client.refresh()

    def _stdin_has_room(self, _: int) -> None:
        if self.stdin is not None:
            self.stdin.flush()

    def _watch_console(self) -> None:
        """Watch the pty master, one descriptor for both directions."""
        events = EPOLLIN | (EPOLLOUT if self.stdin_is_backed_up() else 0)
        self.poller.watch(self.console, events, self._console_ready)

    def _console_ready(self, events: int) -> None:
        if events & EPOLLOUT and self.stdin is not None:
            self.stdin.flush()
        if events & ~EPOLLOUT and 1 in self._streams:
            self._readable(1)

    def client_ended_stdin(self) -> None:
        """Handle a client's end of input: the process's too where the first client's is its only one."""
        if self.stdin_once and not self.tty and self.stdin and self.stdin.close_after_queue():
            self.close_stdin()

    def close_stdin(self) -> None:
        """End the process's input; a terminal's stays."""
        if self.stdin is None or self.tty:
            return
        fd, self.stdin = self.stdin.fd, None
        self.poller.close(fd)
        self.tell({"event": "stdin_closed", "id": self.id, "exec_id": self.exec_id})

    def resize(self, height: int, width: int) -> None:
        """Set the terminal's size.

        Raises:
            OSError: the terminal is gone.
        """
        fcntl.ioctl(self.console, termios.TIOCSWINSZ, struct.pack("=HHHH", height, width, 0, 0))

    # The end.

    def ended(self, raw_status: int | None, done: Callable[["Task"], None]) -> None:
        """Take the wait status, bring in the last output, then call done; None: status unknown."""
        self.raw_status = -1 if raw_status is None else raw_status
        at_ns = time.time_ns()
        self._paused = False
        oom = False
        if self.cgroup is not None and self.exec_id is None:
            try:
                oom = self.cgroup.oom_kills() > 0
            except OSError:
                oom = False
        self.exit = exit_record(self.id, self.exec_id, raw_status, oom, at_ns)
        self._when_ended = lambda: done(self)
        self._drain()
        if not self._streams:
            if self._when_ended is not None:
                self._finish()
            return
        if self.exec_id is not None:
            # What the exec'd process left behind may write for a while; its exit is known now.
            self.reported = True
            done(self)
        elif self.cgroup is not None:
            try:
                self.cgroup.kill(signal.SIGKILL)
            except OSError:
                pass
        for stream, fd in self._streams.items():
            self.mind(stream, fd)
        self.poller.later(_LINGER_S, self._stop_lingering)

    def _drain(self) -> None:
        """Read as much as the streams can hold; who goes on writing does not keep the keeper here."""
        for stream in tuple(self._streams):
            for _ in range(_LARGE // _SMALL + 1):
                if not self._readable(stream):
                    break

    def _stop_lingering(self) -> None:
        self._drain()
        for stream in tuple(self._streams):
            self._stream_ended(stream)

    def _finish(self) -> None:
        action, self._when_ended = self._when_ended, None
        self.close_input()
        for client in tuple(self.attachments):
            client.end()
        self.close_log()
        if action is not None and not self.reported:
            self.reported = True
            action()

    def close_log(self) -> None:
        """Close the log and the spools of streams that have not ended."""
        for sink in self.sinks.values():
            sink.close()
        self.sinks.clear()
        if self.log is not None:
            self.log.close()
            self.log = None

    def close_input(self) -> None:
        """Close what is left of stdin and the terminal."""
        if self.stdin is not None and self.stdin.fd != self.console:
            self.poller.close(self.stdin.fd)
        self.stdin = None
        for fd in (self.console, self.bridge):
            self.poller.close(fd)
        self.console = self.bridge = -1

    # Records.

    def state_path(self, kind: str) -> str:
        """Return the path of this process's record: kind is "state" or "exit"."""
        name = kind if self.exec_id is None else f"exec.{self.exec_id}.{kind}"
        return f"{self.folder}/{name}.json"

    def held(self) -> tuple[list[str], tuple[int, ...]]:
        """Return names and descriptors which the daemon keeps copies of for a keeper to come."""
        pairs = [
            ("pidfd", self.pidfd),
            ("stdin", self.stdin.fd if self.stdin and not self.tty else -1),
            ("stdout", -1 if self.tty else self._streams.get(1, -1)),
            ("stderr", self._streams.get(2, -1)),
            ("console", self.console),
            ("bridge", self.bridge),
        ]
        kept = [(name, fd) for name, fd in pairs if fd >= 0]
        return [name for name, _ in kept], tuple(fd for _, fd in kept)
