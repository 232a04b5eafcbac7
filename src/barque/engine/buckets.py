"""Buckets of S3-compatible object stores: the calls of the client library that are made, and their errors."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

from barque.base.errors import BarqueError
from barque.storage.content import CHUNK

_COPY_MAX = 5 << 30
_COPY_PART = 1 << 30
_MISSING = ("404", "NoSuchKey", "NotFound")


class ObjectStore(NamedTuple):
    """A bucket of an S3-compatible object store; empty credentials mean the environment's.

    `path_style`: the bucket is a part of the path and not of the host's name; None: where an endpoint is named.
    """

    bucket: str
    prefix: str = ""
    endpoint: str = ""
    region: str = ""
    access_key: str = ""
    secret_key: str = ""
    session_token: str = ""
    path_style: bool | None = None


class Head(NamedTuple):
    """An object's size in bytes and when it was written (seconds)."""

    size: int
    time: float

    @property
    def age_s(self) -> float:
        """Return how old it is."""
        return time.time() - self.time


async def open_bucket(settings: ObjectStore, stack: AsyncExitStack, *, looked_for: bool = True) -> "Bucket":
    """Open a bucket; the stack closes it.

    Args:
        settings: which.
        stack: closes it.
        looked_for: ask whether it is there, which not everybody may who may read and write in it.

    Raises:
        BarqueError: the client library is missing, or the bucket is not reachable.
    """
    try:
        from aiobotocore.config import AioConfig
        from aiobotocore.session import get_session
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError as error:
        raise BarqueError(
            f"an object store needs the client library aiobotocore (pip install 'barque[s3]'): {error}"
        ) from None
    by_path = bool(settings.endpoint) if settings.path_style is None else settings.path_style
    options = AioConfig(
        signature_version="s3v4",
        max_pool_connections=50,
        retries={"mode": "standard", "max_attempts": 5},
        s3={"addressing_style": "path"} if by_path else {},
        # Checksums that only one store knows are left out.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    client = await stack.enter_async_context(
        get_session().create_client(
            "s3",
            region_name=settings.region or "us-east-1",
            endpoint_url=settings.endpoint or None,
            aws_access_key_id=settings.access_key or None,
            aws_secret_access_key=settings.secret_key or None,
            aws_session_token=settings.session_token or None,
            config=options,
        )
    )
    try:
        if looked_for:
            await client.head_bucket(Bucket=settings.bucket)
    except (BotoCoreError, ClientError) as error:
        raise BarqueError(f"bucket {settings.bucket}: {error}") from None
    return Bucket(client, settings.bucket, settings.prefix, (BotoCoreError, ClientError))


class Bucket:
    """A bucket and a prefix of all keys in it.

    Raises:
        OSError: by every method, where the object store fails.
    """

    def __init__(self, client: Any, name: str, prefix: str, errors: tuple[type[Exception], ...]) -> None:
        self._client = client
        self._name = name
        self._prefix = f"{prefix}/" if prefix else ""
        self._errors = errors

    async def _call(self, operation: str, key: str = "", **more: Any) -> Any:
        if key:
            more["Key"] = self._prefix + key
        try:
            return await getattr(self._client, operation)(Bucket=self._name, **more)
        except self._errors as error:
            code = str(getattr(error, "response", {}).get("Error", {}).get("Code", ""))
            if code in _MISSING:
                return None
            raise OSError(f"object store: {error}") from None

    async def get(self, key: str) -> bytes | None:
        """Return the whole of a small object, None without it."""
        answer = await self._call("get_object", key)
        if answer is None:
            return None
        async with answer["Body"] as body:
            return bytes(await body.read())

    async def put(self, key: str, data: bytes) -> None:
        """Write an object."""
        await self._call("put_object", key, Body=data)

    async def head(self, key: str) -> Head | None:
        """Return an object's facts, None without it."""
        answer = await self._call("head_object", key)
        return None if answer is None else Head(answer["ContentLength"], answer["LastModified"].timestamp())

    async def delete(self, key: str) -> None:
        """Remove an object if it is there."""
        await self._call("delete_object", key)

    async def read(self, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        """Yield an object's bytes from start up to end."""
        if start >= end:
            return
        answer = await self._call("get_object", key, Range=f"bytes={start}-{end - 1}")
        if answer is None:
            raise OSError(f"object store: {key} is gone")
        async with answer["Body"] as body:
            async for chunk in body.iter_chunks(CHUNK):
                yield chunk

    async def children(self, folder: str, *, after: str = "") -> AsyncIterator[tuple[str, float]]:
        """Yield (name, time) of what lies directly below a folder, in the order of keys; 0 for folders."""
        prefix = f"{self._prefix}{folder}/"
        more = {"StartAfter": prefix + after} if after else {}
        while True:
            answer = await self._call("list_objects_v2", Prefix=prefix, Delimiter="/", **more)
            for entry in answer.get("CommonPrefixes") or ():
                yield entry["Prefix"][len(prefix) : -1], 0
            for entry in answer.get("Contents") or ():
                yield entry["Key"][len(prefix) :], entry["LastModified"].timestamp()
            if not answer.get("IsTruncated"):
                return
            more = {"ContinuationToken": answer["NextContinuationToken"]}

    async def walk(self, start: str) -> AsyncIterator[tuple[str, int, float]]:
        """Yield key, size and time of all objects whose keys begin so."""
        more: dict[str, str] = {}
        while True:
            answer = await self._call("list_objects_v2", Prefix=self._prefix + start, **more)
            for entry in answer.get("Contents") or ():
                yield entry["Key"][len(self._prefix) :], entry["Size"], entry["LastModified"].timestamp()
            if not answer.get("IsTruncated"):
                return
            more = {"ContinuationToken": answer["NextContinuationToken"]}

    # Uploads in parts.

    async def begin(self, key: str) -> str:
        """Begin an upload in parts and return its identifier."""
        answer = await self._call("create_multipart_upload", key)
        return str(answer["UploadId"])

    async def upload_part(self, key: str, upload: str, number: int, data: bytes) -> str:
        """Upload a part and return its entity tag."""
        answer = await self._call("upload_part", key, UploadId=upload, PartNumber=number, Body=data)
        return str(answer["ETag"])

    async def complete(self, key: str, upload: str, parts: list[str]) -> None:
        """Make an object of the parts; one that was made already is left."""
        listed = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(parts, 1)]
        await self._call("complete_multipart_upload", key, UploadId=upload, MultipartUpload={"Parts": listed})

    async def abort(self, key: str, upload: str) -> None:
        """Forget an upload in parts, if there is one."""
        try:
            await self._call("abort_multipart_upload", key, UploadId=upload)
        except OSError as error:
            if "NoSuchUpload" not in str(error):
                raise

    async def touch(self, key: str) -> None:
        """Make an object as young as if it were written now."""
        source = {"Bucket": self._name, "Key": self._prefix + key}
        await self._call("copy_object", key, CopySource=source, MetadataDirective="REPLACE")

    async def copy(self, key: str, target: str, size: int) -> None:
        """Copy an object inside the store."""
        source = {"Bucket": self._name, "Key": self._prefix + key}
        if size <= _COPY_MAX:
            await self._call("copy_object", target, CopySource=source)
            return
        upload = await self.begin(target)

        async def part(number: int) -> str:
            start = (number - 1) * _COPY_PART
            answer = await self._call(
                "upload_part_copy", target, UploadId=upload, PartNumber=number, CopySource=source,
                CopySourceRange=f"bytes={start}-{min(start + _COPY_PART, size) - 1}",
            )  # fmt: skip
            return str(answer["CopyPartResult"]["ETag"])

        count = (size + _COPY_PART - 1) // _COPY_PART
        await self.complete(target, upload, list(await asyncio.gather(*map(part, range(1, count + 1)))))
