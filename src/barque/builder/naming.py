"""Names of steps as people read them in the progress of a build, like BuildKit's: `[stage 2/3] RUN make`."""

from collections.abc import Mapping

from barque.base.errors import InvalidInputError
from barque.builder import graph
from barque.dockerfile import instructions as of
from barque.dockerfile.errors import DockerfileError
from barque.dockerfile.words import Rules, expand
from barque.oci import platform as platforms
from barque.oci.reference import parse


class Naming:
    """Names the steps of one stage in their order.

    Args:
        stage: its name, empty for the only one.
        total: how many steps it has.
        platform: what it is built for, empty where only one platform is built.
        escape: the Dockerfile's escape character.
    """

    def __init__(self, stage: str, total: int, platform: str, escape: str) -> None:
        self._stage = stage
        self._total = total
        self._platform = platform
        self._escape = escape
        self._number = 0

    def name_base(self, vertex: graph.Vertex, image: str) -> None:
        """Count the step that a stage starts with; name it where it is an image without a name yet."""
        label = self._label({})
        if image:
            object.__setattr__(vertex, "name", f"{label}FROM {whole_name(image)}")

    def name(
        self, vertex: graph.Vertex, instruction: of.Instruction, values: Mapping[str, str], *, trigger: bool
    ) -> list[graph.Vertex]:
        """Name the step of an instruction; return the vertices that are it.

        Args:
            vertex: the step.
            instruction: what it comes from.
            values: the variables that its text may use.
            trigger: it came with the base image.
        """
        text = self._label(values) + ("ONBUILD " if trigger else "") + self._shown(instruction, values)
        vertices = [vertex]
        if isinstance(vertex, graph.Merge):
            # Files on nothing that are put on top are one step to people: the work, not the putting.
            object.__setattr__(vertex, "name", "")
            vertices.insert(0, vertex.needs[-1])
        object.__setattr__(vertices[0], "name", text)
        return vertices

    def _label(self, values: Mapping[str, str]) -> str:
        self._number += 1
        words = [word for word in (self._built_for(values), self._stage) if word]
        count = f"{self._number:{len(str(self._total))}d}/{self._total}"
        return f"[{' '.join([*words, count])}] "

    def _built_for(self, values: Mapping[str, str]) -> str:
        """Return the platform that a stage runs on, and the one that it makes things for where that is another."""
        wanted = {key: values.get(f"TARGET{key}", "") for key in ("OS", "ARCH", "VARIANT")}
        if not self._platform or not (any(wanted.values()) or values.get("TARGETPLATFORM")):
            return self._platform
        own = platforms.parse(self._platform)
        given = platforms.parse(values["TARGETPLATFORM"]) if values.get("TARGETPLATFORM") else own
        other = platforms.usual(platforms.Platform(
            wanted["OS"] or given.os, wanted["ARCH"] or given.architecture, wanted["VARIANT"] or given.variant
        ))  # fmt: skip
        if other.os != own.os:
            return f"{self._platform}->{other}"
        if other.architecture != own.architecture:
            return f"{self._platform}->{'/'.join(filter(None, other[1:]))}"
        return self._platform

    def _shown(self, instruction: of.Instruction, values: Mapping[str, str]) -> str:
        """Return an instruction with its variables replaced, its name in capitals."""
        text = instruction.code
        run = isinstance(instruction, of.Run)
        if isinstance(instruction, of.Run) and len(instruction.files) == 1:
            text += f" ({_summary(instruction.files[0].data)})"
        try:
            text = expand(text, values, Rules(of.escape_of(instruction, self._escape), raw_quotes=run, keep_unset=run)).text
        except DockerfileError:
            pass
        name, _, rest = text.partition(" ")
        return f"{name.upper()} {rest.strip()}"


def whole_name(name: str) -> str:
    """Return an image's name with its registry and tag, or the text where it is no name."""
    try:
        return str(parse(name).with_default_tag())
    except InvalidInputError:
        return name


def _summary(text: str) -> str:
    lines = text.strip().replace("\r\n", "\n").split("\n")
    return lines[0] + ("..." if len(lines) > 1 else "")
