"""A budget of the disk: what may stay of images and build cache, kept by the engine itself. Off unless configured.

An image in use by a container, running or not, never goes. Used means: a container was made of it, ended or was removed,
or the image was tagged or pulled.
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, NamedTuple

from barque.base.durations import parse_duration
from barque.base.errors import BarqueError, InvalidInputError
from barque.engine import checks
from barque.images.model import Image
from barque.oci.reference import parse

if TYPE_CHECKING:
    from barque.engine.engine import Engine

Json = dict[str, Any]
log = logging.getLogger(__name__)
_HOUR_NS = 3_600_000_000_000
_SHORTEST_NS = 1_000_000_000
_KEYS = ("every", "keep-tags", "max-size", "unused-for")
_ACTIONS = ("create", "die", "destroy")


class Budget(NamedTuple):
    """The policy; 0: no such limit."""

    keep_tags: int = 0
    """How many tags of a repository stay, the newest images' first."""
    unused_ns: int = 0
    """How long an image stays that nobody uses."""
    max_bytes: int = 0
    """What images' layers and build cache may take together."""
    every_ns: int = _HOUR_NS


def budget_of(options: Mapping[str, str]) -> Budget:
    """Return the budget of the daemon's option `disk-budget`.

    Raises:
        InvalidInputError: an unknown key, or a bad value.
    """
    unknown = sorted(set(options) - set(_KEYS))
    if unknown:
        raise InvalidInputError(f"disk-budget: unknown key {unknown[0]}: use {', '.join(_KEYS)}")
    try:
        kept = int(options.get("keep-tags", "0"))
        unused, every = parse_duration(options.get("unused-for", "0")), parse_duration(options.get("every", "1h"))
        most = checks.parse_size(options["max-size"]) if "max-size" in options else 0
    except (ValueError, InvalidInputError) as error:
        raise InvalidInputError(f"disk-budget: {error}") from None
    if kept < 0 or unused < 0 or most < 0 or every < _SHORTEST_NS:
        raise InvalidInputError("disk-budget: values must not be negative, and every at least 1s")
    return Budget(kept, unused, most, every)


class DiskBudget:
    """Collects by itself, every so often."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self._budget = Budget()
        self._tasks: list[asyncio.Task[None]] = []
        self._used: dict[str, int] = {}

    def open(self) -> None:
        """Read when images were used, and follow the policy of the configuration."""
        self._used = self._engine.database.load("engine").get("image-use") or {}
        self.apply(self._engine.config.disk_budget)

    def apply(self, options: Mapping[str, str]) -> None:
        """Follow another policy from now on."""
        budget = budget_of(options)
        if budget == self._budget:
            return
        for task in self._tasks:
            task.cancel()
        self._tasks = []
        self._budget = budget
        if budget.keep_tags or budget.unused_ns or budget.max_bytes:
            self._tasks = [self._engine.spawn(self._note_uses()), self._engine.spawn(self._collect_now_and_then())]

    async def _note_uses(self) -> None:
        wanted = {"type": ["container"], "event": list(_ACTIONS)}
        async with aclosing(self._engine.events.subscribe(0, 0, wanted)) as events:
            async for event in events:
                try:
                    image = self._engine.image_store.resolve(event["Actor"]["Attributes"].get("image", ""))
                except BarqueError:
                    continue
                self._used[image.id] = event["timeNano"]
                self._engine.database.put("engine", "image-use", self._used)

    async def _collect_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(self._budget.every_ns / 1e9)
            try:
                await self.collect()
            except (BarqueError, OSError) as error:
                log.warning("the disk budget could not be kept: %s", error)

    async def collect(self) -> None:
        """Remove what is beyond the budget, now."""
        budget, store = self._budget, self._engine.image_store
        known = {image.id for image in store.images()}
        self._used = {image: at for image, at in self._used.items() if image in known}
        before, removed = await asyncio.to_thread(store.layers_size), 0
        if budget.keep_tags:
            for name in surplus_tags(self._unused(), store.images(), budget.keep_tags):
                removed += await self._remove(name, f"its repository keeps {budget.keep_tags} tags")
        if budget.unused_ns:
            limit_ns = time.time_ns() - budget.unused_ns
            for image in self._unused():
                if self._last_use(image) < limit_ns:
                    removed += await self._remove_whole(image, "nobody has used it for so long")
        if budget.max_bytes:
            removed += await self._shrink(budget.max_bytes)
        if removed:
            won = max(0, before - await asyncio.to_thread(store.layers_size))
            log.info("disk budget: %d names and images removed, %d bytes won", removed, won)
            self._engine.events.publish("image", "prune", "", {"reclaimed": str(won), "reason": "disk budget"})

    async def _shrink(self, most: int) -> int:
        """Remove build cache, the oldest first, then the images whose last use is longest ago."""
        builds, store = self._engine.builds, self._engine.image_store
        images = await asyncio.to_thread(store.layers_size)
        if builds is not None:
            # A limit of 0 would be none.
            rows = await builds.disk_usage()
            if images + sum(row["Size"] for row in rows if not row.get("Shared")) > most:
                await builds.prune(all=True, max_used_space=max(1, most - images))
        removed = 0
        for image in sorted(self._unused(), key=self._last_use):
            if await asyncio.to_thread(store.layers_size) <= most:
                break
            removed += await self._remove_whole(image, f"all images may take {most} bytes")
        return removed

    def _unused(self) -> list[Image]:
        engine = self._engine
        used = engine.images.in_use()
        return [image for image in engine.image_store.images() if image.id not in used]

    def _last_use(self, image: Image) -> int:
        return max(image.tagged_ns, self._used.get(image.id, 0))

    async def _remove_whole(self, image: Image, why: str) -> int:
        names = [*image.names, *image.digests]
        if not names:
            return await self._remove(image.id, why)
        return sum([await self._remove(name, why) for name in names])

    async def _remove(self, ref: str, why: str) -> int:
        shown = ref if ref.startswith("sha256:") else parse(ref).familiar
        try:
            rows = await self._engine.images.remove(shown, force=False, noprune=False, platforms=[])
        except BarqueError as error:
            # Used or gone meanwhile, or with children; the name of a digest may go with its tag.
            log.debug("disk budget: %s stays: %s", shown, error)
            return 0
        log.info("disk budget: %s removed: %s", shown, why)
        return len(rows)


def surplus_tags(unused: list[Image], images: list[Image], keep: int) -> list[str]:
    """Return the full names with a tag that go: of each repository all but those of the newest images.

    Args:
        unused: the images that may lose names.
        images: all of them: the names of those in use count among the ones that stay.
        keep: how many names of a repository stay.
    """
    by_repository: dict[str, list[tuple[int, int, str]]] = defaultdict(list)
    for image in images:
        for name in image.names:
            by_repository[parse(name).name].append((image.created_ns, image.tagged_ns, name))
    may_go = {name for image in unused for name in image.names}
    return [name for rows in by_repository.values() for _, _, name in sorted(rows, reverse=True)[keep:] if name in may_go]
