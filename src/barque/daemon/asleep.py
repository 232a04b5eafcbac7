"""What is left of a daemon that has nothing to do: it waits, and becomes the daemon again.

    python -I -S asleep.py daemon WAKING COMMAND...

WAKING are descriptors with commas between them. As soon as one can be read (a client, news of the keeper, its end), or a
signal of the daemon's comes, COMMAND is executed in this very process. All other descriptors are kept open for it, and
the signal stays pending, blocked, until it takes it. Imports next to nothing: what it imports is its memory.
"""

# signal, which is built on it, brings more than all the rest here.
import _signal  # type: ignore[import-not-found]
import os
import select
import sys

SIGNALS = (1, 2, 12, 15)  # SIGHUP, SIGINT, SIGUSR2, SIGTERM


class _WakeError(Exception):
    """A signal has come."""


def _take(number: int, _frame: object) -> None:
    # Sent anew while it is blocked: execve(2) keeps it pending, and the daemon takes it.
    _signal.pthread_sigmask(_signal.SIG_BLOCK, SIGNALS)
    os.kill(os.getpid(), number)
    raise _WakeError


def main(argv: list[str]) -> None:
    """Wait, then execute the command.

    Raises:
        OSError: it cannot be executed.
    """
    waiting = select.poll()
    for fd in argv[1].split(","):
        waiting.register(int(fd), select.POLLIN)
    try:
        # They were blocked before this program began.
        for number in SIGNALS:
            _signal.signal(number, _take)
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, SIGNALS)
        waiting.poll()
        _signal.pthread_sigmask(_signal.SIG_BLOCK, SIGNALS)
    except _WakeError:
        pass
    os.execv(argv[2], argv[2:])


if __name__ == "__main__":
    main(sys.argv[1:])
