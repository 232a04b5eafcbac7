"""A cache in GitHub's cache service (type=gha): its second version, JSON over HTTP with signed URLs of blobs.

index-<scope>-1-<digest of the branch>#<number>    the records, the highest number counts
buildkit-blob-1-<digest>                           a layer
"""

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, BinaryIO

import aiohttp

from barque.base.errors import BarqueError, InvalidInputError, NotFoundError, UnsupportedError
from barque.builder.buildkit.content_store import bring_layer, packed
from barque.builder.caches import format as forms
from barque.builder.caches.format import Known
from barque.oci.manifest import Descriptor
from barque.storage.compression import UNCOMPRESSED, Form
from barque.storage.content import ContentStore

Json = dict[str, Any]
_SERVICE = "twirp/github.actions.results.api.v1.CacheService"
_VERSION = hashlib.sha256(b"|go-actionscache-1.0").hexdigest()
_WRITE = 2
_ANSWER_MAX = 32 << 10
_PIECE = 1 << 20
_WAIT_S = 60.0


class ActionsCache:
    """One cache of a repository (see imports.Reader, exports.Target).

    Args:
        attributes: `url_v2`, `token` and `scope`, as clients give them.
        content: takes and gives layers' tars.

    Raises:
        InvalidInputError: something is missing.
        UnsupportedError: only the service's first version is named, which was switched off.
    """

    def __init__(self, attributes: Mapping[str, str], content: ContentStore) -> None:
        self._url, self._token = attributes.get("url_v2", ""), attributes.get("token", "")
        if not self._token:
            raise InvalidInputError("token not set for github actions cache")
        if not self._url or attributes.get("version", "2") != "2":
            raise UnsupportedError("only the second version of GitHub's cache service is supported: give url_v2")
        self._name = attributes.get("scope") or "buildkit"
        self._scopes = _scopes(self._token)
        self._content = content

    async def load(self) -> Known:
        """Return what the cache knows, of all branches that the token may read."""
        found: Known = {}
        for scope in reversed(list(self._scopes)):
            entry = await self._look(self._index(scope))
            if entry is not None:
                data = b"".join([chunk async for chunk in self._bytes(entry[1], forms.CONFIG_BYTES_MAX)])
                found |= forms.results(forms.parsed(data), ())
        return found

    async def bring(self, layer: Descriptor, diff_id: str) -> None:
        """Bring a layer's tar into the content store."""
        entry = await self._look(_blob_key(layer.digest))
        if entry is None:
            raise NotFoundError(f"blob {layer.digest} not found")
        await bring_layer(self._content, self._bytes(entry[1], layer.size), layer, diff_id)

    async def layers(self, diff_ids: list[str], form: Form) -> dict[str, Descriptor]:
        """Take layers."""
        found = {}
        for diff in diff_ids:
            with self._content.temporary() as file:
                blob = await asyncio.to_thread(packed, self._content, diff, form, file)
                if await self._look(_blob_key(blob.digest)) is None:
                    source = self._content.open(diff) if form.kind == UNCOMPRESSED else file
                    with source:
                        source.seek(0)
                        await self._save(_blob_key(blob.digest), blob.size, _pieces(source))
            found[diff] = blob
        return found

    async def finish(self, config: tuple[bytes, Descriptor], manifest: tuple[bytes, str]) -> None:
        """Take the config; the service keeps no manifest."""
        written = [scope for scope, permission in self._scopes.items() if permission & _WRITE]
        if not written:
            raise BarqueError("the token may not write to GitHub's cache")
        key = self._index(written[-1])
        entry = await self._look(key)
        last = entry[0].rpartition("#")[2] if entry is not None else "0"
        number = int(last) if last.isascii() and last.isdigit() else 0
        data = config[0]

        async def whole() -> AsyncIterator[bytes]:
            yield data

        await self._save(f"{key}#{number + 1}", len(data), whole())

    def _index(self, scope: str) -> str:
        return f"index-{self._name}-1-{hashlib.sha256(scope.encode()).hexdigest()[:8]}"

    async def _look(self, key: str) -> tuple[str, str] | None:
        """Return the key and the URL of the newest entry whose key begins with this one."""
        answer = await self._call("GetCacheEntryDownloadURL", {"key": key, "restore_keys": [key], "version": _VERSION})
        matched, url = answer.get("matched_key"), answer.get("signed_download_url")
        if answer.get("ok") is not True or not isinstance(matched, str) or not isinstance(url, str):
            return None
        return (matched, url) if matched == key or matched.startswith(f"{key}#") else None

    async def _save(self, key: str, size: int, chunks: AsyncIterator[bytes]) -> None:
        answer = await self._call("CreateCacheEntry", {"key": key, "version": _VERSION})
        url = answer.get("signed_upload_url")
        if answer.get("ok") is not True or not isinstance(url, str):
            raise BarqueError(f"GitHub's cache does not take {key}")
        headers = {"x-ms-blob-type": "BlockBlob", "x-ms-version": "2020-10-02", "Content-Length": str(size)}
        try:
            async with self._session() as session, session.put(url, data=chunks, headers=headers) as reply:
                if reply.status >= 300:
                    raise BarqueError(f"GitHub's cache does not take {key}: status {reply.status}")
        except (aiohttp.ClientError, TimeoutError) as error:
            raise BarqueError(f"GitHub's cache does not answer: {error}") from None
        done = await self._call("FinalizeCacheEntryUpload", {"key": key, "size_bytes": size, "version": _VERSION})
        if done.get("ok") is not True:
            raise BarqueError(f"GitHub's cache does not keep {key}")

    async def _call(self, method: str, body: Json) -> Json:
        url = f"{self._url.rstrip('/')}/{_SERVICE}/{method}"
        headers = {"Authorization": f"Bearer {self._token}"}
        try:
            async with self._session() as session, session.post(url, json=body, headers=headers) as reply:
                raw = await reply.content.read(_ANSWER_MAX)
                if reply.status == 404:
                    return {}
                if reply.status >= 300:
                    raise BarqueError(f"GitHub's cache refuses {method}: status {reply.status}")
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise BarqueError(f"GitHub's cache does not answer: {error}") from None
        return forms.parsed(raw)

    async def _bytes(self, url: str, most: int) -> AsyncIterator[bytes]:
        done = 0
        try:
            async with self._session() as session, session.get(url) as reply:
                if reply.status != 200:
                    raise BarqueError(f"GitHub's cache gives no blob: status {reply.status}")
                async for chunk in reply.content.iter_chunked(_PIECE):
                    done += len(chunk)
                    if done > most:
                        raise InvalidInputError(f"GitHub's cache sends more than {most} bytes")
                    yield chunk
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise BarqueError(f"GitHub's cache does not answer: {error}") from None

    def _session(self) -> aiohttp.ClientSession:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_WAIT_S, sock_read=_WAIT_S)
        return aiohttp.ClientSession(timeout=timeout, trust_env=True)


def _scopes(token: str) -> dict[str, int]:
    """Return the branches that a token names, and what it may do with each; the token is the service's to verify."""
    try:
        body = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        rows = json.loads(claims["ac"])
        return {str(row["Scope"]): int(row["Permission"]) for row in rows}
    except (IndexError, ValueError, KeyError, TypeError):
        raise InvalidInputError("the token for GitHub's cache names no scopes") from None


def _blob_key(digest: str) -> str:
    return f"buildkit-blob-1-{digest}"


async def _pieces(file: BinaryIO) -> AsyncIterator[bytes]:
    while data := await asyncio.to_thread(file.read, _PIECE):
        yield data
