"""The userland proxy: carries published ports that the firewall cannot lead into a container.

That is IPv6 clients ([::] and ::1) of a container that has IPv4 only, and everything where the
firewall is switched off. It serves the sockets that reserve the ports; their owner closes them.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Collection
from typing import Any

from barque.network.model import PortBinding
from barque.network.publish import Proxied

log = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 16
_UDP_IDLE_S = 90.0
_MAX_UDP_CLIENTS = 4096


class PortProxy:
    """Serves the sockets of all containers in one event loop."""

    def __init__(self) -> None:
        """Start with none."""
        self._tasks: dict[str, dict[PortBinding, asyncio.Task[None]]] = {}

    def start(self, container_id: str, sockets: list[Proxied]) -> None:
        """Serve a container's sockets; called in the event loop's thread."""
        serve = {"tcp": _serve_stream, "sctp": _serve_stream, "udp": _serve_datagrams}
        tasks = self._tasks.setdefault(container_id, {})
        for item in sockets:
            binding = item.reservation.binding
            tasks[binding] = asyncio.get_running_loop().create_task(
                serve[binding.protocol](item), name=f"port-proxy-{container_id}"
            )

    def stop(self, container_id: str, bindings: Collection[PortBinding] | None = None) -> None:
        """Stop serving these ports of a container, or all, and cut their proxied connections."""
        tasks = self._tasks.get(container_id, {})
        for binding in list(tasks):
            if bindings is None or binding in bindings:
                tasks.pop(binding).cancel()
        if not tasks:
            self._tasks.pop(container_id, None)


def _listening_copy(item: Proxied) -> socket.socket:
    copy = item.reservation.sock.dup()
    copy.setblocking(False)
    return copy


async def _serve_stream(item: Proxied) -> None:
    loop = asyncio.get_running_loop()
    carried: set[asyncio.Task[None]] = set()
    with _listening_copy(item) as listener:
        try:
            while True:
                try:
                    client, _ = await loop.sock_accept(listener)
                except OSError as error:
                    log.warning("port %d: %s", item.reservation.binding.host_port, error)
                    await asyncio.sleep(0.1)
                    continue
                task = loop.create_task(_carry(client, (item.address, item.port)))
                carried.add(task)
                task.add_done_callback(carried.discard)
        finally:
            for task in carried:
                task.cancel()


async def _carry(client: socket.socket, target: tuple[str, int]) -> None:
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
    with client, socket.socket(family, socket.SOCK_STREAM) as inner:
        client.setblocking(False)
        inner.setblocking(False)
        try:
            await loop.sock_connect(inner, target)
            await asyncio.gather(_pump(client, inner), _pump(inner, client))
        except OSError:
            # Closing the client's socket tells it; there is nobody else to tell.
            return


async def _pump(source: socket.socket, sink: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(source, _CHUNK_BYTES):
        await loop.sock_sendall(sink, data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


class _Relay(asyncio.DatagramProtocol):
    """The container's side of one UDP client."""

    def __init__(self, front: asyncio.DatagramTransport, client: Any) -> None:
        self.front, self.client = front, client
        self.back: asyncio.DatagramTransport | None = None
        self.waiting: list[bytes] = []
        self.used_at = 0.0

    def connection_made(self, transport: Any) -> None:
        self.back = transport
        for data in self.waiting:
            transport.sendto(data)
        self.waiting.clear()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.front.sendto(data, self.client)

    def error_received(self, exc: Exception) -> None:
        """Ignore: the client sees no answer, as with a closed port."""


class _Front(asyncio.DatagramProtocol):
    """The published side: one relay per client address."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self.relays: dict[Any, _Relay] = {}
        self.pending: set[asyncio.Task[Any]] = set()
        self.transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        loop = asyncio.get_running_loop()
        relay = self.relays.get(addr)
        if relay is None:
            if len(self.relays) >= _MAX_UDP_CLIENTS or self.transport is None:
                return
            relay = self.relays[addr] = _Relay(self.transport, addr)
            opened: Any = loop.create_datagram_endpoint(
                lambda made=relay: made,  # type: ignore[misc]
                remote_addr=self.target,
            )
            task = loop.create_task(opened)
            self.pending.add(task)
            task.add_done_callback(self.pending.discard)
        relay.used_at = loop.time()
        if relay.back is None:
            relay.waiting.append(data)
        else:
            relay.back.sendto(data)

    def drop_idle(self, before: float) -> None:
        """Close relays not used since `before`, in the loop's time."""
        for client, relay in list(self.relays.items()):
            if relay.used_at < before:
                del self.relays[client]
                if relay.back is not None:
                    relay.back.close()


async def _serve_datagrams(item: Proxied) -> None:
    loop = asyncio.get_running_loop()
    front = _Front((item.address, item.port))
    transport, _ = await loop.create_datagram_endpoint(lambda: front, sock=_listening_copy(item))
    try:
        while True:
            await asyncio.sleep(_UDP_IDLE_S)
            front.drop_idle(loop.time() - _UDP_IDLE_S)
    finally:
        front.drop_idle(loop.time() + 1)
        transport.close()
