"""BuildKit's clients: gRPC over connections that begin as HTTP/1.1, in either direction."""

from aiohttp import web

from barque.api.call import Call
from barque.api.hijack import UPGRADE_HEADER, hand_over
from barque.api.router import Table
from barque.base.errors import InvalidInputError


def add(table: Table) -> None:
    """Add these routes."""
    table.add("POST", "/grpc", grpc, follows=True)
    table.add("POST", "/session", session, follows=True)


def _need_upgrade(call: Call) -> None:
    wanted = call.request.headers.get(UPGRADE_HEADER, "")
    if wanted.lower() != "h2c":
        raise InvalidInputError(f"protocol {wanted} not supported" if wanted else "no upgrade proto in request")


async def grpc(call: Call) -> web.StreamResponse:
    """Let the client call us."""
    _need_upgrade(call)
    return await hand_over(call.request, call.backend.builds.buildkit.serve(), "h2c")


async def session(call: Call) -> web.StreamResponse:
    """Let us call the client, as long as its connection lasts."""
    _need_upgrade(call)
    headers: dict[str, list[str]] = {}
    for name, value in call.request.headers.items():
        headers.setdefault(name.lower(), []).append(value)
    protocol, ended = await call.backend.builds.buildkit.open_session(headers)
    try:
        return await hand_over(call.request, protocol, "h2c")
    finally:
        ended()
