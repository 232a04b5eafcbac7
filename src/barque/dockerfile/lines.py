"""From text to lines: continuation, comments, heredocs, and the split of a line into name, flags, arguments."""

import json
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from barque.dockerfile.directives import BOM, DirectiveReader
from barque.dockerfile.errors import DockerfileError
from barque.dockerfile.text import SPACE, quoted, quoted_list
from barque.dockerfile.words import Rules, expand

LONGEST_LINE = 65535
_BLANK = re.compile(r"[\t\v\f\r ]+")
_HEREDOC = re.compile(r"([0-9]*)<<(-?)[\t\n\f\r ]*([^<]*)")
_TABS = re.compile(r"^\t+", re.MULTILINE)
_WITH_HEREDOC = frozenset(("add", "copy", "run"))


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


class Line(NamedTuple):
    """One instruction's logical line; `start` and `end` are the 1-based lines of the text it spans.

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
    """A parsed text: its lines, its escape character, and the lines whose continuation is empty."""

    lines: list[Line]
    escape: str
    warnings: list[tuple[int, str]]

    def dump(self) -> str:
        """Return all lines as S-expressions."""
        return "\n".join(line.dump() for line in self.lines)


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


def split(text: str, escape: str) -> Line:
    """Return a logical line as name, flags and arguments.

    Raises:
        DockerfileError: the arguments have not the form that the instruction needs.
    """
    pieces = _BLANK.split(text.strip(SPACE), maxsplit=1)
    flags: list[str] = []
    rest = ""
    if len(pieces) == 2:
        rest, flags = _flags(pieces[1], escape)
    read = _FORMS.get(pieces[0].lower(), _ignored)
    args, as_json, inner = read(rest.strip(SPACE), escape)
    return Line(pieces[0], tuple(flags), tuple(args), as_json, text, inner)


def _flags(text: str, escape: str) -> tuple[str, list[str]]:
    """Return what follows the leading `--flag` words, and these, their quotes removed."""
    flags: list[str] = []
    at, size = 0, len(text)
    while True:
        while at < size and text[at] in SPACE:
            at += 1
        if not text.startswith("--", at):
            return text[at:], flags
        at, word, quotes = _flag(text, at, escape)
        if word == "--":
            return text[at:], flags
        if quotes or word:
            flags.append(word)
        if at >= size:
            return "", flags


def _flag(text: str, at: int, escape: str) -> tuple[int, str, bool]:
    word: list[str] = []
    quote, quotes = "", False
    while at < len(text):
        char = text[at]
        if not quote and char in SPACE:
            break
        at += 1
        if char == quote:
            quote = ""
            continue
        if not quote and char in "'\"":
            quote, quotes = char, True
            continue
        if char == escape:
            if at == len(text):
                break
            char = text[at]
            at += 1
        word.append(char)
    return at, "".join(word), quotes


def words_of(text: str, escape: str) -> list[str]:
    """Return the space-delimited words of text; quotes and escapes stay in them."""
    words: list[str] = []
    word: list[str] = []
    quote, quoted_word = "", False
    at, size = 0, len(text)
    while at < size:
        char = text[at]
        at += 1
        if not quote and char in SPACE:
            if word or quoted_word:
                words.append("".join(word))
            word, quoted_word = [], False
            continue
        if not quote and char in "'\"":
            quote, quoted_word = char, True
        elif char == quote:
            quote = ""
        elif char == escape and quote != "'":
            if at == size:
                # An escape character at the very end escapes nothing.
                break
            word.append(char)
            char = text[at]
            at += 1
        word.append(char)
    if word or quoted_word:
        words.append("".join(word))
    return words


_Form = tuple[list[str], bool, "Line | None"]


def _ignored(rest: str, escape: str) -> _Form:
    return [""], False, None


def _string(rest: str, escape: str) -> _Form:
    return ([rest] if rest else []), False, None


def _blank_delimited(rest: str, escape: str) -> _Form:
    return (_BLANK.split(rest) if rest else []), False, None


def _names_or_pairs(rest: str, escape: str) -> _Form:
    return words_of(rest, escape), False, None


def _pairs(name: str) -> Callable[[str, str], _Form]:
    def read(rest: str, escape: str) -> _Form:
        words = words_of(rest, escape)
        if words and "=" not in words[0]:
            parts = _BLANK.split(rest, maxsplit=1)
            if len(parts) < 2:
                raise DockerfileError(f"{name} must have two arguments")
            return [parts[0], parts[1], ""], False, None
        args: list[str] = []
        for word in words:
            key, equals, value = word.partition("=")
            if not equals:
                raise DockerfileError(
                    f"Syntax error - can't find = in {quoted(word)}. Must be of the form: name=value"
                )
            args += [key, value, "="]
        return args, False, None

    return read


def _array(rest: str) -> list[str] | None:
    """Return the JSON array of strings that rest is, None where it is no JSON array.

    Raises:
        DockerfileError: an item is not a string.
    """
    rest = rest.lstrip(SPACE)
    if not rest.startswith("["):
        return None
    try:
        value = json.loads(rest, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    if not all(isinstance(item, str) for item in value):
        raise DockerfileError("when using JSON array syntax, arrays must be comprised of strings only")
    return list(value)


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _maybe_json(rest: str, escape: str) -> _Form:
    if not rest:
        return [], False, None
    value = _array(rest)
    return ([rest], False, None) if value is None else (value, True, None)


def _maybe_json_list(rest: str, escape: str) -> _Form:
    value = _array(rest)
    return _blank_delimited(rest, escape) if value is None else (value, True, None)


def _health(rest: str, escape: str) -> _Form:
    parts = re.split(f"[{SPACE}]+", rest, maxsplit=1)
    if not parts[0]:
        return [], False, None
    args, as_json, _ = _maybe_json(parts[1] if len(parts) > 1 else "", escape)
    return [parts[0], *args], as_json, None


def _trigger(rest: str, escape: str) -> _Form:
    if not rest:
        return [], False, None
    inner = split(rest, escape)
    return [inner.name, *inner.args], inner.json, inner


_FORMS: dict[str, Callable[[str, str], _Form]] = {
    "add": _maybe_json_list,
    "arg": _names_or_pairs,
    "cmd": _maybe_json,
    "copy": _maybe_json_list,
    "entrypoint": _maybe_json,
    "env": _pairs("ENV"),
    "expose": _blank_delimited,
    "from": _blank_delimited,
    "healthcheck": _health,
    "label": _pairs("LABEL"),
    "maintainer": _string,
    "onbuild": _trigger,
    "run": _maybe_json,
    "shell": _maybe_json,
    "stopsignal": _string,
    "user": _string,
    "volume": _maybe_json_list,
    "workdir": _string,
}
INSTRUCTIONS = tuple(name.upper() for name in _FORMS)
