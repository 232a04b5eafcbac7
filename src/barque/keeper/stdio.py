"""Pipes between the keeper and a process it starts."""

import os
from typing import Any, NamedTuple

from barque.kernel.packets import close_all


class Stdio(NamedTuple):
    """Both ends: `child` for the process's 0, 1, 2; the others are the keeper's, -1 where there is none."""

    child: tuple[int, int, int]
    stdin: int
    stdout: int
    stderr: int

    def give_to(self, uid: int) -> None:
        """Make the process's user the owner of its pipes, so that it can open /dev/stdout anew.

        Raises:
            OSError: the user cannot own files here.
        """
        if uid and self.stdout >= 0:
            # Input may be /dev/null, which is the host's.
            for fd in self.child[0 if self.stdin >= 0 else 1 :]:
                os.fchown(fd, uid, -1)

    def close_child(self) -> None:
        """Close the process's ends."""
        close_all(self.child)

    def close(self) -> None:
        """Close everything."""
        close_all((*self.child, self.stdin, self.stdout, self.stderr))


def uid_maps(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Return how a configuration maps users, empty where it does not."""
    return (spec.get("linux") or {}).get("uidMappings") or []


def host_uid(maps: list[dict[str, Any]], process: dict[str, Any]) -> int:
    """Return the process's user as the host counts it."""
    uid = int((process.get("user") or {}).get("uid", 0))
    for entry in maps:
        if entry["containerID"] <= uid < entry["containerID"] + entry["size"]:
            return int(entry["hostID"]) + uid - int(entry["containerID"])
    return uid


def open_stdio(open_stdin: bool, tty: bool) -> Stdio:
    """Make what a process needs; with tty it is all /dev/null, as the pty is made within the container.

    Raises:
        OSError: no descriptors are left.
    """
    made: list[int] = []
    try:
        if open_stdin and not tty:
            stdin_read, stdin = os.pipe2(os.O_CLOEXEC)
            made += [stdin_read, stdin]
            os.set_blocking(stdin, False)
        else:
            stdin_read, stdin = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC), -1
            made.append(stdin_read)
        outputs = []
        for _ in (1, 2):
            if tty:
                outputs.append((-1, os.dup(stdin_read)))
            else:
                outputs.append(_output_pipe())
            made += outputs[-1]
        return Stdio((stdin_read, outputs[0][1], outputs[1][1]), stdin, outputs[0][0], outputs[1][0])
    except OSError:
        close_all(made)
        raise


def _output_pipe() -> tuple[int, int]:
    """Return (the keeper's read end, the process's end).

    The process's end can read too: when the keeper dies there is still a reader, so the process gets no
    SIGPIPE, and the pipe can be opened again through /proc.
    """
    read, write = os.pipe2(os.O_CLOEXEC)
    try:
        both = os.open(f"/proc/self/fd/{write}", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        os.close(read)
        raise
    finally:
        os.close(write)
    os.set_blocking(read, False)
    return read, both


def open_bridge() -> int:
    """Return a pipe's one descriptor for both ends: it never ends, and answers EAGAIN when it is empty.

    Raises:
        OSError: no descriptors are left.
    """
    read, write = os.pipe2(os.O_CLOEXEC)
    try:
        return os.open(f"/proc/self/fd/{write}", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    finally:
        close_all((read, write))
