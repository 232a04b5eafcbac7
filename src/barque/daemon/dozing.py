"""A daemon with nothing to do gives its memory back: it executes `asleep`, which executes the daemon anew.

The process stays the same one. What the next daemon needs is handed over in a memory file: the lock of the data root,
the sockets of the API, in which clients wait, a connection to the keeper, whose news wake it, and the copies of
containers' descriptors that a keeper to come would need.
"""

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from barque.daemon import asleep
from barque.daemon.listeners import Listener

if TYPE_CHECKING:
    from barque.engine.engine import Slept

_VARIABLE = "BARQUE_AWAKENED"


class Handover(NamedTuple):
    """What one daemon leaves to the next in its process."""

    lock: int
    listeners: list[Listener]
    slept: "Slept"


def awakened() -> Handover | None:
    """Return what the daemon before us in this process left; None where there was none."""
    number = os.environ.pop(_VARIABLE, "")
    if not number.isdigit():
        return None
    from barque.engine.engine import Slept
    from barque.keeper.link import Doze

    with open(int(number), encoding="utf-8") as file:
        file.seek(0)
        left = json.load(file)
    if left["pid"] != os.getpid():
        return None
    listeners = [Listener(socket.socket(fileno=fd), None, path, shown) for fd, path, shown in left["listeners"]]
    held = {(container, exec_id): fds for container, exec_id, fds in left["held"]}
    keeper = Doze(left["connection"], left["keeper"], held)
    for fd in (left["lock"], keeper.connection, *keeper.descriptors(), *(one.sock.fileno() for one in listeners)):
        os.set_inheritable(fd, False)
    return Handover(left["lock"], listeners, Slept(keeper, left["events"]))


def hold_signals() -> None:
    """Let signals wait from now on: whoever handles them is about to go."""
    signal.pthread_sigmask(signal.SIG_BLOCK, asleep.SIGNALS)


def sleep(left: Handover, command: Sequence[str], *, ending: bool) -> None:
    """Become the sleeper, which executes the command when there is something to do; returns never.

    Signals are held already (`hold_signals`). With `ending` one of them was taken by the loop on its last round: it is
    sent anew, for the next daemon.

    Raises:
        OSError: it cannot be executed.
    """
    listening = [listener.sock.fileno() for listener in left.listeners]
    keeper = left.slept.keeper
    record = os.memfd_create("awakened", 0)
    state = {
        "pid": os.getpid(), "lock": left.lock, "connection": keeper.connection, "keeper": keeper.keeper,
        "held": [[*key, fds] for key, fds in keeper.held.items()],
        "listeners": [[one.sock.fileno(), one.path, one.shown] for one in left.listeners],
        "events": left.slept.events,
    }  # fmt: skip
    with os.fdopen(os.dup(record), "w", encoding="utf-8") as file:
        json.dump(state, file)
    for fd in (left.lock, keeper.connection, *keeper.descriptors(), *listening):
        os.set_inheritable(fd, True)
    waking = ",".join(map(str, [*listening, keeper.connection]))
    if ending:
        os.kill(os.getpid(), signal.SIGTERM)
    arguments = [sys.executable, "-I", "-S", str(asleep.__file__), "daemon", waking, *command]
    os.execve(sys.executable, arguments, {**os.environ, _VARIABLE: str(record)})


def take_signals() -> None:
    """Take the signals that came while nobody was there; call it once they are handled."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, asleep.SIGNALS)


class Watch:
    """Tells how long nothing has happened."""

    def __init__(self) -> None:
        self._seen: object = None
        self._since = time.monotonic()

    def idle_s(self, seen: object, *, quiet: bool) -> float:
        """Return for how many seconds all has been quiet and what was seen has been the same."""
        if not quiet or seen != self._seen:
            self._seen, self._since = seen, time.monotonic()
        return time.monotonic() - self._since
