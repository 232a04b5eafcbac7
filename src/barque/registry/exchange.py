"""One request with what its handler needs, and the answers in the specification's form."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, BinaryIO
from urllib.parse import quote, urlencode

from aiohttp import web

from barque.registry import manifests
from barque.registry.errors import RegistryError, manifest_invalid, unsupported
from barque.registry.names import Target
from barque.registry.ranges import Span
from barque.registry.repositories import Repositories
from barque.registry.settings import Settings
from barque.registry.storage import CHUNK

VERSION_HEADER = {"Docker-Distribution-Api-Version": "registry/2.0"}
_HEADERS = {**VERSION_HEADER, "X-Content-Type-Options": "nosniff"}


class Exchange:
    """A request, what it is about, and the server's parts."""

    def __init__(
        self, request: web.BaseRequest, target: Target, repositories: Repositories, settings: Settings
    ) -> None:
        self.request = request
        self.target = target
        self.name = target.name
        self.reference = target.reference
        self.repositories = repositories
        self.storage = repositories.storage
        self.settings = settings
        self.query: Mapping[str, str] = request.query
        self._invited = False

    async def body(self) -> AsyncIterator[bytes]:
        """Yield the request's body as it arrives.

        Raises:
            RegistryError: the client sends nothing for too long.
        """
        content = self.request.content
        await self._invite()
        while True:
            try:
                async with asyncio.timeout(self.settings.idle_s):
                    chunk = await content.readany()
            except TimeoutError:
                raise RegistryError(408, "BLOB_UPLOAD_INVALID", "the request's body did not arrive in time") from None
            if not chunk:
                return
            yield chunk

    async def _invite(self) -> None:
        """Tell a client to send the body that waits for it (RFC 9110, section 10.1.1); refused ones never come."""
        if self.request.headers.get("Expect", "").lower() == "100-continue" and not self._invited:
            self._invited = True
            await self.request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            # The answer proper has not begun.
            self.request.writer.output_size = 0

    async def manifest_body(self) -> bytes:
        """Return the request's body, a manifest's bytes.

        Raises:
            RegistryError: it is too big.
        """
        gathered = bytearray()
        async for chunk in self.body():
            gathered += chunk
            if len(gathered) > manifests.SIZE_MAX:
                raise manifest_invalid(f"bigger than {manifests.SIZE_MAX} bytes", status=413)
        return bytes(gathered)

    def url(self, path: str) -> str:
        """Return a path as Location carries it."""
        if self.settings.relative_urls:
            return path
        return f"{self.request.scheme}://{self.request.host}{path}"

    def next_page(self, **query: str) -> dict[str, str]:
        """Return the Link header to the next page of this listing."""
        return {"Link": f'<{self.url(quote(self.request.path))}?{urlencode(query)}>; rel="next"'}

    def must_write(self) -> None:
        """Do nothing where the registry takes changes.

        Raises:
            RegistryError: it is read-only.
        """
        if self.settings.read_only:
            raise unsupported("the registry is read-only")


def empty(status: int, **headers: str) -> web.Response:
    """Return an answer without a body; underscores in the headers' names mean hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    response = web.Response(status=status, headers={**_HEADERS, **named})
    if status != 204:
        response.headers["Content-Length"] = "0"
    return response


def plain(
    status: int, body: bytes, content_type: str, headers: Mapping[str, str] | None = None, *, head: bool = False
) -> web.Response:
    """Return an answer with a body, or with all of it but the body for HEAD."""
    merged = {**_HEADERS, **(headers or {}), "Content-Type": content_type}
    if head:
        merged["Content-Length"] = str(len(body))
        return web.Response(status=status, headers=merged)
    return web.Response(status=status, body=body, headers=merged)


def as_json(
    content: Any, headers: Mapping[str, str] | None = None, *, content_type: str = "application/json"
) -> web.Response:
    """Return an answer of JSON."""
    return plain(200, json.dumps(content).encode(), content_type, headers)


def refused(error: RegistryError, *, head: bool = False) -> web.Response:
    """Return an error as the specification writes it."""
    entry: dict[str, Any] = {"code": error.code, "message": error.message}
    if error.detail is not None:
        entry["detail"] = error.detail
    body = json.dumps({"errors": [entry]}).encode()
    return plain(error.status, body, "application/json", error.headers, head=head)


async def send_file(
    request: web.BaseRequest, response: web.StreamResponse, file: BinaryIO, span: Span, idle_s: float
) -> None:
    """Send the bytes of a file as the response's body, in the kernel where the connection allows.

    Raises:
        TimeoutError: the client takes nothing for too long.
    """
    response.content_length = span.end - span.start
    await response.prepare(request)
    loop = asyncio.get_running_loop()
    start = span.start
    while start < span.end:
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has gone")
        count = min(CHUNK, span.end - start)
        async with asyncio.timeout(idle_s):
            sent = await loop.sendfile(transport, file, start, count)
        if not sent:
            raise OSError("the file is shorter than it was")
        start += sent
    await response.write_eof()


async def send_chunks(
    request: web.BaseRequest, response: web.StreamResponse, chunks: AsyncIterator[bytes], span: Span, idle_s: float
) -> None:
    """Send chunks as the response's body.

    Raises:
        TimeoutError: the client takes nothing for too long.
    """
    response.content_length = span.end - span.start
    await response.prepare(request)
    async for chunk in chunks:
        async with asyncio.timeout(idle_s):
            await response.write(chunk)
    await response.write_eof()


def etag(digest: str) -> str:
    """Return the entity tag of content that is named by its digest."""
    return f'"{digest}"'


def unchanged(request: web.BaseRequest, digest: str) -> bool:
    """Tell whether the client has this content already (If-None-Match)."""
    given = request.headers.get("If-None-Match", "")
    tags = {tag.strip().removeprefix("W/").strip('"') for tag in given.split(",")}
    return digest in tags or "*" in tags


def sha256(data: bytes) -> str:
    """Return the digest of data."""
    return "sha256:" + hashlib.sha256(data).hexdigest()
