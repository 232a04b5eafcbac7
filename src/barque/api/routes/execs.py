"""Exec instances: commands in running containers."""

from aiohttp import web

from barque.api import checks
from barque.api.call import Call, answer, nothing
from barque.api.router import Table
from barque.api.routes.containers import size_of
from barque.api.routes.streams import hijack
from barque.base.errors import InvalidInputError
from barque.engine import detach


def add(table: Table) -> None:
    """Add these routes."""
    table.add("POST", "/containers/{ref}/exec", create)
    table.add("POST", "/exec/{id}/start", start, follows=True)
    table.add("POST", "/exec/{id}/resize", resize)
    table.add("GET", "/exec/{id}/json", inspect)


async def create(call: Call) -> web.StreamResponse:
    """Make an exec instance."""
    config = checks.checked(await call.body() or {}, checks.EXEC, "ExecOptions")
    if not config.get("Cmd"):
        raise InvalidInputError("No exec command specified")
    detach.parse_keys(config.get("DetachKeys") or "")
    if call.version < (1, 42):
        config.pop("ConsoleSize", None)
    return answer(await call.backend.containers.exec_create(call.params["ref"], config), 201)


async def start(call: Call) -> web.StreamResponse:
    """Run an exec instance; without `Detach` the client gets its streams."""
    options = checks.checked(await call.body() or {}, checks.EXEC_START, "ExecStartOptions")
    size = (options.get("ConsoleSize") or [0, 0]) if call.version >= (1, 42) else [0, 0]
    if any(size) and not options.get("Tty"):
        raise InvalidInputError("console size is only supported when TTY is enabled")
    attachment = await call.backend.containers.exec_start(
        call.params["id"],
        detach=bool(options.get("Detach")),
        console_size=(size[0], size[1]) if any(size) else None,
    )
    if attachment is None:
        return nothing(200)
    # A terminal whose starter does not know of it: its output comes in frames all the same.
    return await hijack(call, attachment, framed=not options.get("Tty"))


async def resize(call: Call) -> web.StreamResponse:
    """Set the size of an exec's terminal."""
    height, width = size_of(call)
    await call.backend.containers.exec_resize(call.params["id"], height=height, width=width)
    return nothing(200)


async def inspect(call: Call) -> web.StreamResponse:
    """Tell about an exec instance."""
    return answer(await call.backend.containers.exec_inspect(call.params["id"]))
