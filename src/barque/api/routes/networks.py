"""Networks."""

from aiohttp import web

from barque.api import checks
from barque.api.call import Call, answer, nothing
from barque.api.router import Table
from barque.base.errors import InvalidInputError


def add(table: Table) -> None:
    """Add these routes."""
    table.add("GET", "/networks", list_)
    table.add("GET", "/networks/", list_)
    table.add("POST", "/networks/create", create)
    table.add("POST", "/networks/prune", prune)
    table.add("GET", "/networks/{ref*}", inspect)
    table.add("DELETE", "/networks/{ref*}", remove)
    table.add("POST", "/networks/{ref*}/connect", connect)
    table.add("POST", "/networks/{ref*}/rename", rename)
    table.add("POST", "/networks/{ref*}/disconnect", disconnect)


async def list_(call: Call) -> web.StreamResponse:
    """List networks."""
    return answer(await call.backend.networks.list(call.filters()))


async def inspect(call: Call) -> web.StreamResponse:
    """Tell everything about a network."""
    value = await call.backend.networks.inspect(
        call.params["ref"], verbose=call.flag("verbose"), scope=call.text("scope")
    )
    return answer(value)


async def create(call: Call) -> web.StreamResponse:
    """Make a network."""
    config = checks.checked(await call.body() or {}, checks.NETWORK, "CreateRequest")
    if call.version < (1, 48):
        # It was not read before the version that brought it.
        config.pop("EnableIPv4", None)
    return answer(await call.backend.networks.create(config), 201)


async def remove(call: Call) -> web.StreamResponse:
    """Remove a network."""
    await call.backend.networks.remove(call.params["ref"])
    return nothing()


async def connect(call: Call) -> web.StreamResponse:
    """Connect a container to a network."""
    config = checks.checked(await call.body() or {}, checks.CONNECT, "ConnectOptions")
    _needs_container(config.get("Container"))
    await call.backend.networks.connect(call.params["ref"], config)
    return nothing(200)


async def disconnect(call: Call) -> web.StreamResponse:
    """Take a container off a network."""
    config = checks.checked(await call.body() or {}, checks.DISCONNECT, "DisconnectOptions")
    _needs_container(config.get("Container"))
    await call.backend.networks.disconnect(call.params["ref"], config)
    return nothing(200)


async def rename(call: Call) -> web.StreamResponse:
    """Give a network another name."""
    await call.backend.networks.rename(call.params["ref"], call.text("name"))
    return nothing()


def _needs_container(ref: str | None) -> None:
    if not ref:
        raise InvalidInputError("invalid container name or ID: value is empty")


async def prune(call: Call) -> web.StreamResponse:
    """Remove unused networks."""
    return answer(await call.backend.networks.prune(call.filters(), dry_run=call.flag("dry-run")))
