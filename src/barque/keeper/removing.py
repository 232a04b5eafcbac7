"""Removing control groups of containers that have ended, as soon as the kernel allows."""

from typing import TYPE_CHECKING

from barque.keeper.task import Task

if TYPE_CHECKING:
    from barque.keeper.server import Server

# A control group is busy until the last of its processes is wholly gone.
_REMOVE_FIRST_S = 0.002
_REMOVE_LONGEST_S = 1.0
_REMOVE_TRIES = 30


def remove_cgroup(server: "Server", task: Task) -> None:
    """Remove the control group as soon as the kernel allows."""
    cgroup, task.cgroup = task.cgroup, None
    if cgroup is None:
        return
    server.removals[cgroup.path] = cgroup.delete
    _remove(server, cgroup.path, _REMOVE_FIRST_S, _REMOVE_TRIES)


def is_vacant(server: "Server", path: str, *, last: bool) -> bool:
    """Remove the former control group of that path, if it is still there, before another one is made.

    Its processes are dead; the last of them vanishes within a millisecond or two. At the last attempt the
    new container starts whatever became of it.
    """
    delete = server.removals.get(path)
    if delete is None:
        return True
    try:
        done = delete() is not False
    except FileNotFoundError:
        done = True
    except OSError:
        done = False
    if done or last:
        server.removals.pop(path, None)
    return done or last


def _remove(server: "Server", path: str, delay_s: float, tries: int) -> None:
    delete = server.removals[path]

    def attempt() -> None:
        if server.removals.get(path) is not delete:
            return
        try:
            done = delete() is not False
        except FileNotFoundError:
            done = True
        except OSError:
            done = False
        if not done and tries:
            _remove(server, path, min(delay_s * 2, _REMOVE_LONGEST_S), tries - 1)
        else:
            del server.removals[path]

    server.poller.later(delay_s, attempt)
