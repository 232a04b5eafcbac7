"""Mounts of containers that exist; Docker has no such paths."""

from aiohttp import web

from barque.api import checks
from barque.api.call import Call, nothing
from barque.api.router import Table
from barque.base.errors import InvalidInputError


def add(table: Table) -> None:
    """Add these routes."""
    table.add("POST", "/containers/{ref}/mounts", add_mount)
    table.add("DELETE", "/containers/{ref}/mounts", remove_mount)


async def add_mount(call: Call) -> web.StreamResponse:
    """Mount something in a container."""
    wish = checks.checked(await call.body() or {}, checks.MOUNT, "Mount")
    await call.backend.containers.add_mount(call.params["ref"], wish)
    return nothing()


async def remove_mount(call: Call) -> web.StreamResponse:
    """Take a mount out of a container."""
    target = call.text("target")
    if not target.startswith("/"):
        raise InvalidInputError("target must be an absolute path")
    await call.backend.containers.remove_mount(call.params["ref"], target)
    return nothing()
