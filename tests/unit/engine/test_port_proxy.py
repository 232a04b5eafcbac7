import asyncio
import os
import socket
import struct
from collections.abc import Iterator

import pytest

from barque.engine import port_proxy
from barque.network.model import PortBinding
from barque.network.ports import Reservation
from barque.network.publish import Proxied

_RESET = struct.pack("ii", 1, 0)


class Carried:
    """A container's server, and the published port that leads to it."""

    def __init__(self) -> None:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.front = socket.create_server(("127.0.0.1", 0))
        for sock in (self.server, self.front):
            sock.setblocking(False)
        host, port = self.server.getsockname()
        binding = PortBinding(80, "tcp", "127.0.0.1", self.front.getsockname()[1])
        self.proxy = port_proxy.PortProxy()
        self.proxy.start("web", [Proxied(Reservation(binding, self.front), host, port)])

    async def connect(self) -> socket.socket:
        client = socket.socket()
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, self.front.getsockname())
        return client

    async def pair(self) -> tuple[socket.socket, socket.socket]:
        client = await self.connect()
        inner, _ = await asyncio.wait_for(asyncio.get_running_loop().sock_accept(self.server), 20)
        return client, inner

    def close(self) -> None:
        self.proxy.stop("web")
        self.server.close()
        self.front.close()


@pytest.fixture
async def carried() -> Iterator[Carried]:
    made = Carried()
    yield made
    made.close()


async def _read(sock: socket.socket) -> bytes:
    return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 100), 20)


async def test_both_ways_are_carried_and_a_half_closed_connection_goes_on(carried: Carried) -> None:
    client, inner = await carried.pair()
    with client, inner:
        client.send(b"question")
        client.shutdown(socket.SHUT_WR)
        assert (await _read(inner), await _read(inner)) == (b"question", b"")
        inner.send(b"answer")
        assert await _read(client) == b"answer"


@pytest.mark.parametrize("who", ["client", "container"])
async def test_a_reset_of_one_side_ends_the_other_and_leaves_nothing_open(carried: Carried, who: str) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        client, inner = await carried.pair()
        breaking, other = (client, inner) if who == "client" else (inner, client)
        with other:
            breaking.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            breaking.close()
            assert await _read(other) == b""
    async with asyncio.timeout(20):
        # What waits for a socket that is closed would wait for ever, and uvloop keeps such a socket open.
        while len(os.listdir("/proc/self/fd")) > before or len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0.01)


async def test_connections_beyond_the_limit_wait_until_one_ends(carried: Carried, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port_proxy, "_MAX_CLIENTS", 2)
    pairs = [await carried.pair() for _ in range(2)]
    waiting = await carried.connect()
    waiting.send(b"hello")
    with pytest.raises(BlockingIOError):
        carried.server.accept()
    for sock in pairs.pop():
        sock.close()
    inner, _ = await asyncio.wait_for(asyncio.get_running_loop().sock_accept(carried.server), 20)
    assert await _read(inner) == b"hello"
    for sock in (inner, waiting, *pairs[0]):
        sock.close()
