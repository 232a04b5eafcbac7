"""From text to lines: continuation, comments, heredocs."""

import re
from collections.abc import Iterator

from barque.dockerfile.directives import BOM, DirectiveReader
from barque.dockerfile.errors import DockerfileError
from barque.dockerfile.forms import split
from barque.dockerfile.line import Heredoc, Line, Source
from barque.dockerfile.text import SPACE
from barque.dockerfile.words import Rules, expand

LONGEST_LINE = 65535
_HEREDOC = re.compile(r"([0-9]*)<<(-?)[\t\n\f\r ]*([^<]*)")
_WITH_HEREDOC = frozenset(("add", "copy", "run"))


def parse(text: str) -> Source:
    """Return the lines of a Dockerfile.

    Raises:
        DockerfileError: a directive is repeated or wrong, a heredoc does not end, a line is too long or
            malformed, or there is no instruction.
    """
    return _Reader(text).read()


def heredoc_of(word: str) -> Heredoc | None:
    """Return the heredoc that a word announces, without its content; None where it is no such word.

    Raises:
        DockerfileError: its quotes do not match.
    """
    match = _HEREDOC.fullmatch(word)
    if match is None or not match[3]:
        return None
    plain = expand(match[3], {}, Rules(keep_unset=True)).words
    if len(plain) != 1:
        return None
    raw = expand(match[3], {}, Rules(raw_quotes=True, keep_unset=True)).words
    if len(raw) != 1:
        raise DockerfileError(f"internal lexing of heredoc produced inconsistent results: {match[3]}")
    return Heredoc(plain[0], _quotes(plain[0]) == _quotes(raw[0]), match[2] == "-", int(match[1] or 0))


def _quotes(word: str) -> int:
    return word.count("'") + word.count('"')


class _Reader:
    """Reads physical lines one after another and knows the number of the last."""

    def __init__(self, text: str) -> None:
        self._physical = _physical_lines(text.removeprefix(BOM))
        self._directives = DirectiveReader()
        self._line = 0
        self._warnings: list[tuple[int, str]] = []
        self.escape = "\\"
        self._set_escape("\\")

    def read(self) -> Source:
        lines: list[Line] = []
        comments: list[str] = []
        for raw in self._physical:
            stripped = raw.lstrip(SPACE)
            if stripped.startswith("#"):
                comment = raw[1:].strip(SPACE)
                comments = [*comments, comment] if comment else []
            content, was_directive = self._content(stripped)
            if was_directive and comments:
                comments.pop()
            self._line += 1
            start = self._line
            content, ends = self._continued(content)
            if ends and not content:
                continue
            line = self._logical(content, ends, start)._replace(comments=tuple(comments))
            lines.append(line)
            comments = []
        if not lines:
            raise DockerfileError("file with no instructions", self._line)
        return Source(lines, self.escape, self._warnings)

    def _logical(self, content: str, ends: bool, start: int) -> Line:
        parts = [content]
        gap = False
        while not ends:
            raw = next(self._physical, None)
            if raw is None:
                break
            self._line += 1
            if raw.lstrip(SPACE).startswith("#"):
                continue
            trimmed = raw.rstrip("\r\n")
            if not trimmed.lstrip(SPACE):
                gap = True
                continue
            content, ends = self._continued(trimmed)
            parts.append(content)
        text = "".join(parts)
        if gap:
            self._warnings.append((self._line, f"Empty continuation line found in: {text}"))
        try:
            line = split(text, self.escape)
            return line._replace(heredocs=self._heredocs(line, text), start=start, end=self._line)
        except DockerfileError as error:
            raise error.at(start, self._line) from None

    def _content(self, stripped: str) -> tuple[str, bool]:
        trimmed = stripped.rstrip("\r\n")
        try:
            found = self._directives.read(trimmed)
            if found is not None and found.name == "escape":
                self._set_escape(found.value)
        except DockerfileError as error:
            raise error.at(self._line) from None
        return ("" if trimmed.startswith("#") else trimmed), found is not None

    def _set_escape(self, value: str) -> None:
        if value not in ("`", "\\"):
            raise DockerfileError(f"invalid escape token '{value}' does not match ` or \\")
        self.escape = value
        mark = re.escape(value)
        self._continuation = re.compile(rf"([^{mark}]){mark}[ \t]*\Z|\A{mark}[ \t]*\Z")

    def _continued(self, content: str) -> tuple[str, bool]:
        """Return the line without its continuation character, and whether it has none."""
        match = self._continuation.search(content)
        if match is None:
            return content, True
        return content[: match.start()] + (match[1] or ""), False

    def _heredocs(self, line: Line, text: str) -> tuple[Heredoc, ...]:
        if "<<" not in text or not _takes_heredoc(line):
            return ()
        rules = Rules(raw_quotes=True, raw_escapes=True, keep_unset=True)
        try:
            words = expand(text, {}, rules).words
        except DockerfileError:
            words = []
        found = [doc for doc in map(heredoc_of, words) if doc is not None]
        return tuple(self._filled(doc) for doc in found)

    def _filled(self, doc: Heredoc) -> Heredoc:
        content: list[str] = []
        for raw in self._physical:
            self._line += 1
            end = raw.rstrip("\r\n")
            if (end.lstrip("\t") if doc.strip else end) == doc.name:
                return doc._replace(content="".join(content))
            content.append(raw)
        raise DockerfileError("unterminated heredoc")


def _physical_lines(text: str) -> Iterator[str]:
    number = 0
    at = 0
    while at < len(text):
        end = text.find("\n", at) + 1 or len(text)
        raw = text[at:end]
        # The reader that defines this limit counts bytes, the line's end included.
        size = len(raw) if raw.isascii() else len(raw.encode("utf-8", "surrogateescape"))
        if size > LONGEST_LINE + 1 or (size > LONGEST_LINE and not raw.endswith("\n")):
            raise DockerfileError(f"dockerfile line greater than max allowed size of {LONGEST_LINE}", number)
        number += 1
        yield raw
        at = end


def _takes_heredoc(line: Line) -> bool:
    inner = line.inner if line.name.lower() == "onbuild" else None
    chosen = inner or line
    return chosen.name.lower() in _WITH_HEREDOC and not chosen.json
