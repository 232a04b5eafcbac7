"""Frontends that are images: each runs in a container and calls the gateway over its standard input and output.

A `# syntax=` line, or a client, names the image. What it is asked to do comes in variables of its environment, as
BuildKit gives them; it has no network, sees nothing of the machine, and is ended with its build.
"""

import asyncio
import contextlib
import json
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from barque.base.errors import BarqueError, InvalidInputError
from barque.base.ids import new_id
from barque.builder.buildkit import worker
from barque.builder.buildkit.builds import Build, Outcome
from barque.builder.buildkit.connection import GrpcServer
from barque.builder.buildkit.containers import FrontendContainer
from barque.builder.buildkit.gateway import Gateway, Tools
from barque.builder.buildkit.health import Health
from barque.builder.buildkit.llb import definition_of
from barque.builder.buildkit.pb import gateway_pb2
from barque.builder.collecting import frontend_limits
from barque.builder.graph import Vertex
from barque.engine import steps
from barque.images.model import Image

if TYPE_CHECKING:
    from barque.engine.engine import Engine

_PIECE = 1 << 16
_LAST_WORDS = 4096


class ForeignFrontends:
    """Runs frontends that are images.

    Args:
        engine: runs their containers.
        tools: what their gateway works with.
        identity: of the one worker.
    """

    def __init__(self, engine: "Engine", tools: Tools, identity: worker.Identity) -> None:
        self._engine = engine
        self._tools = tools
        self._identity = identity

    async def solve(self, build: Build, name: str, options: Mapping[str, str], inputs: Mapping[str, Vertex]) -> Outcome:
        """Run a frontend; return what it came to.

        Args:
            build: whose frontend it is.
            name: the image.
            options: what the frontend is told.
            inputs: results that it may start from.

        Raises:
            BarqueError: the image cannot be had, the frontend says so, or it ends without a word.
        """
        with build.report.work(f"resolve image config for {name}"):
            image = await self._tools.sources.image(name, "", session=build.session)
        gateway = _Bound(self._engine, self._tools, self._identity)
        gateway.bind(build, inputs)
        with build.report.work(f"[frontend] {name}"):
            return await self._run(build, name, image, (gateway, options))

    async def _run(self, build: Build, name: str, image: Image, asked: "tuple[_Bound, Mapping[str, str]]") -> Outcome:
        gateway, options = asked
        config = image.run_config
        arguments = [*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ())]
        if not arguments:
            raise InvalidInputError(f"the frontend image {name} has neither an entrypoint nor a command")
        environment = [*(config.get("Env") or ()), *self._environment(build, options)]
        made = {"Env": environment, "User": config.get("User") or "", "WorkingDir": config.get("WorkingDir") or "/",
                "OpenStdin": True, "StdinOnce": True, "Hostname": "frontend"}  # fmt: skip
        limits = frontend_limits(self._engine.config.builder)
        silence_s = limits.silence_ns / 1e9 or None
        host = {"NetworkMode": "none", "Memory": limits.memory, "MemorySwap": limits.memory}
        key = new_id()
        pipe = _Pipe()
        self._engine.snapshots.prepare(key, image.chain[-1] if image.chain else "")
        try:
            request = steps.StepRequest(key, arguments, made, host, [])
            async with asyncio.timeout(silence_s) as silence:
                await pipe.open(GrpcServer(gateway, Health(), during=Calls(silence, silence_s)))
                result = await steps.run_step(self._engine, request, pipe.take, pipe.feed)
        except TimeoutError:
            raise BarqueError(f"the frontend {name} was ended: it asked for nothing for {silence_s or 0:g} s") from None
        finally:
            pipe.close()
            await gateway.end_containers()
            self._engine.snapshots.remove(key)
        if gateway.outcome.done():
            return gateway.outcome.result()
        if result.oom_killed:
            raise BarqueError(f"the frontend {name} was ended: it used more than {limits.memory} bytes of memory")
        said = pipe.errors.decode("utf-8", "replace").strip()
        raise BarqueError(f"the frontend {name} ended with exit code {result.exit_code} and without a result{': ' if said else ''}{said}")

    def _environment(self, build: Build, options: Mapping[str, str]) -> list[str]:
        record = worker.record(self._identity)
        platforms = [{"os": one.OS, "architecture": one.Architecture, **({"variant": one.Variant} if one.Variant else {})}
                     for one in record.platforms]  # fmt: skip
        workers = [{"ID": record.ID, "Labels": dict(record.Labels), "Platforms": platforms}]
        told = [f"BUILDKIT_FRONTEND_OPT_{number}={key}={value}" for number, (key, value) in enumerate(sorted(options.items()))]
        session = build.client.id if build.client is not None else ""
        return [*told, f"BUILDKIT_SESSION_ID={session}", f"BUILDKIT_WORKERS={json.dumps(workers)}", "BUILDKIT_EXPORTEDPRODUCT="]


class _Bound(Gateway):
    """The gateway of one frontend, whose calls name no build: they mean its own."""

    def bind(self, build: Build, inputs: Mapping[str, Vertex]) -> None:
        """Say whose it is."""
        self._own = build
        self._inputs = inputs
        self._made: dict[str, FrontendContainer] = {}
        self.outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    async def _build(self, stream: Any) -> Build:
        return self._own

    def _containers(self, build: Build) -> dict[str, FrontendContainer]:
        return self._made

    async def end_containers(self) -> None:
        """End what the frontend has left running."""
        for made in self._made.values():
            await made.release()
        self._made.clear()

    async def return_(self, stream: Any) -> None:
        """Take what the frontend came to."""
        request = await stream.recv_message()
        if self.outcome.done():
            raise InvalidInputError("the frontend has returned already")
        if request.HasField("error"):
            failed = BarqueError(request.error.message)
            failed.details = [(one.type_url, one.value) for one in request.error.details]
            self.outcome.set_exception(failed)
        else:
            self.outcome.set_result(self._outcome(request.result))
        await stream.send_message(gateway_pb2.ReturnResponse())

    async def inputs(self, stream: Any) -> None:
        """Give the results that the frontend may start from."""
        await stream.recv_message()
        names = {key: self._builds.references.add(one) for key, one in self._inputs.items()}
        found = {key: definition_of(name) for key, name in names.items() if name}
        await stream.send_message(gateway_pb2.InputsResponse(Definitions=found))


class Calls:
    """Puts off the end of a frontend while it waits for an answer; used as a context around each call."""

    def __init__(self, silence: asyncio.Timeout, limit_s: float | None) -> None:
        self._silence = silence
        self._limit_s = limit_s
        self._under_way = 0

    def __enter__(self) -> None:
        self._under_way += 1
        self._put_off(None)

    def __exit__(self, *_: object) -> None:
        self._under_way -= 1
        if not self._under_way and self._limit_s is not None:
            self._put_off(asyncio.get_running_loop().time() + self._limit_s)

    def _put_off(self, when: float | None) -> None:
        # Calls may end after their frontend, whose time counts no more then.
        with contextlib.suppress(RuntimeError):
            self._silence.reschedule(when)


class _Pipe:
    """A connection of a server of ours whose other end is a command's standard input and output."""

    def __init__(self) -> None:
        self._mine, theirs = socket.socketpair()
        self._theirs: socket.socket | None = theirs
        self._mine.setblocking(False)
        self._transport: asyncio.BaseTransport | None = None
        self.errors = b""
        """The end of what the command said on its standard error."""

    async def open(self, server: GrpcServer) -> None:
        """Let a server serve it."""
        assert self._theirs is not None
        theirs, self._theirs = self._theirs, None
        self._transport, _ = await asyncio.get_running_loop().connect_accepted_socket(server.protocol, theirs)

    async def take(self, stream: int, data: bytes) -> None:
        """Take the command's output."""
        if stream == 1:
            try:
                await asyncio.get_running_loop().sock_sendall(self._mine, data)
            except (BrokenPipeError, ConnectionResetError):
                # The server has closed the connection: what else is said has no reader.
                return
        else:
            self.errors = (self.errors + data)[-_LAST_WORDS:]

    async def feed(self, sock: socket.socket) -> None:
        """Give the command what the server says."""
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(self._mine, _PIECE):
            await loop.sock_sendall(sock, data)

    def close(self) -> None:
        """End both ends."""
        if self._transport is not None:
            self._transport.close()
        if self._theirs is not None:
            self._theirs.close()
        self._mine.close()
