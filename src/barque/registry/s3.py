"""Storage in a bucket of an S3-compatible object store; any number of servers may share it.

    <prefix>/<key of a record>
    <prefix>/content/<algorithm>/<hex>          blobs
    <prefix>/uploads/<upload>/state             what has arrived, as JSON (see `_State`)
    <prefix>/uploads/<upload>/tail              the bytes behind the last part
    <prefix>/uploads/<upload>/data              the parts, an upload in parts of the object store

An object store takes parts of at least 5 MiB, so smaller chunks are gathered in the tail. Two requests
that append to one upload at different servers at the same moment are not kept from each other; the one
that comes second fails when the upload is finished, since the digest is wrong.
"""

import asyncio
import hashlib
import json
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, BinaryIO, NamedTuple

from barque.engine.buckets import Bucket, ObjectStore, open_bucket
from barque.oci import digest as digests
from barque.registry.errors import digest_invalid, upload_invalid, upload_unknown
from barque.registry.storage import CHUNK, BlobInfo, Entry, Storage, UploadInfo

_PART = 8 << 20
_RENEW_S = 60
_RUNNING_MAX = 1000


async def open_object_store(settings: ObjectStore, stack: AsyncExitStack) -> Storage:
    """Open the storage in a bucket; the stack closes it.

    Raises:
        BarqueError: the client library is missing, or the bucket is not reachable.
    """
    bucket = await open_bucket(settings, stack)
    return Storage(ObjectRecords(bucket), ObjectBlobs(bucket), ObjectUploads(bucket))


class ObjectRecords:
    """Records as small objects."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    async def get(self, key: str) -> bytes | None:
        """Return the value (see Records)."""
        return await self._bucket.get(key)

    async def put(self, key: str, value: bytes) -> None:
        """Write the value (see Records)."""
        await self._bucket.put(key, value)

    async def delete(self, key: str) -> bool:
        """Remove it (see Records)."""
        if await self._bucket.head(key) is None:
            return False
        await self._bucket.delete(key)
        return True

    async def touch(self, key: str) -> bool:
        """Renew its time by writing it again, unless it is young (see Records)."""
        found = await self._bucket.head(key)
        if found is None:
            return False
        if found.age_s > _RENEW_S:
            value = await self._bucket.get(key)
            if value is None:
                return False
            await self._bucket.put(key, value)
        return True

    async def time(self, key: str) -> float | None:
        """Return when it was written (see Records)."""
        found = await self._bucket.head(key)
        return None if found is None else found.time

    async def entries(self, folder: str, *, after: str = "", most: int = 0) -> list[Entry]:
        """Return what lies directly below a folder (see Records)."""
        found: list[Entry] = []
        # Names of folders do not sort as their keys do ("!" is before "/"), those of records do.
        leaves = folder != "repositories"
        async for name, moment in self._bucket.children(folder, after=after if leaves else ""):
            if name > after:
                found.append(Entry(name, moment))
            if leaves and most and len(found) >= most:
                break
        found.sort()
        return found[:most] if most else found


def _blob(digest: str) -> str:
    return "content/" + "/".join(digests.split(digest))


class ObjectBlobs:
    """Blobs as objects."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    async def size(self, digest: str) -> int | None:
        """Return its size (see Blobs)."""
        found = await self._bucket.head(_blob(digest))
        return None if found is None else found.size

    async def open(self, digest: str) -> BinaryIO | None:
        """Return None: there is no file (see Blobs)."""
        return None

    async def read(self, digest: str, start: int, end: int) -> AsyncIterator[bytes]:
        """Yield its bytes (see Blobs)."""
        async for chunk in self._bucket.read(_blob(digest), start, end):
            yield chunk

    async def put(self, digest: str, data: bytes) -> None:
        """Store a small blob (see Blobs)."""
        await self._bucket.put(_blob(digest), data)

    async def info(self, digest: str) -> BlobInfo | None:
        """Return its facts (see Blobs)."""
        found = await self._bucket.head(_blob(digest))
        return None if found is None else BlobInfo(digest, found.size, found.time)

    async def delete(self, digest: str) -> None:
        """Remove it (see Blobs)."""
        await self._bucket.delete(_blob(digest))

    async def walk(self) -> AsyncIterator[BlobInfo]:
        """Yield all (see Blobs)."""
        async for key, size, moment in self._bucket.walk("content/"):
            algorithm, _, digits = key[len("content/") :].partition("/")
            if len(digits) == digests.ALGORITHMS.get(algorithm):
                yield BlobInfo(f"{algorithm}:{digits}", size, moment)


class _State(NamedTuple):
    """What of an upload has arrived: in parts of an upload of the object store, and behind them."""

    multipart: str = ""
    parts: tuple[tuple[str, int], ...] = ()
    """(entity tag, size) of each."""
    tail: int = 0

    @property
    def size(self) -> int:
        return sum(size for _, size in self.parts) + self.tail


class _Running(NamedTuple):
    hash: Any
    size: int


class ObjectUploads:
    """Uploads as uploads in parts of the object store."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._running: dict[str, _Running] = {}

    async def create(self) -> str:
        """Begin an upload (see Uploads)."""
        upload = str(uuid.uuid4())
        await self._save(upload, _State())
        if len(self._running) >= _RUNNING_MAX:
            self._running.pop(next(iter(self._running)))
        self._running[upload] = _Running(hashlib.sha256(), 0)
        return upload

    async def _save(self, upload: str, state: _State) -> None:
        await self._bucket.put(f"uploads/{upload}/state", json.dumps(state).encode())

    async def _load(self, upload: str) -> _State | None:
        raw = await self._bucket.get(f"uploads/{upload}/state")
        if raw is None:
            return None
        multipart, parts, tail = json.loads(raw)
        return _State(multipart, tuple((etag, size) for etag, size in parts), tail)

    async def _must_load(self, upload: str) -> _State:
        state = await self._load(upload)
        if state is None:
            raise upload_unknown(upload)
        return state

    async def size(self, upload: str) -> int | None:
        """Return how many bytes have arrived (see Uploads)."""
        state = await self._load(upload)
        return None if state is None else state.size

    async def append(self, upload: str, chunks: AsyncIterator[bytes], *, start: int | None) -> int:
        """Append the chunks (see Uploads)."""
        lock = self._locks[upload]
        if lock.locked():
            raise upload_invalid("this blob is being written by another request", status=409)
        async with lock:
            state = await self._must_load(upload)
            if start is not None and start != state.size:
                raise upload_invalid(f"chunk starts at {start}, {state.size} bytes have arrived", status=416)
            tail = bytearray((await self._bucket.get(f"uploads/{upload}/tail") or b"") if state.tail else b"")
            work = _Appending(self._bucket, upload, state, tail, self._running.pop(upload, None))
            try:
                async for chunk in chunks:
                    await work.add(chunk)
            finally:
                # What came before an interruption is worth keeping: the client goes on behind it.
                await asyncio.shield(self._keep(work))
            return work.state.size

    async def _keep(self, work: "_Appending") -> None:
        if work.tail:
            await self._bucket.put(f"uploads/{work.upload}/tail", bytes(work.tail))
        work.state = work.state._replace(tail=len(work.tail))
        await self._save(work.upload, work.state)
        if work.running is not None:
            self._running[work.upload] = work.running

    async def finish(self, upload: str, digest: str) -> int:
        """Make the upload a blob (see Uploads)."""
        async with self._locks[upload]:
            state = await self._must_load(upload)
            tail = (await self._bucket.get(f"uploads/{upload}/tail") or b"") if state.tail else b""
            algorithm, digits = digests.split(digest)
            data = f"uploads/{upload}/data"
            if state.parts:
                parts = [etag for etag, _ in state.parts]
                if tail:
                    parts.append(await self._bucket.upload_part(data, state.multipart, len(parts) + 1, tail))
                await self._bucket.complete(data, state.multipart, parts)
                found = await self._digest(upload, algorithm, data, state.size)
            else:
                found = hashlib.new(algorithm, tail).hexdigest()
            if found == digits:
                if state.parts:
                    await self._bucket.copy(data, _blob(digest), state.size)
                else:
                    await self._bucket.put(_blob(digest), tail)
            await self._remove(upload, "" if state.parts else state.multipart)
        if found != digits:
            raise digest_invalid(digest)
        return state.size

    async def _digest(self, upload: str, algorithm: str, key: str, size: int) -> str:
        running = self._running.get(upload)
        if running is not None and algorithm == digests.SHA256 and running.size == size:
            return str(running.hash.hexdigest())
        hasher = hashlib.new(algorithm)
        async for chunk in self._bucket.read(key, 0, size):
            await asyncio.to_thread(hasher.update, chunk)
        return hasher.hexdigest()

    async def _remove(self, upload: str, multipart: str) -> None:
        self._running.pop(upload, None)
        self._locks.pop(upload, None)
        if multipart:
            await self._bucket.abort(f"uploads/{upload}/data", multipart)
        for name in ("data", "tail", "state"):
            await self._bucket.delete(f"uploads/{upload}/{name}")

    async def cancel(self, upload: str) -> bool:
        """Forget the upload (see Uploads)."""
        state = await self._load(upload)
        if state is None:
            return False
        await self._remove(upload, state.multipart)
        return True

    async def walk(self) -> AsyncIterator[UploadInfo]:
        """Yield all (see Uploads)."""
        async for key, _, moment in self._bucket.walk("uploads/"):
            _, upload, name = key.split("/", 2)
            if name == "state":
                yield UploadInfo(upload, moment)


class _Appending:
    """One request's appending: whole parts go to the object store, the rest is the new tail."""

    def __init__(self, bucket: Bucket, upload: str, state: _State, tail: bytearray, running: _Running | None) -> None:
        self._bucket = bucket
        self.upload = upload
        self.state = state
        self.tail = tail
        self.running = running if running is not None and running.size == state.size else None

    async def add(self, chunk: bytes) -> None:
        """Take a chunk."""
        self.tail += chunk
        if self.running is not None:
            if len(chunk) < CHUNK // 8:
                self.running.hash.update(chunk)
            else:
                await asyncio.to_thread(self.running.hash.update, chunk)
            self.running = _Running(self.running.hash, self.running.size + len(chunk))
        while len(self.tail) >= _PART:
            await self._part(bytes(self.tail[:_PART]))

    async def _part(self, data: bytes) -> None:
        key = f"uploads/{self.upload}/data"
        if not self.state.multipart:
            self.state = self.state._replace(multipart=await self._bucket.begin(key))
        etag = await self._bucket.upload_part(key, self.state.multipart, len(self.state.parts) + 1, data)
        del self.tail[: len(data)]
        self.state = self.state._replace(parts=(*self.state.parts, (etag, len(data))))
