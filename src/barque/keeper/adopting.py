"""Taking over what a dead keeper left: records on tmpfs, descriptors the daemon held, /proc.

Of a process that still runs, the daemon's copies of its pidfd, pipes and pty are used; where the daemon died
too, pipes are opened again through /proc/<pid>/fd, if they are still the ones of the record. What cannot
be had again (stdin whose last writer is gone, a pty) is said in the `adopted` event.
"""

import json
import os
import stat
import struct
from fcntl import ioctl
from select import EPOLLHUP, EPOLLIN
from typing import TYPE_CHECKING, Any

from barque.base.errors import told
from barque.keeper.attachments import StdinPipe
from barque.keeper.jsonlog import Clock
from barque.keeper.logfile import LogFile, LogSettings
from barque.keeper.sink import Sink
from barque.keeper.stdio import open_bridge
from barque.keeper.task import Task
from barque.kernel.packets import close_all

if TYPE_CHECKING:
    from barque.keeper.server import Server

_PIDFD_GET_INFO = 0xC040FF0B
_PIDFD_INFO_EXIT = 1 << 3
_INFO_SIZE = 64
_EXIT_CODE_AT = 60
# How long the new parent of an orphan may take to reap it or to tell its exit code.
_STATUS_WAIT_S = 2.0


def recover(server: "Server") -> None:
    """Take over every process with a record; ends that were reported before are listed again."""
    root = f"{server.exec_root}/containers"
    for container in sorted(os.listdir(root)):
        folder = f"{root}/{container}"
        try:
            names = os.listdir(folder)
        except NotADirectoryError:
            continue
        # A container's own record comes before those of its exec'd processes.
        records = [name for name in names if name.endswith("state.json")]
        for name in sorted(records, key=lambda name: (name != "state.json", name)):
            try:
                with open(f"{folder}/{name}", "rb") as file:
                    _take(server, folder, json.loads(file.read()))
            except (OSError, ValueError, KeyError, TypeError) as error:
                message = f"{folder}/{name}: {error!r}"
                server.emit({"event": "log_error", "id": container, "message": message})
    for fds in server.adoptable.values():
        close_all([*fds.values()])
    server.adoptable.clear()


def _take(server: "Server", folder: str, state: dict[str, Any]) -> None:
    task = Task(server.poller, state["id"], state["exec_id"], folder)
    key = (task.id, task.exec_id)
    task.tell = server.emit
    task.pid, task.start_time = state["pid"], state["start_time"]
    task.tty, task.open_stdin, task.stdin_once = state["tty"], state["open_stdin"], state["stdin_once"]
    task.external = state["external"]
    if state["cgroup"]:
        task.cgroup = server.starter.cgroup(state["cgroup"])
    try:
        with open(task.state_path("exit"), "rb") as file:
            task.exit = json.loads(file.read())
        task.raw_status, task.reported = 0, True
        server.tasks[key] = task
        # What the dead keeper may not have come to; it is no harm to do it twice.
        server.starter.removed(server, task)
        return
    except FileNotFoundError:
        pass
    fds = server.adoptable.pop(key, {})
    task.pidfd = fds.pop("pidfd", -1)
    if task.pidfd < 0:
        task.pidfd = _open_pidfd(task.pid, task.start_time)
    lost = _take_streams(task, state, fds)
    if task.pidfd < 0:
        lost = ["exit_code", "output"]
    close_all([*fds.values()])
    if state.get("log") and task.exec_id is None:
        try:
            _go_on_logging(task, LogSettings(state["log"]))
        except OSError as error:
            # It is minded all the same.
            server.emit({"event": "log_error", "id": task.id, "message": told(error)})
    server.tasks[key] = task
    server.emit({"event": "adopted", "id": task.id, "exec_id": task.exec_id, "lost": lost})
    if task.pidfd < 0:
        _finish_unminded(task)
        server.ended(task, None)
        return
    server.poller.watch(task.pidfd, EPOLLIN, lambda _: _ended(server, task))


def _go_on_logging(task: Task, settings: LogSettings) -> None:
    task.log = LogFile(settings, task.folder)
    clock = Clock()
    for number in (1,) if task.tty else (1, 2):
        task.sinks[number] = Sink(task.log, clock, task.folder, number)
    if task.tty:
        task.drain_bridge()
        if task.bridge < 0:
            task.bridge = open_bridge()


def _finish_unminded(task: Task) -> None:
    """Log what the spools hold of streams that nobody can read any more."""
    for number in tuple(task.sinks):
        if number not in task.streams():
            sink = task.sinks.pop(number)
            sink.finish()
            sink.close()


def _take_streams(task: Task, state: dict[str, Any], fds: dict[str, int]) -> list[str]:
    """Connect the task's streams; return what is lost."""
    lost = []
    if task.tty:
        task.console = fds.pop("console", -1)
        task.bridge = fds.pop("bridge", -1)
        if task.console < 0:
            return ["tty"]
        task.mind(1, task.console)
        task.stdin = StdinPipe(task, task.console)
        return []
    for number, name in ((1, "stdout"), (2, "stderr")):
        inode = state["streams"].get(str(number), 0)
        fd = fds.pop(name, -1)
        if fd < 0 and inode and task.pidfd >= 0:
            fd = _reopen(task.pid, number, inode, os.O_RDONLY)
            if fd < 0:
                lost.append("output")
        if fd >= 0:
            task.mind(number, fd)
    if state["stdin_inode"]:
        fd = fds.pop("stdin", -1)
        if fd < 0:
            # The process may have seen the end of its input already, so this counts as lost.
            lost.append("stdin")
            fd = _reopen(task.pid, 0, state["stdin_inode"], os.O_WRONLY) if task.pidfd >= 0 else -1
        if fd >= 0:
            task.stdin = StdinPipe(task, fd)
    return lost


def _open_pidfd(pid: int, start_time: int) -> int:
    """Return a pidfd of the process if it is still the one of the record, else -1."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return -1
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        if int(fields[19]) == start_time:
            return pidfd
    except (OSError, ValueError, IndexError):
        pass
    os.close(pidfd)
    return -1


def _reopen(pid: int, number: int, inode: int, mode: int) -> int:
    """Return a new descriptor of the pipe which is the process's 0, 1 or 2, -1 where it is another file."""
    try:
        # Looked at before it is opened, and by the same descriptor: the process may put anything in its place meanwhile.
        found = os.open(f"/proc/{pid}/fd/{number}", os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return -1
    try:
        status = os.fstat(found)
        if not stat.S_ISFIFO(status.st_mode) or status.st_ino != inode:
            return -1
        return os.open(f"/proc/self/fd/{found}", mode | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return -1
    finally:
        os.close(found)


def _ended(server: "Server", task: Task) -> None:
    """Learn how a process ended whose parent is another: at once, or after that parent has reaped it."""
    if task.raw_status is not None or task.pidfd < 0:
        return
    status = exit_status(task)
    if status is not None:
        server.ended(task, status)
        return

    def give_up() -> None:
        if task.raw_status is None and task.pidfd >= 0:
            server.ended(task, exit_status(task))

    # Readable from now on; only the hang-up that follows the reaping is news.
    server.poller.watch(task.pidfd, 0, lambda events: _reaped(server, task, events))
    server.poller.later(_STATUS_WAIT_S, give_up)


def _reaped(server: "Server", task: Task, events: int) -> None:
    if not events & EPOLLHUP:
        return
    server.poller.forget(task.pidfd)
    status = exit_status(task)
    if status is not None:
        server.ended(task, status)


def exit_status(task: Task) -> int | None:
    """Return the raw wait status of a process that has ended, None where it cannot be had (yet)."""
    pidfd = task.pidfd
    try:
        result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
        if result is not None:
            return result.si_status << 8 if result.si_code == os.CLD_EXITED else result.si_status
        return None
    except ChildProcessError:
        pass
    status = _zombie_status(task.pid, task.start_time)
    if status is not None:
        return status
    info = bytearray(_INFO_SIZE)
    struct.pack_into("=Q", info, 0, _PIDFD_INFO_EXIT)
    try:
        ioctl(pidfd, _PIDFD_GET_INFO, info)
    except OSError:
        # Kernels before 6.15 keep no exit code behind the pidfd.
        return None
    (mask,) = struct.unpack_from("=Q", info, 0)
    if not mask & _PIDFD_INFO_EXIT:
        return None
    (status,) = struct.unpack_from("=i", info, _EXIT_CODE_AT)
    return int(status)


def _zombie_status(pid: int, start_time: int) -> int | None:
    """Return the wait status of another's child that its parent has not reaped (proc(5): field 52), None where it has."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return int(fields[49]) if fields[0] == b"Z" and int(fields[19]) == start_time else None
    except (OSError, ValueError, IndexError):
        return None
