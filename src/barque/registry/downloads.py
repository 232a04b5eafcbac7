"""Reading from the registry: blobs, manifests, listings, referrers."""

from aiohttp import web

from barque.oci import media
from barque.registry import names, ranges
from barque.registry.errors import RegistryError, blob_unknown
from barque.registry.exchange import (
    VERSION_HEADER,
    Exchange,
    as_json,
    empty,
    etag,
    plain,
    send_chunks,
    send_file,
    unchanged,
)  # fmt: skip
from barque.registry.ranges import Span


async def base(exchange: Exchange) -> web.StreamResponse:
    """Say that this is a registry and the user is known."""
    return plain(200, b"{}", "application/json", head=exchange.request.method == "HEAD")


async def blob(exchange: Exchange) -> web.StreamResponse:
    """Send a blob or a range of it."""
    digest = names.check_digest(exchange.reference)
    size = await exchange.repositories.blob_size(exchange.name, digest)
    return await send_blob(exchange, digest, size)


async def send_blob(exchange: Exchange, digest: str, size: int) -> web.StreamResponse:
    """Send a blob that is in the storage."""
    request = exchange.request
    if unchanged(request, digest):
        return empty(304, ETag=etag(digest), Docker_Content_Digest=digest)
    response, span = blob_answer(request, digest, size)
    if request.method == "HEAD":
        response.content_length = span.end - span.start
        await response.prepare(request)
        await response.write_eof()
        return response
    idle_s = exchange.settings.idle_s
    file = await exchange.storage.blobs.open(digest)
    if file is not None:
        with file:
            await send_file(request, response, file, span, idle_s)
    elif await exchange.storage.blobs.size(digest) is None:
        raise blob_unknown(digest)
    else:
        chunks = exchange.storage.blobs.read(digest, span.start, span.end)
        await send_chunks(request, response, chunks, span, idle_s)
    return response


def blob_answer(request: web.BaseRequest, digest: str, size: int) -> tuple[web.StreamResponse, Span]:
    """Return the head of the answer with a blob, and which of its bytes are asked for.

    Raises:
        RegistryError: none of these is there.
    """
    headers = {
        **VERSION_HEADER,
        "Docker-Content-Digest": digest,
        "Content-Type": "application/octet-stream",
        "Accept-Ranges": "bytes",
        "ETag": etag(digest),
        "Cache-Control": "max-age=31536000",
    }
    wanted = request.headers.get("Range")
    if wanted and request.headers.get("If-Range", etag(digest)) != etag(digest):
        wanted = None
    try:
        span = ranges.of_request(wanted, size)
    except ranges.UnsatisfiableError:
        raise RegistryError(
            416, "SIZE_INVALID", "the range is behind the blob's end", headers={"Content-Range": f"bytes */{size}"}
        ) from None
    if span is None:
        return web.StreamResponse(status=200, headers=headers), Span(0, size)
    headers["Content-Range"] = f"bytes {span.start}-{span.end - 1}/{size}"
    return web.StreamResponse(status=206, headers=headers), span


async def manifest(exchange: Exchange) -> web.StreamResponse:
    """Send a manifest."""
    stored = await exchange.repositories.resolve(exchange.name, exchange.reference)
    if unchanged(exchange.request, stored.digest):
        return empty(304, ETag=etag(stored.digest), Docker_Content_Digest=stored.digest)
    raw = await exchange.repositories.read_manifest(stored.digest)
    return manifest_answer(exchange, stored.digest, stored.media_type, raw)


def manifest_answer(exchange: Exchange, digest: str, media_type: str, raw: bytes) -> web.StreamResponse:
    """Return the answer with a manifest."""
    headers = {"Docker-Content-Digest": digest, "ETag": etag(digest)}
    return plain(200, raw, media_type, headers, head=exchange.request.method == "HEAD")


async def tags(exchange: Exchange) -> web.StreamResponse:
    """List a repository's tags."""
    most = names.page(exchange.query.get("n"), most=exchange.settings.page)
    after = exchange.query.get("last", "")
    if most == 0:
        await exchange.repositories.must_exist(exchange.name)
        return as_json({"name": exchange.name, "tags": []})
    found = await exchange.repositories.tags(exchange.name, after=after, most=most + 1)
    headers = exchange.next_page(n=str(most), last=found[most - 1]) if len(found) > most else None
    return as_json({"name": exchange.name, "tags": found[:most]}, headers)


async def catalog(exchange: Exchange) -> web.StreamResponse:
    """List the repositories."""
    most = names.page(exchange.query.get("n"), most=exchange.settings.page)
    if most == 0:
        return as_json({"repositories": []})
    found = await exchange.repositories.catalog(after=exchange.query.get("last", ""), most=most + 1)
    headers = exchange.next_page(n=str(most), last=found[most - 1]) if len(found) > most else None
    return as_json({"repositories": found[:most]}, headers)


async def referrers(exchange: Exchange) -> web.StreamResponse:
    """List what is about a manifest, as an image index."""
    subject = names.check_digest(exchange.reference)
    wanted = exchange.query.get("artifactType", "")
    most = exchange.settings.page
    found = await exchange.repositories.referrers(
        exchange.name, subject, after=exchange.query.get("last", ""), most=most + 1
    )
    headers: dict[str, str] = {}
    if len(found) > most:
        query = {"artifactType": wanted} if wanted else {}
        headers |= exchange.next_page(**query, last=found[most - 1]["digest"])
        found = found[:most]
    if wanted:
        found = [d for d in found if d.get("artifactType") == wanted]
        headers["OCI-Filters-Applied"] = "artifactType"
    index = {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": found}
    return as_json(index, headers, content_type=media.OCI_INDEX)
