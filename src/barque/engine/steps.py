"""Running one command on a snapshot as a step of a build: confined like a container, listed nowhere."""

import asyncio
import contextlib
import os
import shutil
import socket
import stat
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, NamedTuple

from barque.base.errors import BarqueError
from barque.engine import endpoints, exec_process, starting
from barque.engine.container import Container, new_state
from barque.engine.create import fill_host
from barque.storage.snapshots import Snapshotter

if TYPE_CHECKING:
    from barque.engine.engine import Engine

Json = dict[str, Any]
Output = Callable[[int, bytes], Awaitable[None]]
"""Told the stream (1 or 2) and its bytes."""
Feed = Callable[[socket.socket], Coroutine[Any, Any, None]]
"""Writes what a command reads to a socket."""
Began = Callable[[Container], Awaitable[None]]
Tell = Callable[[], Awaitable[None]]
_STUBS = ("/etc/resolv.conf", "/etc/hostname", "/etc/hosts", "/proc", "/sys", "/dev")
_KILL = 9


class StepRequest(NamedTuple):
    """What to run: `key` names the active snapshot that is the root and identifies the step.

    `config` and `host` are as in a container's request, `mounts` as mount points of a container. `known`: a container
    of this id may be made of the step, so all of the step must be gone before.
    """

    key: str
    args: list[str]
    config: Json
    host: Json
    mounts: list[Json]
    known: bool = False


class StepResult(NamedTuple):
    """How it ended."""

    exit_code: int
    oom_killed: bool


async def run_step(
    engine: "Engine", request: StepRequest, output: Output, feed: "Feed | None" = None, began: "Began | None" = None
) -> StepResult:
    """Run a step to its end; cancelled, all its processes are killed first.

    What it had besides its snapshot is taken back while the caller goes on (`engine.step_ends`), unless its id is known.

    Args:
        engine: runs it.
        request: what.
        output: is given its output.
        feed: writes its standard input, which is open if the request's config says so; it is cancelled at the end.
        began: is told once it runs; `run_beside` may then run others in its container.

    Raises:
        StartError: it could not be started.
        BarqueError: the keeper went away.
    """
    container = container_of(engine, request)
    os.mkdir(engine.folder(container.id), 0o710)
    process = _Process(engine, container)
    finished = False

    async def start() -> None:
        launched = await starting.launch(engine, container, ("volatile",))
        container.state["pid"] = launched["pid"]

    async def tell() -> None:
        if began is not None:
            # What runs beside it has variables, user and folder of its own.
            container.config.update(Env=[], User="", WorkingDir="")
            await began(container)

    try:
        event = await process.run(start, (output, feed), tell)
        _clear(engine, container)
        finished = not request.known
        return StepResult(event["exit_code"], bool(event.get("oom_killed")))
    finally:
        end = _end(engine, container, process)
        if finished:
            task = asyncio.create_task(end)
            engine.step_ends.add(task)
            task.add_done_callback(engine.step_ends.discard)
        else:
            await _surely(end)


async def run_beside(
    engine: "Engine", container: Container, command: tuple[str, Json], streams: "tuple[Output, Feed | None]", began: Tell
) -> int:
    """Run a further process in the container of a step to its end and return its exit code; cancelled, it is killed first.

    Args:
        engine: runs it.
        container: of the step, which has begun.
        command: an id for it, and what to run as an exec's request says it; the step's own variables are not its.
        streams: takes its output, and gives its input.
        began: is called once it runs.

    Raises:
        InvalidInputError: there is no such user.
        BarqueError: it could not be started, or the keeper went away.
    """
    exec_id, config = command
    tty = bool(config.get("Tty"))
    process = _Process(engine, container, exec_id, tty=tty)
    seccomp = None if config.get("Privileged") else engine.seccomp_program(container.host, external=False)

    async def start() -> None:
        described = exec_process.describe(engine, container, config, tty=tty)
        await engine.keeper.exec(
            container.id, exec_id, process=described, tty=tty, open_stdin=streams[1] is not None, seccomp=seccomp
        )

    container.exec_ids.append(exec_id)
    try:
        return int((await process.run(start, streams, began))["exit_code"])
    finally:
        container.exec_ids.remove(exec_id)
        await _surely(process.end())


class _Process:
    """A process under the keeper while somebody waits for its end; `exec_id` is None for the first of a container."""

    def __init__(self, engine: "Engine", container: Container, exec_id: str | None = None, *, tty: bool | None = None) -> None:
        self._engine = engine
        self._container = container
        self._exec_id = exec_id
        self._tty = container.tty if tty is None else tty
        self._ended: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        self._reading: asyncio.Task[None] | None = None
        self._feeding: asyncio.Task[None] | None = None
        self._starting: asyncio.Task[None] | None = None
        engine.step_exits[exec_id or container.id] = self._exited

    def _exited(self, event: Json) -> None:
        if not self._ended.done():
            self._ended.set_result(event)

    async def run(self, start: "Callable[[], Coroutine[Any, Any, None]]", streams: "tuple[Output, Feed | None]", began: Tell) -> Json:
        """Start it; return what the keeper says of its end, after all of its output was given on."""
        output, feed = streams
        sock = await self._engine.keeper.attach(self._container.id, self._exec_id, stdin=feed is not None, stdout=True, stderr=True)
        self._reading = asyncio.create_task(_read(sock, output, framed=not self._tty))
        self._feeding = asyncio.create_task(_fed(feed, sock)) if feed is not None else None
        # Not cancelled with us: what the keeper is about to start must be known to be killed.
        self._starting = asyncio.create_task(start())
        await asyncio.shield(self._starting)
        await began()
        # A wait that is cancelled would take the future along, and the process would seem to have ended.
        event = await asyncio.shield(self._ended)
        await self._reading
        return event

    async def end(self) -> None:
        """Kill it if it runs, and let the keeper forget it."""
        if self._feeding is not None:
            self._feeding.cancel()
        keeper, container = self._engine.keeper, self._container
        if self._starting is not None:
            await asyncio.wait([self._starting])
            if self._starting.exception() is None and not self._ended.done():
                with contextlib.suppress(BarqueError):
                    await keeper.signal(container.id, self._exec_id, _KILL)
                await asyncio.wait([self._ended], timeout=10)
        with contextlib.suppress(BarqueError):
            await keeper.forget(container.id, self._exec_id)
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])
        self._engine.step_exits.pop(self._exec_id or container.id, None)


async def _surely(work: Coroutine[Any, Any, None]) -> None:
    """Wait for the end of work, however often this is cancelled meanwhile: nothing of a step may be left running."""
    task, cancelled = asyncio.ensure_future(work), False
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            cancelled = True
    task.result()
    if cancelled:
        raise asyncio.CancelledError


async def _end(engine: "Engine", container: Container, process: _Process) -> None:
    await process.end()
    for exec_id in container.exec_ids:
        # They ended with the first: the keeper has forgotten them and tells nothing more.
        if exec_id in engine.step_exits:
            engine.step_exits.pop(exec_id)({"exit_code": 128 + _KILL})
    engine.network.release(container.id)
    starting.clean(engine, container)
    for folder in (engine.folder(container.id), engine.bundle(container.id)):
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


def _clear(engine: "Engine", container: Container) -> None:
    clear_stubs(engine.snapshots, container.id, [point["Destination"] for point in container.row["mounts"]])


def container_of(engine: "Engine", request: StepRequest) -> Container:
    """Return the container that a step is to the runtime."""
    host = dict(request.host)
    fill_host(engine, host)
    host["LogConfig"] = {"Type": "none", "Config": {}}
    row = {
        "id": request.key, "name": request.key, "created_ns": time.time_ns(), "image": "", "image_ref": "",
        "path": request.args[0] if request.args else "", "args": request.args[1:], "config": request.config,
        "host": host, "networking": endpoints.initial(engine, request.config, host, {}), "mounts": request.mounts, "restart_count": 0, "state": new_state(),
        "log_path": "",
    }  # fmt: skip
    return Container(row)


async def _fed(feed: Feed, sock: socket.socket) -> None:
    # The command may end without reading all.
    with contextlib.suppress(OSError):
        await feed(sock)


async def _read(sock: socket.socket, output: Output, *, framed: bool) -> None:
    loop = asyncio.get_running_loop()
    kept = bytearray()
    with sock:
        while data := await loop.sock_recv(sock, 1 << 16):
            if not framed:
                await output(1, data)
                continue
            kept += data
            while len(kept) >= 8:
                size = int.from_bytes(kept[4:8], "big")
                if len(kept) < 8 + size:
                    break
                stream, body = kept[0], bytes(kept[8 : 8 + size])
                del kept[: 8 + size]
                await output(stream, body)


def clear_stubs(snapshots: Snapshotter, key: str, targets: list[str]) -> None:
    """Remove the empty files and folders that were made in a snapshot only to be mounted over."""
    upper, lowers = snapshots.layer_dir(key), snapshots.lower_dirs(key)
    for target in sorted({*_STUBS, *targets}, key=len, reverse=True):
        path = os.path.normpath(target).strip("/")
        while path and _remove_stub(upper, lowers, path, leaf=path == os.path.normpath(target).strip("/")):
            path = path.rpartition("/")[0]


def _remove_stub(upper: str, lowers: list[str], path: str, *, leaf: bool) -> bool:
    """Remove one empty file or folder; return whether the folder above may have become one."""
    here = f"{upper}/{path}"
    try:
        found = os.lstat(here)
    except OSError:
        return False
    below = _lower_stat(lowers, path)
    try:
        if stat.S_ISDIR(found.st_mode):
            if below is not None and not _same(found, below):
                return False
            os.rmdir(here)
        elif leaf and below is None and stat.S_ISREG(found.st_mode) and found.st_size == 0:
            os.unlink(here)
        else:
            return False
    except OSError:
        return False
    return True


def _lower_stat(lowers: list[str], path: str) -> os.stat_result | None:
    for lower in lowers:
        try:
            found = os.lstat(f"{lower}/{path}")
        except OSError:
            continue
        return None if stat.S_ISCHR(found.st_mode) and found.st_rdev == 0 else found
    return None


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_mode, one.st_uid, one.st_gid) == (other.st_mode, other.st_uid, other.st_gid)


def settle_root(snapshots: Snapshotter, key: str) -> None:
    """Make a snapshot that a step was run on mountable again."""
    shutil.rmtree(f"{os.path.dirname(snapshots.layer_dir(key))}/w/work/incompat", ignore_errors=True)
