"""Results out of caches that lie elsewhere, instead of steps that are carried out."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from barque.base.errors import BarqueError
from barque.builder import keys
from barque.builder.cache import BuildCache, Record
from barque.builder.caches.definitions import Definitions, definitions
from barque.builder.caches.format import Known, Stored
from barque.builder.graph import Exec, Files, Layers, Scratch, Source, Vertex
from barque.builder.results import Layer, Result
from barque.builder.solver import Session
from barque.oci import digest as digests
from barque.oci.manifest import LAYERS_MAX, Descriptor

if TYPE_CHECKING:
    from barque.engine.engine import Engine

log = logging.getLogger(__name__)
Work = Callable[[str], AbstractContextManager[Any]]


class Reader(Protocol):
    """One cache."""

    async def load(self) -> Known:
        """Return what it knows.

        Raises:
            BarqueError: it is not there, or broken.
        """
        ...

    async def bring(self, layer: Descriptor, diff_id: str) -> None:
        """Bring a layer's tar into the content store.

        Raises:
            BarqueError: it is not there, or broken.
        """
        ...


class Found(NamedTuple):
    """A result and the cache that has it."""

    stored: Stored
    reader: Reader
    name: str


class Imports:
    """The caches that one build is given; made when the first one is."""

    def __init__(self, engine: "Engine", cache: BuildCache, session: Session) -> None:
        self._engine = engine
        self._cache = cache
        self._session = session
        self._loads: dict[str, asyncio.Task[Known]] = {}
        self._readers: dict[str, tuple[str, Reader]] = {}
        self._unusable: set[str] = set()
        self.definitions: Definitions = {}

    def add(self, identity: str, name: str, reader: Reader, work: Work) -> None:
        """Take a cache; one that is the same as one before is not read twice.

        Args:
            identity: what tells it apart.
            name: what people call it.
            reader: reads it.
            work: shows that it is read.
        """
        if identity in self._loads:
            return

        async def load() -> Known:
            with work(f"importing cache manifest from {name}"):
                return await reader.load()

        self._readers[identity] = name, reader
        self._loads[identity] = asyncio.create_task(load())
        self._session.options.setdefault("ends", []).append(self._loads[identity].cancel)

    async def ready(self) -> None:
        """Wait until all caches are read; those that cannot be are passed over, as was shown."""
        if self._loads:
            await asyncio.wait(self._loads.values())

    def find(self, key: str | None) -> Found | None:
        """Return the result of a key."""
        for identity, task in self._loads.items():
            if key is None or not task.done() or task.cancelled() or task.exception() is not None:
                continue
            stored = task.result().get(f"sha256:{key}")
            if stored is not None and f"{identity} {key}" not in self._unusable and len(stored.layers) <= LAYERS_MAX:
                name, reader = self._readers[identity]
                return Found(stored, reader, name)
        return None

    async def foresee(self, wanted: Sequence[Vertex]) -> tuple[dict[Vertex, Result], set[Vertex]]:
        """Return the results that are found, and the steps that are not needed because of them.

        Args:
            wanted: steps, each after its inputs, the last one being what is asked for; the tasks of those that
                bring files in are there.
        """
        await self.ready()
        if not any(task.done() and not task.cancelled() and task.exception() is None for task in self._loads.values()):
            return {}, set()
        sources = await self._sources(wanted)
        snapshots = self._engine.snapshots
        made = await asyncio.to_thread(
            definitions, wanted, sources, self._session.facts, snapshots, keys.Digests(self._cache)
        )
        self.definitions |= made
        known, needed = await self._frontier(wanted[-1], made)
        skipped = {one for one in wanted if one not in needed and one not in known}
        for step in [one for one in wanted if one in skipped]:
            # Steps below have their place in the image's history, although nothing is brought for them.
            found = self.find(made.get(step))
            if found is not None and not isinstance(step, Source | Layers | Scratch):
                layers = _layers(found.stored)
                if not layers or self._engine.image_store.layers.has(layers[-1][0]):
                    known[step] = Result(layers, found.stored.created_ns, cached=True)
                    skipped.discard(step)
        await self._take_note(wanted, known, sources)
        return known, skipped

    async def _sources(self, wanted: Iterable[Vertex]) -> dict[Vertex, Result]:
        tasks = {one: self._session.tasks[one] for one in wanted if one in self._session.tasks and isinstance(one, Source)}
        if tasks:
            await asyncio.wait(tasks.values())
        return {one: task.result() for one, task in tasks.items() if not task.cancelled() and task.exception() is None}

    async def _frontier(self, target: Vertex, made: Definitions) -> tuple[dict[Vertex, Result], set[Vertex]]:
        """Look for results from the target downwards; what lies below one that is found is not looked for."""
        known: dict[Vertex, Result] = {}
        needed: set[Vertex] = set()
        stack = [target]
        while stack:
            step = stack.pop()
            if step in known or step in needed:
                continue
            result = None
            if step not in self._session.tasks and not isinstance(step, Source | Layers | Scratch):
                result = await self._result(made.get(step))
            if result is not None:
                known[step] = result
            else:
                needed.add(step)
                stack += step.inputs
        return known, needed

    async def _result(self, key: str | None) -> Result | None:
        while (found := self.find(key)) is not None:
            layers = await self.bring(found)
            if layers is not None:
                return Result(layers, found.stored.created_ns or time.time_ns(), cached=True)
            identity = next(name for name, (_, reader) in self._readers.items() if reader is found.reader)
            self._unusable.add(f"{identity} {key}")
        return None

    async def borrowed(self, step: Vertex, key: str, inputs: list[Result]) -> Result | None:
        """Return the result of a step whose inputs are here, by what it takes of them."""
        found = self.find(key)
        base = tuple(diff for _, diff in inputs[0].layers)
        if found is None or found.stored.diff_ids[: len(base)] != base or len(found.stored.layers) > len(base) + 1:
            return None
        result = await self._result(key)
        if result is not None:
            self._record(step, key, result)
        return result

    async def bring(self, found: Found) -> tuple[Layer, ...] | None:
        """Return a result's layers, brought over and unpacked where they are not here; None where they cannot be."""
        store, layers = self._engine.image_store, _layers(found.stored)
        parent = ""
        try:
            with store.lease() as lease:
                for chain, diff in layers:
                    lease.hold_chain(chain)
                    lease.hold_blob(diff)
                for (chain, diff), blob in zip(layers, found.stored.layers, strict=True):
                    if not store.layers.has(chain):
                        if not store.content.has(diff):
                            await found.reader.bring(blob, diff)
                        await asyncio.to_thread(store.layers.unpack, lease, parent, diff)
                        store.hold([(chain, diff)])
                        facts = {"kind": "import", "chain": chain}
                        self._cache.add(Record(keys.key_of(facts), chain, diff, parent, "import", f"imported from {found.name}",
                                               time.time_ns(), size=store.layer_size(chain), facts=facts))  # fmt: skip
                    parent = chain
        except (BarqueError, OSError) as error:
            log.warning("a layer of the cache %s cannot be had, its step is carried out: %s", found.name, error)
            return None
        return layers

    async def fetch(self, found: Found) -> bool:
        """Bring the tars of a result's layers, without unpacking them, for as long as a lease holds them."""
        content = self._engine.image_store.content
        try:
            for blob, diff in zip(found.stored.layers, found.stored.diff_ids, strict=True):
                if not content.has(diff):
                    await found.reader.bring(blob, diff)
        except (BarqueError, OSError) as error:
            log.warning("a layer of the cache %s cannot be had: %s", found.name, error)
            return False
        return True

    async def _take_note(
        self, wanted: Iterable[Vertex], known: dict[Vertex, Result], sources: dict[Vertex, Result]
    ) -> None:
        """Let the engine's own cache know the results whose inputs are here, too."""
        here: dict[Vertex, Result] = {**sources, **known}
        for step in wanted:
            if isinstance(step, Layers):
                here[step] = Result(step.layers, step.created_ns)
            elif isinstance(step, Scratch):
                here[step] = Result()
        operations = self._session.options.get("operations")
        for step, result in known.items():
            if not isinstance(step, Files | Exec) or operations is None or not all(one in here for one in step.inputs):
                continue
            try:
                key = await operations.key(step, [here[one] for one in step.inputs], self._session)
            except (BarqueError, OSError):
                continue
            self._record(step, key, result)

    def _record(self, step: Vertex, key: str, result: Result) -> None:
        store = self._engine.image_store
        base = self._base_of(step, result)
        grown = len(result.layers) > base
        chain, diff = result.layers[-1] if result.layers else ("", "")
        parent = result.layers[base - 1][0] if base else ""
        self._cache.add(Record(
            key, chain, diff if grown else "", parent, type(step).__name__.lower(), step.name, result.created_ns,
            size=store.layer_size(chain) if grown else 0, facts=self._session.facts.get(step, {}),
        ))  # fmt: skip
        # The layer has a better record now than the one that it came with.
        self._cache.remove([keys.key_of({"kind": "import", "chain": chain})])

    def _base_of(self, step: Vertex, result: Result) -> int:
        """Return how many of a result's layers lie below the step's own."""
        top = str(self._session.facts.get(step, {}).get("root", ""))
        chains = [chain for chain, _ in result.layers]
        return chains.index(top) + 1 if top in chains else 0


def _layers(stored: Stored) -> tuple[Layer, ...]:
    return tuple(zip(digests.chain_ids(stored.diff_ids), stored.diff_ids, strict=True))
