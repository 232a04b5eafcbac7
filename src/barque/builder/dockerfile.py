"""The Dockerfile frontend: only the stages that the target needs, as vertices and an image config."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from barque.base.errors import InvalidInputError
from barque.builder import graph
from barque.builder.naming import Naming, whole_name
from barque.builder.stages import Environment, StageBuilder, StageState, Step, begin
from barque.dockerfile import instructions as of, stages as dockerfiles
from barque.dockerfile.errors import DockerfileError
from barque.dockerfile.line import Fragment
from barque.dockerfile.scope import SCAN_CONTEXT, SCAN_STAGE, Scope
from barque.dockerfile.words import Rules, expand
from barque.images.model import Image
from barque.oci import platform as platforms

Json = dict[str, Any]
_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FALSE = ("0", "f", "F", "FALSE", "false", "False")


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
    places: dict[graph.Vertex, tuple[int, int, Fragment | None]] = field(default_factory=dict)
    """Filled: the lines that vertices come from, first and last, and what was included for them."""
    several_platforms: bool = False
    """Names the platform in the names of steps."""
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
    """Where a build gets things: its context, images by name, and contexts that the client named.

    The context is asked for when the images are known.
    """

    context: Callable[[], Awaitable[graph.Vertex]]
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
    scanned: dict[str, graph.Vertex] = field(default_factory=dict)
    """What a bill of materials is to look at besides: other stages by name, and the context."""

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
            rules = Rules(of.escape_of(arg, self._escape))
            made = arg.expanded(lambda word, values=values, rules=rules: expand(word, values, rules).text)  # type: ignore[misc]
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
        context = await self._around.context()
        for number in order:
            self._targets[number] = self._convert(number, context)
        target = self._targets[wanted]
        labels = self._options.labels
        if labels:
            target.state.config["Labels"] = {**(target.state.config.get("Labels") or {}), **labels}
        if _is_wanted(target, SCAN_CONTEXT):
            target.scanned["context"] = context
        others = [one for number, one in self._targets.items() if number != wanted and _is_wanted(one, SCAN_STAGE)]
        target.scanned |= {one.name: one.vertex for one in others}
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
        rules = Rules(of.escape_of(stage, self._escape))
        try:
            name = expand(stage.base, values, rules).text
            platform = expand(stage.platform, values, rules).text
            if not name:
                raise DockerfileError(f"base name ({stage.base}) should not be blank")
            if stage.platform and not platform:
                raise DockerfileError(f"empty platform value from expression {stage.platform}")
        except DockerfileError as error:
            raise error.at(stage.line, stage.end, stage.file) from None
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

    def _convert(self, number: int, context: graph.Vertex) -> Target:
        stage = self._parsed.stages[number]
        name = stage.name or (f"stage-{number}" if len(self._parsed.stages) > 1 else "")
        target = self._begin(number, name)
        around = Environment(
            context, self._source_of, self._escape, self._ignores_cache(stage), lenient=True,
            network=self._options.network, cache_namespace=self._options.cache_namespace,
            time_ns=self._options.time_ns,
        )  # fmt: skip
        builder = StageBuilder(target.state, around)
        triggers, target.state.triggers = target.state.triggers, []
        instructions = [*(dockerfiles.parse_trigger(text) for text in triggers), *stage.instructions]
        naming = self._naming(number, target, instructions)
        for place, instruction in enumerate(instructions):
            try:
                step = builder.apply(instruction)
            except DockerfileError as error:
                raise error.at(instruction.line, instruction.end, instruction.file) from None
            except InvalidInputError as error:
                made = DockerfileError(str(error), instruction.line, instruction.end)
                raise made.within(instruction.file) from None
            if step.vertex is not None:
                for vertex in naming.name(step.vertex, instruction, builder.values(), trigger=place < len(triggers)):
                    self._options.places[vertex] = (instruction.line, instruction.end, instruction.file)
            target.steps.append((step, target.state.root))
        return target

    def _naming(self, number: int, target: Target, instructions: list[of.Instruction]) -> Naming:
        """Return what names a stage's steps; it has named the image that the stage starts from."""
        base = self._bases.get(number)
        count = sum(isinstance(i, of.Files | of.Run | of.Workdir) for i in instructions)
        outside = base is not None and self._from[number][0] != "scratch"
        platform = str(platforms.of_config(target.state.platform)) if self._options.several_platforms else ""
        naming = Naming(target.name, count + outside, platform, self._escape)
        if base is not None and outside:
            image = base.name if base.image is not None and not target.base_root.name else ""
            naming.name_base(target.base_root, image)
        return naming

    def _begin(self, number: int, name: str) -> Target:
        index = self._stage_of(self._from[number][0], before=number)
        if index >= 0:
            parent = self._targets[index]
            # What a stage declares is known in those that start from it.
            state = begin(parent.state.config, parent.state.root, parent.state.scope.copy(), dict(parent.state.platform))
            state.author = parent.state.author
            return Target(name, state, base_root=parent.state.root, parent=parent)
        base = self._bases[number]
        wanted = platforms.parse(self._options.platform) if self._options.platform else platforms.host()
        shown_platform = {"os": wanted.os, "architecture": wanted.architecture, "variant": wanted.variant}
        config: Json = {"WorkingDir": "/"} if self._from[number][0] == "scratch" else {}
        history: list[Json] = []
        if base.image is not None:
            found = base.image.config
            config = base.image.run_config
            history = list(found.get("history") or [])
            shown_platform |= {k: found[k] for k in ("os", "architecture", "variant") if found.get(k)}
        state = begin(config, base.vertex, self._scope.stage(), shown_platform)
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
        return graph.Source(f"from://{name}", (("platform", self._options.platform),), name=f"FROM {whole_name(name)}")


def _is_wanted(stage: Target, name: str) -> bool:
    """Tell whether an argument that is true or false, or a list of stages, is on for a stage."""
    value = stage.state.scope.setting(name)
    if value in _TRUE or value in _FALSE:
        return value in _TRUE
    return bool(value) and stage.name in value.split(",")


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
