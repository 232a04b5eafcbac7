"""The API's images over the image store: threads for what takes long, events for what changed."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any

from barque.base.errors import BarqueError, InvalidInputError
from barque.distribution import progress as progresses
from barque.engine import pumps
from barque.images import load as loading, removal, save as saving, summaries, views
from barque.images.model import Image
from barque.images.store import ImageStore
from barque.oci import platform as platforms_of
from barque.oci.reference import Reference, parse

Json = dict[str, Any]
# Named outside the class: inside it, `list` is a method.
Jsons = list[Json]
Strings = list[str]
Filters = dict[str, list[str]]
Publish = Callable[[str, str, str, dict[str, str]], None]


class Images:
    """Implements the API's ImagesBackend.

    Args:
        store: the images.
        containers_using: all containers as {"id", "image_id", "running"}.
        publish: tells subscribers (type, action, actor id, attributes).
    """

    def __init__(self, store: ImageStore, containers_using: Callable[[], list[Json]], publish: Publish) -> None:
        self.store = store
        self._containers_using = containers_using
        self._publish = publish
        self._loop = asyncio.get_running_loop()
        store.publish = self._changed

    async def list(
        self,
        *,
        all: bool,
        filters: Filters,
        shared_size: bool,
        digests: bool,
        manifests: bool,
    ) -> Jsons:
        """Return the images that pass the filters."""
        using = self._containers_by_image()

        def work() -> Jsons:
            shared = views.shared_sizes(self.store) if shared_size else {}
            patterns = filters.get("reference", [])
            rows = []
            for image in views.select(self.store, filters, everything=all):
                names = views.matching(image, patterns) if patterns else None
                row = views.row(image, shared=shared.get(image.id, -1), containers=len(using[image.id]), names=names)
                row["Descriptor"] = summaries.descriptor(self.store, image)
                if manifests:
                    row["Manifests"] = summaries.summaries(self.store, image, using)
                rows.append(row)
            return rows

        return await asyncio.to_thread(work)

    async def inspect(self, ref: str, *, platform: str, manifests: bool) -> Json:
        """Return everything about an image."""
        image = self._resolve(ref, platform)
        shown = views.inspect(self.store, image)
        shown["Descriptor"] = summaries.descriptor(self.store, image)
        if manifests:
            shown["Manifests"] = summaries.summaries(self.store, image, self._containers_by_image())
        return shown

    async def history(self, ref: str, *, platform: str) -> Jsons:
        """Return how an image came to be."""
        image = self._resolve(ref, platform)
        return await asyncio.to_thread(views.history, self.store, image)

    async def tag(self, ref: str, repo: str, tag: str) -> None:
        """Give an image another name."""
        image = self.store.resolve(ref)
        target = self.store.target(self.store.name_of(ref))
        await asyncio.to_thread(self.store.tag, image.id, repo, tag, target)

    async def remove(self, ref: str, *, force: bool, noprune: bool, platforms: Strings) -> Jsons:
        """Remove a name or an image."""
        users = self._users()
        if platforms:
            wanted = [parsed_platform(p) for p in platforms]

            def work() -> Jsons:
                return [r for p in wanted for r in removal.remove_platform(self.store, ref, p, force=force, users=users)]

            return await asyncio.to_thread(work)
        return await asyncio.to_thread(
            lambda: removal.remove(self.store, ref, force=force, prune=not noprune, users=users)
        )

    async def prune(self, filters: Filters, *, dry_run: bool = False) -> Json:
        """Remove dangling images, or with dangling=false all that no container uses; or only say which."""
        chosen = dict(filters)
        dangling = chosen.pop("dangling", ["true"])
        unknown = set(chosen) - {"label", "label!", "until"}
        if unknown:
            raise InvalidInputError(f"invalid filter '{min(unknown)}'")
        if len(chosen.get("until", ())) > 1:
            raise InvalidInputError("more than one until filter specified")
        if dangling[0].lower() in ("1", "t", "true"):
            chosen["dangling"] = ["true"]
        elif dangling[0].lower() not in ("0", "f", "false"):
            raise InvalidInputError(f"invalid filter 'dangling=[{dangling[0]}]'")
        users = self._users()

        def work() -> tuple[Jsons, int]:
            unused = views.select(self.store, chosen, everything=True)
            if dry_run:
                return removal.would_prune(self.store, unused, users)
            return removal.prune(self.store, unused, users)

        rows, won = await asyncio.to_thread(work)
        if not dry_run:
            self._publish("image", "prune", "", {"reclaimed": str(won)})
        return {"ImagesDeleted": rows or None, "SpaceReclaimed": won}

    async def load(self, read: Callable[[], Any], *, quiet: bool, platforms: Strings) -> AsyncIterator[Json]:
        """Load an archive; layers are told as they come, images once they are in."""
        wanted = [str(parsed_platform(p)) for p in platforms]
        told: asyncio.Queue[Json | None] = asyncio.Queue()

        def emit(message: Json) -> None:
            self._loop.call_soon_threadsafe(told.put_nowait, message)

        progress = progresses.Progress(emit)

        def step(layer: str, text: str, done: int, total: int) -> None:
            if not quiet:
                progress.bar(layer, text, done, total)

        def work(chunks: Iterable[bytes]) -> Jsons:
            return [*loading.messages(loading.load(self.store, chunks, wanted, step))]

        async def run() -> Jsons:
            try:
                return await pumps.chunks_of(read, work)
            finally:
                # Behind what the thread has told.
                self._loop.call_soon(told.put_nowait, None)

        task = asyncio.create_task(run())
        try:
            while (message := await told.get()) is not None:
                yield message
            for row in await task:
                yield row
        finally:
            # What was begun is ended: nothing half-made stays.
            await asyncio.wait([task])

    async def save(self, refs: Strings, *, platforms: Strings) -> AsyncIterator[bytes]:
        """Return the archive of images."""
        if not refs:
            raise InvalidInputError("no images to save")
        chosen = saving.select(self.store, refs, [parsed_platform(p) for p in platforms])
        return pumps.stream_of(lambda: saving.save(self.store, chosen))

    async def import_(
        self, read: Callable[[], Any], *, repo: str, tag: str, message: str, changes: Strings, platform: str
    ) -> AsyncIterator[Json]:
        """Make an image from the tar of a root file system."""
        reference = import_name(repo, tag)

        def work(chunks: Iterable[bytes]) -> Image:
            return self.store.import_tar(chunks, reference=reference, message=message, changes=changes, wanted=platform)

        image = await pumps.chunks_of(read, work)
        return _each([{"status": image.id}])

    async def disk_usage(self) -> Jsons:
        """Return all images with the sizes that they share and how many containers use them."""
        count = Counter(user.image_id for user in self._users())

        def work() -> Jsons:
            shared = views.shared_sizes(self.store)
            return [
                views.row(i, containers=count[i.id], shared=shared.get(i.id, 0))
                for i in self.store.images()
            ]

        return await asyncio.to_thread(work)

    def in_use(self) -> set[str]:
        """Return the ids of the images that containers use, running or not."""
        return {user.image_id for user in self._users()}

    def _resolve(self, ref: str, platform: str) -> Image:
        return self.store.resolve_platform(ref, parsed_platform(platform)) if platform else self.store.resolve(ref)

    def _containers_by_image(self) -> dict[str, Strings]:
        found: dict[str, Strings] = defaultdict(list)
        for container in self._containers_using():
            found[container["image_id"]].append(container["id"])
        return found

    def _users(self) -> Sequence[removal.User]:
        return [removal.User(c["id"], c["image_id"], bool(c.get("running"))) for c in self._containers_using()]

    def _changed(self, action: str, image_id: str, name: str) -> None:
        attributes = {"name": name}
        try:
            labels = self.store.resolve(image_id).run_config.get("Labels") or {}
            attributes = {**labels, **attributes}
        except BarqueError:
            pass
        self._loop.call_soon_threadsafe(self._publish, "image", action, image_id, attributes)


def import_name(repo: str, tag: str) -> Reference | None:
    """Return the name for an imported image, None for no name.

    Raises:
        InvalidInputError: it is none, or has a digest.
    """
    reference = parse(f"{repo}:{tag}" if tag else repo).with_default_tag() if repo else None
    if reference is not None and reference.digest:
        raise InvalidInputError("cannot import digest reference")
    return reference


def parsed_platform(text: str) -> platforms_of.Platform:
    """Return a platform given as text or as the API's JSON object."""
    if text.startswith("{"):
        import json

        try:
            value = json.loads(text)
        except ValueError:
            raise InvalidInputError(f"failed to parse platform: {text}") from None
        return platforms_of.of_config(value)
    return platforms_of.parse(text)


async def _each(rows: Iterable[Json]) -> AsyncIterator[Json]:
    for row in rows:
        yield row
