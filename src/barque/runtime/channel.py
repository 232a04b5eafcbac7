"""What a starting process and its parent say to each other, one datagram a message.

The first byte says what it is. From the child: W warning, C console (with the pty's master),
N the
listener of a seccomp filter (its descriptor), ? a request that only the parent can fulfil, H held, X exec comes next, P the pid of the process
that a helping stage made, F the failure that ended it. From the parent: G go on, R release,
E the request failed. When the other end is gone, the child ends.
"""

import json
import os
import socket

from barque.base.errors import KernelError

WARNING, CONSOLE, REQUEST, HELD, EXEC, PID, FAILURE = b"W", b"C", b"?", b"H", b"X", b"P", b"F"
LISTENER = b"N"
GO, RELEASE, REFUSED = b"G", b"R", b"E"


class StepError(Exception):
    """A step failed and the message for the user is already worded."""

    def __init__(self, message: str, err: int = 0) -> None:
        """Keep the errno besides the message."""
        super().__init__(message)
        self.errno = err


def errno_text(err: int | None) -> str:
    """Return the kernel's words for `err`, in lower case as they stand inside a sentence."""
    text = os.strerror(err or 0)
    return text[:1].lower() + text[1:]


def explain(error: BaseException) -> tuple[int, str]:
    """Return (errno, message) of whatever ended a step."""
    if isinstance(error, StepError):
        return error.errno, str(error)
    if isinstance(error, KernelError):
        where = f" {error.filename}" if error.filename else ""
        return error.errno or 0, f"{error.call}{where}: {errno_text(error.errno)}"
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return error.errno or 0, f"{where}{errno_text(error.errno)}"
    return 0, f"{type(error).__name__}: {error}"


class Channel:
    """The child's end.

    A detached channel belongs to a child whose parent may have gone, as after `create`: nobody
    has to hear what it says, and a failure is told on stderr too.
    """

    __slots__ = ("detached", "fd")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.detached = False

    def send(self, kind: bytes, text: str = "") -> None:
        """Send a message; a parent that is gone ends this process."""
        try:
            self._write(kind + text.encode("utf-8", "surrogateescape"))
        except OSError:
            if not self.detached:
                os._exit(1)

    def _write(self, message: bytes) -> None:
        # SIGPIPE has its default meaning by the time of the last messages.
        end = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, self.fd)
        try:
            end.send(message, socket.MSG_NOSIGNAL)
        finally:
            end.detach()

    def send_fd(self, kind: bytes, fd: int) -> None:
        """Hand a descriptor to the parent."""
        end = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, self.fd)
        try:
            socket.send_fds(end, [kind], [fd], socket.MSG_NOSIGNAL)
        except OSError:
            if not self.detached:
                os._exit(1)
        finally:
            end.detach()

    def wait(self, expected: bytes) -> str:
        """Block until the parent says `expected`; return what it adds.

        Raises:
            StepError: with the parent's words when it refused.
        """
        message = os.read(self.fd, 65536)
        if not message:
            os._exit(1)
        if message[:1] == REFUSED:
            raise StepError(message[1:].decode("utf-8", "surrogateescape"))
        if message[:1] != expected:
            raise StepError("the parent spoke out of turn")
        return message[1:].decode("utf-8", "surrogateescape")

    def ask(self, request: str) -> str:
        """Have the parent do something for this process, wait, and return its answer.

        Raises:
            StepError: with the parent's words when it failed.
        """
        self.send(REQUEST, request)
        return self.wait(GO)

    def fail(self, step: str, error: BaseException) -> None:
        """Report what ended this process; never raises."""
        err, message = explain(error)
        report = json.dumps([step, err, message])[:32768]
        try:
            self._write(FAILURE + report.encode())
        except OSError:
            if self.detached:
                os.write(2, f"{message}\n".encode("utf-8", "surrogateescape"))
