"""What the registry keeps its state in: small records, blobs and uploads.

Everything a registry knows is here, so that servers which share a storage share a registry:

    repositories/<name>/made                             the repository exists
    repositories/<name>/blobs/<digest>                   it has this blob
    repositories/<name>/manifests/<digest>               it has this manifest: {"mediaType": ..., "size": ...}
    repositories/<name>/tags/<tag>                       a digest
    repositories/<name>/referrers/<subject>/<digest>     a descriptor
    deleting/<digest>/<collector>                        this collector is about to delete this blob, or the tag
                                                         whose repository and name have this digest

These keys are records; in `<name>`, "/" is written "!", which sorts before all that names may hold.
The content of manifests lies among the blobs. `Records`, `Blobs` and `Uploads` are the contracts; their
suite in tests/unit/registry runs against every implementation.
"""

from collections.abc import AsyncIterator
from typing import BinaryIO, NamedTuple, Protocol


class Entry(NamedTuple):
    """A record or a folder of records: its last word and when it was written (seconds; 0 for a folder)."""

    name: str
    time: float


class BlobInfo(NamedTuple):
    """A blob, its size in bytes and when it was written or renewed (seconds)."""

    digest: str
    size: int
    time: float


class UploadInfo(NamedTuple):
    """An upload and when it last changed (seconds)."""

    upload: str
    time: float


class Records(Protocol):
    """Small values by key; a key's words are divided by slashes."""

    async def get(self, key: str) -> bytes | None:
        """Return the value, None without."""
        ...

    async def put(self, key: str, value: bytes) -> None:
        """Write the value durably, whole or not at all."""
        ...

    async def delete(self, key: str) -> bool:
        """Remove it; tell whether it was there."""
        ...

    async def touch(self, key: str) -> bool:
        """Renew its time; tell whether it is there."""
        ...

    async def time(self, key: str) -> float | None:
        """Return when it was written or renewed, None without."""
        ...

    async def entries(self, folder: str, *, after: str = "", most: int = 0) -> list[Entry]:
        """Return what lies directly below a folder, sorted, behind `after`, at most `most` (0: all)."""
        ...


class Blobs(Protocol):
    """Content by digest."""

    async def size(self, digest: str) -> int | None:
        """Return its size in bytes, None without it."""
        ...

    async def open(self, digest: str) -> BinaryIO | None:
        """Return a file of it where there is one to send as it is; None where it must be read."""
        ...

    def read(self, digest: str, start: int, end: int) -> AsyncIterator[bytes]:
        """Yield its bytes from start up to end."""
        ...

    async def put(self, digest: str, data: bytes) -> None:
        """Store the whole of a small blob whose digest is known to be right."""
        ...

    async def info(self, digest: str) -> BlobInfo | None:
        """Return its facts, None without it."""
        ...

    async def delete(self, digest: str) -> None:
        """Remove it if it is here."""
        ...

    def walk(self) -> AsyncIterator[BlobInfo]:
        """Yield all."""
        ...


class Uploads(Protocol):
    """Blobs that arrive in pieces, perhaps at different servers."""

    async def create(self) -> str:
        """Begin an upload and return its identifier."""
        ...

    async def size(self, upload: str) -> int | None:
        """Return how many bytes have arrived, None without such an upload."""
        ...

    async def append(self, upload: str, chunks: AsyncIterator[bytes], *, start: int | None) -> int:
        """Append the chunks and return the size; what came before an interruption stays.

        Args:
            upload: the upload.
            chunks: the bytes.
            start: where they must begin, None for the end.

        Raises:
            RegistryError: no such upload, or it does not end at start, or another request appends.
        """
        ...

    async def finish(self, upload: str, digest: str) -> int:
        """Make the upload a blob and return its size.

        Raises:
            RegistryError: the digest is another; the upload is gone.
        """
        ...

    async def cancel(self, upload: str) -> bool:
        """Forget the upload; tell whether there was one."""
        ...

    def walk(self) -> AsyncIterator[UploadInfo]:
        """Yield all."""
        ...


class Storage(NamedTuple):
    """The three parts of one storage."""

    records: Records
    blobs: Blobs
    uploads: Uploads


CHUNK = 1 << 20


def repository(name: str) -> str:
    """Return the folder of a repository's records."""
    return "repositories/" + name.replace("/", "!")


def name_of(folder: str) -> str:
    """Return the repository's name of the last word of its folder."""
    return folder.replace("!", "/")
