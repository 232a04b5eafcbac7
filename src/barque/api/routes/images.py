"""Images."""

from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from barque.api import shapes
from barque.api.call import Call, answer, nothing
from barque.api.router import Table
from barque.api.streams import send_chunks, send_messages
from barque.base.errors import BarqueError, InvalidInputError

Json = dict[str, Any]


def add(table: Table) -> None:
    """Add these routes."""
    table.add("GET", "/images/json", list_)
    table.add("GET", "/images/search", search)
    table.add("GET", "/images/get", save, follows=True)
    table.add("POST", "/images/load", load)
    table.add("POST", "/images/create", create, follows=True)
    table.add("POST", "/images/prune", prune)
    table.add("GET", "/images/{name*}/json", inspect)
    table.add("GET", "/images/{name*}/history", history)
    table.add("GET", "/images/{name*}/get", save_one, follows=True)
    table.add("POST", "/images/{name*}/tag", tag)
    table.add("POST", "/images/{name*}/push", push, follows=True)
    table.add("DELETE", "/images/{name*}", remove)


async def list_(call: Call) -> web.StreamResponse:
    """List images."""
    filters = call.filters()
    if call.version < (1, 41) and call.text("filter"):
        filters.setdefault("reference", []).append(call.text("filter"))
    rows = await call.backend.images.list(
        all=call.flag("all"),
        filters=filters,
        shared_size=call.flag("shared-size"),
        digests=call.flag("digests"),
        manifests=call.flag("manifests"),
    )
    return answer([shapes.image_row(row, call.version) for row in rows])


async def inspect(call: Call) -> web.StreamResponse:
    """Tell everything about an image."""
    platform = call.text("platform") if call.version >= (1, 49) else ""
    manifests = call.flag("manifests")
    if platform and manifests:
        raise InvalidInputError("conflicting options: manifests and platform options cannot both be set")
    value = await call.backend.images.inspect(call.params["name"], platform=platform, manifests=manifests)
    return answer(shapes.image(value, call.version))


async def history(call: Call) -> web.StreamResponse:
    """Tell how an image came to be."""
    return answer(await call.backend.images.history(call.params["name"], platform=call.text("platform")))


async def tag(call: Call) -> web.StreamResponse:
    """Give an image another name."""
    await call.backend.images.tag(call.params["name"], call.text("repo"), call.text("tag"))
    return nothing(201)


async def remove(call: Call) -> web.StreamResponse:
    """Remove a name or an image."""
    rows = await call.backend.images.remove(
        call.params["name"],
        force=call.flag("force"),
        noprune=call.flag("noprune"),
        platforms=call.texts("platforms") if call.version >= (1, 50) else [],
    )
    return answer(rows)


async def prune(call: Call) -> web.StreamResponse:
    """Remove unused images."""
    return answer(await call.backend.images.prune(call.filters(), dry_run=call.flag("dry-run")))


async def load(call: Call) -> web.StreamResponse:
    """Read images from an archive."""
    platforms = _platforms(call)
    return await send_messages(call, _load(call, platforms))


async def _load(call: Call, platforms: list[str]) -> AsyncIterator[Json]:
    """Yield messages, and a failure as the last of them: clients look for it there, even where it is the first."""
    try:
        async for message in call.backend.images.load(
            call.reader(), quiet=call.flag("quiet"), platforms=platforms
        ):
            yield message
    except BarqueError as error:
        yield {"errorDetail": {"message": str(error)}, "error": str(error)}


def _platforms(call: Call) -> list[str]:
    return [text for text in call.texts("platform") if text] if call.version >= (1, 48) else []


async def save(call: Call) -> web.StreamResponse:
    """Send images as one archive."""
    names = [name for value in call.texts("names") for name in value.split(",") if name]
    chunks = await call.backend.images.save(names, platforms=_platforms(call))
    return await send_chunks(call, chunks, "application/x-tar")


async def save_one(call: Call) -> web.StreamResponse:
    """Send one image as an archive."""
    chunks = await call.backend.images.save([call.params["name"]], platforms=_platforms(call))
    return await send_chunks(call, chunks, "application/x-tar")


async def create(call: Call) -> web.StreamResponse:
    """Pull an image, or make one out of a root file system."""
    platform = call.text("platform")
    image, source = call.text("fromImage"), call.text("fromSrc")
    if image:
        pulled = call.backend.registries.pull(image, call.text("tag"), platform=platform, auth=call.auth())
        return await send_messages(call, pulled)
    if not source:
        raise InvalidInputError("neither fromImage nor fromSrc is given")
    repo, tag, changes = call.text("repo"), call.text("tag"), call.texts("changes")
    message = call.text("message") or call.text("comment") or f"Imported from {source}"
    if source == "-":
        imported = await call.backend.images.import_(
            call.reader(), repo=repo, tag=tag, message=message, changes=changes, platform=platform
        )
    else:
        imported = call.backend.registries.import_url(
            source, repo=repo, tag=tag, message=message, changes=changes, platform=platform
        )
    return await send_messages(call, imported)


async def push(call: Call) -> web.StreamResponse:
    """Push an image to its registry."""
    platform = call.text("platform") if call.version >= (1, 46) else ""
    pushed = call.backend.registries.push(call.params["name"], call.text("tag"), platform=platform, auth=call.auth())
    return await send_messages(call, pushed)


async def search(call: Call) -> web.StreamResponse:
    """Search a registry."""
    found = await call.backend.registries.search(
        call.text("term"), limit=call.number("limit"), filters=call.filters(), auth=call.auth()
    )
    return answer(found)
