"""Containers by another OCI runtime: `create`, `start` and later `delete` of runc, crun or their like.

The runtime's process ends after `create`; the container is then the keeper's child, because the keeper is
a subreaper. The root is mounted in the host's namespace and let go after the container's end.
"""

import array
import json
import os
import socket
from collections.abc import Callable
from select import EPOLLIN
from typing import TYPE_CHECKING, Any

from barque.base.errors import told
from barque.keeper.bundles import last_error, mount_roots, offer_namespaces, unmount_root
from barque.keeper.logfile import LogSettings
from barque.keeper.records import write_record
from barque.keeper.stdio import Stdio
from barque.keeper.task import Task
from barque.kernel.packets import close_all

if TYPE_CHECKING:
    from barque.keeper.ports import Reply
    from barque.keeper.server import Server

# Older runtimes refuse a later version, though all that they read is in this one.
_OCI_VERSION = "1.0.2"


def start(
    server: "Server",
    task: Task,
    request: dict[str, Any],
    spec: dict[str, Any],
    namespaces: dict[str, int],
    stdio: Stdio,
    settings: LogSettings | None,
    reply: "Reply",
) -> None:
    """Create and start a container; answers when it runs or failed.

    Raises:
        OSError: the root cannot be mounted or the runtime cannot be executed.
    """
    runtime = request["runtime"]
    bundle = request["bundle"]
    task.external = runtime
    kept = offer_namespaces(spec, namespaces)
    spec["ociVersion"] = _OCI_VERSION
    write_record(f"{bundle}/config.json", spec)
    cgroup = request.get("cgroup")
    if cgroup is not None:
        # The runtime makes and removes it; how it fared is the keeper's to tell.
        task.cgroup = server.starter.cgroup(cgroup["path"])
    run = Run(server, task, request, stdio, settings, reply)
    run.kept = kept

    def begin() -> None:
        try:
            mount_roots(request["root_mounts"], os.path.join(bundle, spec["root"]["path"]))
            run.create([*base(server, runtime), *run.log, "create", "--bundle", bundle], task.id)
        except BaseException:
            run.release()
            unmount_root(task)
            raise

    waiting = server.deletions.get(task.id)
    if waiting is None:
        begin()
    else:
        # The runtime still has a container of this name, which is on its way out.
        waiting.append(lambda: run.guarded(begin))


def exec_process(
    server: "Server", task: Task, main: Task, request: dict[str, Any], stdio: Stdio, reply: "Reply"
) -> None:
    """Start another process in a container of another runtime.

    Raises:
        OSError: the process cannot be described or the runtime cannot be executed.
    """
    assert main.external is not None
    path = task.state_path("process")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(request["process"], file)
    run = Run(server, task, request, stdio, None, reply)
    run.create([*base(server, main.external), *run.log, "exec", "--detach", "--process", path], task.id)


def delete(server: "Server", task: Task) -> None:
    """Remove the runtime's record of an ended container and unmount its root, in the background."""
    assert task.external is not None
    waiting = server.deletions.setdefault(task.id, [])

    def done(_: int) -> None:
        server.deletions.pop(task.id, None)
        unmount_root(task)
        for action in waiting:
            action()

    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        argv = [*base(server, task.external), "delete", "--force", task.id]
        server.children.spawn(argv, done, (null, null, null))
    except OSError:
        done(0)
    finally:
        os.close(null)


def base(server: "Server", runtime: str) -> list[str]:
    """Return the runtime's command line up to its verb; it keeps its state within our exec-root."""
    root = f"{server.exec_root}/runtimes/{os.path.basename(runtime)}"
    os.makedirs(root, mode=0o700, exist_ok=True)
    return [runtime, "--root", root]


class Run:
    """One start by another runtime, from its command to the running process."""

    __slots__ = (
        "_console",
        "_folder",
        "_is_up",
        "_listener",
        "_reply",
        "_request",
        "_server",
        "_settings",
        "_status",
        "_stdio",
        "_task",
        "kept",
    )

    def __init__(
        self,
        server: "Server",
        task: Task,
        request: dict[str, Any],
        stdio: Stdio,
        settings: LogSettings | None,
        reply: "Reply",
    ) -> None:
        self._server = server
        self._task = task
        self._request = request
        self._stdio = stdio
        self._settings = settings
        self._reply = reply
        self._console = -1
        self._folder = -1
        self._is_up = False
        self.kept: list[int] = []
        self._status: int | None = None
        self._listener: socket.socket | None = None

    def create(self, argv: list[str], name: str) -> None:
        """Run the command, with our pipes as the process's stdio or a socket for its terminal.

        Raises:
            OSError: the runtime cannot be executed.
        """
        argv = [*argv, "--pid-file", self._pid_file]
        messages = os.open(self._message_file, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            if self._task.tty:
                argv += ["--console-socket", self._listen()]
                if self._task.exec_id is not None:
                    argv.append("--tty")
            child = self._stdio.child if not self._task.tty else (self._stdio.child[0], messages, messages)
            self._server.children.spawn([*argv, name], self._created, child)
        except BaseException:
            self._clean()
            raise
        finally:
            os.close(messages)
        self._stdio.close_child()

    def release(self) -> None:
        """Let go of the namespaces and what lies in the folder for the runtime."""
        self._clean()

    def guarded(self, action: Callable[[], None]) -> None:
        """Do a start that had to wait; its errors are the answer."""
        try:
            action()
        except Exception as error:
            self._stdio.close()
            self._server.start_failed(self._task, self._reply, "runtime", getattr(error, "errno", 0) or 0, str(error))

    @property
    def _pid_file(self) -> str:
        return self._task.state_path("pid").removesuffix(".json")

    @property
    def _message_file(self) -> str:
        return self._task.state_path("runtime").removesuffix(".json")

    @property
    def _log_file(self) -> str:
        return f"{self._message_file}.log"

    @property
    def log(self) -> list[str]:
        """Return the options that have the runtime write down what went wrong."""
        return ["--log", self._log_file, "--log-format", "json"]

    def _listen(self) -> str:
        """Open the socket over which the runtime sends the pty's master; return a path short enough for it."""
        self._folder = os.open(self._task.folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        path = f"/proc/{os.getpid()}/fd/{self._folder}/console.sock"
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(path)
        self._listener.listen(1)
        self._listener.setblocking(False)
        self._server.poller.watch(self._listener.fileno(), EPOLLIN, self._console_sent)
        return path

    def _console_sent(self, _: int) -> None:
        assert self._listener is not None
        try:
            connection, _address = self._listener.accept()
        except BlockingIOError:
            # The runtime has ended and has not connected.
            return
        with connection:
            # The runtime has connected in order to send at once; it may not keep the keeper waiting.
            connection.settimeout(1.0)
            received = array.array("i")
            _data, ancillary, _flags, _from = connection.recvmsg(4096, socket.CMSG_SPACE(4))
            for _level, kind, data in ancillary:
                if kind == socket.SCM_RIGHTS:
                    received.frombytes(data)
        if received:
            self._console = received[0]
            os.set_inheritable(self._console, False)

    def _created(self, status: int) -> None:
        if status:
            self._failed(f"the runtime ended with status {status >> 8}")
            return
        try:
            self._go_on()
        except (OSError, ValueError) as error:
            # A runtime that left no pid, a disk that takes no log.
            self._failed(told(error) if isinstance(error, OSError) else str(error))

    def _go_on(self) -> None:
        """Let the created container's program begin."""
        if self._listener is not None and self._console < 0:
            self._console_sent(0)
        self._task.pid = self._read_pid()
        # It may end before `start` has, or have ended.
        self._server.children.expect_orphan(self._task.pid, self._container_ended)
        if self._task.exec_id is not None:
            self._running(0)
            return
        assert self._task.external is not None
        argv = [*base(self._server, self._task.external), "start", self._task.id]
        self._connect()
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        messages = os.open(self._message_file, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        try:
            self._server.children.spawn(argv, self._running, (null, messages, messages))
        finally:
            close_all((null, messages))

    def _connect(self) -> None:
        from barque.keeper.starting import connect

        task = self._task
        try:
            task.pidfd = os.pidfd_open(task.pid)
        except ProcessLookupError:
            task.pidfd = -1
        connect(task, self._stdio, self._console, self._settings, self._request.get("console_size"))
        # What the program writes before the runtime's command has ended is for who waits for it already.
        self._server.let_in(task)

    def _running(self, status: int) -> None:
        task = self._task
        if status:
            self._failed(f"the runtime ended with status {status >> 8}")
            return
        if task.exec_id is not None:
            self._connect()
        self._clean()
        self._server.started(task, self._reply, {"warnings": []})
        self._is_up = True
        if self._status is not None:
            self._server.ended(task, self._status)

    def _container_ended(self, status: int) -> None:
        self._status = status
        if self._is_up:
            self._server.ended(self._task, status)

    def _failed(self, why: str) -> None:
        message = self._message() or why
        self._clean()
        stdio = self._stdio
        for client in tuple(self._task.attachments):
            client.drop()
        for fd in (stdio.stdin, stdio.stdout, stdio.stderr, self._console, self._task.pidfd, self._task.bridge):
            self._server.poller.close(fd)
        self._task.close_log()
        self._server.start_failed(self._task, self._reply, "runtime", 0, message)
        if self._task.exec_id is None:
            delete(self._server, self._task)

    def _message(self) -> str:
        """Return what the runtime said at last: in its log, or else to its standard error."""
        text = ""
        if os.path.exists(self._log_file):
            with open(self._log_file, "rb") as file:
                text = last_error(file.read()[-65536:].decode("utf-8", "replace"))
        if text:
            return text
        with open(self._message_file, "rb") as file:
            raw = file.read()[-4096:]
        if self._stdio.stderr >= 0:
            try:
                raw += os.read(self._stdio.stderr, 4096)
            except OSError:
                pass
        return raw.decode("utf-8", "replace").strip()

    def _read_pid(self) -> int:
        with open(self._pid_file, encoding="ascii") as file:
            return int(file.read())

    def _clean(self) -> None:
        close_all(self.kept)
        self.kept = []
        if self._listener is not None:
            self._server.poller.forget(self._listener.fileno())
            self._listener.close()
            self._listener = None
        if self._folder >= 0:
            try:
                os.unlink("console.sock", dir_fd=self._folder)
            except FileNotFoundError:
                pass
            os.close(self._folder)
            self._folder = -1
        for path in (self._pid_file, self._message_file, self._log_file):
            if os.path.exists(path):
                os.unlink(path)
