"""Carrying out steps with the engine's stores: the one implementation of `solver.Operations`."""

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from barque.base import calling_off
from barque.base.errors import BarqueError, InvalidInputError
from barque.base.ids import new_id
from barque.builder import execution, keys
from barque.builder.cache import BuildCache, Record
from barque.builder.caches.imports import Imports
from barque.builder.differences import turn_into
from barque.builder.file_actions import carry_out
from barque.builder.folders import KeptFolders
from barque.builder.graph import (
    CopyFiles,
    Diff,
    Exec,
    ExecOutput,
    Failed,
    Files,
    Layers,
    Merge,
    Mount,
    Scratch,
    Source,
    Vertex,
)
from barque.builder.results import Layer, Result
from barque.builder.solver import Emit, Session
from barque.builder.sources import Sources
from barque.engine.settling import settled
from barque.images.layers import EMPTY
from barque.oci import digest as digests

if TYPE_CHECKING:
    from barque.engine.engine import Engine

T = TypeVar("T")


class EngineOperations:
    """Solves steps on one engine."""

    def __init__(self, engine: "Engine", cache: BuildCache, sources: Sources) -> None:
        self._engine = engine
        self._cache = cache
        self._sources = sources
        self._digests = keys.Digests(cache)
        self.cache_mounts = KeptFolders(f"{engine.config.data_root}/builder/mounts", cache, "exec.cachemount")
        self.mounts = execution.CacheMounts(self.cache_mounts, f"{engine.config.exec_root}/builder")

    async def key(self, vertex: Vertex, inputs: list[Result], session: Session) -> str:
        """Return a step's key (see Operations)."""
        snapshots = self._engine.snapshots
        if isinstance(vertex, ExecOutput):
            facts = await asyncio.to_thread(keys.output_facts, vertex, inputs, snapshots, self._digests)
            return keys.key_of(facts)
        if isinstance(vertex, Files):
            if any(isinstance(action, CopyFiles) for action in vertex.actions):
                facts = await asyncio.to_thread(keys.files_facts, vertex, inputs, snapshots, self._digests)
            else:
                facts = keys.files_facts(vertex, inputs, snapshots, self._digests)
        elif isinstance(vertex, Exec):
            # What the build may not have, it does not get out of the cache either.
            execution.check_allowed(vertex, self._engine.cdi.names() if vertex.devices else (), session)
            contexts = any(m.input > 0 and m.type == "bind" and inputs[m.input].tree is not None for m in vertex.mounts)
            if contexts:
                facts = await asyncio.to_thread(keys.exec_facts, vertex, inputs, snapshots, self._digests)
            else:
                facts = keys.exec_facts(vertex, inputs, snapshots, self._digests)
        else:
            return ""
        key = keys.key_of(facts)
        session.facts[vertex] = facts
        return key

    def recall(self, vertex: Vertex, key: str, inputs: list[Result]) -> Result | None:
        """Return an earlier run's result (see Operations)."""
        record = self._cache.find(key)
        if record is None:
            return None
        layers = (_taken(vertex.mount, inputs[1:]) if isinstance(vertex, ExecOutput) else inputs[0]).layers
        if record.diff:
            layers = (*layers, (record.chain, record.diff))
        return Result(layers, record.created_ns, cached=True)

    async def borrowed(self, vertex: Vertex, key: str, inputs: list[Result], session: Session) -> Result | None:
        """Return a result out of a cache that the build was given (see Operations)."""
        imports: Imports | None = session.options.get("imports")
        if isinstance(vertex, ExecOutput):
            return None
        return await imports.borrowed(vertex, key, inputs) if imports is not None else None

    def settled(self, vertex: Vertex, inputs: list[Result], result: Result, session: Session) -> Result:
        """Return a result less a layer that changes nothing, where the build wants none (see Operations)."""
        if session.options.get("empty_layers") or not isinstance(vertex, Files | Exec):
            return result
        empty = len(result.layers) == len(inputs[0].layers) + 1 and result.layers[-1][1] == EMPTY
        return replace(result, layers=inputs[0].layers) if empty else result

    async def run(self, vertex: Vertex, key: str, inputs: list[Result], session: Session, emit: Emit) -> Result:
        """Carry a step out (see Operations)."""
        if isinstance(vertex, Scratch):
            return Result()
        if isinstance(vertex, Layers):
            return Result(vertex.layers, vertex.created_ns, cached=True)
        if isinstance(vertex, Source):
            return await self._sources.get(vertex, session, emit)
        if isinstance(vertex, Merge):
            return await self._merge(inputs)
        if isinstance(vertex, Diff):
            return await self._diff(inputs)
        if isinstance(vertex, Files):
            return await self._files(vertex, key, inputs, session)
        if isinstance(vertex, Exec):
            return await self._exec(vertex, key, inputs, session, emit)
        if isinstance(vertex, ExecOutput):
            # The command's own result was known, this one has gone from the cache.
            again = await self.key(vertex.command, inputs[1:], session)
            await self._exec(vertex.command, again, inputs[1:], session, emit)
            result = self.recall(vertex, key, inputs)
            if result is not None:
                return result
        if isinstance(vertex, Failed):
            made = keys.key_of({"kind": "failed", "snapshot": vertex.snapshot}), vertex.snapshot
            return await _to_the_end(lambda: self._finish(vertex, made[0], inputs[0], made[1], {}))
        raise BarqueError(f"unknown kind of step: {type(vertex).__name__}")

    async def _files(self, vertex: Files, key: str, inputs: list[Result], session: Session) -> Result:
        engine = self._engine
        name = new_id()

        def work() -> Result:
            engine.snapshots.prepare(name, inputs[0].top)
            try:
                carry_out(engine.snapshots, engine.image_store.content, name, vertex, inputs)
                return self._finish(vertex, key, inputs[0], name, session.facts.get(vertex, {}))
            except BaseException:
                self._drop(name)
                raise

        return await _to_the_end(work)

    async def _exec(self, vertex: Exec, key: str, inputs: list[Result], session: Session, emit: Emit) -> Result:
        engine = self._engine
        name = str(session.options.get("step_id") or new_id())
        session.options.pop("step_id", None)
        outputs = {mount: new_id() for mount in vertex.mounts if mount.output}
        engine.snapshots.prepare(name, inputs[0].top)
        kept = False
        try:
            for mount, one in outputs.items():
                engine.snapshots.prepare(one, _taken(mount, inputs).top)
            async with self.mounts.points(vertex, inputs, engine.snapshots, session, outputs) as points:
                result = await execution.execute(engine, vertex, name, points, session, emit)
            if result.exit_code not in (vertex.exit_codes or (0,)):
                kept = bool(session.options.get("keep_failed"))
                if kept and not session.options.get("known_ids"):
                    # What it left can be looked at while the build lasts.
                    session.options.setdefault("ends", []).append(lambda: self._drop(name))
                raise execution.ExitError(vertex, result.exit_code, name if kept else "")
            return await _to_the_end(lambda: self._finish_all(vertex, (key, name), inputs, outputs, session))
        except BaseException:
            for one in outputs.values():
                self._drop(one)
            if not kept:
                self._drop(name)
            raise

    def _finish_all(
        self, vertex: Exec, made: tuple[str, str], inputs: list[Result], outputs: dict[Mount, str], session: Session
    ) -> Result:  # fmt: skip
        """Make layers of the snapshots that a command wrote to: its root (key and snapshot), and its mounts."""
        for mount, name in outputs.items():
            output = ExecOutput(vertex, mount, name=f"{vertex.name} ({mount.target})")
            facts = keys.output_facts(output, [Result(), *inputs], self._engine.snapshots, self._digests)
            self._finish(output, keys.key_of(facts), _taken(mount, inputs), name, facts)
        return self._finish(vertex, made[0], inputs[0], made[1], session.facts.get(vertex, {}))

    def _finish(self, vertex: Vertex, key: str, root: Result, name: str, facts: keys.Facts) -> Result:
        """Make the snapshot a layer and take note of it."""
        store = self._engine.image_store
        diff, chain = store.adopt_layer(root.top, name, keep_empty=True)
        now = time.time_ns()
        record = Record(
            key, chain, diff, root.top, type(vertex).__name__.lower(), vertex.name, now,
            size=store.layer_size(chain), facts=facts,
        )  # fmt: skip
        self._cache.add(record)
        return Result((*root.layers, (chain, diff)), now)

    def _drop(self, name: str) -> None:
        try:
            self._engine.snapshots.remove(name)
        except (BarqueError, OSError):
            pass

    async def _merge(self, inputs: list[Result]) -> Result:
        if any(result.tree is not None for result in inputs):
            raise InvalidInputError("a merge takes layers, not a build context")
        layers = inputs[0].layers if inputs else ()
        for result in inputs[1:]:
            for layer in result.layers:
                layers = (*layers, await asyncio.to_thread(self._on_top, layers, layer))
        return Result(layers, max((result.created_ns for result in inputs), default=0))

    def _on_top(self, below: tuple[Layer, ...], layer: Layer) -> Layer:
        """Return a layer with the same files on other layers."""
        parent, diff = (below[-1][0] if below else ""), layer[1]
        chain = digests.of(f"{parent} {diff}".encode()) if parent else diff
        store = self._engine.image_store
        if not store.layers.has(chain):
            store.unpack_layer(parent, diff)
        facts = {"kind": "merge", "parent": parent, "diff": diff}
        self._cache.add(Record(keys.key_of(facts), chain, diff, parent, "merge", "merge", time.time_ns(),
                               size=store.layer_size(chain), facts=facts))  # fmt: skip
        return chain, diff

    async def _diff(self, inputs: list[Result]) -> Result:
        lower, upper = inputs
        count = len(lower.layers)
        if upper.layers[:count] != lower.layers:
            return await self._compared(lower, upper)
        layers: tuple[Layer, ...] = ()
        for layer in upper.layers[count:]:
            layers = (*layers, await asyncio.to_thread(self._on_top, layers, layer))
        return Result(layers, upper.created_ns)


    async def _compared(self, lower: Result, upper: Result) -> Result:
        """Return the one layer that makes the lower root the upper one, on nothing."""
        engine, name = self._engine, new_id()

        def work() -> Layer | None:
            engine.snapshots.prepare(name, lower.top)
            try:
                turn_into(engine.snapshots, name, lower, upper)
                diff, chain = engine.image_store.adopt_layer(lower.top, name)
            except BaseException:
                self._drop(name)
                raise
            if not diff:
                return None
            facts = {"kind": "diff", "parent": lower.top, "diff": diff}
            self._cache.add(Record(keys.key_of(facts), chain, diff, lower.top, "diff", "diff", time.time_ns(),
                                   size=engine.image_store.layer_size(chain), facts=facts))  # fmt: skip
            return self._on_top((), (chain, diff))

        layer = await _to_the_end(work)
        return Result((layer,) if layer is not None else (), upper.created_ns)


def _taken(mount: Mount, inputs: list[Result]) -> Result:
    """Return what a mount of a command takes, nothing at all where it takes nothing."""
    return inputs[mount.input] if mount.input > 0 else Result()


async def _to_the_end(work: Callable[[], T]) -> T:
    """Run blocking work in a thread; cancelled, call it off and wait for its end before giving in: it holds a snapshot."""
    called_off = threading.Event()
    task = asyncio.ensure_future(asyncio.to_thread(calling_off.until(called_off, work)))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        called_off.set()
        with contextlib.suppress(Exception):
            await settled(task)
        raise


def parallel_steps() -> int:
    """Return how many steps may run at once on this machine."""
    return max(4, 2 * (os.cpu_count() or 1))
