"""Connections to the engine that become HTTP/2: one to call it, one on which it calls us."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, TypeVar

from google.protobuf.message import Message
from grpclib.exceptions import GRPCError, StreamTerminatedError

from barque.base.errors import UnavailableError, UnsupportedError
from barque.builder.buildkit.connection import GrpcClient, GrpcServer, Service, refused, routes
from barque.client.api import Api
from barque.client.endpoint import connect

M = TypeVar("M", bound=Message)
_LARGEST_HEAD = 64 << 10
CONTROL = "moby.buildkit.v1.Control"


class Link:
    """Calls the engine's BuildKit services; `async with` opens and closes the connection."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._client = GrpcClient()
        self._transports: list[asyncio.BaseTransport] = []

    async def __aenter__(self) -> Link:
        await self._upgrade("/grpc", [], self._client.protocol)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._client.close()
        for transport in self._transports:
            transport.close()

    async def offer(self, identity: str, shared_key: str, *services: Service) -> None:
        """Open a session: let the engine call services of ours for as long as this link lasts.

        Args:
            identity: the session's id.
            shared_key: tells the engine which earlier sessions had the same folders.
            services: what is served.
        """
        headers = [("X-Docker-Expose-Session-Uuid", identity), ("X-Docker-Expose-Session-Name", "barque"),
                   ("X-Docker-Expose-Session-Sharedkey", shared_key)]  # fmt: skip
        for service in services:
            headers += [("X-Docker-Expose-Session-Grpc-Method", path) for path in routes(service)]
        await self._upgrade("/session", headers, GrpcServer(*services).protocol())

    def stream(self, method: str, **options: Any) -> Any:
        """Return a call of `service/Method`, to be entered with `async with`."""
        return self._client.stream(method, **options)

    async def call(self, method: str, message: Message, answer: type[M], **options: Any) -> M:
        """Send one message and return the one answer.

        Raises:
            BarqueError: the engine refused.
            UnavailableError: the connection broke.
        """
        try:
            async with self.stream(method, **options) as stream:
                await stream.send_message(message, end=True)
                reply = await stream.recv_message()
        except GRPCError as error:
            raise refused(error) from None
        except (OSError, StreamTerminatedError) as error:
            raise UnavailableError(f"the connection to the engine broke: {error}") from None
        assert isinstance(reply, answer)
        return reply

    async def _upgrade(self, path: str, headers: list[tuple[str, str]], protocol: asyncio.Protocol) -> None:
        loop = asyncio.get_running_loop()
        opened = loop.create_future()
        endpoint = self._api.endpoint
        host = "localhost" if endpoint.kind == "unix" else f"{endpoint.host}:{endpoint.port}"
        lines = [f"POST {self._api.prefix}{path} HTTP/1.1", f"Host: {host}", "User-Agent: barque-client",
                 "Connection: Upgrade", "Upgrade: h2c", "Content-Length: 0"]  # fmt: skip
        lines += [f"{name}: {value}" for name, value in headers]
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")
        if self._api.trace is not None:
            self._api.trace(f"POST {self._api.prefix}{path}")

        def first() -> asyncio.Protocol:
            return _Upgrade(head, protocol, opened)

        if self._api.tls is None:
            sock: socket.socket = await asyncio.to_thread(_connected, self._api)
            transport, _ = await loop.create_connection(first, sock=sock)
        else:
            from barque.client.tls import client_context

            context = client_context(self._api.tls)
            name = endpoint.host if self._api.tls.verify else None
            try:
                transport, _ = await loop.create_connection(
                    first, endpoint.host, endpoint.port, ssl=context, server_hostname=name or endpoint.host
                )
            except OSError as error:
                raise UnavailableError(f"error during connect: TLS with {endpoint.text} failed: {error}") from None
        self._transports.append(transport)
        await opened


def _connected(api: Api) -> socket.socket:
    # The command's own sockets are of the small module that has no asyncio in it.
    plain = connect(api.endpoint)
    return socket.socket(fileno=plain.detach())


class _Upgrade(asyncio.Protocol):
    """Sends a request, reads the head of its answer, and gives the connection to another protocol."""

    def __init__(self, head: bytes, then: asyncio.Protocol, opened: asyncio.Future[None]) -> None:
        self._head = head
        self._then = then
        self._opened = opened
        self._seen = b""
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the request."""
        self._transport = transport
        self._transport.write(self._head)

    def data_received(self, data: bytes) -> None:
        """Read the answer."""
        self._seen += data
        head, found, rest = self._seen.partition(b"\r\n\r\n")
        status = self._seen.split(b" ", 2)[1:2] if self._seen.startswith(b"HTTP/1.") else []
        if found and status == [b"101"]:
            self._transport.set_protocol(self._then)
            self._then.connection_made(self._transport)
            if rest:
                self._then.data_received(rest)
            self._opened.set_result(None)
        elif found or len(self._seen) > _LARGEST_HEAD:
            self._fail(UnsupportedError(
                "the engine does not speak BuildKit's protocol on its API: "
                + (rest.decode("utf-8", "replace").strip() or head.split(b"\r\n")[0].decode("latin-1"))
            ))  # fmt: skip
            self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """Tell of an end before there was an answer."""
        self._fail(UnavailableError("error during connect: the daemon closed the connection (EOF)"))

    def _fail(self, error: Exception) -> None:
        if not self._opened.done():
            self._opened.set_exception(error)
