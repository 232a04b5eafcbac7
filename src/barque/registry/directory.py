"""Storage on a directory; several servers may share it.

<root>/content/         the content store (see barque.storage.content); uploads are its unfinished blobs
<root>/repositories/    records, a file each
<root>/deleting/        records of collectors
"""

import asyncio
import errno
import hashlib
import os
import uuid
from collections.abc import AsyncIterator
from typing import BinaryIO

from barque.base.errors import ConflictError, InvalidInputError, NotFoundError
from barque.base.files import fsync_folder, write_atomic
from barque.oci import digest as digests
from barque.registry.errors import digest_invalid, upload_invalid, upload_unknown
from barque.registry.storage import CHUNK, BlobInfo, Entry, Storage, UploadInfo
from barque.storage.content import ContentStore, Writer

_RUNNING_MAX = 1000
_TRIES = 100


def open_directory(root: str) -> Storage:
    """Open or make the storage below a folder.

    Raises:
        OSError: the folder cannot be made or read.
    """
    os.makedirs(root, mode=0o755, exist_ok=True)
    content = ContentStore(f"{root}/content", shared=True)
    return Storage(DirectoryRecords(root), DirectoryBlobs(content), DirectoryUploads(content))


class DirectoryRecords:
    """Records as files."""

    def __init__(self, root: str) -> None:
        self._root = root

    def _path(self, key: str) -> str:
        assert ".." not in key.split("/") and not key.startswith("/"), key
        return f"{self._root}/{key}"

    async def get(self, key: str) -> bytes | None:
        """Return the value (see Records)."""
        try:
            with open(self._path(key), "rb") as file:
                return file.read()
        except (FileNotFoundError, NotADirectoryError):
            return None

    async def put(self, key: str, value: bytes) -> None:
        """Write the value (see Records)."""
        await asyncio.to_thread(self._put, self._path(key), value)

    def _put(self, path: str, value: bytes) -> None:
        folder = os.path.dirname(path)
        for _ in range(_TRIES):
            if not os.path.isdir(folder):
                self._make_folders(folder)
            try:
                write_atomic(path, value)
                return
            except FileNotFoundError:
                # Another request deleted the folder's last record, and the folder with it.
                continue
        raise OSError(f"the folder {folder} vanishes again and again")

    def _make_folders(self, folder: str) -> None:
        above = os.path.dirname(folder)
        if not os.path.isdir(above):
            self._make_folders(above)
        try:
            os.mkdir(folder, 0o755)
        except (FileExistsError, FileNotFoundError):
            return
        fsync_folder(above)

    async def delete(self, key: str) -> bool:
        """Remove it (see Records)."""
        return await asyncio.to_thread(self._delete, self._path(key))

    def _delete(self, path: str) -> bool:
        try:
            os.unlink(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        folder = os.path.dirname(path)
        while folder != self._root:
            try:
                os.rmdir(folder)
            except FileNotFoundError:
                pass
            except OSError:
                break
            folder = os.path.dirname(folder)
        try:
            fsync_folder(folder)
        except FileNotFoundError:
            pass
        return True

    async def touch(self, key: str) -> bool:
        """Renew its time (see Records)."""
        try:
            os.utime(self._path(key))
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            # Somebody else's folder, or a file system that is mounted read-only: nothing is collected there by us.
            if error.errno not in (errno.EROFS, errno.EPERM, errno.EACCES):
                raise
            return os.path.exists(self._path(key))
        return True

    async def time(self, key: str) -> float | None:
        """Return when it was written or renewed (see Records)."""
        try:
            return os.stat(self._path(key)).st_mtime
        except (FileNotFoundError, NotADirectoryError):
            return None

    async def entries(self, folder: str, *, after: str = "", most: int = 0) -> list[Entry]:
        """Return what lies directly below a folder (see Records)."""
        return await asyncio.to_thread(self._entries, self._path(folder), after, most)

    def _entries(self, path: str, after: str, most: int) -> list[Entry]:
        try:
            names = sorted(n for n in os.listdir(path) if n > after and not n.startswith("."))
        except (FileNotFoundError, NotADirectoryError):
            return []
        found = []
        for name in names[:most] if most else names:
            try:
                stat = os.stat(f"{path}/{name}")
            except FileNotFoundError:
                continue
            is_folder = stat.st_mode & 0o170000 == 0o040000
            found.append(Entry(name, 0 if is_folder else stat.st_mtime))
        return found


class DirectoryBlobs:
    """Blobs in a content store."""

    def __init__(self, content: ContentStore) -> None:
        self._content = content

    async def size(self, digest: str) -> int | None:
        """Return its size (see Blobs)."""
        try:
            return self._content.size(digest)
        except NotFoundError:
            return None

    async def open(self, digest: str) -> BinaryIO | None:
        """Return its file (see Blobs)."""
        try:
            return self._content.open(digest)
        except NotFoundError:
            return None

    async def read(self, digest: str, start: int, end: int) -> AsyncIterator[bytes]:
        """Yield its bytes (see Blobs)."""
        with self._content.open(digest) as file:
            while start < end:
                data = await asyncio.to_thread(os.pread, file.fileno(), min(CHUNK, end - start), start)
                if not data:
                    raise OSError(f"content {digest} is shorter than it was")
                start += len(data)
                yield data

    async def put(self, digest: str, data: bytes) -> None:
        """Store a small blob (see Blobs)."""
        await asyncio.to_thread(self._content.ingest, [data], digest)

    async def info(self, digest: str) -> BlobInfo | None:
        """Return its facts (see Blobs)."""
        try:
            found = os.stat(self._content.path(digest))
        except FileNotFoundError:
            return None
        return BlobInfo(digest, found.st_size, found.st_mtime)

    async def delete(self, digest: str) -> None:
        """Remove it (see Blobs)."""
        await asyncio.to_thread(self._content.remove, digest)

    async def walk(self) -> AsyncIterator[BlobInfo]:
        """Yield all (see Blobs)."""
        for blob in await asyncio.to_thread(lambda: list(self._content.walk())):
            info = await self.info(blob.digest)
            if info is not None:
                yield info


class _Running:
    """The hash of an upload's bytes so far; another server's appends make it too short, and it is made anew."""

    def __init__(self, algorithm: str) -> None:
        self.algorithm = algorithm
        self.hash = hashlib.new(algorithm)
        self.size = 0

    def feed(self, writer: Writer, data: bytes) -> None:
        if self.size == writer.size:
            self.hash.update(data)
            self.size += len(data)
        writer.write(data)


class DirectoryUploads:
    """Uploads as unfinished blobs of a content store."""

    def __init__(self, content: ContentStore) -> None:
        self._content = content
        self._running: dict[str, _Running] = {}

    async def create(self) -> str:
        """Begin an upload (see Uploads)."""
        upload = str(uuid.uuid4())
        with self._content.writer(upload):
            pass
        if len(self._running) >= _RUNNING_MAX:
            self._running.pop(next(iter(self._running)))
        self._running[upload] = _Running(digests.SHA256)
        return upload

    async def size(self, upload: str) -> int | None:
        """Return how many bytes have arrived (see Uploads)."""
        return self._content.unfinished_size(upload)

    def _writer(self, upload: str) -> Writer:
        if self._content.unfinished_size(upload) is None:
            raise upload_unknown(upload)
        try:
            return self._content.writer(upload)
        except ConflictError as error:
            raise upload_invalid(str(error), status=409) from None

    async def append(self, upload: str, chunks: AsyncIterator[bytes], *, start: int | None) -> int:
        """Append the chunks (see Uploads)."""
        running = self._running.get(upload) or _Running(digests.SHA256)
        with self._writer(upload) as writer:
            if start is not None and start != writer.size:
                raise upload_invalid(f"chunk starts at {start}, {writer.size} bytes have arrived", status=416)
            pending: asyncio.Future[None] | None = None
            try:
                async for chunk in batches(chunks):
                    if pending is not None:
                        await settled(pending)
                    pending = asyncio.ensure_future(asyncio.to_thread(running.feed, writer, chunk))
            finally:
                # The writer may not be closed under the thread.
                if pending is not None:
                    await settled(pending)
            return writer.size

    async def finish(self, upload: str, digest: str) -> int:
        """Make the upload a blob (see Uploads)."""
        running = self._running.pop(upload, None)
        algorithm, _ = digests.split(digest)
        with self._writer(upload) as writer:
            size = writer.size
            found = ""
            if running is not None and running.algorithm == algorithm and running.size == size:
                found = f"{algorithm}:{running.hash.hexdigest()}"
            try:
                await settled(asyncio.ensure_future(asyncio.to_thread(writer.commit, digest, found)))
            except InvalidInputError:
                writer.discard()
                raise digest_invalid(digest) from None
            return size

    async def cancel(self, upload: str) -> bool:
        """Forget the upload (see Uploads)."""
        self._running.pop(upload, None)
        return self._content.forget_unfinished(upload)

    async def walk(self) -> AsyncIterator[UploadInfo]:
        """Yield all (see Uploads)."""
        for name, _, changed in list(self._content.unfinished()):
            yield UploadInfo(name, changed)


async def batches(chunks: AsyncIterator[bytes], size: int = CHUNK) -> AsyncIterator[bytes]:
    """Yield the same bytes in pieces of at least `size`, but for the last, also before an interruption."""
    gathered: list[bytes] = []
    count = 0
    try:
        async for chunk in chunks:
            gathered.append(chunk)
            count += len(chunk)
            if count >= size:
                yield b"".join(gathered)
                gathered, count = [], 0
    except (Exception, asyncio.CancelledError):
        # What came is worth keeping: the client goes on behind it.
        if gathered:
            yield b"".join(gathered)
        raise
    if gathered:
        yield b"".join(gathered)


async def settled(work: "asyncio.Future[None]") -> None:
    """Return when the work in a thread is done, even if this task is cancelled meanwhile; that comes afterwards."""
    cancelled = False
    while not work.done():
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            if work.cancelled():
                raise
            cancelled = True
    if cancelled:
        raise asyncio.CancelledError
    work.result()
