"""The keeper's operations: what the daemon can ask, and what it is told."""

import fcntl
import os
import re
import socket
import sys
from collections.abc import Callable
from select import EPOLLIN
from typing import Any

from barque.keeper import adopting, logfile
from barque.keeper.attachments import Attachment
from barque.keeper.children import Children
from barque.keeper.connection import Connection
from barque.keeper.revive import Reviver
from barque.keeper.task import Task, write_record
from barque.kernel import packets
from barque.kernel.poller import Poller

Key = tuple[str, str | None]
_STOP_POLL_S = 0.005
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


class RequestError(Exception):
    """A request cannot be done: the step, an errno or 0, and words for the user."""

    def __init__(self, step: str, errno: int, message: str) -> None:
        super().__init__(message)
        self.step = step
        self.errno = errno


class Reply:
    """The answer to one request, given once, maybe later."""

    __slots__ = ("_connection", "_number")

    def __init__(self, connection: Connection, number: Any) -> None:
        self._connection = connection
        self._number = number

    def ok(self, result: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
        """Answer with a result."""
        self._connection.send({"id": self._number, "ok": result}, fds)

    def error(self, step: str, errno: int, message: str) -> None:
        """Answer with a failure."""
        error = {"step": step, "errno": errno, "message": message}
        self._connection.send({"id": self._number, "error": error})


class Starter:
    """How processes come to be; see `starting` for the real one."""

    def start(self, server: "Server", task: Task, request: dict[str, Any], fds: list[int], reply: Reply) -> None:
        """Begin a container's first process; answers through the server once it runs or failed."""
        raise NotImplementedError

    def exec(self, server: "Server", task: Task, main: Task, request: dict[str, Any], reply: Reply) -> None:
        """Begin another process in main's container."""
        raise NotImplementedError

    def cgroup(self, path: str) -> Any:
        """Return the existing control group at path, None where there is none."""
        raise NotImplementedError

    def removed(self, server: "Server", task: Task) -> None:
        """Undo, off the exit's path, what `start` made besides the process."""
        raise NotImplementedError


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
        self._reviver = Reviver(self.poller, self.children)
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
        if hello and hello["restart"] and not connection.said_goodbye and stderr >= 0:
            self._reviver.lost(hello, stderr)
        elif stderr >= 0:
            os.close(stderr)

    def _request(self, connection: Connection, message: dict[str, Any], fds: list[int]) -> None:
        reply = Reply(connection, message.get("id"))
        try:
            operation = _OPERATIONS.get(str(message.get("op")))
            if operation is None:
                raise RequestError("request", 0, f"unknown operation: {message.get('op')}")
            operation(self, connection, message, fds, reply)
        except RequestError as error:
            reply.error(error.step, error.errno, str(error))
        except OSError as error:
            reply.error(str(message.get("op")), error.errno or 0, str(error))
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
        names, fds = held(task)
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

    # Operations.

    def _hello(self, connection: Connection, message: dict[str, Any], fds: list[int], reply: Reply) -> None:
        hello = {name: message[name] for name in ("daemon_argv", "daemon_env", "restart")}
        if not isinstance(hello["daemon_argv"], list) or not isinstance(hello["daemon_env"], dict):
            raise RequestError("request", 22, "daemon_argv must be a list, daemon_env an object")
        connection.hello = hello
        if fds:
            connection.stderr = fds.pop(0)
        self._reviver.connected()
        reply.ok({"pid": os.getpid(), "recovered": self.recovered})

    def _adopt(self, _: Connection, message: dict[str, Any], fds: list[int], reply: Reply) -> None:
        self.adoptable[self.key(message)] = dict(zip(message["names"], fds, strict=True))
        fds.clear()
        reply.ok({})

    def _recover(self, _: Connection, message: dict[str, Any], fds: list[int], reply: Reply) -> None:
        if not self.recovered:
            self.recovered = True
            adopting.recover(self)
        reply.ok({})

    def _start(self, _: Connection, message: dict[str, Any], fds: list[int], reply: Reply) -> None:
        container, _exec = self.key({**message, "exec_id": None})
        task = self.new_task((container, None))
        self._begin(task, reply, lambda: self.starter.start(self, task, message, fds, reply))

    def _exec(self, _: Connection, message: dict[str, Any], fds: list[int], reply: Reply) -> None:
        key = self.key(message)
        if key[1] is None:
            raise RequestError("request", 22, "exec_id is missing")
        main = self.running((key[0], None))
        task = self.new_task(key)
        self._begin(task, reply, lambda: self.starter.exec(self, task, main, message, reply))

    def _begin(self, task: Task, reply: Reply, action: Callable[[], None]) -> None:
        try:
            action()
        except RequestError as error:
            self.start_failed(task, reply, error.step, error.errno, str(error))
        except OSError as error:
            self.start_failed(task, reply, "start", error.errno or 0, str(error))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            self.start_failed(task, reply, "request", 22, f"invalid request: {error!r}")
        except Exception as error:
            sys.excepthook(*sys.exc_info())
            self.start_failed(task, reply, "keeper", 0, f"internal error: {error!r}")

    def _attach(self, _: Connection, message: dict[str, Any], fds: list[int], reply: Reply) -> None:
        key = self.key(message)
        task = self.tasks.get(key)
        if task is not None and task.raw_status is not None and key not in self.starting:
            if key[1] is not None:
                raise RequestError("attach", 3, "the process has ended")
            task = None
        wants = tuple(n for n, name in ((1, "stdout"), (2, "stderr")) if message.get(name))
        client = Attachment(fds.pop(0), wants, bool(message.get("stdin")))
        if task is None:
            self.waiting.setdefault(key, []).append(client)
        else:
            client.begin(task)
        reply.ok({})

    def _signal(self, _: Connection, message: dict[str, Any], fds: list[int], reply: Reply) -> None:
        import signal

        task = self.running(self.key(message))
        signal.pidfd_send_signal(task.pidfd, message["signo"])
        reply.ok({})

    def _resize(self, _: Connection, message: dict[str, Any], fds: list[int], reply: Reply) -> None:
        task = self.running(self.key(message))
        if task.console < 0:
            raise RequestError("resize", 25, "the process has no terminal")
        height, width = message["h"], message["w"]
        if not (0 <= height <= 0xFFFF and 0 <= width <= 0xFFFF):
            raise RequestError("resize", 22, "terminal size out of range")
        task.resize(height, width)
        reply.ok({})

    def _close_stdin(self, _: Connection, message: dict[str, Any], fds: list[int], reply: Reply) -> None:
        task = self.running(self.key(message))
        if task.stdin is not None and task.stdin.close_after_queue():
            task.close_stdin()
        reply.ok({})

    def _log_reopen(self, _: Connection, message: dict[str, Any], fds: list[int], reply: Reply) -> None:
        task = self.running(self.key(message))
        if task.log is not None:
            task.log.reopen()
        reply.ok({})

    def _log_clear(self, _: Connection, message: dict[str, Any], fds: list[int], reply: Reply) -> None:
        task = self.running(self.key(message))
        if task.log is not None:
            task.log.clear()
        reply.ok({})

    def _list(self, _: Connection, message: dict[str, Any], fds: list[int], reply: Reply) -> None:
        reply.ok({"tasks": [task.row() for task in self.tasks.values()]})

    def _hold(self, _: Connection, message: dict[str, Any], fds: list[int], reply: Reply) -> None:
        names, copies = held(self.running(self.key(message)))
        reply.ok({"held": names}, copies)

    def _exited(self, _: Connection, message: dict[str, Any], fds: list[int], reply: Reply) -> None:
        task = self.tasks.get(self.key(message))
        if task is not None and task.raw_status is None and type(message["status"]) is int:
            self.ended(task, message["status"])
        reply.ok({})

    def _forget(self, _: Connection, message: dict[str, Any], fds: list[int], reply: Reply) -> None:
        container, exec_id = key = self.key(message)
        if key in self.tasks and self.tasks[key].raw_status is None:
            raise RequestError("forget", 16, f"process of container {container} is running")
        for other in tuple(self.waiting):
            if other == key or (exec_id is None and other[0] == container):
                for client in self.waiting.pop(other):
                    client.drop()
        for other, task in tuple(self.tasks.items()):
            same = other == key or (exec_id is None and other[0] == container)
            if same and task.raw_status is not None:
                self.drop_records(task)
        reply.ok({})

    def _ping(self, _: Connection, message: dict[str, Any], fds: list[int], reply: Reply) -> None:
        reply.ok({"pid": os.getpid()})

    def _goodbye(self, connection: Connection, message: dict[str, Any], fds: list[int], reply: Reply) -> None:
        connection.said_goodbye = True
        reply.ok({})

    def _shutdown(self, connection: Connection, message: dict[str, Any], fds: list[int], reply: Reply) -> None:
        connection.said_goodbye = True
        busy = self.starting or any(task.raw_status is None for task in self.tasks.values())
        reply.ok({"stopping": not busy})
        if not busy:
            self._stop_when_idle()

    def _stop_when_idle(self) -> None:
        """Stop once nothing is being cleaned up any more."""
        if self.children.is_idle() and not self.removals:
            self.poller.stopped = True
        else:
            self.poller.later(_STOP_POLL_S, self._stop_when_idle)


def held(task: Task) -> tuple[list[str], tuple[int, ...]]:
    """Return names and descriptors which the daemon keeps copies of for a keeper to come."""
    streams = task.streams()
    pairs = [
        ("pidfd", task.pidfd),
        ("stdin", task.stdin.fd if task.stdin and not task.tty else -1),
        ("stdout", -1 if task.tty else streams.get(1, -1)),
        ("stderr", streams.get(2, -1)),
        ("console", task.console),
    ]
    kept = [(name, fd) for name, fd in pairs if fd >= 0]
    return [name for name, _ in kept], tuple(fd for _, fd in kept)


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
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


_Operation = Callable[[Server, Connection, dict[str, Any], list[int], Reply], None]
_OPERATIONS: dict[str, _Operation] = {
    "hello": Server._hello, "adopt": Server._adopt, "recover": Server._recover, "start": Server._start,
    "exec": Server._exec, "attach": Server._attach, "signal": Server._signal, "resize": Server._resize,
    "close_stdin": Server._close_stdin, "log_reopen": Server._log_reopen, "log_clear": Server._log_clear, "list": Server._list,
    "hold": Server._hold, "exited": Server._exited, "forget": Server._forget, "ping": Server._ping,
    "goodbye": Server._goodbye, "shutdown": Server._shutdown,
}  # fmt: skip
