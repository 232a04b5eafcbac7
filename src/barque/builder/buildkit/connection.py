"""gRPC over connections that began as HTTP/1.1: serving one, and calling the services at its other end."""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, TypeVar

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpclib.client import Channel, Handler as ClientHandler, Stream as ClientStream
from grpclib.config import Configuration
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.protocol import H2Protocol
from grpclib.server import Server, Stream

from barque.base.errors import BarqueError, InvalidInputError, NotFoundError, UnavailableError, UnsupportedError
from barque.builder.buildkit.bulk import Frames
from barque.builder.buildkit.details import DetailsCodec
from barque.builder.buildkit.gathering import Gathering

log = logging.getLogger(__name__)

M = TypeVar("M", bound=Message)
Serve = Callable[["Stream[Any, Any]"], Awaitable[None]]
_NOTHING = nullcontext()
_CAPITAL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_CARDINALITIES = {(kind.value.client_streaming, kind.value.server_streaming): kind for kind in Cardinality}
_CONFIG = Configuration(http2_connection_window_size=16 << 20, http2_stream_window_size=8 << 20)


class Service(Protocol):
    """Serves the methods of one gRPC service; each is named as in the .proto file, in snake case."""

    @property
    def descriptor(self) -> ServiceDescriptor:
        """Return the service's description."""
        ...


def _cardinality(method: MethodDescriptor) -> Cardinality:
    return _CARDINALITIES[bool(method.client_streaming), bool(method.server_streaming)]


def _status_of(error: BarqueError) -> Status:
    kinds: tuple[tuple[type[BarqueError], Status], ...] = (
        (InvalidInputError, Status.INVALID_ARGUMENT),
        (NotFoundError, Status.NOT_FOUND),
        (UnsupportedError, Status.UNIMPLEMENTED),
        (UnavailableError, Status.UNAVAILABLE),
    )
    return next((status for kind, status in kinds if isinstance(error, kind)), Status.UNKNOWN)


def _guarded(serve: Serve, during: AbstractContextManager[None]) -> Serve:
    async def guarded(stream: "Stream[Any, Any]") -> None:
        try:
            with during:
                await serve(stream)
        except BarqueError as error:
            raise GRPCError(_status_of(error), str(error), error.details or None) from None
        except OSError as error:
            log.warning("%s: %s", getattr(serve, "__name__", "call"), error)
            raise GRPCError(Status.INTERNAL, str(error)) from None

    return guarded


def routes(service: Service, during: AbstractContextManager[None] = _NOTHING) -> dict[str, Handler]:
    """Return the table of a service's methods by path; `during` is entered around each call."""
    table = {}
    for method in service.descriptor.methods:
        name = _CAPITAL.sub("_", method.name).lower()
        serve = getattr(service, name, None) or getattr(service, f"{name}_", None)
        if serve is None:
            continue
        # A service whose one method carries two protocols takes messages unparsed.
        raw = getattr(service, "raw", None)
        table[f"/{service.descriptor.full_name}/{method.name}"] = Handler(
            _guarded(serve, during), _cardinality(method), raw or GetMessageClass(method.input_type),
            raw or GetMessageClass(method.output_type),
        )  # fmt: skip
    return table


class GrpcServer:
    """Serves gRPC on connections that are handed over; made inside the running loop.

    Args:
        services: what is served.
        during: a context that is entered around each call, also while it is entered already.
    """

    def __init__(self, *services: Service, during: AbstractContextManager[None] = _NOTHING) -> None:
        table: dict[str, Handler] = {}
        for service in services:
            table |= routes(service, during)
        self._server = Server([_Table(table)], status_details_codec=DetailsCodec(), config=_CONFIG)

    def protocol(self) -> asyncio.Protocol:
        """Return the protocol for one new connection."""
        made = self._server._protocol_factory()
        return Gathering(made.handler, made.config, made.h2_config)


class _Table:
    def __init__(self, table: dict[str, Handler]) -> None:
        self._table = table

    def __mapping__(self) -> dict[str, Handler]:
        return self._table


class GrpcClient:
    """Calls the services at the other end of one connection, which is handed over to `protocol`."""

    def __init__(self) -> None:
        self._channel = _GivenChannel()
        self.protocol: asyncio.Protocol = self._channel.given

    def connected(self) -> bool:
        """Whether the connection still holds."""
        return self._channel._connected

    def stream(
        self,
        method: str,
        *,
        metadata: Mapping[str, str] | Sequence[tuple[str, str]] = (),
        request: type[Message] | None = None,
        answer: type[Message] | None = None,
    ) -> "ClientStream[Any, Any]":
        """Return a call of a method (`package.Service/Name`), to be entered with `async with`.

        Args:
            method: which.
            metadata: pairs that go with it.
            request: what is sent where it is not what the method says (one method carries two protocols).
            answer: what is received, likewise.

        Raises:
            KeyError: no such method is known.
        """
        found = method_of(method)
        pairs = list(metadata.items()) if isinstance(metadata, Mapping) else list(metadata)
        return self._channel.request(
            f"/{method}", _cardinality(found), request or GetMessageClass(found.input_type),
            answer or GetMessageClass(found.output_type), metadata=pairs,
        )  # fmt: skip

    async def call(self, method: str, message: Message, answer: type[M], *, timeout_s: float | None = None) -> M:
        """Send one message and return the one answer.

        Raises:
            BarqueError: the other end refused, or is gone.
        """
        try:
            async with asyncio.timeout(timeout_s), self.stream(method) as stream:
                await stream.send_message(message, end=True)
                reply = await stream.recv_message()
        except GRPCError as error:
            raise refused(error) from None
        except (OSError, TimeoutError) as error:
            raise UnavailableError(f"the client does not answer {method}: {error}") from None
        if not isinstance(reply, answer):
            raise UnavailableError(f"the client gave no answer to {method}")
        return reply

    def close(self) -> None:
        """End the connection."""
        self._channel.close()


def refused(error: GRPCError) -> BarqueError:
    """Return the error of ours that stands for one of the other end."""
    text = error.message or str(error.status.name).lower()
    if error.status is Status.NOT_FOUND:
        return NotFoundError(text)
    if error.status is Status.UNIMPLEMENTED:
        return UnsupportedError(text)
    return BarqueError(text)


class _GivenChannel(Channel):
    """A channel whose connection is not made but given."""

    def __init__(self) -> None:
        super().__init__("localhost", status_details_codec=DetailsCodec(), config=_CONFIG)
        self.given = Frames(ClientHandler(), self._config, self._h2_config)
        self._protocol = self.given

    def close(self) -> None:
        # A connection that never began has nothing to end.
        if hasattr(self.given, "processor"):
            super().close()

    async def _create_connection(self) -> H2Protocol:
        raise ConnectionResetError("the client has gone")


_METHODS: dict[str, MethodDescriptor] = {}


def method_of(path: str) -> MethodDescriptor:
    """Return the description of a method of the clients' or the engine's services.

    Raises:
        KeyError: there is none.
    """
    if not _METHODS:
        from barque.builder.buildkit.pb import (
            auth_pb2,
            content_pb2,
            control_pb2,
            filesync_pb2,
            gateway_pb2,
            health_pb2,
            secrets_pb2,
            ssh_pb2,
            upload_pb2,
        )

        modules = (
            auth_pb2, content_pb2, control_pb2, filesync_pb2, gateway_pb2, health_pb2, secrets_pb2, ssh_pb2, upload_pb2,
        )  # fmt: skip
        for module in modules:
            for service in module.DESCRIPTOR.services_by_name.values():
                for method in service.methods:
                    _METHODS[f"{service.full_name}/{method.name}"] = method
    return _METHODS[path]
