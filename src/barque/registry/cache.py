"""A pull-through cache of another registry: what is asked for is fetched once, kept, and served.

Tags are asked for upstream each time, since they move; what a digest names is served from here. While
the upstream registry does not answer, what is here is served. A blob is fetched once, however many ask
for it at the same time, and goes to all of them as it arrives; its last bytes wait for the digest.
"""

import asyncio
import logging
import os
import tempfile
import time
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode, urlsplit

from aiohttp import web

from barque.base.errors import InvalidInputError
from barque.oci import digest as digests
from barque.registry import downloads, manifests, names
from barque.registry.collect import Collector
from barque.registry.config import Collecting
from barque.registry.errors import RegistryError, blob_unknown, manifest_unknown, name_unknown
from barque.registry.exchange import Exchange, plain, send_chunks, sha256
from barque.registry.repositories import Repositories
from barque.registry.server import ROUTES, Handler
from barque.registry.storage import CHUNK, name_of, repository
from barque.registry.upstream import Answer, UnreachableError, UpstreamRegistry

log = logging.getLogger(__name__)


def _unavailable(error: UnreachableError) -> RegistryError:
    return RegistryError(
        503, "UNKNOWN", f"the cached registry is not reachable: {error}", headers={"Retry-After": "10"}
    )


class Cache:
    """Handlers of requests that may have to ask the upstream registry."""

    def __init__(self, upstream: UpstreamRegistry) -> None:
        self._upstream = upstream
        self._fetches: dict[tuple[str, str], _Fetch] = {}

    def routes(self) -> dict[tuple[str, str], Handler]:
        """Return the handlers by method and kind of target."""
        own: dict[tuple[str, str], Handler] = {
            ("GET", "manifest"): self.manifest,
            ("GET", "blob"): self.blob,
            ("GET", "tags"): self.tags,
            ("GET", "referrers"): self.referrers,
        }
        return {**ROUTES, **own}

    async def manifest(self, exchange: Exchange) -> web.StreamResponse:
        """Send a manifest, fetched if it is not here or its tag may have moved."""
        reference = exchange.reference
        wanted = names.check_digest(reference) if names.is_digest(reference) else ""
        if not wanted and not names.is_tag(reference):
            raise manifest_unknown(reference)
        if not wanted or not await self._touch(exchange, wanted):
            try:
                await self._fetch_manifest(exchange, reference, wanted)
            except UnreachableError as error:
                log.warning("%s:%s: %s; looking at what is here", exchange.name, reference, error)
                try:
                    return await downloads.manifest(exchange)
                except RegistryError:
                    raise _unavailable(error) from None
        return await downloads.manifest(exchange)

    async def _touch(self, exchange: Exchange, digest: str) -> bool:
        return await exchange.storage.records.touch(f"{repository(exchange.name)}/manifests/{digest}")

    async def _fetch_manifest(self, exchange: Exchange, reference: str, wanted: str) -> None:
        if not wanted:
            answer = await self._upstream.get(exchange.name, f"manifests/{reference}", head=True)
            digest = answer.headers.get("docker-content-digest", "")
            if answer.status == 200 and _is_digest(digest) and await self._touch(exchange, digest):
                key = f"{repository(exchange.name)}/tags/{reference}"
                await exchange.storage.records.put(key, digest.encode())
                return
        answer = await self._upstream.get(exchange.name, f"manifests/{reference}")
        if answer.status != 200:
            raise manifest_unknown(reference)
        try:
            parsed = manifests.parse(answer.body, answer.headers.get("content-type", ""))
            await exchange.repositories.put_manifest(
                exchange.name,
                answer.body,
                parsed,
                digest=wanted or sha256(answer.body),
                tags=() if wanted else (reference,),
                sparse=True,
            )
        except RegistryError as error:
            raise UnreachableError(f"it answers with something else: {error.message}") from None

    async def blob(self, exchange: Exchange) -> web.StreamResponse:
        """Send a blob, as it arrives if it is not here yet."""
        digest = names.check_digest(exchange.reference)
        try:
            size = await exchange.repositories.blob_size(exchange.name, digest)
        except RegistryError:
            return await self._fetched_blob(exchange, digest)
        return await downloads.send_blob(exchange, digest, size)

    async def _fetched_blob(self, exchange: Exchange, digest: str) -> web.StreamResponse:
        key = (exchange.name, digest)
        if exchange.request.method == "HEAD" and key not in self._fetches:
            return await self._blob_head(exchange, digest)
        fetch = self._fetches.get(key)
        if fetch is None:
            fetch = self._fetches[key] = _Fetch(self._upstream, exchange.repositories, exchange.name, digest)
            fetch.task.add_done_callback(lambda _: self._fetches.pop(key, None))
        try:
            size = await fetch.size()
        except UnreachableError as error:
            raise _unavailable(error) from None
        response, span = downloads.blob_answer(exchange.request, digest, size)
        if exchange.request.method == "HEAD":
            return await self._blob_head(exchange, digest)
        await send_chunks(exchange.request, response, fetch.read(span.start, span.end), span, exchange.settings.idle_s)
        return response

    async def _blob_head(self, exchange: Exchange, digest: str) -> web.StreamResponse:
        try:
            answer = await self._upstream.get(exchange.name, f"blobs/{digest}", head=True)
        except UnreachableError as error:
            raise _unavailable(error) from None
        length = answer.headers.get("content-length", "")
        if answer.status != 200 or not length.isdigit():
            raise blob_unknown(digest)
        response, span = downloads.blob_answer(exchange.request, digest, int(length))
        response.content_length = span.end - span.start
        await response.prepare(exchange.request)
        await response.write_eof()
        return response

    async def tags(self, exchange: Exchange) -> web.StreamResponse:
        """List the tags that the upstream registry has; while it does not answer, those that are here."""
        query = {k: exchange.query[k] for k in ("n", "last") if k in exchange.query}
        names.page(query.get("n"), most=exchange.settings.page)
        found = await self._listing(exchange, "tags/list", query)
        return found if found is not None else await downloads.tags(exchange)

    async def referrers(self, exchange: Exchange) -> web.StreamResponse:
        """List the referrers that the upstream registry has; while it does not answer, those that are here."""
        subject = names.check_digest(exchange.reference)
        query = {k: v for k, v in exchange.query.items() if k in ("artifactType", "last", "n")}
        found = await self._listing(exchange, f"referrers/{subject}", query)
        return found if found is not None else await downloads.referrers(exchange)

    async def _listing(self, exchange: Exchange, rest: str, query: dict[str, str]) -> web.StreamResponse | None:
        try:
            answer = await self._upstream.get(
                exchange.name, f"{rest}?{urlencode(query)}" if query else rest, most=8 << 20
            )
        except UnreachableError as error:
            log.warning("%s %s: %s; looking at what is here", exchange.name, rest, error)
            return None
        if answer.status == 404:
            raise name_unknown(exchange.name)
        if answer.status != 200:
            return None
        return plain(200, answer.body, answer.headers.get("content-type", "application/json"), _passed_on(answer))


def _passed_on(answer: Answer) -> dict[str, str]:
    headers = {}
    if "oci-filters-applied" in answer.headers:
        headers["OCI-Filters-Applied"] = answer.headers["oci-filters-applied"]
    address, _, more = answer.headers.get("link", "").partition(">")
    if address.startswith("<") and "next" in more:
        # The next page is asked for here, wherever it lies.
        parts = urlsplit(address[1:])
        headers["Link"] = f'<{parts.path}?{parts.query}>; rel="next"'
    return headers


def _is_digest(text: str) -> bool:
    try:
        digests.split(text)
    except InvalidInputError:
        return False
    return True


class _Fetch:
    """A blob on its way: one download into a file without a name, followed by any number of readers."""

    def __init__(self, upstream: UpstreamRegistry, repositories: Repositories, name: str, digest: str) -> None:
        self._upstream = upstream
        self._repositories = repositories
        self._name = name
        self._digest = digest
        self._file: Any = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  closed when the last reader lets go
        self._size: int | None = None
        self._got = 0
        self._whole = False
        self._failed: Exception | None = None
        self._changed = asyncio.Event()
        self.task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        try:
            async with self._upstream.stream(self._name, f"blobs/{self._digest}") as response:
                if response.status != 200 or response.content_length is None:
                    raise blob_unknown(self._digest)
                self._size = response.content_length
                self._tell()
                await self._store(response.content.iter_chunked(CHUNK))
            self._whole = True
        except (UnreachableError, RegistryError, OSError) as error:
            log.warning("%s@%s: %s", self._name, self._digest, error)
            self._failed = error
        finally:
            if not self._whole and self._failed is None:
                # Whatever ended this: nobody is to wait for bytes that do not come.
                self._failed = UnreachableError("the transfer was broken off")
            self._tell()

    async def _store(self, chunks: AsyncIterator[bytes]) -> None:
        uploads = self._repositories.storage.uploads
        upload = await uploads.create()
        try:
            await uploads.append(upload, self._followed(chunks), start=0)
            await uploads.finish(upload, self._digest)
        except BaseException:
            await uploads.cancel(upload)
            raise
        await self._repositories.add_blob(self._name, self._digest)

    async def _followed(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for chunk in chunks:
            await asyncio.to_thread(os.pwrite, self._file.fileno(), chunk, self._got)
            self._got += len(chunk)
            self._tell()
            yield chunk

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def size(self) -> int:
        """Return the blob's size as soon as it is known.

        Raises:
            UnreachableError: the upstream registry does not answer.
            RegistryError: it has no such blob.
        """
        while self._size is None:
            if self._failed is not None:
                raise self._failed
            await self._changed.wait()
        return self._size

    async def read(self, start: int, end: int) -> AsyncIterator[bytes]:
        """Yield the blob's bytes as they arrive; the last only when the digest is known to be right.

        Raises:
            ConnectionResetError: it did not arrive, or was another; the reader's connection is to break.
        """
        assert self._size is not None
        while start < end:
            here = end if self._whole else min(end, self._got, self._size - 1)
            if start < here:
                data = await asyncio.to_thread(os.pread, self._file.fileno(), min(CHUNK, here - start), start)
                start += len(data)
                yield data
            elif self._failed is not None:
                raise ConnectionResetError(f"the blob did not arrive: {self._failed}")
            else:
                await self._changed.wait()


async def expire_forever(repositories: Repositories, settings: Collecting, ttl_s: float) -> None:
    """Let go, again and again, of what nobody has asked for in so long."""
    while True:
        await asyncio.sleep(settings.interval_s)
        try:
            await expire(repositories, settings, ttl_s)
        except (OSError, RegistryError) as error:
            log.error("cleaning the cache: %s", error)


async def expire(repositories: Repositories, settings: Collecting, ttl_s: float) -> None:
    """Let go of tags, manifests and blobs that nobody has asked for in so long."""
    records = repositories.storage.records
    for entry in await records.entries("repositories"):
        folder = repository(name_of(entry.name))
        for tag in await records.entries(f"{folder}/tags"):
            if time.time() - tag.time > ttl_s:
                await records.delete(f"{folder}/tags/{tag.name}")
    await Collector(repositories, settings._replace(untagged=True, grace_s=ttl_s)).run()
