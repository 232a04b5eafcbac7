"""The Dockerfile frontend: only the stages that the target needs, as vertices and an image config."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from barque.base.errors import InvalidInputError
from barque.base.times import format_ns, parse_ns
from barque.builder import graph
from barque.builder.results import Result
from barque.builder.stages import Environment, StageBuilder, StageState, Step, begin
from barque.dockerfile import instructions as of, stages as dockerfiles
from barque.dockerfile.errors import DockerfileError
from barque.dockerfile.scope import Scope
from barque.dockerfile.words import Rules, expand
from barque.images.model import Image
from barque.oci import platform as platforms
from barque.oci.reference import parse

Json = dict[str, Any]
_COMMENT = "buildkit.dockerfile.v0"
_EMPTY_VALUES: tuple[Any, ...] = (None, "", [], {})


@dataclass(slots=True)
class Options:
    """What a build of a Dockerfile is asked to do.

    `no_cache_stages`: None uses the cache everywhere, an empty set nowhere, else not in these stages.
    `time_ns` is SOURCE_DATE_EPOCH, None without it.
    """

    target: str = ""
    build_args: dict[str, str | None] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    platform: str = ""
    no_cache_stages: frozenset[str] | None = None
    network: str = graph.DEFAULT_NETWORK
    cache_namespace: str = ""
    time_ns: int | None = None
    places: dict[graph.Vertex, tuple[int, int]] = field(default_factory=dict)
    """Filled: the lines that vertices come from, first and last."""
    all_stages: bool = False
    """Looks at all stages, as checks do, not only at those that the target needs."""
    stages: "dict[int, Base]" = field(default_factory=dict)
    """Filled: the stages that were looked at, and what each starts from; nothing where that is another stage."""


class Base(NamedTuple):
    """What a stage starts from that is no stage: an image, or files without a config."""

    vertex: graph.Vertex
    image: Image | None = None
    name: str = ""


class Surroundings(NamedTuple):
    """Where a build gets things: its context, images by name, and contexts that the client named."""

    context: graph.Vertex
    image: Callable[[str, str], Awaitable[Image]]
    named: Callable[[str, str], Awaitable[Base | None]]


@dataclass(slots=True)
class Target:
    """A stage as the graph has it: its last vertex, its config, and how it came to be."""

    name: str
    state: StageState
    steps: list[tuple[Step, graph.Vertex]] = field(default_factory=list)
    history: list[Json] = field(default_factory=list)
    base_root: graph.Vertex = field(default_factory=graph.Scratch)
    parent: "Target | None" = None

    @property
    def vertex(self) -> graph.Vertex:
        """Return the vertex that solves the stage."""
        return self.state.root

    def chain(self) -> "list[Target]":
        """Return the stages it was made from, the first one first, itself last."""
        found: list[Target] = []
        at: Target | None = self
        while at is not None:
            found.append(at)
            at = at.parent
        return found[::-1]


async def convert(parsed: dockerfiles.Dockerfile, options: Options, around: Surroundings) -> Target:
    """Return the target stage of a Dockerfile, ready to be solved.

    Raises:
        DockerfileError: an instruction is wrong.
        InvalidInputError: a stage or image does not exist.
    """
    return await _Conversion(parsed, options, around).run()


class _Conversion:
    def __init__(self, parsed: dockerfiles.Dockerfile, options: Options, around: Surroundings) -> None:
        self._parsed = parsed
        self._options = options
        self._around = around
        self._escape = parsed.source.escape
        self._scope = Scope(options.build_args, platform_values(options.platform, options.target))
        self._targets: dict[int, Target] = {}
        self._bases: dict[int, Base] = {}
        self._names: dict[str, int] = {}
        self._from: dict[int, tuple[str, str]] = {}

    async def run(self) -> Target:
        for arg in self._parsed.global_args:
            values = self._scope.global_values()
            made = arg.expanded(lambda word, values=values: expand(word, values, Rules(self._escape)).text)  # type: ignore[misc]
            for key, value in made.args:
                self._scope.declare_global(key, value)
        stages = self._parsed.stages
        if not stages:
            raise DockerfileError("dockerfile contains no stages to build")
        for number, stage in enumerate(stages):
            self._from[number] = self._expanded_base(stage)
            if stage.name:
                self._names.setdefault(stage.name, number)
        wanted = self._wanted()
        order = self._order(range(len(stages)) if self._options.all_stages else [wanted])
        await self._load_bases(order)
        self._options.stages |= {number: self._bases.get(number, Base(graph.Scratch())) for number in order}
        for number in order:
            self._targets[number] = self._convert(number)
        target = self._targets[wanted]
        labels = self._options.labels
        if labels:
            target.state.config["Labels"] = {**(target.state.config.get("Labels") or {}), **labels}
        return target

    def _wanted(self) -> int:
        stages, name = self._parsed.stages, self._options.target
        if not name:
            return len(stages) - 1
        index = dockerfiles.stage_index(stages, name)
        if index < 0 and name.isascii() and name.isdigit() and int(name) < len(stages):
            index = int(name)
        if index < 0:
            raise InvalidInputError(f'target stage "{name}" could not be found')
        return index

    def _expanded_base(self, stage: of.Stage) -> tuple[str, str]:
        values = self._scope.global_values()
        try:
            name = expand(stage.base, values, Rules(self._escape)).text
            platform = expand(stage.platform, values, Rules(self._escape)).text
        except DockerfileError as error:
            raise error.at(stage.line, stage.end) from None
        if not name:
            raise DockerfileError(f"base name ({stage.base}) should not be blank", stage.line, stage.end)
        if stage.platform and not platform:
            raise DockerfileError(f"empty platform value from expression {stage.platform}", stage.line, stage.end)
        return name, platform

    def _stage_of(self, name: str, *, before: int | None = None) -> int:
        """Return the number of the stage that a name or number means, -1 without one."""
        index = self._names.get(name.lower(), -1)
        if index < 0 and before is None and name.isascii() and name.isdigit() and int(name) < len(self._parsed.stages):
            index = int(name)
        if before is not None and index >= before:
            # A stage is named after the image it starts from.
            return -1
        return index

    def _needs(self, number: int) -> list[int]:
        found = [self._stage_of(self._from[number][0], before=number)]
        for made in self._parsed.stages[number].instructions:
            if isinstance(made, of.Copy) and made.source:
                found.append(self._stage_of(made.source))
            elif isinstance(made, of.Run):
                found += [self._stage_of(mount.source_stage) for mount in made.mounts if mount.source_stage]
        return [index for index in found if index >= 0]

    def _order(self, wanted: Iterable[int]) -> list[int]:
        """Return the wanted stages and those that they need, each after what it needs itself."""
        done: dict[int, None] = {}
        open_: set[int] = set()
        stack: list[tuple[int, bool]] = [(number, False) for number in reversed([*wanted])]
        while stack:
            number, seen = stack.pop()
            if seen:
                open_.discard(number)
                done[number] = None
            elif number not in done:
                if number in open_:
                    name = self._parsed.stages[number].name or f"stage-{number}"
                    raise InvalidInputError(f"circular dependency detected on stage: {name}")
                open_.add(number)
                stack.append((number, True))
                for needed in self._needs(number):
                    if needed in open_:
                        name = self._parsed.stages[needed].name or f"stage-{needed}"
                        raise InvalidInputError(f"circular dependency detected on stage: {name}")
                    if needed not in done:
                        stack.append((needed, False))
        return list(done)

    async def _load_bases(self, order: Iterable[int]) -> None:
        async def load(number: int) -> None:
            name, platform = self._from[number]
            self._bases[number] = await self._base(name, platform)

        wanted = [n for n in order if self._stage_of(self._from[n][0], before=n) < 0]
        await asyncio.gather(*(load(number) for number in wanted))

    async def _base(self, name: str, platform: str) -> Base:
        platform = platform or self._options.platform
        named = await self._around.named(name, platform)
        if named is not None:
            return named
        if name == "scratch":
            return Base(graph.Scratch())
        image = await self._around.image(name, platform)
        layers = tuple(zip(image.chain, image.diff_ids, strict=True))
        return Base(graph.Layers(layers, image.created_ns), image, name)

    def _convert(self, number: int) -> Target:
        stage = self._parsed.stages[number]
        name = stage.name or (f"stage-{number}" if len(self._parsed.stages) > 1 else "")
        target = self._begin(number, name)
        around = Environment(
            self._around.context, self._source_of, self._escape, self._ignores_cache(stage), lenient=True,
            network=self._options.network, cache_namespace=self._options.cache_namespace,
            time_ns=self._options.time_ns,
        )  # fmt: skip
        builder = StageBuilder(target.state, around)
        triggers, target.state.triggers = target.state.triggers, []
        instructions = [*(dockerfiles.parse_trigger(text) for text in triggers), *stage.instructions]
        count = 1 + sum(isinstance(i, of.Files | of.Run | of.Workdir) for i in instructions)
        self._name_base(number, target, f"{name} 1/{count}".strip())
        position = 1
        for instruction in instructions:
            try:
                step = builder.apply(instruction)
            except DockerfileError as error:
                raise error.at(instruction.line, instruction.end) from None
            except InvalidInputError as error:
                raise DockerfileError(str(error), instruction.line, instruction.end) from None
            if step.vertex is not None:
                self._options.places[step.vertex] = (instruction.line, instruction.end)
                position += 1
                label = f"{name} {position}/{count}" if name else f"{position}/{count}"
                object.__setattr__(step.vertex, "name", f"[{label}] {shown(instruction)}")
            target.steps.append((step, target.state.root))
        return target

    def _name_base(self, number: int, target: Target, label: str) -> None:
        """Let people read where a stage that starts from an image does."""
        base = self._bases.get(number)
        if base is not None and base.image is not None and base.name and not target.base_root.name:
            reference = parse(base.name).with_default_tag()
            object.__setattr__(target.base_root, "name", f"[{label}] FROM {reference}")

    def _begin(self, number: int, name: str) -> Target:
        index = self._stage_of(self._from[number][0], before=number)
        scope = self._scope.stage()
        if index >= 0:
            parent = self._targets[index]
            state = begin(parent.state.config, parent.state.root, scope, dict(parent.state.platform))
            state.author = parent.state.author
            return Target(name, state, base_root=parent.state.root, parent=parent)
        base = self._bases[number]
        wanted = platforms.parse(self._options.platform) if self._options.platform else platforms.host()
        shown_platform = {"os": wanted.os, "architecture": wanted.architecture, "variant": wanted.variant}
        config: Json = {}
        history: list[Json] = []
        if base.image is not None:
            found = base.image.config
            config = base.image.run_config
            history = list(found.get("history") or [])
            shown_platform |= {k: found[k] for k in ("os", "architecture", "variant") if found.get(k)}
        state = begin(config, base.vertex, scope, shown_platform)
        return Target(name, state, history=history, base_root=base.vertex)

    def _ignores_cache(self, stage: of.Stage) -> bool:
        wanted = self._options.no_cache_stages
        return wanted is not None and (not wanted or stage.name in wanted)

    def _source_of(self, name: str) -> graph.Vertex:
        index = self._stage_of(name)
        if index in self._targets:
            return self._targets[index].vertex
        if index >= 0:
            raise InvalidInputError(f"circular dependency detected on stage: {name}")
        return graph.Source(f"from://{name}", (("platform", self._options.platform),), name=f"FROM {name}")


def shown(instruction: of.Instruction) -> str:
    """Return an instruction as progress shows it: its name in capitals."""
    name, _, rest = instruction.code.partition(" ")
    return f"{name.upper()} {rest.strip()}"


def platform_values(platform: str, target: str = "") -> dict[str, str]:
    """Return TARGETPLATFORM, BUILDOS and their kin.

    Raises:
        InvalidInputError: it is no platform.
    """
    host = platforms.usual(platforms.host())
    wanted = platforms.usual(platforms.parse(platform)) if platform else host
    values: dict[str, str] = {}
    for prefix, found in (("TARGET", wanted), ("BUILD", host)):
        values |= {f"{prefix}PLATFORM": str(found), f"{prefix}OS": found.os, f"{prefix}ARCH": found.architecture,
                   f"{prefix}VARIANT": found.variant}  # fmt: skip
    values["TARGETSTAGE"] = target or "default"
    return values


def image_config(target: Target, results: Mapping[graph.Vertex, Result], *, time_ns: int | None = None) -> Json:
    """Return the image config of a solved target.

    Args:
        target: the stage.
        results: of its vertices.
        time_ns: the one time for all that was made; None takes when each layer was made.
    """
    history: list[Json] = []
    times: list[int | None] = []
    for stage in target.chain():
        if stage.parent is None:
            history += stage.history
            times += [_time_of(entry) for entry in stage.history]
        before = results[stage.base_root].layers if stage.base_root in results else ()
        for step, root in stage.steps:
            result = results.get(root)
            layers = result.layers if result is not None else before
            empty = layers == before
            before = layers
            times.append(None if empty or result is None else result.created_ns)
            entry: Json = {"created_by": told(step), "comment": _COMMENT}
            if empty:
                entry["empty_layer"] = True
            history.append(entry)
    inherited = len(target.chain()[0].history)
    filled = _filled(times)
    for number in range(inherited, len(history)):
        made_ns = filled[number] if time_ns is None else time_ns
        history[number] = {"created": format_ns(made_ns), **history[number]}
    created_ns = (filled[-1] if filled else 0) if time_ns is None else time_ns
    state = target.state
    made: Json = {
        "architecture": state.platform.get("architecture"), "author": state.author,
        "config": {key: value for key, value in sorted(state.config.items()) if value not in _EMPTY_VALUES},
        "created": format_ns(created_ns), "history": history, "os": state.platform.get("os"),
        "rootfs": {"type": "layers", "diff_ids": [diff for _, diff in results[target.vertex].layers]},
        "variant": state.platform.get("variant"),
    }  # fmt: skip
    return {key: value for key, value in made.items() if value not in (None, "")}


def _time_of(entry: Json) -> int | None:
    try:
        return parse_ns(entry.get("created") or "")
    except ValueError:
        return None


def _filled(times: list[int | None]) -> list[int]:
    """Return times where every step has one.

    A step without a layer was made when the last layer before it was; those before the first new layer
    when that one was, as the base image's time says nothing of them.
    """
    first_gap = next((i for i, time in enumerate(times) if time is None), len(times))
    after = next((time for time in times[first_gap:] if time is not None), None)
    before = next((time for time in reversed(times[:first_gap]) if time is not None), 0)
    current = before if after is None else after
    filled: list[int] = []
    for number, time in enumerate(times):
        if time is not None and number > first_gap:
            current = time
        filled.append(current if time is None else time)
    return filled


def told(step: Step) -> str:
    """Return what the history says of a step."""
    if step.shell:
        count = len(step.arguments)
        words = [*((f"|{count}", *step.arguments) if count else ()), step.comment]
        return f"RUN {' '.join(words)} # buildkit"
    if isinstance(step.instruction, of.Files):
        return f"{step.comment} # buildkit"
    return step.comment
