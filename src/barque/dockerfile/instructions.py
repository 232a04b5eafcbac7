"""The instructions as values: what a line of a Dockerfile says, variables not yet replaced."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from barque.dockerfile.line import Fragment
from barque.dockerfile.mounts import DeviceRequest, MountRequest, parse_mount

Expander = Callable[[str], str]


class Pair(NamedTuple):
    """A name and its value; `legacy` where it was written without `=`."""

    key: str
    value: str
    legacy: bool = False

    def __str__(self) -> str:
        return f"{self.key}={self.value}"


class InlineFile(NamedTuple):
    """A file whose content stands in the Dockerfile; `raw` still has the tabs that `<<-` strips."""

    name: str
    data: str
    expands: bool
    raw: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Instruction:
    """One instruction: its name as written, its source, its place, the comments directly above."""

    name: str = ""
    code: str = ""
    line: int = 0
    end: int = 0
    comments: tuple[str, ...] = ()
    file: Fragment | None = field(default=None, compare=False)
    """What it stands in, None for the Dockerfile itself."""

    def expanded(self, expand: Expander) -> "Instruction":
        """Return the instruction with its variables replaced."""
        return self


@dataclass(frozen=True, kw_only=True, slots=True)
class Env(Instruction):
    """ENV."""

    pairs: tuple[Pair, ...]

    def expanded(self, expand: Expander) -> "Env":
        """Return it with names and values replaced."""
        return replace(self, pairs=_expanded(self.pairs, expand))


@dataclass(frozen=True, kw_only=True, slots=True)
class Label(Instruction):
    """LABEL; `literal` where it came from the command line and is taken as it is."""

    pairs: tuple[Pair, ...]
    literal: bool = False

    def expanded(self, expand: Expander) -> "Label":
        """Return it with names and values replaced."""
        return self if self.literal else replace(self, pairs=_expanded(self.pairs, expand))


@dataclass(frozen=True, kw_only=True, slots=True)
class Maintainer(Instruction):
    """MAINTAINER."""

    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Files(Instruction):
    """What ADD and COPY have in common."""

    sources: tuple[str, ...]
    inline: tuple[InlineFile, ...] = ()
    target: str
    chown: str = ""
    chmod: str = ""
    link: bool = False
    excludes: tuple[str, ...] = ()

    def with_inline(self, expand: Expander) -> "Files":
        """Return it with variables in the content of its heredocs replaced; quotes stay there."""
        made = tuple(f._replace(data=expand(f.data)) if f.expands else f for f in self.inline)
        return replace(self, inline=made)


@dataclass(frozen=True, kw_only=True, slots=True)
class Add(Files):
    """ADD; `keep_git` and `unpack` are None where not given."""

    keep_git: bool | None = None
    checksum: str = ""
    unpack: bool | None = None

    def expanded(self, expand: Expander) -> "Add":
        """Return it with its values replaced."""
        return replace(
            self, chown=expand(self.chown), chmod=expand(self.chmod), checksum=expand(self.checksum),
            sources=tuple(map(expand, self.sources)), target=expand(self.target),
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Copy(Files):
    """COPY."""

    source: str = ""
    """The flag --from."""
    parents: bool = False
    optional: bool = False
    """Sources may be missing: an extension of ours."""

    def expanded(self, expand: Expander) -> "Copy":
        """Return it with its values replaced."""
        return replace(
            self, chown=expand(self.chown), chmod=expand(self.chmod),
            sources=tuple(map(expand, self.sources)), target=expand(self.target),
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Onbuild(Instruction):
    """ONBUILD; the trigger as text."""

    expression: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Workdir(Instruction):
    """WORKDIR."""

    path: str

    def expanded(self, expand: Expander) -> "Workdir":
        """Return it with its path replaced."""
        return replace(self, path=expand(self.path))


@dataclass(frozen=True, kw_only=True, slots=True)
class Command(Instruction):
    """A command line: `shell` where a shell reads it; heredocs are its files."""

    words: tuple[str, ...]
    shell: bool
    files: tuple[InlineFile, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Run(Command):
    """RUN; `mounts` are read again with variables replaced by `expanded`."""

    mount_texts: tuple[str, ...] = ()
    mounts: tuple[MountRequest, ...] = ()
    devices: tuple[DeviceRequest, ...] = ()
    network: str = "default"
    security: str = "sandbox"
    flags: tuple[str, ...] = ()

    def expanded(self, expand: Expander) -> "Run":
        """Return it with its mounts' values replaced."""
        return replace(self, mounts=tuple(parse_mount(text, expand) for text in self.mount_texts))


@dataclass(frozen=True, kw_only=True, slots=True)
class Cmd(Command):
    """CMD."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entrypoint(Command):
    """ENTRYPOINT."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Healthcheck(Instruction):
    """HEALTHCHECK: as in an image's config, times in nanoseconds."""

    health: dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Expose(Instruction):
    """EXPOSE."""

    ports: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class User(Instruction):
    """USER."""

    user: str

    def expanded(self, expand: Expander) -> "User":
        """Return it with the name replaced."""
        return replace(self, user=expand(self.user))


@dataclass(frozen=True, kw_only=True, slots=True)
class Volume(Instruction):
    """VOLUME."""

    paths: tuple[str, ...]

    def expanded(self, expand: Expander) -> "Volume":
        """Return it with its paths replaced."""
        return replace(self, paths=tuple(map(expand, self.paths)))


@dataclass(frozen=True, kw_only=True, slots=True)
class StopSignal(Instruction):
    """STOPSIGNAL."""

    signal: str

    def expanded(self, expand: Expander) -> "StopSignal":
        """Return it with the signal replaced."""
        return replace(self, signal=expand(self.signal))


@dataclass(frozen=True, kw_only=True, slots=True)
class Arg(Instruction):
    """ARG: names with their default values, None where there is none."""

    args: tuple[tuple[str, str | None], ...]

    def expanded(self, expand: Expander) -> "Arg":
        """Return it with names and values replaced."""
        return replace(self, args=tuple((expand(k), None if v is None else expand(v)) for k, v in self.args))


@dataclass(frozen=True, kw_only=True, slots=True)
class Shell(Instruction):
    """SHELL."""

    words: tuple[str, ...]


@dataclass(kw_only=True, slots=True)
class Stage:
    """One stage: FROM and the instructions up to the next."""

    base: str
    name: str = ""
    platform: str = ""
    command: str = "FROM"
    code: str = ""
    line: int = 0
    end: int = 0
    comments: tuple[str, ...] = ()
    file: Fragment | None = None
    instructions: list[Instruction] = field(default_factory=list)


def escape_of(made: "Instruction | Stage", default: str) -> str:
    """Return the escape character of the text that an instruction stands in; `default` is the Dockerfile's."""
    return made.file.escape if made.file is not None else default


def _expanded(pairs: tuple[Pair, ...], expand: Expander) -> tuple[Pair, ...]:
    return tuple(Pair(expand(p.key), expand(p.value), p.legacy) for p in pairs)
