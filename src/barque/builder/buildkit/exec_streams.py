"""One call of ExecProcess: the processes of a client's containers, told apart by ids of the client's."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from grpclib.const import Status

from barque.base.errors import BarqueError, InvalidInputError, NotFoundError
from barque.base.signals import parse_signal
from barque.builder.buildkit.containers import Command, FrontendContainer, Input, Process
from barque.builder.buildkit.llb import process_of
from barque.builder.buildkit.pb import gateway_pb2, status_pb2
from barque.builder.buildkit.progress import told

_UNKNOWN_EXIT = 255
"""The code that clients know a process by that did not run to its end."""


class ExecStream:
    """Serves one call.

    Args:
        stream: the call.
        containers: those that processes may run in, by the client's names.
    """

    def __init__(self, stream: Any, containers: Mapping[str, FrontendContainer]) -> None:
        self._stream = stream
        self._containers = containers
        self._processes: dict[str, _Process] = {}
        self._sending = asyncio.Lock()

    async def serve(self) -> None:
        """Do what the client says until it says no more and its processes have ended; cancelled, they are killed.

        Raises:
            InvalidInputError: a message makes no sense.
            NotFoundError: it names no process or container.
        """
        try:
            while (message := await self._stream.recv_message()) is not None:
                await self._take(message)
            for process in self._processes.values():
                await process.task
        finally:
            tasks = [process.task for process in self._processes.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _take(self, message: Any) -> None:
        name, kind = message.ProcessID, message.WhichOneof("Input")
        if not name:
            raise InvalidInputError("ProcessID required")
        known = self._processes.get(name)
        if kind == "Init":
            if known is not None:
                raise InvalidInputError(f"Process {name} already exists")
            container = self._containers.get(message.Init.ContainerID)
            if container is None:
                raise NotFoundError(f"container {message.Init.ContainerID!r} previously released or not created")
            self._processes[name] = _Process(container, message.Init, self._sender(name))
            return
        if known is None:
            raise NotFoundError(f"IO for process {name!r} not found")
        if kind == "File":
            await known.write(message.File)
        elif kind == "Resize":
            await known.resize(message.Resize.Rows, message.Resize.Cols)
        elif kind == "Signal":
            await known.signal(parse_signal(message.Signal.Name))
        else:
            raise InvalidInputError(f"process {name}: a client does not send {kind}")

    def _sender(self, name: str) -> Callable[..., Awaitable[None]]:
        async def send(**parts: Any) -> None:
            async with self._sending:
                await self._stream.send_message(gateway_pb2.ExecMessage(ProcessID=name, **parts))

        return send


class _Process:
    """One process, from its first message to its last."""

    def __init__(self, container: FrontendContainer, init: Any, send: Callable[..., Awaitable[None]]) -> None:
        self._send = send
        self._descriptors = frozenset(init.Fds)
        self._input = Input()
        self._process: Process | None = None
        self._started = False
        self.task = asyncio.create_task(self._run(container, init))

    async def _run(self, container: FrontendContainer, init: Any) -> None:
        code, error = 0, ""
        try:
            step, secrets = process_of(container.step, init)
            command = Command(step, secrets, init.Tty, 0 in self._descriptors)
            code = await container.run(command, self._output, self._input, self._began)
            error = f"exit code: {code}" if code else ""
        except (BarqueError, OSError) as failed:
            code, error = _UNKNOWN_EXIT, told(failed)
        await self._tell_started()
        for number in sorted(self._descriptors - {0}):
            await self._send(File=gateway_pb2.FdMessage(Fd=number, EOF=True))
        # Clients look into the error whenever the code is not 0.
        status = status_pb2.Status(code=Status.UNKNOWN.value, message=error) if code else None
        await self._send(Exit=gateway_pb2.ExitMessage(Code=code, Error=status))
        await self._send(Done=gateway_pb2.DoneMessage())

    async def _began(self, process: Process) -> None:
        self._process = process
        await self._tell_started()

    async def _tell_started(self) -> None:
        """Say that it has begun: clients take nothing else before, even of one that could not be started."""
        if not self._started:
            self._started = True
            await self._send(Started=gateway_pb2.StartedMessage())

    async def _output(self, stream: int, data: bytes) -> None:
        await self._tell_started()
        if stream in self._descriptors:
            await self._send(File=gateway_pb2.FdMessage(Fd=stream, Data=data))

    async def write(self, file: Any) -> None:
        """Give it what it reads; what one has not read at its end is dropped."""
        if file.Fd or 0 not in self._descriptors:
            raise InvalidInputError(f"fd {file.Fd} unavailable to write")
        for piece in ([file.Data] if file.Data else []) + ([None] if file.EOF else []):
            giving = asyncio.create_task(self._input.put(piece))
            await asyncio.wait([giving, self.task], return_when=asyncio.FIRST_COMPLETED)
            giving.cancel()

    async def signal(self, number: int) -> None:
        """Send it a signal; one that has ended takes none."""
        if self._process is not None:
            with contextlib.suppress(BarqueError):
                await self._process.signal(number)

    async def resize(self, rows: int, columns: int) -> None:
        """Set the size of its terminal; one without a terminal, or that has ended, has none."""
        if self._process is not None:
            with contextlib.suppress(BarqueError):
                await self._process.resize(rows, columns)
