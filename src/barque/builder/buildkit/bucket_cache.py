"""A cache in a bucket of an S3-compatible object store (type=s3), in BuildKit's places.

<prefix><blobs_prefix><digest>        a layer
<prefix><manifests_prefix><name>      the records
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import BinaryIO

from barque.base.durations import parse_duration
from barque.base.errors import BarqueError, InvalidInputError, NotFoundError
from barque.builder.buildkit.content_store import bring_layer, packed
from barque.builder.caches import format as forms
from barque.builder.caches.exports import true_of
from barque.builder.caches.format import Known
from barque.engine.buckets import Bucket, ObjectStore, open_bucket
from barque.oci.manifest import Descriptor
from barque.storage.compression import UNCOMPRESSED, Form
from barque.storage.content import ContentStore

_PART = 64 << 20
_PARALLEL, _PARALLEL_MAX = 4, 64
_DAY = "24h"


class BucketCache:
    """One cache of a bucket (see imports.Reader, exports.Target).

    Args:
        attributes: as clients give them; what is missing of bucket and region is in the engine's environment, as are
            credentials, or with the machine.
        content: takes and gives layers' tars.

    Raises:
        InvalidInputError: an option is missing or wrong.
    """

    def __init__(self, attributes: Mapping[str, str], content: ContentStore) -> None:
        said = {key: value for key, value in attributes.items() if value}
        bucket, region = (said.get(key) or os.environ.get(f"AWS_{key.upper()}", "") for key in ("bucket", "region"))
        for name, value in (("bucket", bucket), ("region", region)):
            if not value:
                raise InvalidInputError(f"{name} ($AWS_{name.upper()}) not set for s3 cache")
        self._settings = ObjectStore(
            bucket, "", said.get("endpoint_url", ""), region, said.get("access_key_id", ""), said.get("secret_access_key", ""),
            said.get("session_token", ""), true_of(said, "use_path_style"),
        )  # fmt: skip
        prefix = said.get("prefix", "")
        self._blobs, self._records = (prefix + attributes.get(f"{key}_prefix", f"{key}/") for key in ("blobs", "manifests"))
        self._names = said.get("name", "buildkit").split(";")
        self._refresh_s = _seconds(said.get("touch_refresh", _DAY))
        self._parallel = _count(said.get("upload_parallelism", str(_PARALLEL)))
        self._content = content

    async def load(self) -> Known:
        """Return what the cache knows; nothing where it is not there yet."""
        async with self._opened() as bucket:
            key = self._records + self._names[0]
            found = await bucket.head(key)
            if found is None:
                return {}
            if found.size > forms.CONFIG_BYTES_MAX:
                raise InvalidInputError(f"the cache's config is larger than {forms.CONFIG_BYTES_MAX >> 20} MiB")
            data = b"".join([chunk async for chunk in bucket.read(key, 0, found.size)])
        return forms.results(forms.parsed(data), ())

    async def bring(self, layer: Descriptor, diff_id: str) -> None:
        """Bring a layer's tar into the content store."""
        async with self._opened() as bucket:
            key = self._blobs + layer.digest
            if await bucket.head(key) is None:
                raise NotFoundError(f"blob {layer.digest} not found")
            await bring_layer(self._content, bucket.read(key, 0, layer.size), layer, diff_id)

    async def layers(self, diff_ids: list[str], form: Form) -> dict[str, Descriptor]:
        """Take layers."""
        turns = asyncio.Semaphore(self._parallel)
        async with self._opened() as bucket:

            async def one(diff: str) -> Descriptor:
                async with turns:
                    return await self._take(bucket, diff, form)

            tasks = [asyncio.create_task(one(diff)) for diff in diff_ids]
            try:
                return dict(zip(diff_ids, await asyncio.gather(*tasks), strict=True))
            finally:
                # None goes on behind the first that fails.
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _take(self, bucket: Bucket, diff: str, form: Form) -> Descriptor:
        with self._content.temporary() as file:
            blob = await asyncio.to_thread(packed, self._content, diff, form, file)
            key = self._blobs + blob.digest
            found = await bucket.head(key)
            if found is None:
                with self._content.open(diff) if form.kind == UNCOMPRESSED else file as source:
                    source.seek(0)
                    await _put(bucket, key, source, blob.size)
            elif time.time() - found.time > self._refresh_s:
                # Buckets forget what is old.
                await bucket.touch(key)
        return blob

    async def finish(self, config: tuple[bytes, Descriptor], manifest: tuple[bytes, str]) -> None:
        """Take the config, under each of the names; the bucket keeps no manifest."""
        async with self._opened() as bucket:
            for name in self._names:
                await bucket.put(self._records + name, config[0])

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[Bucket]:
        try:
            async with AsyncExitStack() as stack:
                yield await open_bucket(self._settings, stack, looked_for=False)
        except OSError as error:
            raise BarqueError(f"cache in bucket {self._settings.bucket}: {error}") from None


async def _put(bucket: Bucket, key: str, source: BinaryIO, size: int) -> None:
    if size <= _PART:
        await bucket.put(key, await asyncio.to_thread(source.read, size))
        return
    upload = await bucket.begin(key)
    try:
        parts: list[str] = []
        while data := await asyncio.to_thread(source.read, _PART):
            parts.append(await bucket.upload_part(key, upload, len(parts) + 1, data))
        await bucket.complete(key, upload, parts)
    except BaseException:
        await asyncio.shield(bucket.abort(key, upload))
        raise


def _seconds(text: str) -> float:
    try:
        return parse_duration(text) / 1e9
    except ValueError as error:
        raise InvalidInputError(f"invalid touch_refresh {text}: {error}") from None


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= _PARALLEL_MAX):
        raise InvalidInputError(f"upload_parallelism must be a number from 1 to {_PARALLEL_MAX}: {text}")
    return int(text)
