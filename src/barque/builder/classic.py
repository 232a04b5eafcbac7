"""A build of the classic API: step after step, an image after each, told in the words of its clients."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from barque.base.errors import BarqueError, InvalidInputError, NotFoundError
from barque.base.ids import new_id, short
from barque.builder import context as contexts, graph, images, leftovers
from barque.builder.cache import BuildCache
from barque.builder.classic_errors import copy_failed, images_of, platform_of, refuse_climbing
from barque.builder.execution import ExitError
from barque.builder.explain import explain
from barque.builder.image_cache import StageUnderWay, record_from
from barque.builder.keys import key_of
from barque.builder.names import platform_values, tags_of
from barque.builder.operations import EngineOperations
from barque.builder.request import BuildRequest
from barque.builder.results import Result
from barque.builder.solver import Session, Solver
from barque.builder.sources import Sources, result_of
from barque.builder.squash import squash
from barque.builder.stages import Environment, StageBuilder, StageState, Step, begin, config_bytes
from barque.dockerfile import including, instructions as of, stages as dockerfiles
from barque.dockerfile.errors import DockerfileError, InstructionError, StageError
from barque.dockerfile.scope import Scope
from barque.dockerfile.words import Rules, expand
from barque.images.model import Image
from barque.oci import digest as digests, platform as platforms
from barque.storage.content import ContentStore

if TYPE_CHECKING:
    from barque.engine.engine import Engine

Json = dict[str, Any]
Say = Callable[[Json], Awaitable[None]]
Read = Callable[[ContentStore, ExitStack, str], Awaitable[contexts.Context]]
"""Takes the context out of a request: given where to keep it, what lets go of it, the Dockerfile's name."""
log = logging.getLogger(__name__)
_FLUSH_AFTER_S = 1.0


class ClassicBuild:
    """One build; `run` returns the image's id."""

    def __init__(
        self, engine: "Engine", tools: "tuple[Solver, EngineOperations, Sources, BuildCache]", request: BuildRequest,
        say: Say,
    ) -> None:  # fmt: skip
        self._engine = engine
        self._solver, self._operations, self._sources, self._cache = tools
        self._request = request
        self._say = say
        self._session = Session(self)
        self._stack = ExitStack()
        self._finished: list[tuple[str, StageState, Result, list[Json]]] = []
        self._names: dict[str, int] = {}
        self._base = ""
        self._pending: list[tuple[bytes, str]] = []
        self._flushed_at = time.monotonic()
        self._running_in: list[leftovers.Leftover] = []
        self._number = 0
        self._total = 0

    async def run(self, read: Read) -> str:
        """Build; `read` takes the context out of the request.

        Raises:
            BarqueError: the build failed; what it made of the cache stays.
        """
        try:
            context = await self._context(read)
            return await self._build(context)
        finally:
            await self._session.close()
            self._stack.close()

    async def _context(self, read: Read) -> contexts.Context:
        request, content = self._request, self._engine.image_store.content
        if not request.remote:
            return await read(content, self._stack, request.dockerfile)
        if request.remote == "client-session":
            raise InvalidInputError("experimental session with v1 builder is no longer supported, use builder version "
                                    "v2 (BuildKit) instead")  # fmt: skip
        return await contexts.of_remote(
            request.remote, request.dockerfile, content, self._stack, self._session, self._sources.temporary
        )

    async def _build(self, context: contexts.Context) -> str:
        request = self._request
        try:
            scope = Scope(request.build_args, platform_values(request.platform))
            name = request.dockerfile or contexts.DEFAULT_NAME
            parsed = await including.parse(context.text, name, scope, partial(contexts.included, context.result))
        except (InstructionError, StageError):
            raise
        except DockerfileError as error:
            raise InvalidInputError(f"failed to parse {name}: {error}") from None
        stages = self._chosen(parsed.stages)
        if context.result is not None:
            self._session.trees["context"] = context.result
        self._session.options.update(
            host=request.host, tell=self._say, auth=request.auth, keep_failed=not request.force_remove, known_ids=True,
            allow_host_network=request.network == "host",
        )  # fmt: skip
        if request.labels:
            pairs = tuple(of.Pair(key, value) for key, value in sorted(request.labels.items()))
            for pair in pairs:
                stages[-1].instructions.append(
                    of.Label(pairs=(pair,), literal=True, name="label", code=f"LABEL {pair}")
                )
        warnings = [*parsed.source.warnings, *(one for _, found in parsed.source.included for one in found)]
        for line, warning in warnings:
            await self._error(f"[WARNING]: {warning}\n")
            log.debug("line %d: %s", line, warning)
        if warnings:
            await self._error("[WARNING]: Empty continuation lines will become errors in a future release.\n")
        self._total = len(parsed.global_args) + len(stages) + sum(len(s.instructions) for s in stages)
        for arg in parsed.global_args:
            await self._announce(arg.code)
            rules = Rules(of.escape_of(arg, parsed.source.escape))
            made = arg.expanded(lambda word, rules=rules: expand(word, scope.global_values(), rules).text)  # type: ignore[misc]
            for key, value in made.args:
                scope.declare_global(key, value)
        try:
            for stage in stages:
                await self._stage(stage, scope, parsed.source.escape)
            await self._flush()
        except BaseException:
            await self._save_what_is_made()
            raise
        return await self._conclude(scope)

    def _chosen(self, stages: list[of.Stage]) -> list[of.Stage]:
        target = self._request.target
        if not target:
            return stages
        index = dockerfiles.stage_index(stages, target)
        if index < 0 and target.isdigit() and int(target) < len(stages):
            index = int(target)
        if index < 0:
            raise InvalidInputError(f'target stage "{target}" could not be found')
        return stages[: index + 1]

    async def _stage(self, stage: of.Stage, scope: Scope, escape: str) -> None:
        if stage.name and stage.name in self._names:
            raise BarqueError(f"{stage.name} stage name already used")
        await self._announce(stage.code)
        state, result, image, history = await self._from(stage, scope, escape)
        around = Environment(
            graph.Source("local://context"), self._source_of, escape, self._request.no_cache,
            network=self._request.network or graph.DEFAULT_NETWORK,
        )  # fmt: skip
        builder = StageBuilder(state, around)
        work = StageUnderWay(state, result, image, history)
        triggers, state.triggers = state.triggers, []
        if triggers:
            await self._tell(f"# Executing {len(triggers)} build trigger{'s' if len(triggers) > 1 else ''}\n")
            for text in triggers:
                await self._instruction(builder, work, dockerfiles.parse_trigger(text))
        await self._tell(f" ---> {short(work.image)}\n")
        for instruction in stage.instructions:
            await self._announce(instruction.code)
            await self._instruction(builder, work, instruction)
            await self._tell(f" ---> {short(work.image)}\n")
        if work.image:
            await self._say({"aux": {"ID": work.image}})
        if stage.name:
            self._names[stage.name] = len(self._finished)
        self._finished.append((work.image, state, work.result, work.history))

    async def _from(self, stage: of.Stage, scope: Scope, escape: str) -> "tuple[StageState, Result, str, list[Json]]":
        values, rules = scope.global_values(), Rules(of.escape_of(stage, escape))
        name = expand(stage.base, values, rules).text
        if not name:
            raise BarqueError(f"base name ({stage.base}) should not be blank")
        platform = expand(stage.platform, values, rules).text or self._request.platform
        wanted = platform_of(platform) if platform else platforms.host()
        index = self._names.get(name.lower())
        if index is not None:
            image, state, result, history = self._finished[index]
            made = begin(state.config, _layers(result), scope.stage(), dict(state.platform))
            made.author = state.author
            return made, result, image, list(history)
        self._base = ""
        if name == "scratch":
            shown = {"os": wanted.os, "architecture": wanted.architecture, "variant": wanted.variant}
            return begin({}, graph.Scratch(), scope.stage(), shown), Result(), "", []
        found = await self._sources.image(name, platform, pull="always" if self._request.pull else "",
                                          session=self._session)  # fmt: skip
        self._base = found.id
        result = result_of(found)
        state = begin(found.run_config, _layers(result), scope.stage(), _platform_of(found))
        return state, result, found.id, list(found.config.get("history") or [])

    def _source_of(self, name: str) -> graph.Vertex:
        """Return the vertex that a --from names: a stage before, by name or number, or an image."""
        index = self._names.get(name.lower())
        if index is None and name.isascii() and name.lstrip("-").isdigit():
            index = int(name)
            if index == len(self._finished):
                raise BarqueError(f"invalid from flag value {name}: refers to current build stage")
            if not 0 <= index < len(self._finished):
                raise BarqueError(f"invalid from flag value {name}: index out of bounds")
        if index is not None:
            return _layers(self._finished[index][2])
        platform = (("platform", self._request.platform),) if self._request.platform else ()
        return graph.Source(f"docker-image://{name}", platform, name=f"FROM {name}")

    async def _instruction(self, builder: StageBuilder, work: StageUnderWay, instruction: of.Instruction) -> None:
        state = work.state
        refuse_climbing(instruction)
        try:
            step = builder.apply(instruction)
        except DockerfileError as error:
            raise InvalidInputError(str(error)) from None
        if step.note:
            await self._tell(step.note)
        cached, created_ns, text = False, 0, ""
        before = work.result
        if step.vertex is not None:
            for image in images_of(instruction, step.vertex):
                try:
                    await self._solver.solve(image, self._session)
                except BarqueError as error:
                    raise BarqueError(f"invalid from flag value {image.identifier.partition('://')[2]}: {error}") from None
            await self._probe(step, work)
            try:
                work.result = await self._solver.solve(step.vertex, self._session)
            except ExitError as error:
                await self._leave_failed(error, work)
                raise
            except NotFoundError as error:
                raise copy_failed(instruction, error) from None
            cached, created_ns = work.result.cached, work.result.created_ns
            # What follows starts from the layers, wherever they came from.
            state.root = _layers(work.result)
        empty = work.result.layers == before.layers
        text = images.created_by(step, state.config.get("Shell"), taken=images.taken_by(step, self._session.facts))
        if step.vertex is None or (empty and not isinstance(instruction, of.Run)):
            cached, created_ns = self._stamp(work, text)
        await self._told_cached(step, cached)
        work.history = [*work.history, images.history_entry(created_ns, text, state.author, empty=empty)]
        raw = config_bytes(images.image_config(state, work.result, work.history, created_ns))
        parent, work.image = work.image, digests.of(raw)
        self._pending.append((raw, parent))
        if not cached and not isinstance(instruction, of.Files):
            await self._removed(work)
        if time.monotonic() - self._flushed_at > _FLUSH_AFTER_S:
            await self._flush()

    async def _told_cached(self, step: Step, cached: bool) -> None:
        if cached:
            await self._tell(" ---> Using cache\n")
        elif step.vertex is None or isinstance(step.instruction, of.Workdir):
            await self._run_in(new_id())

    async def _run_in(self, name: str) -> None:
        self._running_in.append(leftovers.Leftover(name, 0, created_only=True))
        await self._tell(f" ---> Running in {short(name)}\n")

    async def _removed(self, work: StageUnderWay) -> None:
        """Remove the step's container, or keep it where the request says so."""
        for left in self._running_in:
            if self._request.remove or self._request.force_remove:
                await self._tell(f" ---> Removed intermediate container {short(left.name)}\n")
            else:
                await self._flush()
                await leftovers.keep(self._engine, left, work.state.config, work.image, work.result.top)
        self._running_in.clear()

    async def _leave_failed(self, error: ExitError, work: StageUnderWay) -> None:
        for left in self._running_in:
            if error.kept:
                await self._flush()
                failed = left._replace(exit_code=error.code, command=list(error.step.args))
                await leftovers.keep(self._engine, failed, work.state.config, work.image, "")
            else:
                await self._tell(f" ---> Removed intermediate container {short(left.name)}\n")
        self._running_in.clear()

    def _stamp(self, work: StageUnderWay, text: str) -> tuple[bool, int]:
        """Return whether a step that changes no files was made before, and when it was made."""
        if self._request.cache_from and not self._request.no_cache:
            record = record_from(self._images_taken(), work, text, "")
            return record is not None, record.created_ns if record is not None else time.time_ns()
        key = "stamp:" + key_of({"image": work.image, "text": text, "config": work.state.config})
        known = None if self._request.no_cache else self._cache.digest(key)
        if known is not None:
            return True, int(known)
        now = time.time_ns()
        self._cache.keep_digest(key, str(now))
        return False, now

    async def _probe(self, step: Step, work: StageUnderWay) -> None:
        """Let the images that the request takes as a cache be all the cache there is, as with Docker."""
        vertex = step.vertex
        if not self._request.cache_from or self._request.no_cache or not isinstance(vertex, graph.Exec | graph.Files):
            return
        inputs = [work.result, *[await self._solver.solve(need, self._session) for need in vertex.inputs[1:]]]
        key = await self._operations.key(vertex, inputs, self._session)
        text = images.created_by(step, work.state.config.get("Shell"), taken=images.taken_by(step, self._session.facts))
        record = record_from(self._images_taken(), work, text, key)
        if record is None:
            object.__setattr__(vertex, "no_cache", True)
            return
        store = self._engine.image_store
        if record.diff:
            store.hold([(record.chain, record.diff)])
        else:
            # BuildKit's clients, whose steps have the same keys, get a layer also of what changes nothing.
            record.diff, record.chain = await asyncio.to_thread(store.add_empty_layer, record.parent)
        self._cache.add(record)

    def _images_taken(self) -> list[Image]:
        """Return the images that the request takes as a cache and that are here."""
        found = []
        for name in self._request.cache_from:
            with suppress(BarqueError):
                found.append(self._engine.image_store.resolve(name))
        return found

    async def _flush(self) -> None:
        made, self._pending = self._pending, []
        self._flushed_at = time.monotonic()
        await asyncio.to_thread(self._cache.flush, made)

    async def _save_what_is_made(self) -> None:
        try:
            await asyncio.shield(asyncio.ensure_future(self._flush()))
        except (BarqueError, OSError) as error:
            log.warning("what a failed build made is lost: %s", error)

    async def _conclude(self, scope: Scope) -> str:
        image = self._finished[-1][0] if self._finished else ""
        unused = scope.unused()
        if unused:
            await self._tell(f"[Warning] One or more build-args [{' '.join(unused)}] were not consumed\n")
        if not image:
            raise BarqueError("No image was generated. Is your Dockerfile empty?")
        store = self._engine.image_store
        if self._request.squash:
            image = await asyncio.to_thread(squash, store, store.resolve(image), self._base)
            await self._say({"id": "moby.image.id", "aux": {"ID": image}})
        await self._tell(f"Successfully built {short(image)}\n")
        for tag in tags_of(self._request.tags):
            await asyncio.to_thread(store.tag, image, tag.name, tag.tag)
            await self._tell(f"Successfully tagged {tag.familiar}\n")
        return image

    # What it tells.

    async def _announce(self, text: str) -> None:
        self._number += 1
        await self._tell(f"Step {self._number}/{self._total} : {text}")
        await self._tell("\n")

    async def _tell(self, text: str) -> None:
        await self._say({"stream": text})

    async def _error(self, text: str) -> None:
        await self._say({"stream": f"\x1b[91m{text}\x1b[0m"})

    # The solver's progress.

    def started(self, vertex: graph.Vertex) -> None:
        """Take no note of it."""

    async def running(self, vertex: graph.Vertex) -> None:
        """Tell in which container a command runs, and where it is asked for, why it does."""
        if self._request.explain:
            await self._explain(vertex)
        if isinstance(vertex, graph.Exec):
            name = new_id()
            self._session.options["step_id"] = name
            self._running_in.append(leftovers.Leftover(name, 0, created_only=False))
            await self._tell(f" ---> Running in {short(name)}\n")

    async def _explain(self, vertex: graph.Vertex) -> None:
        facts = self._session.facts.get(vertex)
        if facts is None:
            return
        if vertex.no_cache:
            await self._tell(" ---> Not cached: --no-cache was given\n")
            return
        before = self._cache.latest(type(vertex).__name__.lower(), vertex.name)
        for reason in explain(facts, before.facts if before is not None else None):
            await self._tell(f" ---> Not cached: {reason.text}\n")

    async def output(self, vertex: graph.Vertex, stream: int, data: bytes) -> None:
        """Tell what a command says."""
        text = data.decode("utf-8", "replace")
        await (self._error(text) if stream == 2 else self._tell(text))

    def finished(self, vertex: graph.Vertex, result: Result | None, error: BaseException | None) -> None:
        """Take no note of it."""


def _layers(result: Result) -> graph.Vertex:
    return graph.Layers(result.layers, result.created_ns) if result.layers else graph.Scratch()


def _platform_of(image: Image) -> Json:
    host = platforms.host()
    config = image.config
    return {"os": config.get("os") or host.os, "architecture": config.get("architecture") or host.architecture,
            "variant": config.get("variant") or ""}  # fmt: skip
