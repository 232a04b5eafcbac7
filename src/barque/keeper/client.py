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
import functools
import hashlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from barque.base.errors import UnavailableError
from barque.base.files import write_atomic
from barque.keeper import strays
from barque.keeper.link import Doze, Event, KeeperError, Link
from barque.kernel.process import set_child_subreaper

__all__ = ["Event", "Keeper", "KeeperError"]

_Rows = list[dict[str, Any]]


class Keeper(Link):
    """The keeper of one exec-root, whose death it survives."""

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
        dozed: Doze | None = None,
    ) -> "Keeper":
        """Return a connected keeper; the process is started where none listens.

        Args:
            exec_root: folder of keeper.sock and containers/; made when missing.
            on_event: called in the loop for every event.
            daemon_argv: how the keeper starts this daemon again when it dies without `close`.
            daemon_env: environment for that; this process's own when None.
            restart_daemon: False where a service manager restarts the daemon.
            boot: command line of the keeper without its two arguments.
            dozed: what the daemon before this one in its process left when it dozed off.

        Raises:
            UnavailableError: the keeper could not be started.
        """
        if boot is None:
            boot_file = os.path.join(os.path.dirname(os.path.abspath(__file__)), "boot.py")
            boot = [sys.executable, "-I", "-S", boot_file]
        # What a dead keeper was parent of becomes this process's, which can then learn exit codes.
        set_child_subreaper()
        self = cls(exec_root, on_event, daemon_argv, daemon_env, restart_daemon, boot)
        if dozed is not None:
            self.resume(dozed)
        try:
            await self._connect()
        except BaseException:
            self._drop_connection()
            raise
        if dozed is not None:
            self.leave(dozed)
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

    def open_namespace(self, id: str, kind: str) -> int:
        """Return a new descriptor of a namespace of a container's first process; `kind` is its name in /proc/<pid>/ns.

        Raises:
            OSError: the process is gone, whoever has its number now.
        """
        pidfd = self._held.get((id, None), {}).get("pidfd", -1)
        fd = os.open(f"/proc/{strays.pid_behind(pidfd)}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            # Nobody has collected it so far: its number was its own when that was opened.
            signal.pidfd_send_signal(pidfd, 0)
        except BaseException:
            os.close(fd)
            raise
        return fd

    async def close(self, *, shutdown: bool = False) -> None:
        """Say goodbye; with shutdown the keeper ends too, once nothing runs under it."""
        self._closed = True
        ends = False
        if self._sock is not None:
            with contextlib.suppress(UnavailableError, KeeperError):
                told = await self._exchange({"op": "shutdown" if shutdown else "goodbye"}, ())
                ends = bool(told.get("stopping"))
        self._drop_connection()
        for key in [*self._held]:
            self._release(key)
        for task in self._tasks:
            task.cancel()
        if ends and self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(self._process.wait, 5)

    def _seccomp_file(self, program: bytes | None) -> str | None:
        if program is None:
            return None
        folder = f"{self._exec_root}/seccomp"
        path = f"{folder}/{_digest(program)}"
        if not os.path.exists(path):
            os.makedirs(folder, mode=0o700, exist_ok=True)
            write_atomic(path, program, mode=0o600, durable=False)
        return path


@functools.lru_cache(maxsize=16)
def _digest(program: bytes) -> str:
    """Return the digest of a filter; an engine has few, and gives the same one with nearly every start."""
    return hashlib.sha256(program).hexdigest()
