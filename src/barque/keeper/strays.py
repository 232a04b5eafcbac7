"""Children that a dead keeper left to the daemon and that nobody minds: processes that were being started just then.

Once ended they must be reaped: the first process of a container's process namespace, though killed, does not end before
all others in it are reaped (pid_namespaces(7)).
"""

import os


def reap(minded: set[int]) -> int:
    """Reap those that have ended; return how many live on.

    Args:
        minded: children whose end somebody else waits for.
    """
    own, left = os.getpid(), 0
    try:
        with open(f"/proc/self/task/{own}/children", encoding="ascii") as file:
            children = [int(word) for word in file.read().split()]
    except OSError:
        # A kernel without CONFIG_PROC_CHILDREN.
        return 0
    depth = len(_status(own).get("NSpid", "").split())
    for pid in children:
        status = _status(pid)
        # Programs that the daemon itself runs are in its own process namespace.
        if pid in minded or len(status.get("NSpid", "").split()) <= depth:
            continue
        if not status["State"].startswith("Z"):
            left += 1
            continue
        try:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            continue
    return left


def pid_behind(pidfd: int) -> int:
    """Return the process that a pidfd means, -1 where it is gone."""
    try:
        with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("Pid:"))
    except (OSError, StopIteration, ValueError):
        return -1


def _status(pid: int) -> dict[str, str]:
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    except OSError:
        return {}
