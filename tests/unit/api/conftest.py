"""An API served on a unix socket over a backend that remembers what it was asked."""

import asyncio
import socket
from types import SimpleNamespace

import aiohttp
import pytest
from aiohttp import web

from barque.api.app import make_app
from barque.base.errors import ConflictError, NotFoundError
from barque.engine.types import ArchiveStream, Attachment, LogStream


async def each(values):
    for value in values:
        yield value


class FakeRegistries:
    async def pull(self, image, tag, *, platform, auth):
        if image == "x":
            raise NotFoundError("pull access denied for x")
        yield {"status": f"Pulling from {image}", "id": tag}


class FakeContainers:
    def __init__(self):
        self.calls = []
        self.engine_end: socket.socket | None = None
        self.tty = True
        self.keys = b"\x10\x11"
        self.prelude = None
        self.detached = False
        self.closed_followers = 0
        self.wait_result: asyncio.Future | None = None
        self.may_stop = asyncio.Event()
        self.may_stop.set()

    async def create(self, config, name, platform):
        if name == "taken":
            raise ConflictError(f'Conflict. The container name "/{name}" is already in use')
        self.calls.append(("create", config, name, platform))
        return {"Id": "a" * 64, "Warnings": None}

    async def list(self, **options):
        self.calls.append(("list", options))
        return []

    async def inspect(self, ref, *, size):
        if ref == "none":
            raise NotFoundError(f"No such container: {ref}")
        return {"Id": ref}

    async def start(self, ref):
        self.calls.append(("start", ref))

    async def stop(self, ref, **options):
        self.calls.append(("stop", ref, options))
        await self.may_stop.wait()

    async def attach(self, ref, options):
        self.calls.append(("attach", ref, options))
        ours, self.engine_end = socket.socketpair()
        self.engine_end.setblocking(False)

        def detach():
            self.detached = True

        return Attachment(ours, self.tty, self.keys, self.prelude, detach)

    async def exec_start(self, exec_id, **options):
        self.calls.append(("exec_start", exec_id, options))
        return None if options["detach"] else await self.attach(exec_id, None)

    async def logs(self, ref, options):
        self.calls.append(("logs", ref, options))

        async def chunks():
            try:
                yield b"\x01\0\0\0\0\0\0\x03hi\n"
                if options.follow:
                    await asyncio.Event().wait()
            finally:
                self.closed_followers += 1

        return LogStream(False, chunks())

    async def wait(self, ref, condition):
        self.calls.append(("wait", ref, condition))
        self.wait_result = asyncio.get_running_loop().create_future()
        return self.wait_result

    async def archive_get(self, ref, path):
        return ArchiveStream({"name": "f", "size": 1}, each([b"ab", b"c"]))

    async def archive_stat(self, ref, path):
        return {"name": "f", "size": 1}

    async def archive_put(self, ref, path, read, **options):
        data = b""
        while chunk := await read():
            data += chunk
        self.calls.append(("put", path, data, options))


class FakeSystem:
    async def info(self):
        return {"ID": "x"}

    async def version(self):
        return {"Version": "0"}

    async def events(self, **options):
        return each([{"Action": "a"}, {"Action": "b"}])


class FakeImages:
    async def list(self, **options):
        return [{"Id": "sha256:1", "RepoTags": [], "RepoDigests": [], "Containers": 2, "Size": 5}]

    async def load(self, read, **options):
        yield {"stream": "one"}
        raise NotFoundError("torn")


@pytest.fixture
async def api(tmp_path):
    """Give .session (an HTTP client), .path (the socket) and .containers (the fake)."""
    backend = SimpleNamespace(
        registries=FakeRegistries(),
        containers=FakeContainers(),
        images=FakeImages(),
        networks=None,
        volumes=None,
        system=FakeSystem(),
    )
    server = make_app(backend)
    runner = web.ServerRunner(server, handle_signals=False, shutdown_timeout=0.2)
    await runner.setup()
    path = str(tmp_path / "api.sock")
    await web.UnixSite(runner, path).start()
    session = aiohttp.ClientSession("http://localhost", connector=aiohttp.UnixConnector(path))
    yield SimpleNamespace(session=session, path=path, containers=backend.containers, server=server)
    await session.close()
    await runner.cleanup()


def pytest_asyncio_loop_factories(config, item):
    """Run each test on the loop of tests and on that of the daemon."""
    import uvloop

    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
