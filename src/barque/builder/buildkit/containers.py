"""Containers that frontends and clients make of results (NewContainer): processes in them, and their files.

The first process is the container's own: all others run beside it and end with it. What is written is thrown away.
A container ends with its build, or with the frontend that made it.
"""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from barque.base.errors import ConflictError, InvalidInputError, NotFoundError
from barque.base.ids import new_id
from barque.builder import execution
from barque.builder.buildkit.builds import Build
from barque.builder.folder_tree import FolderTree
from barque.builder.graph import Exec, Mount
from barque.builder.results import Result, opened
from barque.builder.trees import Tree
from barque.engine import steps
from barque.engine.container import Container
from barque.kernel.openat2 import open_in_root
from barque.storage.mounts import mounted, root_of_process

if TYPE_CHECKING:
    from barque.engine.engine import Engine

Json = dict[str, Any]
Output = Callable[[int, bytes], Awaitable[None]]
_WAITING = 16


class Command(NamedTuple):
    """A process to run: its words, variables, folder and rights are those of `step`; `secrets` are variables, too."""

    step: Exec
    secrets: tuple[Mount, ...]
    tty: bool
    stdin: bool


class Input:
    """What a process is given to read; who gives waits while very much is not read."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[bytes | None] = asyncio.Queue(_WAITING)

    async def put(self, data: bytes | None) -> None:
        """Give bytes, or the end."""
        await self._waiting.put(data)

    async def feed(self, sock: socket.socket) -> None:
        """Write it to the process."""
        loop = asyncio.get_running_loop()
        while (data := await self._waiting.get()) is not None:
            await loop.sock_sendall(sock, data)
        sock.shutdown(socket.SHUT_WR)


class Process(NamedTuple):
    """A process that runs, for signals and the size of its terminal."""

    engine: "Engine"
    container_id: str
    exec_id: str | None

    async def signal(self, number: int) -> None:
        """Send it a signal."""
        await self.engine.keeper.signal(self.container_id, self.exec_id, number)

    async def resize(self, rows: int, columns: int) -> None:
        """Set the size of its terminal."""
        await self.engine.keeper.resize(self.container_id, self.exec_id, rows, columns)


Streams = tuple[Output, steps.Feed | None]
Began = Callable[[Process], Awaitable[None]]


class FrontendContainer:
    """A root with mounts.

    Args:
        engine: runs its processes.
        mounts: makes what is mounted ready.
        build: whose it is.
        made_of: a command without words that has its root and mounts, and the results that these take.
        listed: its mounts, in the order in which the client counts them.
    """

    def __init__(
        self, engine: "Engine", mounts: execution.CacheMounts, build: Build, made_of: tuple[Exec, list[Result]], listed: list[Any],
    ) -> None:  # fmt: skip
        self._engine = engine
        self._mounts = mounts
        self._build = build
        self.step, self._inputs = made_of
        self._listed = listed
        self._key = new_id()
        self._points = execution.Points()
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._released = asyncio.Event()
        self._running: set[asyncio.Task[int]] = set()
        self._first: asyncio.Future[Container] | None = None
        self._looking = asyncio.Lock()
        """Held while files are looked at or the first process starts: one root is not mounted twice."""
        self._life = asyncio.create_task(self._live())
        build.session.aside.append(self._life)

    async def ready(self) -> None:
        """Wait until its files are ready.

        Raises:
            BarqueError: they cannot be made so.
        """
        await asyncio.wait([self._life, self._ready], return_when=asyncio.FIRST_COMPLETED)
        if self._life.cancelled():
            raise ConflictError("the build is over")
        if not self._ready.done():
            await self._life

    async def release(self) -> None:
        """End its processes and take it away."""
        self._released.set()
        await asyncio.wait([self._life])

    async def _live(self) -> None:
        snapshots = self._engine.snapshots
        outputs = {mount: new_id() for mount in self.step.mounts if mount.output}
        async with AsyncExitStack() as stack:
            for name, below in ((self._key, self._inputs[0].top), *((name, "") for name in outputs.values())):
                snapshots.prepare(name, below)
                stack.callback(snapshots.remove, name)
            self._points = await stack.enter_async_context(
                self._mounts.points(self.step, self._inputs, snapshots, self._build.session, outputs)
            )
            stack.push_async_callback(self._end_processes)
            self._ready.set_result(None)
            await self._released.wait()

    async def _end_processes(self) -> None:
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running)

    async def run(self, command: Command, output: Output, given: Input, began: Began) -> int:
        """Run a process to its end and return its exit code; cancelled, it is killed first.

        Args:
            command: what.
            output: is given the stream (1 or 2) and its bytes; 1 alone with a terminal.
            given: what it reads.
            began: is told once it runs.

        Raises:
            ConflictError: the first process has ended, and the container with it.
            BarqueError: it could not be started.
        """
        execution.check_allowed(command.step, (), self._build.session)
        points = execution.Points()
        for secret in command.secrets:
            await execution.give_secret(secret, points, self._build.session, "")
        command = command._replace(step=replace(command.step, env=(*command.step.env, *points.env)))
        streams = (output, given.feed if command.stdin else None)
        if self._first is None:
            self._first = asyncio.get_running_loop().create_future()
            task = asyncio.create_task(self._run_first(command, streams, began, self._first))
        else:
            task = asyncio.create_task(self._run_beside(command, streams, began, self._first))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait([task])
            raise
        if task.cancelled():
            raise ConflictError("the container was released")
        return task.result()

    async def _run_first(self, command: Command, streams: Streams, began: Began, first: "asyncio.Future[Container]") -> int:
        request = execution.request_of(self._engine, command.step, self._key, self._points, self._build.session)
        request.config.update(Tty=command.tty, OpenStdin=command.stdin, StdinOnce=True)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._looking)

            async def tell(container: Container) -> None:
                await stack.aclose()
                first.set_result(container)
                await began(Process(self._engine, container.id, None))

            try:
                return (await steps.run_step(self._engine, request, *streams, tell)).exit_code
            finally:
                steps.settle_root(self._engine.snapshots, self._key)
                if first.done():
                    first.result().state["pid"] = 0
                else:
                    first.cancel()

    async def _run_beside(self, command: Command, streams: Streams, began: Began, first: "asyncio.Future[Container]") -> int:
        await asyncio.wait([first])
        if first.cancelled() or not first.result().pid:
            raise ConflictError("the container's first process has ended, and the container with it")
        container, exec_id, step = first.result(), new_id(), command.step
        config = {"Cmd": list(step.args), "Env": [*step.env, *self._points.env], "User": step.user, "WorkingDir": step.cwd,
                  "Tty": command.tty, "Privileged": step.security == "insecure"}  # fmt: skip

        async def tell() -> None:
            await began(Process(self._engine, container.id, exec_id))

        return await steps.run_beside(self._engine, container, (exec_id, config), streams, tell)

    async def look(self, index: int, path: str, work: Callable[[Tree, str], Any]) -> Any:
        """Return what `work` says of a file: the tree that it lies in, and its path there.

        Args:
            index: of a mount.
            path: inside the mount.
            work: looks at it, in a thread.

        Raises:
            InvalidInputError: there is no such mount.
            NotFoundError: there is nothing in it while no process runs.
        """
        if not 0 <= index < len(self._listed):
            raise InvalidInputError(f"mount index {index} is out of bounds ({len(self._listed)} available)")
        async with self._looking:
            return await asyncio.to_thread(self._look, self._listed[index], path, work)

    def _look(self, mount: Any, path: str, work: Callable[[Tree, str], Any]) -> Any:
        with self._tree(mount) as (tree, place):
            return work(tree, f"{place}/{path}")

    @contextmanager
    def _tree(self, mount: Any) -> Iterator[tuple[Tree, str]]:
        """Yield the files of a mount, and where in the tree they begin."""
        started = self._first is not None and self._first.done() and not self._first.cancelled()
        pid = self._first.result().pid if started and self._first is not None else 0
        if pid:
            with root_of_process(pid) as root, _folder(open_in_root(root, mount.dest, os.O_PATH)) as tree:
                yield tree, ""
        elif mount.dest == "/":
            with mounted(self._engine.snapshots.mounts(self._key)) as root, _folder(os.dup(root)) as tree:
                yield tree, ""
        else:
            found = next((one for one in self.step.mounts if one.target == mount.dest and one.input > 0), None)
            if started or found is None:
                raise NotFoundError(f"nothing is mounted on {mount.dest} while no process runs in the container")
            with opened(self._engine.snapshots, self._inputs[found.input]) as tree:
                yield tree, found.selector


@contextmanager
def _folder(fd: int) -> Iterator[FolderTree]:
    """Yield the files below a folder, whose descriptor is closed at the end."""
    tree = FolderTree(fd)
    try:
        yield tree
    finally:
        tree.close()
        os.close(fd)
