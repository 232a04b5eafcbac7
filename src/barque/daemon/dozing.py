"""A daemon with nothing to do gives its memory back: it executes `asleep`, which executes the daemon anew.

The process stays the same one. What the next daemon needs is handed over in a memory file: the lock of the data root,
the sockets of the API, in which clients wait, a connection to the keeper, whose news wake it, the copies of containers'
descriptors that a keeper to come would need, and the options that were in force: daemon.json may have been edited since.

Nothing is lost on the way, since nothing is taken on the way. From its first line on the daemon and all its threads block
the signals it obeys and reads them from a descriptor (`kernel.signals`), and so does the next one: a signal was read and
obeyed, or it is pending and wakes the next. A client was accepted, and then the daemon stays awake, or it waits in the
socket's queue. What the keeper tells was read before, or can be read, and a keeper that is gone can be read, too.
While it sleeps a file keeps the room on the disk that it needs to wake; without that room it stays awake.
"""

import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from barque.daemon import asleep, listeners
from barque.daemon.listeners import Listener
from barque.kernel import signals
from barque.kernel.process import close_range

if TYPE_CHECKING:
    from barque.engine.engine import Slept

SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGUSR2, signal.SIGTERM)
"""What the daemon reads from a descriptor, and blocks always."""
TRACES = signal.SIGUSR1
"""What tells where all threads are, also of a daemon that hangs: blocked only while nobody could tell."""
# The databases and what tries out the kernel take less than one of them; the others are for who writes meanwhile.
_ROOM, _ROOM_BYTES = "room-to-wake", 32 << 20
_VARIABLE = "BARQUE_AWAKENED"
_FORM = 2
"""To be counted up with each change of what is handed over, and of the options."""


class Handover(NamedTuple):
    """What one daemon leaves to the next in its process."""

    lock: int
    listeners: list[Listener]
    slept: "Slept"
    options: dict[str, Any]


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
    if left["form"] != _FORM:
        # The code was exchanged meanwhile: this is the start of a daemon like any other.
        close_range(listeners.FIRST_PASSED_FD + listeners.passed())
        return None
    os.close(left["signals"])
    sockets = [Listener(socket.socket(fileno=fd), None, path, shown) for fd, path, shown in left["listeners"]]
    held = {(container, exec_id): fds for container, exec_id, fds in left["held"]}
    keeper = Doze(left["connection"], left["keeper"], held)
    for fd in left["watched"]:
        # Only its news were waited for: all is looked at anew now.
        os.close(fd)
    for fd in (left["lock"], keeper.connection, *keeper.descriptors(), *(one.sock.fileno() for one in sockets)):
        os.set_inheritable(fd, False)
    return Handover(left["lock"], sockets, Slept(keeper, left["events"], left["healths"], left["execs"], []), left["options"])


def sleep(left: Handover, command: Sequence[str]) -> None:
    """Become the sleeper, which executes the command when there is something to do; returns never.

    Raises:
        OSError: it cannot be executed.
    """
    signals.hold([TRACES])
    # Signals that are pending already wake at once.
    waiting = signals.descriptor([*SIGNALS, TRACES])
    listening = [listener.sock.fileno() for listener in left.listeners]
    keeper = left.slept.keeper
    record = os.memfd_create("awakened", 0)
    state = {
        "form": _FORM, "pid": os.getpid(), "lock": left.lock, "connection": keeper.connection, "keeper": keeper.keeper,
        "held": [[*key, fds] for key, fds in keeper.held.items()],
        "listeners": [[one.sock.fileno(), one.path, one.shown] for one in left.listeners],
        "events": left.slept.events, "healths": left.slept.healths, "execs": left.slept.execs,
        "watched": left.slept.watched,
        "options": left.options, "signals": waiting,
    }  # fmt: skip
    with os.fdopen(os.dup(record), "w", encoding="utf-8") as file:
        json.dump(state, file)
    for fd in (left.lock, waiting, keeper.connection, *keeper.descriptors(), *listening, *left.slept.watched):
        os.set_inheritable(fd, True)
    waking = ",".join(map(str, [*listening, waiting, keeper.connection, *left.slept.watched]))
    arguments = [sys.executable, "-I", "-S", str(asleep.__file__), "daemon", waking, *command]
    os.execve(sys.executable, arguments, {**os.environ, _VARIABLE: str(record)})


def reserve_room(data_root: str) -> bool:
    """Take the room on the disk that opening the engine needs, so that nobody can have filled it by then; tell whether."""
    fd = os.open(f"{data_root}/{_ROOM}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(fd, 0, _ROOM_BYTES)
        return True
    except OSError:
        give_room_back(data_root)
        return False
    finally:
        os.close(fd)


def give_room_back(data_root: str) -> None:
    """Give back what `reserve_room` took; nothing is no error."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{data_root}/{_ROOM}")


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
