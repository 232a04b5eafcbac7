"""INCLUDE: the lines of another text in the place of an instruction. An extension of ours.

    INCLUDE [--from=CONTEXT] PATH

Paths are those of a context: of the build's for the Dockerfile, of the one that it came from for what was included. A
path may use what FROM may use: the ARGs before the first FROM.
"""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from barque.base.errors import BarqueError
from barque.dockerfile import instructions as of
from barque.dockerfile.directives import directive, extended
from barque.dockerfile.errors import DockerfileError, InstructionError
from barque.dockerfile.flags import TEXT, Flags
from barque.dockerfile.line import Fragment, Line, Source
from barque.dockerfile.lines import parse as parse_lines
from barque.dockerfile.scope import Scope
from barque.dockerfile.stages import Dockerfile, assemble, instruction
from barque.dockerfile.text import clean
from barque.dockerfile.words import Rules, expand

DEEPEST = 16
MOST = 1000
LARGEST = 100 << 20
"""How deep includes may be nested, how many one build may have, and how many characters they may bring in all."""
Read = Callable[[str, str], Awaitable[str]]
"""Gives a file's text, given the name of its context (empty for the build's) and a clean relative path."""


class _Place(NamedTuple):
    """A file that can be included: the name of its context, its path in there."""

    context: str
    path: str

    @property
    def shown(self) -> str:
        return f"{self.context}:{self.path}" if self.context else self.path


async def parse(text: str, name: str, scope: Scope, read: Read) -> Dockerfile:
    """Return the stages of a Dockerfile and of all that it includes.

    Args:
        text: the Dockerfile's.
        name: its name, for errors.
        scope: knows the arguments from outside.
        read: brings files.

    Raises:
        DockerfileError: a text is no Dockerfile, or cannot be included.
    """
    source = parse_lines(text)
    if not extended(text):
        return assemble(source, more=False)
    work = _Including(scope, read)
    lines = await work.lines(source, None, name, [])
    return assemble(source._replace(lines=lines, included=tuple(work.included.values())), more=True)


class _Including:
    def __init__(self, scope: Scope, read: Read) -> None:
        self._scope = scope.stage()
        self._read = read
        self._in_stage = False
        self._count = 0
        self._size = 0
        self.included: dict[str, tuple[Fragment, list[tuple[int, str]]]] = {}

    async def lines(self, source: Source, file: Fragment | None, name: str, above: list[_Place]) -> list[Line]:
        """Return a text's lines, what they include in its place.

        Args:
            source: the text.
            file: what it is, None for the Dockerfile.
            name: how it is called.
            above: what included it, the outermost first, itself last.
        """
        found: list[Line] = []
        for line in source.lines:
            line = line._replace(file=file)
            kind = line.name.lower()
            if kind == "include":
                try:
                    found += await self._included(line, source.escape, f"{name}:{line.start}", above)
                except InstructionError:
                    raise
                except DockerfileError as error:
                    # An error of the included text has a place already, which is not here.
                    raise error if error.file else InstructionError(str(error), line.start, line.end).within(file) from None
                continue
            if kind == "from":
                self._in_stage = True
            elif kind == "arg" and not self._in_stage:
                self._declare(line, source.escape)
            found.append(line)
        return found

    def _declare(self, line: Line, escape: str) -> None:
        """Let an ARG before the first FROM count for the paths that follow."""
        values = self._scope.global_values()
        try:
            made = instruction(line)
            assert isinstance(made, of.Arg)
            for key, value in made.expanded(lambda word: expand(word, values, Rules(escape)).text).args:
                self._scope.declare_global(key, value)
        except DockerfileError:
            # Whoever carries the instruction out says what is wrong with it.
            return

    async def _included(self, line: Line, escape: str, here: str, above: list[_Place]) -> list[Line]:
        place = self._place(line, escape, above)
        if place in above:
            way = " -> ".join(one.shown for one in [*above[above.index(place) :], place])
            raise DockerfileError(f"INCLUDE {place.shown} leads back to itself: {way}")
        if len(above) >= DEEPEST:
            raise DockerfileError(f"INCLUDE {place.shown} is nested deeper than {DEEPEST}")
        self._count += 1
        if self._count > MOST:
            raise DockerfileError(f"INCLUDE {place.shown} is one more than the {MOST} that a build may have")
        try:
            text = await self._read(*place)
        except BarqueError as error:
            raise DockerfileError(f"INCLUDE {place.shown}: {error}") from None
        self._size += len(text)
        if self._size > LARGEST:
            raise DockerfileError(f"INCLUDE {place.shown}: all that is included is larger than {LARGEST >> 20} MiB")
        return await self._lines_of(text, place, here, above)

    async def _lines_of(self, text: str, place: _Place, here: str, above: list[_Place]) -> list[Line]:
        unread = Fragment(place.shown, text, "\\", here)
        _refuse_directives(text, unread)
        try:
            source = parse_lines(text)
        except DockerfileError as error:
            raise error.within(unread) from None
        file = unread._replace(escape=source.escape)
        self.included.setdefault(file.name, (file, source.warnings))
        return await self.lines(source, file, file.name, [*above, place])

    def _place(self, line: Line, escape: str, above: list[_Place]) -> _Place:
        flags = Flags(line.flags, {"from": TEXT})
        if len(line.args) != 1:
            raise DockerfileError("INCLUDE requires exactly one argument, the path of a file")
        values = self._scope.global_values()
        path = expand(line.args[0], values, Rules(escape)).text
        if not path:
            raise DockerfileError(f"the path of INCLUDE ({line.args[0]}) is empty; it may use the ARGs before the first FROM")
        short = clean(path.lstrip("/"))
        if "\0" in path or short == ".." or short.startswith("../"):
            raise DockerfileError(f"INCLUDE {path} leads out of the context; copy the file there, or name a context (--from)")
        if short in ("", "."):
            raise DockerfileError(f"INCLUDE {path} names a folder")
        if "from" in flags.given:
            context = expand(flags.text("from"), values, Rules(escape)).text
            if not context:
                raise DockerfileError("INCLUDE --from names no context")
            return _Place(context, short)
        return _Place(above[-1].context if above else "", short)


def _refuse_directives(text: str, file: Fragment) -> None:
    for name in ("syntax", "check"):
        found = directive(text, name)
        if found is not None and not (name == "syntax" and extended(text)):
            message = f"# {name}= counts in the Dockerfile alone; remove it here"
            raise InstructionError(message, found.line, found.line).within(file)
