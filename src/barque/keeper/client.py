"""The daemon's end of the keeper: one object, all calls async, on one event loop.

How to use it::

    keeper = await Keeper.connect_or_spawn(
        "/run/barque", on_event=handle, daemon_argv=sys.orig_argv, restart_daemon=not under_systemd)
    sock = await keeper.attach(cid, None, stdin=True, stdout=True, stderr=True)   # before start
    info = await keeper.start(cid, bundle=f"/run/barque/containers/{cid}", root_mounts=[...],
                              tty=False, open_stdin=True, stdin_once=True, log={"path": ...})
    await keeper.resize(cid, None, 24, 80)
    await keeper.signal(cid, None, 15)
    ... event {"event": "exit", "id": cid, "exec_id": None, "exit_code": 143, ...}
    await keeper.forget(cid)
    await keeper.close()            # a goodbye: the keeper does not restart the daemon

`start` reads `config.json` from `bundle`. `attach` gives a connected, non-blocking stream socket: without a
tty its bytes are Docker's frames (8-byte head), with a tty they are raw; what is written to it is stdin;
`shutdown(SHUT_WR)` is the end of stdin; it ends after the process's last byte. Attach before `start` or
`exec` waits; `forget` ends what still waits. A failed start raises KeeperError with `.step`, `.errno`.

Events given to `on_event` (called in the loop, must not block):

    exit              id, exec_id|None, exit_code, signal|None, oom_killed, at_ns, unknown (code could not
                      be learned; then exit_code is 255). Logs are on file before it comes. Exits which
                      nobody heard stay in `list()` and in exit.json until `forget`.
    adopted           id, exec_id, lost: of "stdin", "tty", "output", and "exit_code" where it ended unseen
    log_error         id, message - log lines could not be written
    keeper_lost       the keeper's process ended unexpectedly; calls wait until it is replaced
    keeper_restarted  a new keeper has taken over
"""

import asyncio
import contextlib
import hashlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from barque.base.errors import BarqueError, UnavailableError
from barque.base.files import write_atomic
from barque.kernel import packets
from barque.kernel.process import set_child_subreaper

Event = dict[str, Any]
_Row = dict[str, Any]
_Rows = list[_Row]
_Fds = list[int]
_Key = tuple[str, str | None]
_HELD_ORDER = ("pidfd", "stdin", "stdout", "stderr", "console")


class KeeperError(BarqueError):
    """The keeper refused or failed: `step` says where, `errno` is 0 where no system call failed."""

    def __init__(self, step: str, errno: int, message: str) -> None:
        super().__init__(message)
        self.step = step
        self.errno = errno


class Keeper:
    """A connection to the keeper of one exec-root that survives the keeper's death."""

    def __init__(
        self,
        exec_root: str,
        on_event: Callable[[Event], None],
        daemon_argv: Sequence[str] | None,
        daemon_env: dict[str, str] | None,
        restart_daemon: bool,
        boot: Sequence[str],
    ) -> None:
        self._exec_root = exec_root
        self._on_event = on_event
        self._boot = list(boot)
        self._hello: dict[str, Any] = {
            "daemon_argv": list(daemon_argv or ()),
            "daemon_env": dict(os.environ if daemon_env is None else daemon_env),
            "restart": bool(restart_daemon and daemon_argv),
        }
        self._loop = asyncio.get_running_loop()
        self._sock: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._pending: dict[int, tuple[asyncio.Future[_Row], _Key | None]] = {}
        self._next_id = 0
        self._ready = asyncio.Event()
        self._closed = False
        self._replacing = False
        self._held: dict[tuple[str, str | None], dict[str, int]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.pid = 0

    @classmethod
    async def connect_or_spawn(
        cls,
        exec_root: str,
        *,
        on_event: Callable[[Event], None],
        daemon_argv: Sequence[str] | None = None,
        daemon_env: dict[str, str] | None = None,
        restart_daemon: bool = False,
        boot: Sequence[str] | None = None,
    ) -> "Keeper":
        """Return a connected keeper; the process is started where none listens.

        Args:
            exec_root: folder of keeper.sock and containers/; made when missing.
            on_event: called in the loop for every event.
            daemon_argv: how the keeper starts this daemon again when it dies without `close`.
            daemon_env: environment for that; this process's own when None.
            restart_daemon: False where a service manager restarts the daemon.
            boot: command line of the keeper without its two arguments.

        Raises:
            UnavailableError: the keeper could not be started.
        """
        if boot is None:
            boot_file = os.path.join(os.path.dirname(os.path.abspath(__file__)), "boot.py")
            boot = [sys.executable, "-I", "-S", boot_file]
        # What a dead keeper was parent of becomes this process's, which can then learn exit codes.
        set_child_subreaper()
        self = cls(exec_root, on_event, daemon_argv, daemon_env, restart_daemon, boot)
        await self._connect()
        return self

    # Operations.

    async def start(
        self,
        id: str,
        *,
        bundle: str,
        root_mounts: Sequence[dict[str, Any]] = (),
        tty: bool = False,
        open_stdin: bool = False,
        stdin_once: bool = False,
        log: dict[str, Any] | None = None,
        cgroup: dict[str, Any] | None = None,
        netns_fd: int | None = None,
        namespace_fds: dict[str, int] | None = None,
        seccomp: bytes | None = None,
        runtime: str | None = None,
        console_size: tuple[int, int] | None = None,
    ) -> dict[str, Any]:
        """Start the container's main process and return {"pid", "start_time", "warnings"}.

        Args:
            id: the container.
            bundle: folder with config.json.
            root_mounts: mounts put on the root path, {"type","source","options","cwd"} each.
            tty: the process gets a terminal; stdout and stderr are one.
            open_stdin: stdin is kept open for clients; else it is /dev/null.
            stdin_once: the end of the first client's stdin ends the container's.
            log: {"driver": "json-file"|"none", "path", "max_size": bytes or -1, "max_file": n,
                "compress": bool, "attrs": {str: str}}; None is "none".
            cgroup: {"path": "/barque/<id>", "resources": OCI linux.resources}; None for none.
            netns_fd: network namespace; stays the caller's.
            namespace_fds: more namespaces by type; stay the caller's.
            seccomp: compiled filter, kept on file by its digest.
            runtime: path of another OCI runtime to use.
            console_size: (height, width) of the terminal.

        Raises:
            KeeperError: the start failed; nothing of it is left.
            UnavailableError: the keeper went away meanwhile.
        """
        spaces = dict(namespace_fds or {})
        if netns_fd is not None:
            spaces["network"] = netns_fd
        request = {
            "op": "start", "of": id, "bundle": bundle, "root_mounts": list(root_mounts), "tty": tty,
            "open_stdin": open_stdin, "stdin_once": stdin_once, "log": log, "cgroup": cgroup,
            "namespaces": list(spaces), "seccomp": self._seccomp_file(seccomp), "runtime": runtime,
            "console_size": list(console_size) if console_size else None,
        }  # fmt: skip
        return await self._call(request, list(spaces.values()), (id, None))

    async def exec(
        self,
        id: str,
        exec_id: str,
        *,
        process: dict[str, Any],
        tty: bool = False,
        open_stdin: bool = False,
        seccomp: bytes | None = None,
        console_size: tuple[int, int] | None = None,
    ) -> dict[str, Any]:
        """Start another process in a running container and return {"pid", "start_time"}.

        Args:
            id: the container.
            exec_id: unique name of the process within the container.
            process: OCI process object; its env is the whole environment.
            tty: the process gets a terminal.
            open_stdin: stdin comes from clients and ends with the first client's; else /dev/null.
            seccomp: compiled filter.
            console_size: (height, width) of the terminal.

        Raises:
            KeeperError: the container does not run, or the process could not be started.
            UnavailableError: the keeper went away meanwhile.
        """
        request = {
            "op": "exec", "of": id, "exec_id": exec_id, "process": process, "tty": tty,
            "open_stdin": open_stdin, "seccomp": self._seccomp_file(seccomp),
            "console_size": list(console_size) if console_size else None,
        }  # fmt: skip
        return await self._call(request, (), (id, exec_id))

    async def attach(
        self,
        id: str,
        exec_id: str | None = None,
        *,
        stdin: bool = False,
        stdout: bool = True,
        stderr: bool = True,
    ) -> socket.socket:
        """Return a stream socket to the process's stdio; the caller closes it.

        Raises:
            KeeperError: the process has ended.
            UnavailableError: the keeper went away meanwhile.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.setblocking(False)
        request = {
            "op": "attach", "of": id, "exec_id": exec_id,
            "stdin": stdin, "stdout": stdout, "stderr": stderr,
        }  # fmt: skip
        try:
            with theirs:
                await self._call(request, [theirs.fileno()])
        except BaseException:
            ours.close()
            raise
        return ours

    async def signal(self, id: str, exec_id: str | None, signo: int) -> None:
        """Send a signal to the process.

        Raises:
            KeeperError: it does not run.
        """
        await self._call({"op": "signal", "of": id, "exec_id": exec_id, "signo": signo})

    async def resize(self, id: str, exec_id: str | None, height: int, width: int) -> None:
        """Set the terminal's size in characters.

        Raises:
            KeeperError: it does not run or has no terminal.
        """
        await self._call({"op": "resize", "of": id, "exec_id": exec_id, "h": height, "w": width})

    async def close_stdin(self, id: str, exec_id: str | None = None) -> None:
        """End the process's stdin."""
        await self._call({"op": "close_stdin", "of": id, "exec_id": exec_id})

    async def log_reopen(self, id: str) -> None:
        """Open the container's log file anew, after it was moved or emptied from outside."""
        await self._call({"op": "log_reopen", "of": id})

    async def log_clear(self, id: str) -> None:
        """Forget all that a running container has logged."""
        await self._call({"op": "log_clear", "of": id})

    async def list(self) -> _Rows:
        """Return a row per process: id, exec_id, pid, start_time, tty, and "exit" once it ended."""
        ok = await self._call({"op": "list"})
        rows: _Rows = ok["tasks"]
        return rows

    async def forget(self, id: str, exec_id: str | None = None) -> None:
        """Drop what is kept about an ended process and end attaches that still wait for it.

        For a container (no exec_id) this includes its exec processes' records. Unknown ids are no error.
        """
        await self._call({"op": "forget", "of": id, "exec_id": exec_id})

    async def ping(self) -> dict[str, Any]:
        """Return {"pid": the keeper's}."""
        return await self._call({"op": "ping"})

    async def close(self, *, shutdown: bool = False) -> None:
        """Say goodbye; with shutdown the keeper ends too, if nothing runs under it."""
        self._closed = True
        if self._sock is not None:
            with contextlib.suppress(UnavailableError, KeeperError):
                await self._exchange({"op": "shutdown" if shutdown else "goodbye"}, ())
        self._drop_connection()
        for key in [*self._held]:
            self._release(key)
        for task in self._tasks:
            task.cancel()
        if shutdown and self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(self._process.wait, 5)

    # Connection.

    async def _call(self, request: _Row, fds: Sequence[int] = (), holder: _Key | None = None) -> _Row:
        await self._ready.wait()
        return await self._exchange(request, fds, holder)

    async def _exchange(self, request: _Row, fds: Sequence[int], holder: _Key | None = None) -> _Row:
        """Send one request on the present connection and wait for its answer.

        Descriptors in the answer are held for the process `holder`.
        """
        if self._sock is None:
            raise UnavailableError("the keeper is not running")
        self._next_id += 1
        number = self._next_id
        future: asyncio.Future[_Row] = self._loop.create_future()
        self._pending[number] = (future, holder)
        try:
            while True:
                try:
                    packets.send(self._sock, {"id": number, **request}, fds)
                    break
                except BlockingIOError:
                    await asyncio.sleep(0.001)
            return await future
        except OSError as error:
            raise UnavailableError(f"the keeper is not reachable: {error}") from error
        finally:
            self._pending.pop(number, None)

    async def _connect(self) -> None:
        os.makedirs(f"{self._exec_root}/containers", mode=0o711, exist_ok=True)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        path = f"{self._exec_root}/keeper.sock"
        try:
            try:
                sock.connect(path)
            except (FileNotFoundError, ConnectionRefusedError):
                self._spawn(path)
                sock.connect(path)
            sock.setblocking(False)
        except OSError as error:
            sock.close()
            raise UnavailableError(f"cannot start the keeper: {error}") from error
        self._sock = sock
        self._loop.add_reader(sock.fileno(), self._readable)
        hello = await self._exchange({"op": "hello", **self._hello}, [2])
        self.pid = hello["pid"]
        if not hello["recovered"]:
            for (container, exec_id), fds in [*self._held.items()]:
                names = [name for name in _HELD_ORDER if name in fds]
                await self._exchange(
                    {"op": "adopt", "of": container, "exec_id": exec_id, "names": names},
                    [fds[name] for name in names],
                )
            await self._exchange({"op": "recover"}, ())
        await self._hold_running()
        if not hello["recovered"]:
            self._watch_orphans()
        self._ready.set()

    async def _hold_running(self) -> None:
        """Take copies of the descriptors of all that runs, and let go those of all that does not."""
        listing = await self._exchange({"op": "list"}, ())
        running = {(row["id"], row["exec_id"]) for row in listing["tasks"] if "exit" not in row}
        for key in running - self._held.keys():
            try:
                await self._exchange({"op": "hold", "of": key[0], "exec_id": key[1]}, (), key)
            except KeeperError:
                continue
        for key in self._held.keys() - running:
            self._release(key)

    def _spawn(self, path: str) -> None:
        """Start the keeper with a socket that already listens, so that connecting never waits."""
        temporary = f"{path}.{os.getpid()}"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(temporary)
            os.chmod(temporary, 0o600)
            listener.listen(16)
            os.rename(temporary, path)
            fd = listener.fileno()
            self._process = subprocess.Popen(
                [*self._boot, self._exec_root, str(fd)],
                stdin=subprocess.DEVNULL,
                stdout=2,
                pass_fds=[fd],
                start_new_session=True,
                cwd="/",
            )

    def _readable(self) -> None:
        assert self._sock is not None
        try:
            for _ in range(64):
                message, fds = packets.receive(self._sock)
                if message is None:
                    self._lost()
                    return
                self._dispatch(message, fds)
                if self._sock is None:
                    return
        except BlockingIOError:
            return
        except (OSError, ValueError):
            self._lost()

    def _dispatch(self, message: dict[str, Any], fds: _Fds) -> None:
        if "event" in message:
            packets.close_all(fds)
            self._event(message)
            return
        future, holder = self._pending.get(message.get("id", 0), (None, None))
        if future is None or future.done():
            packets.close_all(fds)
        elif "error" in message:
            packets.close_all(fds)
            error = message["error"]
            future.set_exception(KeeperError(error["step"], error["errno"], error["message"]))
        else:
            # At once: the process's exit may be the next message, and ends the holding.
            if holder is not None:
                self._hold(holder, message["ok"], fds)
            else:
                packets.close_all(fds)
            future.set_result(message["ok"])

    def _event(self, event: Event) -> None:
        key = (event.get("id", ""), event.get("exec_id"))
        if event["event"] == "stdin_closed":
            # The process sees the end of its input only once no copy of the pipe is left.
            fd = self._held.get(key, {}).pop("stdin", -1)
            packets.close_all([fd])
            return
        if event["event"] == "exit":
            self._release(key)
        self._on_event(event)

    def _drop_connection(self) -> None:
        self._ready.clear()
        if self._sock is not None:
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()
            self._sock = None
        for future, _ in self._pending.values():
            if not future.done():
                future.set_exception(UnavailableError("the keeper went away during the call"))

    def _lost(self) -> None:
        self._drop_connection()
        # A keeper that dies while it is taking over is seen by the replacement under way.
        if self._closed or self._replacing:
            return
        self._replacing = True
        self._on_event({"event": "keeper_lost"})
        task = self._loop.create_task(self._replace())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _replace(self) -> None:
        """Start a new keeper and hand over; tries until it works."""
        delay_s = 0.01
        while not self._closed:
            try:
                if self._process is not None:
                    self._process.poll()
                await self._connect()
            except (BarqueError, OSError):
                self._drop_connection()
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, 5.0)
                continue
            self._replacing = False
            self._on_event({"event": "keeper_restarted", "pid": self.pid})
            return

    # Descriptors held for a keeper to come.

    def _hold(self, key: _Key, ok: _Row, fds: _Fds) -> None:
        names = ok.pop("held", [])
        self._release(key)
        self._held[key] = dict(zip(names, fds, strict=True))

    def _release(self, key: tuple[str, str | None]) -> None:
        fds = self._held.pop(key, {})
        if "pidfd" in fds:
            self._loop.remove_reader(fds["pidfd"])
        packets.close_all([*fds.values()])

    def _watch_orphans(self) -> None:
        """Reap what the dead keeper left to this process, and tell the new keeper the exit codes."""
        for key, fds in self._held.items():
            if "pidfd" in fds:
                self._loop.add_reader(fds["pidfd"], self._orphan_ended, key, fds["pidfd"])

    def _orphan_ended(self, key: tuple[str, str | None], pidfd: int) -> None:
        self._loop.remove_reader(pidfd)
        try:
            result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            return
        if result is None:
            return
        code, status = result.si_code, result.si_status
        raw = status << 8 if code == os.CLD_EXITED else status
        request = {"op": "exited", "of": key[0], "exec_id": key[1], "status": raw}
        task = self._loop.create_task(self._tell(request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell(self, request: dict[str, Any]) -> None:
        with contextlib.suppress(BarqueError):
            await self._call(request)

    def _seccomp_file(self, program: bytes | None) -> str | None:
        if program is None:
            return None
        folder = f"{self._exec_root}/seccomp"
        path = f"{folder}/{hashlib.sha256(program).hexdigest()}"
        if not os.path.exists(path):
            os.makedirs(folder, mode=0o700, exist_ok=True)
            write_atomic(path, program, mode=0o600, durable=False)
        return path
