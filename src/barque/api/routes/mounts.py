"""Mounts and devices of containers that exist; Docker has no such paths."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from barque.api import backends, checks
from barque.api.call import Call, nothing
from barque.api.router import Handler, Table
from barque.base.errors import InvalidInputError


def add(table: Table) -> None:
    """Add these routes."""
    mounts, devices = "/containers/{ref}/mounts", "/containers/{ref}/devices"
    table.add("POST", mounts, _gives(checks.MOUNT, "Mount", lambda containers: containers.add_mount))
    table.add("DELETE", mounts, _takes(lambda containers: containers.remove_mount))
    table.add("POST", devices, _gives(checks.DEVICE, "Device", lambda containers: containers.add_device))
    table.add("DELETE", devices, _takes(lambda containers: containers.remove_device))


def _gives(
    form: checks.Schema, name: str, verb: Callable[[backends.ContainersBackend], Callable[[str, backends.Json], Awaitable[None]]]
) -> Handler:
    """Return what gives a container the thing that the body describes."""

    async def handle(call: Call) -> web.StreamResponse:
        wish = checks.checked(await call.body() or {}, form, name)
        await verb(call.backend.containers)(call.params["ref"], wish)
        return nothing()

    return handle


def _takes(verb: Callable[[backends.ContainersBackend], Callable[[str, str], Awaitable[None]]]) -> Handler:
    """Return what takes from a container the thing at the path `target`."""

    async def handle(call: Call) -> web.StreamResponse:
        path = call.text("target")
        if not path.startswith("/"):
            raise InvalidInputError("target must be an absolute path")
        await verb(call.backend.containers)(call.params["ref"], path)
        return nothing()

    return handle
