"""Starting processes with our own runtime: descriptors, control group, clone, and waiting for the exec."""

import json
import os
from collections.abc import Callable
from select import EPOLLIN
from typing import TYPE_CHECKING, Any

from barque.base.errors import told
from barque.keeper import external
from barque.keeper.attachments import StdinPipe
from barque.keeper.jsonlog import Clock
from barque.keeper.logfile import LogFile, LogSettings
from barque.keeper.ports import Reply, RequestError
from barque.keeper.records import write_state
from barque.keeper.removing import is_vacant, remove_cgroup
from barque.keeper.server import Server
from barque.keeper.sink import Sink
from barque.keeper.stdio import Stdio, host_uid, open_bridge, open_stdio, uid_maps
from barque.keeper.task import Task
from barque.kernel import packets
from barque.runtime.channel import explain
from barque.runtime.child import Child, Failed, Pending, progress

if TYPE_CHECKING:
    from barque.runtime.cgroups import Cgroup

_RESTART_TRIES = 20
_PIECE = 1 << 16
# A pipe takes this much at once whether anybody reads or not.
_MESSAGE_LIMIT = 4096
_RESTART_PAUSE_S = 0.001


class RuntimeStarter:
    """Processes by `barque.runtime`, or by the OCI runtime whose path a request names."""

    def __init__(self) -> None:
        self._filters: dict[str, bytes] = {}

    def start(self, server: Server, task: Task, request: dict[str, Any], fds: list[int], reply: Reply) -> None:
        """Begin a container's first process, as soon as the control group of its former one is gone."""
        self._start_when_vacant(server, task, request, fds, reply, tries=_RESTART_TRIES)

    def _start_when_vacant(
        self, server: Server, task: Task, request: dict[str, Any], fds: list[int], reply: Reply, *, tries: int
    ) -> None:
        path = (request.get("cgroup") or {}).get("path")
        if not path or request.get("runtime") or is_vacant(server, path, last=not tries):
            self._start(server, task, request, fds, reply)
            return
        kept = list(fds)
        fds.clear()

        def again() -> None:
            try:
                start = self._start_when_vacant
                server.begin(task, reply, lambda: start(server, task, request, kept, reply, tries=tries - 1))
            finally:
                packets.close_all(kept)

        server.poller.later(_RESTART_PAUSE_S, again)

    def _start(self, server: Server, task: Task, request: dict[str, Any], fds: list[int], reply: Reply) -> None:
        from barque.runtime.launch import LaunchRequest, launch

        bundle = _text(request, "bundle")
        spec = json.loads(read_file(f"{bundle}/config.json"))
        namespaces = dict(zip(request["namespaces"], fds, strict=True))
        settings = prepare(task, request)
        warnings: list[str] = []
        set_console_size(spec["process"], request)
        keep_file_limit(spec["process"], server.nofile)
        stdio = open_stdio(task.open_stdin, task.tty)
        try:
            task.uid_maps = uid_maps(spec)
            stdio.give_to(host_uid(task.uid_maps, spec["process"]))
            if request.get("runtime"):
                external.start(server, task, request, spec, namespaces, stdio, settings, reply)
                return
            cgroup = self._make_cgroup(request.get("cgroup"), warnings)
            task.cgroup = cgroup
            try:
                child = launch(
                    LaunchRequest(
                        spec=spec,
                        bundle=bundle,
                        root_mounts=request["root_mounts"],
                        stdio=stdio.child,
                        namespace_fds=namespaces,
                        seccomp=self._filter(request.get("seccomp")),
                        cgroup=cgroup,
                        container_id=task.id,
                    )
                )
            except BaseException:
                remove_cgroup(server, task)
                raise
        except Exception as error:
            stdio.close()
            raise as_request_error(error) from error
        Start(server, task, child, stdio, settings, request, warnings, reply).begin()

    def exec(self, server: Server, task: Task, main: Task, request: dict[str, Any], reply: Reply) -> None:
        """Begin another process in main's container."""
        from barque.runtime.join import JoinRequest, join

        prepare(task, request)
        task.stdin_once = True
        set_console_size(request["process"], request)
        keep_file_limit(request["process"], server.nofile)
        if main.uid_maps is None:
            # A keeper before this one started the container.
            main.uid_maps = uid_maps(json.loads(read_file(f"{task.folder}/config.json")))
        stdio = open_stdio(task.open_stdin, task.tty)
        try:
            stdio.give_to(host_uid(main.uid_maps, request["process"]))
            if main.external:
                external.exec_process(server, task, main, request, stdio, reply)
                return
            child = join(
                JoinRequest(
                    pid=main.pid,
                    pidfd=main.pidfd,
                    process=request["process"],
                    stdio=stdio.child,
                    seccomp=self._filter(request.get("seccomp")),
                    cgroup=main.cgroup,
                    container_id=main.id,
                    new_keyring=True,
                )
            )
        except Exception as error:
            stdio.close()
            raise as_request_error(error) from error
        Start(server, task, child, stdio, None, request, [], reply).begin()

    def cgroup(self, path: str) -> Any:
        """Return the control group at path."""
        from barque.runtime.cgroups import open_manager

        return open_manager(path)

    def removed(self, server: Server, task: Task) -> None:
        """Remove the control group, and what another runtime left."""
        if task.exec_id is not None:
            return
        if task.external:
            external.delete(server, task)
        remove_cgroup(server, task)

    def _make_cgroup(self, wanted: dict[str, Any] | None, warnings: list[str]) -> "Cgroup | None":
        from barque.runtime.cgroups import open_manager

        if wanted is None:
            return None
        cgroup = open_manager(_text(wanted, "path"))
        try:
            warnings += cgroup.create(wanted.get("resources") or {})
        except BaseException:
            try:
                cgroup.delete()
            except OSError:
                pass
            raise
        return cgroup

    def _filter(self, path: str | None) -> bytes | None:
        if path is None:
            return None
        if path not in self._filters:
            if len(self._filters) > 16:
                self._filters.clear()
            with open(path, "rb") as file:
                self._filters[path] = file.read()
        return self._filters[path]


class Start:
    """A child between clone and exec."""

    __slots__ = ("_child", "_console_size", "_done", "_reply", "_server", "_settings", "_status",
                 "_stdio", "_task", "_warnings")  # fmt: skip

    def __init__(
        self,
        server: Server,
        task: Task,
        child: Child,
        stdio: Stdio,
        settings: LogSettings | None,
        request: dict[str, Any],
        warnings: list[str],
        reply: Reply,
    ) -> None:
        self._server = server
        self._task = task
        self._child = child
        self._stdio = stdio
        self._settings = settings
        self._console_size = request.get("console_size")
        self._warnings = warnings
        self._reply = reply
        self._status: int | None = None
        self._done = False

    def begin(self) -> None:
        """Close what only the child needs and wait for news of it."""
        self._stdio.close_child()
        self._child.defer = self._in_a_process
        self._server.children.expect(self._child.pid, self._child_ended)
        self._server.poller.watch(self._child.channel, EPOLLIN, self._news)

    def _in_a_process(self, work: Callable[[], str], answer: Callable[[str | None, str], None]) -> None:
        """Do what takes long (hooks) in a fork: the keeper minds other containers meanwhile."""
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.write(write_end, work().encode())
                code = 0
            except Exception as error:
                os.write(write_end, explain(error)[1].encode()[:_MESSAGE_LIMIT])
            finally:
                os._exit(code)
        os.close(write_end)

        def done(status: int) -> None:
            with open(read_end, "rb") as end:
                text = end.read().decode("utf-8", "replace")
            if status == 0:
                answer(text, "")
            else:
                answer(None, text or "the hooks were interrupted")

        self._server.children.expect(pid, done)

    def _news(self, _: int) -> None:
        if self._done:
            return
        outcome = progress(self._child)
        if isinstance(outcome, Pending):
            if self._status is None:
                return
            outcome = Failed("init", 0, "the process ended before its program was started")
        self._done = True
        # No cycle is left: the keeper's memory is given back by counts alone.
        self._child.defer = None
        self._server.poller.forget(self._child.channel)
        if isinstance(outcome, Failed):
            self._failed(outcome)
            return
        task = self._task
        task.pid = self._child.pid
        task.pidfd = self._child.pidfd
        self._warnings += outcome.warnings
        try:
            connect(task, self._stdio, outcome.console_fd, self._settings, self._console_size)
        except OSError as error:
            if self._status is None:
                # Its number is its own as long as it is not collected.
                os.kill(task.pid, 9)
                self._server.children.expect(task.pid, lambda _: None)
            self._failed(Failed("log", error.errno or 0, told(error)))
            return
        self._child.close_channel()
        # What waits for the end must not keep this start, and with it the whole configuration, in memory.
        server = self._server
        server.started(task, self._reply, {"warnings": self._warnings})
        if self._status is None:
            server.children.expect(task.pid, lambda status: server.ended(task, status))
        else:
            server.ended(task, self._status)

    def _failed(self, outcome: Failed) -> None:
        task = self._task
        self._child.close()
        for fd in (self._stdio.stdin, self._stdio.stdout, self._stdio.stderr, task.console, task.bridge):
            self._server.poller.close(fd)
        task.close_log()
        if task.exec_id is None:
            remove_cgroup(self._server, task)
        self._server.start_failed(task, self._reply, outcome.step, outcome.errno, outcome.message)

    def _child_ended(self, status: int) -> None:
        self._status = status
        if not self._done:
            self._news(0)


def prepare(task: Task, request: dict[str, Any]) -> LogSettings | None:
    """Take over what both kinds of runtime need of a request; return the log's settings.

    Raises:
        RequestError: a value is wrong.
    """
    task.tty = bool(request.get("tty"))
    task.open_stdin = bool(request.get("open_stdin"))
    task.stdin_once = bool(request.get("stdin_once"))
    log = request.get("log")
    if log is None or log.get("driver") == "none":
        return None
    if log.get("driver", "json-file") != "json-file":
        raise RequestError("log", 22, f"unknown log driver: {log['driver']}")
    return LogSettings(log)


def set_console_size(process: dict[str, Any], request: dict[str, Any]) -> None:
    """Give the terminal its size before the program can ask for it.

    Raises:
        RequestError: it is beyond 16 bits.
    """
    size = request.get("console_size")
    if size:
        height, width = (int(side) for side in size)
        if not (0 <= height <= 0xFFFF and 0 <= width <= 0xFFFF):
            raise RequestError("request", 22, "terminal size out of range")
        process["consoleSize"] = {"height": height, "width": width}


def keep_file_limit(process: dict[str, Any], limit: tuple[int, int]) -> None:
    """Leave a process the limit of open files the keeper was started with, not the one it raised."""
    limits = process.setdefault("rlimits", [])
    if limit[1] > 0 and all(entry["type"] != "RLIMIT_NOFILE" for entry in limits):
        limits.append({"type": "RLIMIT_NOFILE", "soft": limit[0], "hard": limit[1]})


def connect(task: Task, stdio: Stdio, console: int, settings: LogSettings | None, size: list[int] | None) -> None:
    """Open the log, mind the streams, and write the record of a process that runs.

    Raises:
        OSError: the log or a record cannot be written.
    """
    task.start_time = _start_time(task.pid)
    task.console = console
    if settings is not None:
        task.log = LogFile(settings, task.folder)
        clock = Clock()
        for number in (1,) if task.tty else (1, 2):
            task.sinks[number] = Sink(task.log, clock, task.folder, number)
        if task.tty:
            task.bridge = open_bridge()
    if task.tty:
        os.set_blocking(console, False)
        if size:
            task.resize(size[0], size[1])
        task.stdin = StdinPipe(task, console)
        task.mind(1, console)
    else:
        if stdio.stdin >= 0:
            task.stdin = StdinPipe(task, stdio.stdin)
        task.mind(1, stdio.stdout)
        task.mind(2, stdio.stderr)
    log = None if settings is None else settings.to_dict()
    write_state(task, {"log": log})


def as_request_error(error: Exception) -> Exception:
    """Return the error as one that names its step; errors of requests stay what they are."""
    if isinstance(error, (RequestError, KeyError, TypeError, AttributeError)):
        return error
    step = getattr(error, "step", None) or getattr(error, "call", None) or "start"
    text = told(error) if isinstance(error, OSError) else str(error)
    return RequestError(str(step), getattr(error, "errno", 0) or 0, text)


def _text(request: dict[str, Any], name: str) -> str:
    value = request[name]
    if not isinstance(value, str):
        raise RequestError("request", 22, f"{name} must be a string")
    return value


def _start_time(pid: int) -> int:
    """Return the start time in clock ticks, 0 where the process has been reaped already."""
    try:
        return int(read_file(f"/proc/{pid}/stat").rpartition(b")")[2].split()[19])
    except (OSError, IndexError):
        return 0


def read_file(path: str) -> bytes:
    """Return a small file's bytes with no more system calls than that takes.

    Raises:
        OSError: it cannot be read.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(fd, _PIECE):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(fd)
