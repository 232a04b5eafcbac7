"""What is written down and told about a process: its state, its end, its row in the list."""

import json
import os
from typing import TYPE_CHECKING, Any

from barque.base.files import write_all

if TYPE_CHECKING:
    from barque.keeper.task import Task


def write_state(task: "Task", more: dict[str, Any]) -> None:
    """Write down what another keeper needs to take a process over.

    Raises:
        OSError: the folder on tmpfs is gone or full.
    """
    state = {
        "id": task.id, "exec_id": task.exec_id, "pid": task.pid, "start_time": task.start_time,
        "tty": task.tty, "open_stdin": task.open_stdin, "stdin_once": task.stdin_once,
        "streams": {str(n): os.fstat(fd).st_ino for n, fd in task.streams().items()},
        "stdin_inode": os.fstat(task.stdin.fd).st_ino if task.stdin else 0,
        "cgroup": task.cgroup.path if task.cgroup else None,
        "external": task.external, **more,
    }  # fmt: skip
    write_record(task.state_path("state"), state)


def row(task: "Task") -> dict[str, Any]:
    """Return what `list` says about a process."""
    found: dict[str, Any] = {
        "id": task.id, "exec_id": task.exec_id, "pid": task.pid, "start_time": task.start_time, "tty": task.tty,
    }  # fmt: skip
    if task.reported:
        found["exit"] = task.exit
    return found


def exit_record(container: str, exec_id: str | None, raw: int | None, oom: bool, at_ns: int) -> dict[str, Any]:
    """Return the exit event of a wait status; None is an end of which no status could be learned."""
    signo = None if raw is None else (raw & 0x7F) or None
    code = 255 if raw is None else 128 + signo if signo else (raw >> 8) & 0xFF
    return {
        "event": "exit", "id": container, "exec_id": exec_id, "exit_code": code, "signal": signo,
        "oom_killed": oom, "at_ns": at_ns, "unknown": raw is None,
    }  # fmt: skip


_encode = json.JSONEncoder(separators=(",", ":")).encode


def write_record(path: str, record: dict[str, Any]) -> None:
    """Write a small JSON file so that it is whole or absent."""
    temporary = f"{path}.tmp"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        write_all(fd, _encode(record).encode())
    finally:
        os.close(fd)
    os.rename(temporary, path)
