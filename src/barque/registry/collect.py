"""Garbage collection while servers serve.

What a push in progress counts on is younger than the grace: every request that tells a client of a
blob renews the blob's record (see repositories.py). Beyond that, two rules make the order of events
unimportant:

- A blob's record goes before the second look at the manifests; a manifest that came meanwhile gets the
  record back. A push looks for the records after its manifest is in place. One of both sees the other.
- Content goes after a notice (`deleting/<digest>/<collector>`) and a second look at all records. Who adds
  a record looks for notices afterwards, waits for their end, and then for the content.

A record may be away for a moment, until the collector that removed it has looked for the second time. So
another collector keeps content for the sake of manifests too, which it lists after the records: where a
record is away, the manifest that it comes back for is there already.
"""

import asyncio
import logging
import time
import uuid
from typing import NamedTuple

from barque.registry import manifests
from barque.registry.config import Collecting
from barque.registry.errors import RegistryError
from barque.registry.manifests import Manifest
from barque.registry.repositories import DELETING_S, Repositories, tag_notice
from barque.registry.retention import superfluous
from barque.registry.storage import name_of, repository

log = logging.getLogger(__name__)

_BATCH = 500


class Report(NamedTuple):
    """What a collection removed, or would remove."""

    tags: list[str]
    """Repository and tag, divided by ":"."""
    manifests: list[str]
    """Repository and digest, divided by "@"."""
    links: list[str]
    """The same of blobs that repositories no longer have."""
    contents: list[str]
    bytes: int
    uploads: list[str]


class Collector:
    """Removes what nothing refers to.

    Args:
        repositories: where.
        settings: how long what stays.
        dry_run: only say what would go.
    """

    def __init__(self, repositories: Repositories, settings: Collecting, *, dry_run: bool = False) -> None:
        self._repositories = repositories
        self._storage = repositories.storage
        self._records = repositories.storage.records
        self._settings = settings
        self._dry_run = dry_run
        self._identifier = uuid.uuid4().hex
        self._parsed: dict[str, Manifest | None] = {}
        self._dropped: set[str] = set()
        """Records that a dry run takes as gone."""

    async def run(self) -> Report:
        """Collect once and return what went."""
        report = Report([], [], [], [], 0, [])
        self._parsed.clear()
        for entry in await self._records.entries("repositories"):
            await self._repository(name_of(entry.name), report)
        size = await self._contents(report)
        await self._uploads(report)
        return report._replace(bytes=size)

    def _old(self, moment: float, age_s: float) -> bool:
        return time.time() - moment > age_s

    async def _repository(self, name: str, report: Report) -> None:
        folder = repository(name)
        tags = await self._records.entries(f"{folder}/tags") if self._settings.retained else []
        for tag in superfluous(name, tags, self._settings.retained):
            if await self._expire(name, tag):
                report.tags.append(f"{name}:{tag}")
        if self._settings.untagged:
            await self._untagged(name, report)
        kept = await self._referred(folder, await self._manifests(folder))
        gone = []
        for entry in await self._records.entries(f"{folder}/blobs"):
            if entry.name in kept or not self._old(entry.time, self._settings.grace_s):
                continue
            if await self._drop(f"{folder}/blobs/{entry.name}"):
                gone.append(entry.name)
        back = await self._referred(folder, await self._manifests(folder)) & set(gone) if gone else set()
        for digest in back:
            await self._records.put(f"{folder}/blobs/{digest}", b"")
        report.links.extend(f"{name}@{digest}" for digest in gone if digest not in back)
        await self._tidy(folder)

    async def _expire(self, name: str, tag: str) -> bool:
        """Remove a tag that is still old after a notice; who pushes it looks for notices afterwards."""
        key, notice = f"{repository(name)}/tags/{tag}", f"deleting/{tag_notice(name, tag)}/{self._identifier}"
        if self._dry_run:
            return await self._drop(key)
        await self._records.put(notice, b"")
        try:
            return await self._drop(key)
        finally:
            await self._records.delete(notice)

    async def _drop(self, key: str) -> bool:
        """Remove an old record; tell whether it was one still."""
        moment = await self._records.time(key)
        if moment is None or not self._old(moment, self._settings.grace_s):
            return False
        if self._dry_run:
            self._dropped.add(key)
            return True
        return await self._records.delete(key)

    async def _manifests(self, folder: str) -> list[str]:
        found = [e.name for e in await self._records.entries(f"{folder}/manifests")]
        return [digest for digest in found if f"{folder}/manifests/{digest}" not in self._dropped]

    async def _referred(self, folder: str, digests: list[str]) -> set[str]:
        """Return the blobs that manifests refer to."""
        found: set[str] = set()
        for digest in digests:
            manifest = await self._manifest(folder, digest)
            if manifest is not None:
                found.update(manifest.blobs)
        return found

    async def _manifest(self, folder: str, digest: str) -> Manifest | None:
        if digest not in self._parsed:
            try:
                stored = await self._repositories.resolve(name_of(folder.partition("/")[2]), digest)
                raw = await self._repositories.read_manifest(digest)
                self._parsed[digest] = manifests.parse(raw, stored.media_type)
            except RegistryError as error:
                log.warning("manifest %s of %s: %s", digest, folder, error.message)
                return None
        return self._parsed[digest]

    async def _untagged(self, name: str, report: Report) -> None:
        """Remove manifests that no tag, no index and no kept subject leads to."""
        folder = repository(name)
        entries = await self._records.entries(f"{folder}/manifests")
        roots = {e.name for e in entries if not self._old(e.time, self._settings.grace_s)}
        for tag in await self._records.entries(f"{folder}/tags"):
            value = await self._records.get(f"{folder}/tags/{tag.name}")
            if value is not None and f"{folder}/tags/{tag.name}" not in self._dropped:
                roots.add(value.decode())
        kept = await self._closure(folder, roots, {e.name for e in entries})
        for entry in entries:
            if entry.name in kept:
                continue
            moment = await self._records.time(f"{folder}/manifests/{entry.name}")
            if moment is None or not self._old(moment, self._settings.grace_s):
                continue
            if self._dry_run:
                self._dropped.add(f"{folder}/manifests/{entry.name}")
            else:
                await self._repositories.delete_manifest(name, entry.name)
            report.manifests.append(f"{name}@{entry.name}")

    async def _closure(self, folder: str, roots: set[str], all_of_them: set[str]) -> set[str]:
        """Return what the roots lead to: entries of indexes, and what is about a kept manifest."""
        about: dict[str, list[str]] = {}
        for digest in all_of_them:
            manifest = await self._manifest(folder, digest)
            if manifest is not None and manifest.subject:
                about.setdefault(manifest.subject, []).append(digest)
        kept: set[str] = set()
        waiting = list(roots)
        while waiting:
            digest = waiting.pop()
            if digest in kept:
                continue
            kept.add(digest)
            manifest = await self._manifest(folder, digest) if digest in all_of_them else None
            waiting += about.get(digest, [])
            waiting += manifest.manifests if manifest is not None else ()
        return kept

    async def _tidy(self, folder: str) -> None:
        """Remove what an interrupted deletion left, and a repository that has nothing any more."""
        if self._dry_run:
            return
        here = set(await self._manifests(folder))
        for subject in await self._records.entries(f"{folder}/referrers"):
            for entry in await self._records.entries(f"{folder}/referrers/{subject.name}"):
                if entry.name not in here and self._old(entry.time, self._settings.grace_s):
                    await self._records.delete(f"{folder}/referrers/{subject.name}/{entry.name}")
        moment = await self._records.time(f"{folder}/made")
        if moment is None or not self._old(moment, self._settings.grace_s) or await self._in_use(folder):
            return
        await self._records.delete(f"{folder}/made")
        if await self._in_use(folder):
            await self._records.put(f"{folder}/made", b"")

    async def _in_use(self, folder: str) -> bool:
        for kind in ("blobs", "manifests", "tags"):
            if await self._records.entries(f"{folder}/{kind}", most=1):
                return True
        return False

    async def _linked(self) -> set[str]:
        """Return all content that some repository has, or that one of its manifests refers to."""
        found: set[str] = set()
        for entry in await self._records.entries("repositories"):
            folder = f"repositories/{entry.name}"
            names = [e.name for e in await self._records.entries(f"{folder}/blobs")]
            found.update(n for n in names if f"{folder}/blobs/{n}" not in self._dropped)
            # After the records (see above).
            there = await self._manifests(folder)
            found.update(there)
            found |= await self._referred(folder, there)
        return found

    async def _contents(self, report: Report) -> int:
        if not self._dry_run:
            await self._forget_the_dead()
        linked = await self._linked()
        batch, size = [], 0
        async for blob in self._storage.blobs.walk():
            if blob.digest in linked or not self._old(blob.time, self._settings.grace_s):
                continue
            batch.append(blob.digest)
            if len(batch) >= _BATCH:
                size += await self._delete_contents(batch, report)
                batch = []
        return size + await self._delete_contents(batch, report)

    async def _forget_the_dead(self) -> None:
        """Remove the notices of collectors that died."""
        for content in await self._records.entries("deleting"):
            for notice in await self._records.entries(f"deleting/{content.name}"):
                if self._old(notice.time, DELETING_S):
                    await self._records.delete(f"deleting/{content.name}/{notice.name}")

    async def _delete_contents(self, digests: list[str], report: Report) -> int:
        if not digests:
            return 0
        started = time.monotonic()
        size = 0
        try:
            for digest in [] if self._dry_run else digests:
                await self._records.put(f"deleting/{digest}/{self._identifier}", b"")
            linked = await self._linked()
            for digest in digests:
                info = await self._storage.blobs.info(digest)
                if digest in linked or info is None or not self._old(info.time, self._settings.grace_s):
                    continue
                if time.monotonic() - started > DELETING_S / 2:
                    log.warning("the storage is slow; the rest is collected next time")
                    break
                if not self._dry_run:
                    await self._storage.blobs.delete(digest)
                report.contents.append(digest)
                size += info.size
        finally:
            for digest in [] if self._dry_run else digests:
                await self._records.delete(f"deleting/{digest}/{self._identifier}")
        return size

    async def _uploads(self, report: Report) -> None:
        async for upload in self._storage.uploads.walk():
            if not self._old(upload.time, self._settings.upload_expiry_s):
                continue
            if self._dry_run or await self._storage.uploads.cancel(upload.upload):
                report.uploads.append(upload.upload)


async def run_forever(repositories: Repositories, settings: Collecting) -> None:
    """Collect again and again; a failure is logged and the next collection tried."""
    while True:
        await asyncio.sleep(settings.interval_s)
        try:
            report = await Collector(repositories, settings).run()
        except (OSError, RegistryError) as error:
            log.error("garbage collection: %s", error)
            continue
        if any(report):
            log.info(
                "garbage collection: %d tags, %d manifests, %d blobs (%d bytes), %d uploads",
                len(report.tags), len(report.manifests), len(report.contents), report.bytes, len(report.uploads),
            )  # fmt: skip
