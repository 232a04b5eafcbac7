"""Signals that arrive while we wait for a container: passed on to it, or telling a new terminal size."""

import os
import signal
from collections.abc import Callable
from types import FrameType, TracebackType

NOT_FORWARDED = {
    signal.SIGCHLD, signal.SIGPIPE, signal.SIGURG, signal.SIGKILL, signal.SIGSTOP,
    signal.SIGWINCH, signal.SIGTTIN, signal.SIGTTOU,
    signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL,
}  # fmt: skip


class SignalPipe:
    """Collects signals in a pipe so that a poll loop wakes up for them."""

    def __init__(self, on_resize: Callable[[], None] | None, on_signal: Callable[[str], None] | None) -> None:
        self.on_resize = on_resize
        self.on_signal = on_signal
        self.descriptor, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._before: dict[int, object] = {}

    def __enter__(self) -> "SignalPipe":
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        watched = [signal.SIGWINCH] if self.on_resize else []
        if self.on_signal:
            watched += [number for number in signal.Signals if number not in NOT_FORWARDED]
        for number in watched:
            self._before[number] = signal.signal(number, _ignore)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            if callable(handler) or isinstance(handler, signal.Handlers):
                signal.signal(number, handler)
        signal.set_wakeup_fd(-1)
        os.close(self.descriptor)
        os.close(self._writer)

    def handle(self) -> None:
        """Act on the signals that have arrived."""
        try:
            numbers = os.read(self.descriptor, 256)
        except BlockingIOError:
            return
        for number in numbers:
            if number == signal.SIGWINCH:
                if self.on_resize:
                    self.on_resize()
            elif self.on_signal:
                self.on_signal(signal.Signals(number).name)


def _ignore(number: int, frame: FrameType | None) -> None:
    # The wakeup descriptor has already noted the signal.
    return
