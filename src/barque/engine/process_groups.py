"""Ending a program that we run with all that it started, which may have become ours (prctl(2), PR_SET_CHILD_SUBREAPER)."""

import asyncio
import contextlib
import os
import signal

_LOOKS, _LOOK_S = 200, 0.01


async def end(child: asyncio.subprocess.Process) -> None:
    """Kill what is left of the process group that a child leads, and collect its dead; goes on when it is cancelled.

    Args:
        child: started in a session of its own.
    """
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    await asyncio.shield(_collected(child))


async def _collected(child: asyncio.subprocess.Process) -> None:
    await child.wait()
    for _ in range(_LOOKS):
        if not _has_more(child.pid):
            return
        # What has been killed is there for a moment more.
        await asyncio.sleep(_LOOK_S)


def _has_more(group: int) -> bool:
    """Collect the dead of a group; tell whether there are other children of ours in it."""
    try:
        while os.waitpid(-group, os.WNOHANG) != (0, 0):
            pass
    except ChildProcessError:
        return False
    return True
