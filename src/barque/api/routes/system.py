"""`/_ping`, version, info, events, disk usage, credentials."""


from aiohttp import web

from barque.api import shapes, times
from barque.api.call import MAX_VERSION, MIN_VERSION, Call, answer
from barque.api.router import Table, dotted
from barque.api.streams import send_messages
from barque.base.errors import InvalidInputError

_OBJECTS = ("container", "image", "volume", "build-cache", "log")


def add(table: Table) -> None:
    """Add these routes."""
    table.add("GET", "/_ping", ping, follows=True)
    table.add("HEAD", "/_ping", ping, follows=True)
    table.add("GET", "/version", version, follows=True)
    table.add("GET", "/info", info)
    table.add("GET", "/events", events, follows=True)
    table.add("GET", "/system/df", disk_usage)
    table.add("POST", "/system/check", check)


async def ping(call: Call) -> web.StreamResponse:
    """Say that the daemon is there, and which builder it recommends."""
    headers = {
        "Builder-Version": "1",
        "Swarm": "inactive",
        "Cache-Control": "no-cache, no-store, must-revalidate",
        "Pragma": "no-cache",
    }
    body = b"" if call.request.method == "HEAD" else b"OK"
    return web.Response(body=body, headers=headers, content_type="text/plain", charset="utf-8")


async def version(call: Call) -> web.StreamResponse:
    """Tell versions of the daemon and of its parts."""
    value = await call.backend.system.version()
    value.setdefault("ApiVersion", dotted(MAX_VERSION))
    value.setdefault("MinAPIVersion", dotted(MIN_VERSION))
    return answer(value)


async def info(call: Call) -> web.StreamResponse:
    """Tell how the engine is set up and what it holds."""
    return answer(shapes.info(await call.backend.system.info(), call.version))


async def events(call: Call) -> web.StreamResponse:
    """Send past and coming events, one a line."""
    since = times.parse_ns(call.text("since"), "since")
    until = times.parse_ns(call.text("until"), "until")
    if since and until and until < since:
        raise InvalidInputError(
            f"`since` time ({call.text('since')}) cannot be after `until` time ({call.text('until')})"
        )
    stream = await call.backend.system.events(since_ns=since, until_ns=until, filters=call.filters())
    return await send_messages(call, stream, early=True)


async def disk_usage(call: Call) -> web.StreamResponse:
    """Tell what lies on disk."""
    kinds = call.texts("type")
    for kind in kinds:
        if kind not in _OBJECTS:
            raise InvalidInputError(f"unknown object type: {kind}")
    value = await call.backend.system.disk_usage(kinds)
    return answer(shapes.disk_usage(value, call.version))


async def check(call: Call) -> web.StreamResponse:
    """Verify all that lies on disk; our own, Docker has no such thing."""
    return answer(await call.backend.system.check(read=not call.flag("quick"), repair=call.flag("repair")))
