"""Mounts and devices of containers that exist; Docker has no such paths."""

from aiohttp import web

from barque.api import checks
from barque.api.call import Call, nothing
from barque.api.router import Table
from barque.base.errors import InvalidInputError


def add(table: Table) -> None:
    """Add these routes."""
    table.add("POST", "/containers/{ref}/mounts", add_mount)
    table.add("DELETE", "/containers/{ref}/mounts", remove_mount)
    table.add("POST", "/containers/{ref}/devices", add_device)
    table.add("DELETE", "/containers/{ref}/devices", remove_device)


async def add_mount(call: Call) -> web.StreamResponse:
    """Mount something in a container."""
    wish = checks.checked(await call.body() or {}, checks.MOUNT, "Mount")
    await call.backend.containers.add_mount(call.params["ref"], wish)
    return nothing()


async def remove_mount(call: Call) -> web.StreamResponse:
    """Take a mount out of a container."""
    await call.backend.containers.remove_mount(call.params["ref"], _target(call))
    return nothing()


async def add_device(call: Call) -> web.StreamResponse:
    """Give a container a device."""
    wish = checks.checked(await call.body() or {}, checks.DEVICE, "Device")
    await call.backend.containers.add_device(call.params["ref"], wish)
    return nothing()


async def remove_device(call: Call) -> web.StreamResponse:
    """Take a device from a container."""
    await call.backend.containers.remove_device(call.params["ref"], _target(call))
    return nothing()


def _target(call: Call) -> str:
    path = call.text("target")
    if not path.startswith("/"):
        raise InvalidInputError("target must be an absolute path")
    return path
