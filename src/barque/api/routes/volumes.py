"""Volumes; renaming, export and import are ours, Docker has no such paths."""

from aiohttp import web

from barque.api import checks
from barque.api.call import Call, answer, nothing
from barque.api.router import Table
from barque.api.streams import send_chunks
from barque.base.errors import UnavailableError


def add(table: Table) -> None:
    """Add these routes."""
    table.add("GET", "/volumes", list_)
    table.add("POST", "/volumes/create", create)
    table.add("POST", "/volumes/prune", prune)
    table.add("POST", "/volumes/{name}/rename", rename)
    table.add("GET", "/volumes/{name}/archive", export)
    table.add("PUT", "/volumes/{name}/archive", restore)
    table.add("GET", "/volumes/{name}", inspect)
    table.add("PUT", "/volumes/{name}", update)
    table.add("DELETE", "/volumes/{name}", remove)


async def list_(call: Call) -> web.StreamResponse:
    """List volumes."""
    return answer(await call.backend.volumes.list(call.filters()))


async def inspect(call: Call) -> web.StreamResponse:
    """Tell everything about a volume."""
    return answer(await call.backend.volumes.inspect(call.params["name"]))


async def create(call: Call) -> web.StreamResponse:
    """Make a volume."""
    config = checks.checked(await call.body() or {}, checks.VOLUME, "CreateOptions")
    return answer(await call.backend.volumes.create(config), 201)


async def update(call: Call) -> web.StreamResponse:
    """Refuse what only a cluster can do."""
    raise UnavailableError("volume update only valid for cluster volumes, but swarm is unavailable")


async def remove(call: Call) -> web.StreamResponse:
    """Remove a volume."""
    await call.backend.volumes.remove(call.params["name"], force=call.flag("force"))
    return nothing()


async def prune(call: Call) -> web.StreamResponse:
    """Remove unused volumes; before version 1.42 that meant the named ones too."""
    filters = call.filters()
    if call.version < (1, 42):
        filters.setdefault("all", ["true"])
    return answer(await call.backend.volumes.prune(filters, dry_run=call.flag("dry-run")))


async def rename(call: Call) -> web.StreamResponse:
    """Give a volume another name."""
    return answer(await call.backend.volumes.rename(call.params["name"], call.text("name")))


async def export(call: Call) -> web.StreamResponse:
    """Send a volume's files as a tar."""
    return await send_chunks(call, await call.backend.volumes.export(call.params["name"]), "application/x-tar")


async def restore(call: Call) -> web.StreamResponse:
    """Unpack a tar or an image into a volume."""
    await call.backend.volumes.restore(
        call.params["name"], call.reader(), image=call.text("image"), clear=call.flag("clear")
    )
    return nothing(200)
