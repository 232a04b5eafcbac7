"""The daemon's connection to the keeper: requests and answers, descriptors held for a keeper to come.

When the keeper dies a new one is started; it is given the descriptors of all that runs, and the exit
codes of what ended meanwhile. `client` says what can be asked.
"""

import asyncio
import contextlib
import os
import socket
import subprocess
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple

from barque.base.errors import BarqueError, UnavailableError
from barque.keeper import strays
from barque.kernel import packets

Event = dict[str, Any]
_Row = dict[str, Any]
_Fds = list[int]
_Key = tuple[str, str | None]
_LEAVE_S = 2.0
_STRAYS_S = 0.5
_HELD_ORDER = ("pidfd", "stdin", "stdout", "stderr", "console", "bridge")


class KeeperError(BarqueError):
    """The keeper refused or failed: `step` says where, `errno` is 0 where no system call failed."""

    def __init__(self, step: str, errno: int, message: str) -> None:
        super().__init__(message)
        self.step = step
        self.errno = errno


class _UnsentError(UnavailableError):
    """A request never reached the keeper."""


class Doze(NamedTuple):
    """What is left of a link while its daemon dozes: a connection that can be read when there is news, and `held`."""

    connection: int
    keeper: int
    held: dict[_Key, dict[str, int]]

    def descriptors(self) -> list[int]:
        """Return the copies of containers' descriptors."""
        return [fd for fds in self.held.values() for fd in fds.values()]


def reap_child(pid: int) -> None:
    """Reap a process if it is a child of this one and has ended."""
    if pid > 0:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


class Link:
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
        self._room = asyncio.Event()
        self._closed = False
        self._replacing = False
        self._held: dict[tuple[str, str | None], dict[str, int]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.pid = 0

    # Dozing.

    @property
    def is_idle(self) -> bool:
        """Tell whether the keeper is there and nothing is asked of it."""
        asked = self._pending or self._replacing or self._tasks
        return self._sock is not None and self._ready.is_set() and not asked

    def doze(self) -> Doze:
        """Read no more of what the keeper tells; what it tells from now on is for who goes on with `resume`."""
        assert self._sock is not None and self.is_idle
        self._closed = True
        self._ready.clear()
        self._loop.remove_reader(self._sock.fileno())
        connection, self._sock = self._sock.detach(), None
        held, self._held = self._held, {}
        return Doze(connection, self.pid, held)

    def resume(self, left: Doze) -> None:
        """Take the copies of descriptors over; call it before the connection is made."""
        self._held = dict(left.held)
        self._watch_orphans()

    @staticmethod
    def leave(left: Doze, *, shutdown: bool = False) -> None:
        """End the connection of the time of dozing: another has taken its place, or with shutdown the keeper ends, too."""
        with socket.socket(fileno=left.connection) as sock, contextlib.suppress(OSError, ValueError):
            sock.settimeout(_LEAVE_S)
            packets.send(sock, {"id": 0, "op": "shutdown" if shutdown else "goodbye"})
            # News that nobody reads would reset the connection, and the goodbye with it.
            while True:
                message, fds = packets.receive(sock)
                packets.close_all(fds)
                if message is None or message.get("id") == 0:
                    break
        # Where it died meanwhile it is ours to reap.
        reap_child(left.keeper)

    # Connection.

    def _has_room(self) -> None:
        """Let those go on who wait to send."""
        if self._sock is not None:
            self._loop.remove_writer(self._sock.fileno())
        self._room.set()

    async def _call(self, request: _Row, fds: Sequence[int] = (), holder: _Key | None = None) -> _Row:
        while True:
            await self._ready.wait()
            try:
                return await self._exchange(request, fds, holder)
            except _UnsentError:
                # It has not heard of it: the next keeper will.
                if self._closed:
                    raise
                if self._ready.is_set():
                    self._lost()

    async def _exchange(self, request: _Row, fds: Sequence[int], holder: _Key | None = None) -> _Row:
        """Send one request on the present connection and wait for its answer.

        Descriptors in the answer are held for the process `holder`.
        """
        if self._sock is None:
            raise _UnsentError("the keeper is not running")
        self._next_id += 1
        number = self._next_id
        future: asyncio.Future[_Row] = self._loop.create_future()
        self._pending[number] = (future, holder)
        try:
            while True:
                if self._sock is None:
                    raise _UnsentError("the keeper is not running")
                try:
                    packets.send(self._sock, {"id": number, **request}, fds)
                    break
                except BlockingIOError:
                    self._room.clear()
                    self._loop.add_writer(self._sock.fileno(), self._has_room)
                    await self._room.wait()
                except OSError as error:
                    raise _UnsentError(f"the keeper is not reachable: {error}") from error
            return await future
        finally:
            self._pending.pop(number, None)

    async def _connect(self) -> None:
        os.makedirs(f"{self._exec_root}/containers", mode=0o710, exist_ok=True)
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
        # Before anything else: a keeper that dies from now on costs nothing.
        await self._hold_running()
        if not hello["recovered"]:
            self._watch_orphans()
        self._ready.set()

    async def _hold_running(self) -> None:
        """Take copies of the descriptors of all that runs, and let go those of all that does not."""
        before = dict(self._held)
        listing = await self._exchange({"op": "list"}, ())
        running = {(row["id"], row["exec_id"]) for row in listing["tasks"] if "exit" not in row}
        for key in before.keys() - running:
            # What was started meanwhile is not in the list yet.
            if self._held.get(key) is before[key]:
                self._reap(key)
                self._release(key)
        # All are asked for at once: the keeper gives one while the next is asked for.
        await asyncio.gather(*map(self._take_copies, running - self._held.keys()))

    async def _take_copies(self, key: _Key) -> None:
        with contextlib.suppress(KeeperError):
            await self._exchange({"op": "hold", "of": key[0], "exec_id": key[1]}, (), key)

    def _beside(self, coroutine: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Do something that the keeper's death may break off."""

        async def run() -> None:
            with contextlib.suppress(BarqueError):
                await coroutine

        task = self._loop.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

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
            self._reap(key)
            self._release(key)
        self._on_event(event)

    def _drop_connection(self) -> None:
        self._ready.clear()
        if self._sock is not None:
            self._loop.remove_reader(self._sock.fileno())
            self._has_room()
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
                else:
                    reap_child(self.pid)
                await self._connect()
            except (BarqueError, OSError):
                self._drop_connection()
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, 5.0)
                continue
            self._replacing = False
            self._on_event({"event": "keeper_restarted", "pid": self.pid})
            await self._reap_strays()
            return

    async def _reap_strays(self) -> None:
        """Reap what the dead keeper was about to start, for as long as there is some."""
        left = 1
        while left and not self._closed and not self._replacing:
            minded = {strays.pid_behind(fds["pidfd"]) for fds in self._held.values() if "pidfd" in fds}
            left = strays.reap(minded)
            await asyncio.sleep(_STRAYS_S)

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

    def _reap(self, key: _Key) -> None:
        """Reap a process of whose end the keeper knows, if it is this process's: no other parent is left to it."""
        pidfd = self._held.get(key, {}).get("pidfd", -1)
        if pidfd >= 0:
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)

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
        self._beside(self._tell(request))

    async def _tell(self, request: dict[str, Any]) -> None:
        await self._call(request)
