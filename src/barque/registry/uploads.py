"""Writing to the registry: blobs in one piece or in chunks, mounts, manifests; and deletions."""

from collections.abc import AsyncIterator

from aiohttp import web

from barque.registry import manifests, names, ranges
from barque.registry.errors import (
    RegistryError,
    manifest_invalid,
    unsupported,
    upload_invalid,
    upload_unknown,
)  # fmt: skip
from barque.registry.exchange import Exchange, empty

TAGS_MAX = 100


async def begin(exchange: Exchange) -> web.StreamResponse:
    """Begin an upload; or mount a blob, or take a whole one."""
    exchange.must_write()
    query = exchange.query
    algorithm = query.get("digest-algorithm")
    if algorithm is not None and algorithm not in ("sha256", "sha512"):
        raise RegistryError(400, "DIGEST_INVALID", "unsupported digest algorithm", detail={"algorithm": algorithm[:50]})
    if "mount" in query:
        mounted = await _mount(exchange, names.check_digest(query["mount"]), query.get("from", ""))
        if mounted is not None:
            return mounted
    digest = names.check_digest(query["digest"]) if "digest" in query else ""
    upload = await exchange.storage.uploads.create()
    if not digest:
        await exchange.repositories.make(exchange.name)
        return _accepted(exchange, upload, 0, 202)
    try:
        await exchange.storage.uploads.append(upload, _limited(exchange, 0), start=0)
        return await _finish(exchange, upload, digest)
    except BaseException:
        await exchange.storage.uploads.cancel(upload)
        raise


async def _mount(exchange: Exchange, digest: str, origin: str) -> web.StreamResponse | None:
    repositories = exchange.repositories
    if origin:
        names.check_name(origin)
        if not await repositories.mount(exchange.name, digest, origin):
            return None
    elif not exchange.settings.open_mounts:
        return None
    else:
        holder = await repositories.holder(digest)
        if not holder or not await repositories.mount(exchange.name, digest, holder):
            return None
    return _created(exchange, digest)


def _created(exchange: Exchange, digest: str) -> web.StreamResponse:
    location = exchange.url(f"/v2/{exchange.name}/blobs/{digest}")
    return empty(201, Location=location, Docker_Content_Digest=digest)


def _accepted(exchange: Exchange, upload: str, size: int, status: int) -> web.StreamResponse:
    headers = {
        "Location": exchange.url(f"/v2/{exchange.name}/blobs/uploads/{upload}"),
        # Nothing yet is written like one byte: the specification has no form for it.
        "Range": f"0-{max(size - 1, 0)}",
        "Docker-Upload-UUID": upload,
    }
    if status == 202 and exchange.settings.chunk_min:
        headers["OCI-Chunk-Min-Length"] = str(exchange.settings.chunk_min)
    return empty(status, **headers)


async def _limited(exchange: Exchange, before: int) -> AsyncIterator[bytes]:
    """Yield the body, as long as the blob stays below the limit of size."""
    most = exchange.settings.blob_size_max
    if most and before + (exchange.request.content_length or 0) > most:
        raise RegistryError(413, "SIZE_INVALID", f"the blob is bigger than {most} bytes")
    async for chunk in exchange.body():
        before += len(chunk)
        if most and before > most:
            raise RegistryError(413, "SIZE_INVALID", f"the blob is bigger than {most} bytes")
        yield chunk


def _upload_of(exchange: Exchange) -> str:
    if not names.is_upload(exchange.reference):
        raise upload_unknown(exchange.reference[:100])
    return exchange.reference


async def _append(exchange: Exchange, upload: str) -> int:
    """Append the request's body to an upload and return the size."""
    span = ranges.of_chunk(exchange.request.headers.get("Content-Range"))
    length = exchange.request.content_length
    if span is not None and length is not None and length != span.end - span.start:
        raise upload_invalid("Content-Range and Content-Length differ")
    uploads = exchange.storage.uploads
    before = await uploads.size(upload)
    if before is None:
        raise upload_unknown(upload)
    start = span.start if span is not None else None
    try:
        size = await uploads.append(upload, _limited(exchange, before), start=start)
    except RegistryError as error:
        if error.status == 416:
            error.headers |= _accepted(exchange, upload, before, 416).headers
        raise
    if span is not None and size != span.end:
        raise RegistryError(400, "SIZE_INVALID", "the chunk is shorter or longer than Content-Range says")
    return size


async def status(exchange: Exchange) -> web.StreamResponse:
    """Say how much of an upload has arrived."""
    upload = _upload_of(exchange)
    size = await exchange.storage.uploads.size(upload)
    if size is None:
        raise upload_unknown(upload)
    return _accepted(exchange, upload, size, 204)


async def chunk(exchange: Exchange) -> web.StreamResponse:
    """Take a chunk of an upload."""
    exchange.must_write()
    upload = _upload_of(exchange)
    return _accepted(exchange, upload, await _append(exchange, upload), 202)


async def finish(exchange: Exchange) -> web.StreamResponse:
    """Take the last chunk, if there is one, and make the upload a blob of the repository."""
    exchange.must_write()
    upload = _upload_of(exchange)
    if "digest" not in exchange.query:
        raise RegistryError(400, "DIGEST_INVALID", "the digest is missing")
    digest = names.check_digest(exchange.query["digest"])
    await _append(exchange, upload)
    return await _finish(exchange, upload, digest)


async def _finish(exchange: Exchange, upload: str, digest: str) -> web.StreamResponse:
    await exchange.storage.uploads.finish(upload, digest)
    if not await exchange.repositories.add_blob(exchange.name, digest):
        raise RegistryError(503, "BLOB_UPLOAD_INVALID", "the blob was collected as garbage meanwhile; send it again")
    return _created(exchange, digest)


async def cancel(exchange: Exchange) -> web.StreamResponse:
    """Forget an upload."""
    exchange.must_write()
    upload = _upload_of(exchange)
    if not await exchange.storage.uploads.cancel(upload):
        raise upload_unknown(upload)
    return empty(204)


async def put_manifest(exchange: Exchange) -> web.StreamResponse:
    """Take a manifest under a tag or its digest."""
    exchange.must_write()
    reference = exchange.reference
    digest = names.check_digest(reference) if names.is_digest(reference) else ""
    given = exchange.request.query.getall("tag", []) if digest else [reference]
    tags = tuple(dict.fromkeys(given))
    if not all(names.is_tag(tag) for tag in tags):
        raise manifest_invalid("invalid tag") if digest else RegistryError(400, "TAG_INVALID", "invalid tag")
    if len(tags) > TAGS_MAX:
        raise RegistryError(414, "TAG_INVALID", f"more than {TAGS_MAX} tags")
    raw = await exchange.manifest_body()
    manifest = manifests.parse(raw, exchange.request.headers.get("Content-Type", ""))
    found = await exchange.repositories.put_manifest(
        exchange.name, raw, manifest, digest=digest, tags=tags, sparse=exchange.settings.sparse
    )
    headers = {"Location": exchange.url(f"/v2/{exchange.name}/manifests/{reference}"), "Docker-Content-Digest": found}
    if manifest.subject:
        headers["OCI-Subject"] = manifest.subject
    if digest and tags:
        headers["OCI-Tag"] = ", ".join(tags)
    return empty(201, **headers)


async def delete_manifest(exchange: Exchange) -> web.StreamResponse:
    """Delete a manifest with its tags, or one tag."""
    _must_delete(exchange)
    if names.is_digest(exchange.reference):
        await exchange.repositories.delete_manifest(exchange.name, names.check_digest(exchange.reference))
    else:
        await exchange.repositories.delete_tag(exchange.name, exchange.reference)
    return empty(202)


async def delete_blob(exchange: Exchange) -> web.StreamResponse:
    """Take a blob away from the repository."""
    _must_delete(exchange)
    await exchange.repositories.delete_blob(exchange.name, names.check_digest(exchange.reference))
    return empty(202)


def _must_delete(exchange: Exchange) -> None:
    exchange.must_write()
    if not exchange.settings.deletes:
        raise unsupported("deleting is not enabled on this registry")
