"""The keeper's state: its processes, its connections, and what every daemon is told."""

import fcntl
import os
import re
import socket
import sys
from collections.abc import Callable
from select import EPOLLIN
from typing import Any

from barque.base.errors import told
from barque.keeper import logfile
from barque.keeper.attachments import Attachment
from barque.keeper.children import Children
from barque.keeper.connection import Connection
from barque.keeper.operations import OPERATIONS
from barque.keeper.ports import Key, Reply, RequestError, Starter
from barque.keeper.records import write_record
from barque.keeper.revive import Reviver
from barque.keeper.task import Task
from barque.kernel import packets
from barque.kernel.poller import Poller

_STOP_POLL_S = 0.005
_LEAVE_POLL_S = 1.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


class Server:
    """All state of the keeper."""

    def __init__(self, exec_root: str, listener: socket.socket, starter: Starter) -> None:
        self.exec_root = exec_root
        self.poller = Poller()
        self.children = Children(self.poller)
        self.starter = starter
        self.tasks: dict[Key, Task] = {}
        self.starting: set[Key] = set()
        self.waiting: dict[Key, list[Attachment]] = {}
        self.adoptable: dict[Key, dict[str, int]] = {}
        self.recovered = False
        self.removals: dict[str, Callable[[], object]] = {}
        self.deletions: dict[str, list[Callable[[], None]]] = {}
        self.nofile = (0, 0)
        self._listener = listener
        self._connections: list[Connection] = []
        self.leaving = False
        self.reviver = Reviver(self.poller, self.children)
        listener.setblocking(False)
        self.poller.watch(listener.fileno(), EPOLLIN, self._accept)

    # Connections.

    def _accept(self, _: int) -> None:
        try:
            sock, _address = self._listener.accept()
        except OSError:
            return
        self._connections.append(Connection(self.poller, sock, self._request, self._ended))

    def _ended(self, connection: Connection) -> None:
        self._connections.remove(connection)
        stderr, connection.stderr = connection.stderr, -1
        hello = connection.hello
        # A daemon may have two connections for a moment: it is lost with the last one.
        alone = all(other.hello is None for other in self._connections)
        if hello and hello["restart"] and not connection.said_goodbye and stderr >= 0 and alone:
            self.reviver.lost(hello, stderr)
        elif stderr >= 0:
            os.close(stderr)

    def _request(self, connection: Connection, message: dict[str, Any], fds: list[int]) -> None:
        reply = Reply(connection, message.get("id"))
        try:
            operation = OPERATIONS.get(str(message.get("op")))
            if operation is None:
                raise RequestError("request", 0, f"unknown operation: {message.get('op')}")
            operation(self, connection, message, fds, reply)
        except RequestError as error:
            reply.error(error.step, error.errno, str(error))
        except OSError as error:
            reply.error(str(message.get("op")), error.errno or 0, told(error))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            reply.error("request", 22, f"invalid request: {error!r}")
        except Exception as error:
            sys.excepthook(*sys.exc_info())
            reply.error("keeper", 0, f"internal error: {error!r}")
        finally:
            # Operations that keep a descriptor take it out of the list.
            packets.close_all(fds)

    def emit(self, event: dict[str, Any]) -> None:
        """Tell every daemon; what only concerns the keeper itself is done here."""
        if event["event"] == "compress":
            self._compress(event["path"], event["inodes"])
            return
        for connection in tuple(self._connections):
            if connection.hello is not None:
                connection.send(event)

    def _compress(self, path: str, inodes: list[int]) -> None:
        """Compress rotated files in a process of its own; they get their names when it is done."""
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                os.nice(10)
                for inode in inodes:
                    logfile.compress(path, inode)
                status = 0
            finally:
                os._exit(status)

        def done(status: int) -> None:
            for inode in inodes:
                logfile.compressed(path, inode, status == 0)

        self.children.expect(pid, done)

    # Processes.

    def key(self, message: dict[str, Any]) -> Key:
        """Return the process a request names.

        Raises:
            RequestError: a name could leave the folder, or is of a wrong type.
        """
        container, exec_id = message.get("of"), message.get("exec_id")
        for name in (container,) if exec_id is None else (container, exec_id):
            if not isinstance(name, str) or _NAME.fullmatch(name) is None:
                raise RequestError("request", 22, f"invalid name: {name!r}")
        return container, exec_id  # type: ignore[return-value]

    def running(self, key: Key) -> Task:
        """Return the process.

        Raises:
            RequestError: it is unknown or has ended.
        """
        task = self.tasks.get(key)
        if task is None or task.raw_status is not None:
            raise RequestError("find", 3, f"process of container {key[0]} is not running")
        return task

    def folder(self, container: str) -> str:
        """Return the container's folder on tmpfs."""
        return f"{self.exec_root}/containers/{container}"

    def new_task(self, key: Key) -> Task:
        """Reserve the name for a process that is about to start.

        Raises:
            RequestError: one of this name runs or starts.
        """
        old = self.tasks.get(key)
        if key in self.starting or (old is not None and old.raw_status is None):
            raise RequestError("start", 17, f"process of container {key[0]} is already running")
        if old is not None:
            self.drop_records(old)
        folder = self.folder(key[0])
        os.makedirs(folder, mode=0o700, exist_ok=True)
        self.starting.add(key)
        task = Task(self.poller, key[0], key[1], folder)
        task.tell = self.emit
        return task

    def begin(self, task: Task, reply: Reply, action: Callable[[], None]) -> None:
        """Do a part of a start; its errors are the answer."""
        try:
            action()
        except RequestError as error:
            self.start_failed(task, reply, error.step, error.errno, str(error))
        except OSError as error:
            self.start_failed(task, reply, "start", error.errno or 0, told(error))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            self.start_failed(task, reply, "request", 22, f"invalid request: {error!r}")
        except Exception as error:
            sys.excepthook(*sys.exc_info())
            self.start_failed(task, reply, "keeper", 0, f"internal error: {error!r}")

    def start_failed(self, task: Task, reply: Reply, step: str, errno: int, message: str) -> None:
        """Answer a failed start and drop what was reserved for it."""
        key = (task.id, task.exec_id)
        self.starting.discard(key)
        for client in self.waiting.pop(key, ()):
            client.drop()
        reply.error(step, errno, message)

    def let_in(self, task: Task) -> None:
        """Give the clients that wait for a process its streams."""
        for client in self.waiting.pop((task.id, task.exec_id), ()):
            client.begin(task)

    def started(self, task: Task, reply: Reply, result: dict[str, Any]) -> None:
        """Take a process that runs: let its clients in, write its record, answer."""
        key = (task.id, task.exec_id)
        self.starting.discard(key)
        self.tasks[key] = task
        self.let_in(task)
        names, fds = task.held()
        reply.ok({"pid": task.pid, "start_time": task.start_time, "held": names, **result}, fds)

    def ended(self, task: Task, raw_status: int | None) -> None:
        """Take a process's end."""
        self.poller.close(task.pidfd)
        task.pidfd = -1
        task.ended(raw_status, self._reported)

    def _reported(self, task: Task) -> None:
        assert task.exit is not None
        try:
            write_record(task.state_path("exit"), task.exit)
        except OSError as error:
            self.emit({"event": "log_error", "id": task.id, "message": f"exit.json: {error}"})
        self.emit(task.exit)
        self.starter.removed(self, task)

    def drop_records(self, task: Task) -> None:
        """Forget an ended process and remove its files."""
        self.tasks.pop((task.id, task.exec_id), None)
        names = [task.state_path("state"), task.state_path("exit")]
        if task.exec_id is None:
            names += [f"{task.folder}/{name}" for name in ("spool.1", "spool.2", "spool.state")]
        for name in names:
            try:
                os.unlink(name)
            except FileNotFoundError:
                continue

    def is_busy(self) -> bool:
        """Tell whether a process runs or is being started."""
        return bool(self.starting) or any(task.raw_status is None for task in self.tasks.values())

    def stop_when_idle(self) -> None:
        """Stop once nothing runs and nothing is being cleaned up any more, unless a daemon comes before."""
        if not self.leaving:
            return
        if self.is_busy():
            self.poller.later(_LEAVE_POLL_S, self.stop_when_idle)
        elif self.children.is_idle() and not self.removals:
            self.poller.stopped = True
        else:
            self.poller.later(_STOP_POLL_S, self.stop_when_idle)


def lock(exec_root: str) -> int:
    """Return the descriptor of the held lock file, which says the keeper's pid; -1: another keeper runs.

    Raises:
        OSError: the folder cannot be written.
    """
    fd = os.open(f"{exec_root}/keeper.pid", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return -1
    # Never empty for who reads it.
    os.ftruncate(fd, os.pwrite(fd, f"{os.getpid()}\n".encode(), 0))
    return fd


