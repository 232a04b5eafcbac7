"""Parser directives: `# syntax=`, `# escape=`, `# check=` at the top of a Dockerfile."""

import json
import re
from typing import NamedTuple

from barque.dockerfile.errors import DockerfileError
from barque.dockerfile.text import SPACE

BOM = "\ufeff"
EXTENDED = "barque/dockerfile"
"""The frontend whose name in `# syntax=` switches on what Docker's has not."""
_NAMES = ("syntax", "escape", "check")
_FORM = re.compile(r"([a-zA-Z][a-zA-Z0-9]*)[\t\n\f\r ]*=[\t\n\f\r ]*(.+?)[\t\n\f\r ]*")


class Directive(NamedTuple):
    """A directive: its name in lower case, its value, its line."""

    name: str
    value: str
    line: int


class DirectiveReader:
    """Reads the directives of a text line by line; the first line that is none ends them."""

    def __init__(self, comment: str = "#", line: int = 0) -> None:
        self._comment = comment
        self._line = line
        self._seen: set[str] = set()
        self._done = False

    def read(self, line: str) -> Directive | None:
        """Return the directive in the next line, None where it is none.

        Raises:
            DockerfileError: a directive comes twice.
        """
        self._line += 1
        if self._done:
            return None
        match = None
        if line.startswith(self._comment):
            match = _FORM.fullmatch(line[len(self._comment) :].lstrip(SPACE))
        name = match[1].lower() if match else ""
        if match is None or name not in _NAMES:
            self._done = True
            return None
        if name in self._seen:
            raise DockerfileError(f"only one {name} parser directive can be used")
        self._seen.add(name)
        return Directive(name, match[2], self._line)


def directive(text: str, name: str) -> Directive | None:
    """Return a directive of a text, None where it has none; a shebang line may come first."""
    return _directive(text, name, "#")


def syntax(text: str) -> Directive | None:
    """Return the syntax directive, which may also be written `// syntax=` or as JSON."""
    found = _directive(text, "syntax", "#") or _directive(text, "syntax", "//")
    if found is not None:
        return found
    try:
        value = json.loads(text.removeprefix(BOM)).get("syntax")
    except (ValueError, AttributeError, RecursionError):
        return None
    return Directive("syntax", value, 1) if isinstance(value, str) else None


def _directive(text: str, name: str, comment: str) -> Directive | None:
    text = text.removeprefix(BOM)
    line = 0
    if text.startswith("#!"):
        text = text.partition("\n")[2]
        line = 1
    reader = DirectiveReader(comment, line)
    for content in text.split("\n"):
        try:
            found = reader.read(content.removesuffix("\r"))
        except DockerfileError:
            return None
        if found is None:
            return None
        if found.name == name:
            return found
    return None


def extended(text: str) -> bool:
    """Tell whether a Dockerfile's syntax directive asks for our extensions."""
    found = syntax(text)
    return found is not None and (found.value.split() or [""])[0].partition(":")[0] == EXTENDED
