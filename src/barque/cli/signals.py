"""Signals that arrive while we wait for a container: passed on to it, or telling a new terminal size."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os

TYPE_CHECKING = False  # the module typing costs every start of the command milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, TracebackType
    from typing import Any

_WINDOW_CHANGE: int = _signal.SIGWINCH
# The C module: `signal` itself makes enumerations, which costs a short command milliseconds.
_NAMES = {
    number: name
    for name, number in vars(_signal).items()
    if name.startswith("SIG") and isinstance(number, int) and "_" not in name
    if name not in ("SIGCLD", "SIGPOLL", "SIGIOT", "SIGRTMIN", "SIGRTMAX")
}
_NOT_FORWARDED = (
    "SIGCHLD", "SIGPIPE", "SIGURG", "SIGKILL", "SIGSTOP", "SIGWINCH", "SIGTTIN", "SIGTTOU",
    "SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL",
)  # fmt: skip


class SignalPipe:
    """Collects signals in a pipe so that a poll loop wakes up for them."""

    def __init__(self, on_resize: Callable[[], None] | None, on_signal: Callable[[str], None] | None) -> None:
        self.on_resize = on_resize
        self.on_signal = on_signal
        self.descriptor, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._before: dict[int, Any] = {}

    def __enter__(self) -> SignalPipe:
        _signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        watched = [_WINDOW_CHANGE] if self.on_resize else []
        if self.on_signal:
            watched += [number for number, name in _NAMES.items() if name not in _NOT_FORWARDED]
        for number in watched:
            self._before[number] = _signal.signal(number, _ignore)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            if handler is not None:
                _signal.signal(number, handler)
        _signal.set_wakeup_fd(-1)
        os.close(self.descriptor)
        os.close(self._writer)

    def handle(self) -> None:
        """Act on the signals that have arrived."""
        try:
            numbers = os.read(self.descriptor, 256)
        except BlockingIOError:
            return
        for number in numbers:
            if number == _WINDOW_CHANGE:
                if self.on_resize:
                    self.on_resize()
            elif self.on_signal:
                self.on_signal(_NAMES[number])


def _ignore(number: int, frame: FrameType | None) -> None:
    # The wakeup descriptor has already noted the signal.
    return
