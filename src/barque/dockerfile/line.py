"""What a Dockerfile is read into: its lines and their heredocs."""

import re
from typing import NamedTuple

from barque.dockerfile.text import quoted, quoted_list

_TABS = re.compile(r"^\t+", re.MULTILINE)


class Heredoc(NamedTuple):
    """A heredoc: `strip` removes leading tabs, `expands` tells whether variables in it are replaced."""

    name: str
    expands: bool
    strip: bool
    descriptor: int
    content: str = ""

    @property
    def text(self) -> str:
        """Return the content as it is used."""
        return _TABS.sub("", self.content) if self.strip else self.content


class Fragment(NamedTuple):
    """A text that an INCLUDE took in: its name, its escape character, and where it was asked for."""

    name: str
    text: str
    escape: str
    asked_at: str


class Line(NamedTuple):
    """One instruction's logical line; `start` and `end` are the 1-based lines of the text it spans.

    `file` is the text where that is not the Dockerfile itself.

    Arguments of ENV and LABEL come in threes: name, value, `=` (empty in the legacy form). `inner` is
    ONBUILD's instruction. `json` tells that the arguments were a JSON array.
    """

    name: str
    flags: tuple[str, ...]
    args: tuple[str, ...]
    json: bool
    original: str
    inner: "Line | None" = None
    heredocs: tuple[Heredoc, ...] = ()
    start: int = 0
    end: int = 0
    comments: tuple[str, ...] = ()
    file: Fragment | None = None

    def dump(self) -> str:
        """Return the line as an S-expression."""
        parts = [self.name.lower()]
        if self.flags:
            parts.append(quoted_list(self.flags))
        if self.inner is not None:
            parts.append(self.inner.dump())
        else:
            parts += [quoted(arg) for arg in self.args]
        return f"({' '.join(parts)})"


class Source(NamedTuple):
    """A parsed text: its lines, its escape character, the lines whose continuation is empty, what it took in."""

    lines: list[Line]
    escape: str
    warnings: list[tuple[int, str]]
    included: "tuple[tuple[Fragment, list[tuple[int, str]]], ...]" = ()
    """What INCLUDE took in, each text once, with its own warnings."""

    def dump(self) -> str:
        """Return all lines as S-expressions."""
        return "\n".join(line.dump() for line in self.lines)
