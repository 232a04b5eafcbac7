"""The parent's view of a starting process: what it reported, what it waits for."""

import json
import os
import socket
from collections.abc import Callable
from typing import NamedTuple

from barque.runtime import channel as messages
from barque.runtime.channel import StepError


class Pending(NamedTuple):
    """Nothing decided yet; poll the channel again."""


class Held(NamedTuple):
    """The child stands right before exec and waits for `release`."""

    console_fd: int
    warnings: tuple[str, ...]


class Running(NamedTuple):
    """The program runs (exec succeeded); the pty's master, or -1, is the caller's to close."""

    console_fd: int
    warnings: tuple[str, ...]


class Failed(NamedTuple):
    """The child ended before exec; the message is for the user; the child is left to reap."""

    step: str
    errno: int
    message: str


Progress = Pending | Held | Running | Failed
Serve = Callable[["Child", str], str]
Answer = Callable[[str | None, str], None]
"""Takes what to tell the child, or None and why the request failed."""
Defer = Callable[[Callable[[], str], Answer], None]
"""Takes work that blocks, and whom to give its outcome."""
_SLOW_REQUESTS = ("hooks",)


class Child:
    """A process on its way to exec.

    `pid`, `pidfd` and `channel` (a descriptor to poll for reading) are plain numbers. The
    caller reaps the process and calls `close` when it has seen Running or Failed. A caller with
    other things to do sets `defer`, which is given requests that take long.
    """

    __slots__ = ("_serve", "_socket", "channel", "console_fd", "defer", "exec_seen", "listener_fd", "pid", "pidfd",
                 "resctrl", "warnings")  # fmt: skip

    def __init__(self, end: socket.socket, serve: Serve) -> None:
        self.pid = self.pidfd = -1
        self.channel = end.fileno()
        self._socket = end
        self._serve = serve
        self.console_fd = -1
        self.listener_fd = -1
        self.exec_seen = False
        # The class of service that was made for it, which goes with the container.
        self.resctrl = ""
        self.defer: Defer | None = None
        self.warnings: list[str] = []

    def close(self) -> None:
        """Close the channel and the pidfd; the pty's master is not touched."""
        self._socket.close()
        self.channel = -1
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1

    def close_channel(self) -> None:
        """Close the channel only, for callers that go on with the pidfd."""
        self._socket.close()
        self.channel = -1

    def send(self, kind: bytes, text: str = "") -> None:
        """Say something to the child; a child that is gone is noticed by `progress`."""
        try:
            self._socket.send(kind + text.encode("utf-8", "surrogateescape"))
        except OSError:
            pass

    def receive(self, *, block: bool) -> bytes | None:
        """Return the next message, b"" at the end, None when there is none yet."""
        flags = socket.MSG_CMSG_CLOEXEC | (0 if block else socket.MSG_DONTWAIT)
        try:
            data, ancillary, _, _ = self._socket.recvmsg(65536, 64, flags)
        except BlockingIOError:
            return None
        except ConnectionError:
            return b""
        for _, kind, raw in ancillary:
            if kind == socket.SCM_RIGHTS:
                fd = int.from_bytes(raw[:4], "little")
                if data[:1] == messages.LISTENER:
                    self.listener_fd = fd
                else:
                    self.console_fd = fd
        return data

    def forward_listener(self) -> Failed | None:
        """Pass the filter's listener on to whom config.json names; say why that failed."""
        try:
            self._serve(self, "listener")
        except (OSError, StepError) as error:
            err, message = messages.explain(error)
            return Failed("seccomp listener", err, message)
        finally:
            os.close(self.listener_fd)
            self.listener_fd = -1
        return None

    def serve(self, request: str) -> None:
        """Do what the child asked for and tell it how that went."""
        if self.defer is not None and request in _SLOW_REQUESTS:
            self.defer(lambda: self._serve(self, request), self._answer)
            return
        try:
            answer = self._serve(self, request)
        except (OSError, StepError) as error:
            self._answer(None, messages.explain(error)[1])
        else:
            self._answer(answer, "")

    def _answer(self, answer: str | None, failure: str) -> None:
        if answer is None:
            self.send(messages.REFUSED, failure)
        else:
            self.send(messages.GO, answer)


def progress(child: Child) -> Progress:
    """Take in what the child has said; call it when the channel is readable.

    Requests of the child (hooks, limits) are served here; hooks take as long as they do, unless
    the child has a `defer`.
    """
    while True:
        data = child.receive(block=False)
        if data is None:
            return Pending()
        outcome = _take(child, data)
        if outcome is not None:
            return outcome


def _take(child: Child, data: bytes) -> Progress | None:
    kind, text = data[:1], data[1:].decode("utf-8", "surrogateescape")
    if not data:
        if child.exec_seen:
            return Running(child.console_fd, tuple(child.warnings))
        return Failed("init", 0, "the process ended before its program was started")
    if kind == messages.FAILURE:
        step, err, message = json.loads(text)
        return Failed(step, err, message)
    if kind == messages.HELD:
        return Held(child.console_fd, tuple(child.warnings))
    if kind == messages.WARNING:
        child.warnings.append(text)
    elif kind == messages.REQUEST:
        child.serve(text)
    elif kind == messages.LISTENER:
        return child.forward_listener()
    elif kind == messages.EXEC:
        child.exec_seen = True
    return None


def release(child: Child) -> None:
    """Let a held child exec its program."""
    child.send(messages.RELEASE)
