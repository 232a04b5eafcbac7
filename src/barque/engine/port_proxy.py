"""The userland proxy: carries published ports that the firewall cannot lead into a container.

That is IPv6 clients ([::] and ::1) of a container that has IPv4 only, and everything where the
firewall is switched off or the host's own rules are to hold. It serves the sockets that reserve the
ports; their owner closes them, right after stop(). Where the host's own rules hold, its sockets towards
containers speak as the client (`network/transparency.py`), so that containers see who asks.
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
_DATAGRAM_BYTES = 65535
_AT_ONCE = 64
_UDP_IDLE_S = 90.0
_MAX_CLIENTS = 4096
_IP_TRANSPARENT, _IP_BIND_ADDRESS_NO_PORT, _IPV6_TRANSPARENT = 19, 24, 75


class PortProxy:
    """Serves the sockets of all containers in one event loop."""

    def __init__(self) -> None:
        """Start with none."""
        self._served: dict[str, dict[PortBinding, _Streams | _Datagrams]] = {}

    def start(self, container_id: str, sockets: list[Proxied]) -> None:
        """Serve a container's sockets; called in the event loop's thread."""
        served = self._served.setdefault(container_id, {})
        for item in sockets:
            kind = _Datagrams if item.reservation.binding.protocol == "udp" else _Streams
            served[item.reservation.binding] = kind(item)

    def stop(self, container_id: str, bindings: Collection[PortBinding] | None = None) -> None:
        """Stop serving these ports of a container, or all, and cut their proxied connections."""
        served = self._served.get(container_id, {})
        for binding in list(served):
            if bindings is None or binding in bindings:
                served.pop(binding).stop()
        if not served:
            self._served.pop(container_id, None)


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


class _Streams:
    """One listening socket; each client has a task."""

    def __init__(self, item: Proxied) -> None:
        self._item = item
        self._loop = asyncio.get_running_loop()
        self._carried: set[asyncio.Task[None]] = set()
        self._again: asyncio.TimerHandle | None = None
        self._stopped = False
        self._fd = item.reservation.sock.fileno()
        self._loop.add_reader(self._fd, self._accept)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            if len(self._carried) >= _MAX_CLIENTS:
                # More wait in the socket's queue, as for a server that is busy.
                self._loop.remove_reader(self._fd)
                return
            try:
                client, peer = self._item.reservation.sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                log.warning("port %d: %s", self._item.reservation.binding.host_port, error)
                self._loop.remove_reader(self._fd)
                self._again = self._loop.call_later(0.1, self._loop.add_reader, self._fd, self._accept)
                return
            task = self._loop.create_task(_carry(client, str(peer[0]), self._item))
            self._carried.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._carried.discard(task)
        if len(self._carried) == _MAX_CLIENTS - 1 and not self._stopped:
            self._loop.add_reader(self._fd, self._accept)

    def stop(self) -> None:
        self._stopped = True
        self._loop.remove_reader(self._fd)
        if self._again is not None:
            self._again.cancel()
        for task in self._carried:
            task.cancel()


def _speak_as(sock: socket.socket, client: str, item: Proxied) -> None:
    """Let the container see the client's own address, where its answers come back to us."""
    if not item.keeps(client):
        return
    level, option = (socket.IPPROTO_IPV6, _IPV6_TRANSPARENT) if ":" in client else (socket.IPPROTO_IP, _IP_TRANSPARENT)
    sock.setsockopt(level, option, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, item.mark)
    if sock.type == socket.SOCK_STREAM:
        sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
    sock.bind((client, 0))


async def _carry(client: socket.socket, peer: str, item: Proxied) -> None:
    loop = asyncio.get_running_loop()
    with client, socket.socket(_family(item.address), socket.SOCK_STREAM) as inner:
        client.setblocking(False)
        inner.setblocking(False)
        try:
            _speak_as(inner, peer, item)
            await loop.sock_connect(inner, (item.address, item.port))
            # When one way breaks the other one ends too: its side may never say a word again.
            async with asyncio.TaskGroup() as both:
                both.create_task(_pump(client, inner))
                both.create_task(_pump(inner, client))
        except* OSError:
            # Closing the sockets tells both sides; there is nobody else to tell.
            pass


async def _pump(source: socket.socket, sink: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(source, _CHUNK_BYTES):
        await loop.sock_sendall(sink, data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


class _Datagrams:
    """One published UDP socket: a socket of its own towards the container for each client."""

    def __init__(self, item: Proxied) -> None:
        self._item = item
        self._front = item.reservation.sock
        self._fd = self._front.fileno()
        self._loop = asyncio.get_running_loop()
        self._relays: dict[Any, tuple[socket.socket, float]] = {}
        self._loop.add_reader(self._fd, self._from_client)
        self._timer = self._loop.call_later(_UDP_IDLE_S, self._drop_idle)

    def _from_client(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                data, client = self._front.recvfrom(_DATAGRAM_BYTES)
            except OSError:
                return
            relay = self._relay(client)
            if relay is not None:
                with contextlib.suppress(OSError):
                    relay.send(data)

    def _relay(self, client: Any) -> socket.socket | None:
        known = self._relays.get(client)
        if known is not None:
            self._relays[client] = (known[0], self._loop.time())
            return known[0]
        if len(self._relays) >= _MAX_CLIENTS:
            return None
        try:
            back = socket.socket(_family(self._item.address), socket.SOCK_DGRAM)
        except OSError:
            return None
        back.setblocking(False)
        with contextlib.suppress(OSError):
            _speak_as(back, str(client[0]), self._item)
            back.connect((self._item.address, self._item.port))
        self._relays[client] = (back, self._loop.time())
        self._loop.add_reader(back.fileno(), self._from_container, back, client)
        return back

    def _from_container(self, back: socket.socket, client: Any) -> None:
        for _ in range(_AT_ONCE):
            try:
                data = back.recv(_DATAGRAM_BYTES)
            except OSError:
                # Nothing more, or the container's port is closed: the client sees no answer.
                return
            with contextlib.suppress(OSError):
                self._front.sendto(data, client)

    def _drop_idle(self) -> None:
        limit = self._loop.time() - _UDP_IDLE_S
        for client, (back, used_at) in list(self._relays.items()):
            if used_at < limit:
                self._close(client, back)
        self._timer = self._loop.call_later(_UDP_IDLE_S, self._drop_idle)

    def _close(self, client: Any, back: socket.socket) -> None:
        del self._relays[client]
        self._loop.remove_reader(back.fileno())
        back.close()

    def stop(self) -> None:
        self._timer.cancel()
        self._loop.remove_reader(self._fd)
        for client, (back, _) in list(self._relays.items()):
            self._close(client, back)
