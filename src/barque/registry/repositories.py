"""Repositories: which blobs, manifests and tags each has, kept true beside collectors and other servers.

What is read concurrently is never half there: content comes before the records that name it and goes
after them. A blob's record is renewed whenever a client learns that the blob is here, so that what a
push in progress counts on is younger than the collector's grace.
"""

import asyncio
import hashlib
import json
import time
from typing import Any, NamedTuple

from barque.oci import digest as digests
from barque.registry import manifests, names
from barque.registry.errors import RegistryError, blob_unknown, digest_invalid, manifest_unknown, name_unknown
from barque.registry.manifests import Manifest
from barque.registry.storage import Storage, name_of, repository

DELETING_S = 60
"""A collector's notice older than this is of one that died."""
_POLL_S = 0.05

Json = dict[str, Any]


class Stored(NamedTuple):
    """A manifest in a repository."""

    digest: str
    media_type: str
    size: int


class Repositories:
    """All repositories of a storage."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._records = storage.records
        self._blobs = storage.blobs

    async def exists(self, name: str) -> bool:
        """Tell whether the repository was ever pushed to."""
        return await self._records.time(f"{repository(name)}/made") is not None

    async def make(self, name: str) -> None:
        """Let the repository exist."""
        if not await self.exists(name):
            await self._records.put(f"{repository(name)}/made", b"")

    async def must_exist(self, name: str) -> None:
        """Do nothing where the repository exists.

        Raises:
            RegistryError: NAME_UNKNOWN.
        """
        if not await self.exists(name):
            raise name_unknown(name)

    async def catalog(self, *, after: str, most: int) -> list[str]:
        """Return names of repositories in their order, behind `after`."""
        found = await self._records.entries("repositories", after=after.replace("/", "!"), most=most)
        return [name_of(entry.name) for entry in found]

    async def tags(self, name: str, *, after: str = "", most: int = 0) -> list[str]:
        """Return the repository's tags in their order, behind `after`.

        Raises:
            RegistryError: no such repository.
        """
        await self.must_exist(name)
        return [e.name for e in await self._records.entries(f"{repository(name)}/tags", after=after, most=most)]

    # Blobs.

    async def blob_size(self, name: str, digest: str) -> int:
        """Return the size of a blob of the repository; it then stays for the collector's grace.

        Raises:
            RegistryError: BLOB_UNKNOWN.
        """
        size = await self._blobs.size(digest) if await self._has_blob(name, digest) else None
        if size is None:
            raise blob_unknown(digest)
        return size

    async def _has_blob(self, name: str, digest: str) -> bool:
        return await self._records.touch(f"{repository(name)}/blobs/{digest}")

    async def add_blob(self, name: str, digest: str) -> bool:
        """Give the repository a blob whose content is here; tell whether it was (a collector may be faster)."""
        key = f"{repository(name)}/blobs/{digest}"
        await self._records.put(key, b"")
        if not await self.content_stays(digest):
            await self._records.delete(key)
            return False
        await self.make(name)
        return True

    async def content_stays(self, digest: str) -> bool:
        """Tell whether content that a record refers to is here and not about to be deleted."""
        await self._waited_for_deletion(digest)
        return await self._blobs.size(digest) is not None

    async def _waited_for_deletion(self, subject: str) -> bool:
        """Wait until no collector is about to delete something; tell whether one was."""
        waited = False
        while await self._being_deleted(subject):
            waited = True
            await asyncio.sleep(_POLL_S)
        return waited

    async def _being_deleted(self, subject: str) -> bool:
        notices = await self._records.entries(f"deleting/{subject}")
        return any(time.time() - notice.time < DELETING_S for notice in notices)

    async def mount(self, name: str, digest: str, origin: str) -> bool:
        """Give the repository a blob that another has; tell whether that one has it."""
        if not await self._has_blob(origin, digest):
            return False
        return await self.add_blob(name, digest)

    async def holder(self, digest: str) -> str:
        """Return a repository that has the blob, empty without."""
        for entry in await self._records.entries("repositories"):
            if await self._records.touch(f"repositories/{entry.name}/blobs/{digest}"):
                return name_of(entry.name)
        return ""

    async def delete_blob(self, name: str, digest: str) -> None:
        """Take a blob away from the repository; the content goes when no other has it.

        Raises:
            RegistryError: BLOB_UNKNOWN.
        """
        if not await self._records.delete(f"{repository(name)}/blobs/{digest}"):
            raise blob_unknown(digest)

    # Manifests.

    async def resolve(self, name: str, reference: str) -> Stored:
        """Return the manifest that a tag or digest means.

        Raises:
            RegistryError: NAME_UNKNOWN, MANIFEST_UNKNOWN or DIGEST_INVALID.
        """
        if names.is_digest(reference):
            digest = names.check_digest(reference)
        else:
            found = await self._records.get(f"{repository(name)}/tags/{reference}") if names.is_tag(reference) else None
            digest = found.decode() if found else ""
        raw = await self._records.get(f"{repository(name)}/manifests/{digest}") if digest else None
        if raw is None:
            await self.must_exist(name)
            raise manifest_unknown(reference)
        facts = json.loads(raw)
        return Stored(digest, facts["mediaType"], facts["size"])

    async def read_manifest(self, digest: str) -> bytes:
        """Return a manifest's bytes.

        Raises:
            RegistryError: they are gone.
        """
        size = await self._blobs.size(digest)
        if size is None:
            raise manifest_unknown(digest)
        return b"".join([chunk async for chunk in self._blobs.read(digest, 0, size)])

    async def put_manifest(
        self, name: str, raw: bytes, manifest: Manifest, *, digest: str = "", tags: tuple[str, ...] = (), sparse: bool
    ) -> str:
        """Store a manifest and let tags mean it; return its digest.

        Args:
            name: the repository.
            raw: the manifest's bytes.
            manifest: what they say.
            digest: what it must be, empty if unknown.
            tags: names for it.
            sparse: what it refers to may be missing.

        Raises:
            RegistryError: another digest, or it refers to what is not here.
        """
        found = _digest_of(raw, digest)
        folder = repository(name)
        if not sparse:
            await self._check_references(name, manifest)
        await self._blobs.put(found, raw)
        facts = json.dumps({"mediaType": manifest.media_type, "size": len(raw)}).encode()
        await self._records.put(f"{folder}/manifests/{found}", facts)
        try:
            if not await self.content_stays(found):
                await self._blobs.put(found, raw)
            if not sparse:
                # A collector that did not see the manifest may have taken what it refers to meanwhile.
                await self._check_references(name, manifest)
        except BaseException:
            await self._records.delete(f"{folder}/manifests/{found}")
            raise
        if manifest.subject:
            descriptor = json.dumps(manifest.descriptor(found, len(raw))).encode()
            await self._records.put(f"{folder}/referrers/{manifest.subject}/{found}", descriptor)
        await self.make(name)
        for tag in tags:
            await self._put_tag(name, tag, found)
        if await self._records.time(f"{folder}/manifests/{found}") is None:
            # A collector took it for untagged just before it got its tag.
            await self._records.put(f"{folder}/manifests/{found}", facts)
        return found

    async def _put_tag(self, name: str, tag: str, digest: str) -> None:
        key = f"{repository(name)}/tags/{tag}"
        await self._records.put(key, digest.encode())
        if await self._waited_for_deletion(tag_notice(name, tag)) and await self._records.get(key) is None:
            # A collector found it old just before.
            await self._records.put(key, digest.encode())

    async def _check_references(self, name: str, manifest: Manifest) -> None:
        missing = [d for d in manifest.blobs if not await self._has_blob(name, d)]
        for digest in manifest.manifests:
            if not await self._records.touch(f"{repository(name)}/manifests/{digest}"):
                missing.append(digest)
        if missing:
            raise manifests.blobs_unknown(missing)

    async def delete_manifest(self, name: str, digest: str) -> None:
        """Remove a manifest with its tags and its place among referrers.

        Raises:
            RegistryError: MANIFEST_UNKNOWN.
        """
        stored = await self.resolve(name, digest)
        folder = repository(name)
        for entry in await self._records.entries(f"{folder}/tags"):
            if await self._records.get(f"{folder}/tags/{entry.name}") == digest.encode():
                await self._records.delete(f"{folder}/tags/{entry.name}")
        subject = await self.subject_of(stored)
        if subject:
            await self._records.delete(f"{folder}/referrers/{subject}/{digest}")
        await self._records.delete(f"{folder}/manifests/{digest}")

    async def subject_of(self, stored: Stored) -> str:
        """Return the digest of what the manifest is about; empty without, or if its content is damaged."""
        try:
            return manifests.parse(await self.read_manifest(stored.digest), stored.media_type).subject
        except RegistryError:
            return ""

    async def delete_tag(self, name: str, tag: str) -> None:
        """Take a tag away; its manifest stays.

        Raises:
            RegistryError: NAME_UNKNOWN or MANIFEST_UNKNOWN.
        """
        if not names.is_tag(tag) or not await self._records.delete(f"{repository(name)}/tags/{tag}"):
            await self.must_exist(name)
            raise manifest_unknown(tag)

    async def referrers(self, name: str, subject: str, *, after: str = "", most: int = 0) -> list[Json]:
        """Return the descriptors of what has this subject, in the order of their digests."""
        folder = f"{repository(name)}/referrers/{subject}"
        found = []
        for entry in await self._records.entries(folder, after=after, most=most):
            raw = await self._records.get(f"{folder}/{entry.name}")
            if raw is not None:
                found.append(json.loads(raw))
        return found


def tag_notice(name: str, tag: str) -> str:
    """Return under which digest a collector tells that it is about to delete a tag."""
    return digests.of(f"{name}:{tag}".encode())


def _digest_of(raw: bytes, wanted: str) -> str:
    algorithm, _ = digests.split(wanted) if wanted else (digests.SHA256, "")
    found = f"{algorithm}:{hashlib.new(algorithm, raw).hexdigest()}"
    if wanted and found != wanted:
        raise digest_invalid(wanted)
    return found
