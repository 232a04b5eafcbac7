"""Files of containers: copying in and out, export."""

import base64
import json
from typing import Any

from aiohttp import web

from barque.api.call import Call, nothing
from barque.api.router import Table
from barque.api.streams import send_chunks
from barque.base.errors import InvalidInputError

Json = dict[str, Any]
_STAT_HEADER = "X-Docker-Container-Path-Stat"


def add(table: Table) -> None:
    """Add these routes."""
    table.add("HEAD", "/containers/{ref}/archive", stat)
    table.add("GET", "/containers/{ref}/archive", get, follows=True)
    table.add("PUT", "/containers/{ref}/archive", put)
    table.add("GET", "/containers/{ref}/export", export, follows=True)


def _path(call: Call) -> str:
    path = call.text("path")
    if not path:
        raise InvalidInputError("path cannot be empty")
    return path


def _stat_header(stat: Json) -> dict[str, str]:
    return {_STAT_HEADER: base64.b64encode(json.dumps(stat).encode()).decode()}


async def stat(call: Call) -> web.StreamResponse:
    """Tell a path's kind, size and times."""
    value = await call.backend.containers.archive_stat(call.params["ref"], _path(call))
    return web.Response(headers=_stat_header(value))


async def get(call: Call) -> web.StreamResponse:
    """Send the tar of a path."""
    found = await call.backend.containers.archive_get(call.params["ref"], _path(call))
    return await send_chunks(call, found.chunks, "application/x-tar", _stat_header(found.stat))


async def put(call: Call) -> web.StreamResponse:
    """Unpack a tar into a folder."""
    await call.backend.containers.archive_put(
        call.params["ref"],
        _path(call),
        call.reader(),
        no_overwrite_dir_non_dir=call.flag("noOverwriteDirNonDir"),
        copy_uid_gid=call.flag("copyUIDGID"),
    )
    return nothing(200)


async def export(call: Call) -> web.StreamResponse:
    """Send the tar of a container's files."""
    chunks = await call.backend.containers.export(call.params["ref"])
    return await send_chunks(call, chunks, "application/octet-stream")
