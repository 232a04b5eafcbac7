"""The builder as the API sees it: builds, the cache's size, pruning, cancelling."""

import asyncio
import logging
import os
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from barque.base.errors import BarqueError, ConflictError, InvalidInputError, NotFoundError
from barque.builder import context as contexts
from barque.builder.cache import BuildCache
from barque.builder.classic import ClassicBuild
from barque.builder.collecting import Collector, disk_of, policies_of
from barque.builder.folders import KeptFolders
from barque.builder.names import tags_of
from barque.builder.operations import EngineOperations, parallel_steps
from barque.builder.pruning import Folders, PruneOptions, Pruner
from barque.builder.request import BuildRequest
from barque.builder.solver import Solver
from barque.builder.sources import Sources
from barque.engine.pumps import chunks_of
from barque.storage.content import ContentStore

if TYPE_CHECKING:
    from barque.builder.buildkit.service import BuildKit
    from barque.engine.engine import Engine

Json = dict[str, Any]
ReadChunk = Callable[[], Awaitable[bytes]]
_WAITING = 256
log = logging.getLogger(__name__)


class Builder:
    """Builds images on one engine; made once it is open."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        folder = f"{engine.config.data_root}/builder"
        os.makedirs(folder, mode=0o711, exist_ok=True)
        self.cache = BuildCache(f"{folder}/cache.db", engine.image_store)
        self.sources = Sources(engine, f"{folder}/sources")
        self.operations = EngineOperations(engine, self.cache, self.sources)
        self.solver = Solver(self.operations, parallel=parallel_steps())
        self.contexts = KeptFolders(f"{folder}/contexts", self.cache, "source.local")
        kept: list[Folders] = [self.operations.cache_mounts, self.contexts]
        self._pruner = Pruner(self.cache, engine.image_store, kept)
        self._collector = Collector(self._policies, self._collect)
        self._running: dict[str, asyncio.Task[Any]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._buildkit: BuildKit | None = None

    @property
    def buildkit(self) -> "BuildKit":
        """Return the BuildKit side; what it needs is imported when the first of its clients comes."""
        if self._buildkit is None:
            from barque.builder.buildkit.service import BuildKit

            self._buildkit = BuildKit(self._engine, self)
        return self._buildkit

    @property
    def rests(self) -> bool:
        """Tell whether nothing is built, and nothing of a build that is over goes on."""
        buildkit_rests = self._buildkit is None or self._buildkit.rests
        return buildkit_rests and not self._running and not self._tasks and not self._collector.is_due

    async def cancel_all(self) -> None:
        """End all builds, and what they run."""
        for task in [*self._tasks]:
            task.cancel()
        if self._tasks:
            await asyncio.wait([*self._tasks], timeout=10)

    async def close(self) -> None:
        """End all builds and close the cache."""
        await self.cancel_all()
        await self._collector.close()
        if self._buildkit is not None:
            await self._buildkit.close()
        await asyncio.to_thread(self.cache.close)

    async def build(self, options: Json, read: ReadChunk) -> AsyncIterator[Json]:
        """Yield a build's messages (options: see BuildRequest); closed early, the build is cancelled and nothing of it goes on.

        Raises:
            ConflictError: a build of that id is under way.
            BarqueError: the build failed.
        """
        request = BuildRequest(**options)
        if request.squash and not self._engine.config.experimental:
            raise InvalidInputError("squash is only supported with experimental mode")
        tags_of(request.tags)
        if request.build_id and request.build_id in self._running:
            raise ConflictError(f"build {request.build_id} is already under way")
        said = _Messages()
        task = asyncio.create_task(self._build(request, read, said))
        task.add_done_callback(lambda _: said.end())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: self.built())
        if request.build_id:
            self._running[request.build_id] = task
        try:
            while (message := await said.get()) is not None:
                yield message
            if task.cancelled():
                raise BarqueError("Build cancelled")
            await task
        finally:
            self._running.pop(request.build_id, None)
            if not task.done():
                task.cancel()
                await asyncio.wait([task])

    async def _build(self, request: BuildRequest, read: ReadChunk, said: "_Messages") -> None:
        async def context(content: ContentStore, stack: ExitStack, name: str) -> contexts.Context:
            def work(chunks: Iterable[bytes]) -> contexts.Context:
                return contexts.of_archive(chunks, content, stack, name)

            return await chunks_of(read, work)

        kept: list[Json] = []

        async def say(message: Json) -> None:
            if request.quiet:
                kept.append(message)
            else:
                await said.put(message)

        tools = (self.solver, self.operations, self.sources, self.cache)
        try:
            image = await ClassicBuild(self._engine, tools, request, say).run(context)
            if request.quiet:
                await said.put({"stream": f"{image}\n"})
        except Exception as error:
            for message in kept:
                await said.put(message)
            if isinstance(error, OSError) and not isinstance(error, ConnectionError):
                # The answer has begun: what the kernel says must come as a message of it.
                place = f" {error.filename}" if isinstance(error.filename, str) else ""
                raise BarqueError(f"failed to build{place}: {(error.strerror or str(error)).lower()}") from error
            raise

    async def cancel(self, build_id: str) -> None:
        """Cancel a build by the id that its client gave it.

        Raises:
            NotFoundError: none has it.
        """
        task = self._running.get(build_id)
        if task is None:
            raise NotFoundError(f"no build {build_id} is under way")
        task.cancel()
        await asyncio.wait([task])

    async def prune(self, **options: Any) -> Json:
        """Remove unused parts of the cache; see PruneOptions."""
        rows, size = await self.pruned(**options)
        return {"CachesDeleted": [row["ID"] for row in rows] or None, "SpaceReclaimed": size}

    async def pruned(self, **options: Any) -> tuple[list[Json], int]:
        """Remove unused parts of the cache; return their rows and the bytes won."""
        rows, size = await asyncio.to_thread(self._pruner.prune, PruneOptions(**options), self.solver.in_use())
        if not options.get("dry_run"):
            self._engine.events.publish("builder", "prune", "", {"reclaimed": str(size)})
        return rows, size

    async def disk_usage(self) -> list[Json]:
        """Return the cache's records as `system df` lists them."""
        return await asyncio.to_thread(self._pruner.usage, self.solver.in_use())

    def built(self) -> None:
        """Say that a build has ended: the cache may be too large now."""
        self._collector.wake()

    def _policies(self) -> list[PruneOptions]:
        config = self._engine.config
        return policies_of(config.builder, disk_of(config.data_root))

    async def _collect(self, policy: PruneOptions) -> None:
        try:
            rows, size = await asyncio.to_thread(self._pruner.prune, policy, self.solver.in_use())
        except (BarqueError, OSError) as error:
            log.warning("the build cache could not be made smaller: %s", error)
            return
        if rows:
            log.info("build cache: %d parts of %d bytes were collected", len(rows), size)


class _Messages:
    """Messages on their way to a client: at most so many wait; after the end the rest is still given."""

    def __init__(self) -> None:
        self._waiting: deque[Json] = deque()
        self._more, self._room = asyncio.Event(), asyncio.Event()
        self._over = False

    async def put(self, message: Json) -> None:
        """Add a message, when there is room."""
        while len(self._waiting) >= _WAITING and not self._over:
            self._room.clear()
            await self._room.wait()
        self._waiting.append(message)
        self._more.set()

    def end(self) -> None:
        """Add nothing more."""
        self._over = True
        self._more.set()
        self._room.set()

    async def get(self) -> Json | None:
        """Return the next message, None at the end."""
        while not self._waiting:
            if self._over:
                return None
            self._more.clear()
            await self._more.wait()
        self._room.set()
        return self._waiting.popleft()
