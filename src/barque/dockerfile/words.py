"""Words: quotes, escapes, and the substitution of variables in its twelve forms.

$v ${v}  ${v:-w} ${v-w}  ${v:+w} ${v+w}  ${v:?e} ${v?e}  ${v#p} ${v##p}  ${v%p} ${v%%p}  ${v/p/r} ${v//p/r}
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from barque.dockerfile.errors import DockerfileError
from barque.dockerfile.text import SPACE, quoted

_SPECIAL = "@*#?-$!0"
_REGEX = set("[]{}.+()|^$")
_END = ""
_DEEPEST = 40


class Expansion(NamedTuple):
    """A word with its variables replaced; `used` and `missing` are the names it asked for."""

    text: str
    words: list[str]
    used: frozenset[str]
    missing: frozenset[str]


class Rules(NamedTuple):
    """How a word is read.

    `raw_quotes` and `raw_escapes` keep these characters, `plain_quotes` gives quotes no meaning,
    `keep_unset` leaves variables without a value as they are written.
    """

    escape: str = "\\"
    raw_quotes: bool = False
    raw_escapes: bool = False
    plain_quotes: bool = False
    keep_unset: bool = False


def expand(source: str, values: Mapping[str, str], rules: Rules | None = None) -> Expansion:
    """Return source with its variables replaced, whole and split at unquoted space.

    Raises:
        DockerfileError: a quote or brace does not end, or a substitution is none of the forms.
    """
    scanner = _Scanner(source, values, rules or Rules())
    try:
        text, words = scanner.until(_END, raw=scanner.rules.raw_escapes)
    except DockerfileError as error:
        raise DockerfileError(f"failed to process {quoted(source)}: {error}") from None
    return Expansion(text, words, frozenset(scanner.used), frozenset(scanner.missing))


class _Words:
    """Collects characters into words that unquoted space separates."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self._current: list[str] = []
        self._inside = False

    def add(self, text: str) -> None:
        for char in text:
            if char not in SPACE:
                self.add_raw(char)
            elif self._inside and any(self._current):
                self.done.append("".join(self._current))
                self._current, self._inside = [], False

    def add_raw(self, text: str) -> None:
        self._current.append(text)
        self._inside = True

    def finish(self) -> list[str]:
        if any(self._current):
            self.done.append("".join(self._current))
            self._current = []
        return self.done


class _Scanner:
    def __init__(self, source: str, values: Mapping[str, str], rules: Rules) -> None:
        self._source = source
        self._at = 0
        self._values = values
        self._raw = rules.raw_escapes
        self._depth = 0
        self.rules = rules
        self.used: set[str] = set()
        self.missing: set[str] = set()

    def _peek(self) -> str:
        return self._source[self._at : self._at + 1]

    def _next(self) -> str:
        char = self._source[self._at : self._at + 1]
        self._at += 1
        return char

    def until(self, stop: str, *, raw: bool) -> tuple[str, list[str]]:
        """Read up to the character stop (empty: the end), which is consumed."""
        before, self._raw = self._raw, raw
        self._depth += 1
        try:
            if self._depth > _DEEPEST:
                raise DockerfileError("syntax error: substitutions are nested too deeply")
            return self._read(stop)
        finally:
            self._raw = before
            self._depth -= 1

    def _read(self, stop: str) -> tuple[str, list[str]]:
        result: list[str] = []
        words = _Words()
        while char := self._peek():
            if char == stop:
                self._next()
                return "".join(result), words.finish()
            if char == "$":
                text = self._dollar()
                words.add(text)
            elif char == "<":
                text = self._heredoc()
                words.add_raw(text)
            elif char in "'\"" and not self.rules.plain_quotes:
                text = self._single() if char == "'" else self._double()
                words.add_raw(text)
            else:
                text = self._plain(words)
            result.append(text)
        if stop:
            raise DockerfileError(f"unexpected end of statement while looking for matching {stop}")
        return "".join(result), words.finish()

    def _plain(self, words: _Words) -> str:
        char = self._next()
        if char != self.rules.escape:
            words.add(char)
            return char
        kept = char if self._raw else ""
        if kept:
            words.add_raw(kept)
        char = self._next()
        if char:
            words.add_raw(char)
        return kept + char

    def _single(self) -> str:
        quote = self._next()
        end = self._source.find("'", self._at)
        if end < 0:
            raise DockerfileError("unexpected end of statement while looking for matching single-quote")
        text = self._source[self._at : end]
        self._at = end + 1
        return quote + text + quote if self.rules.raw_quotes else text

    def _double(self) -> str:
        quote = self._next()
        kept = quote if self.rules.raw_quotes else ""
        result = [kept]
        while char := self._peek():
            if char == '"':
                self._next()
                return "".join(result) + kept
            if char == "$":
                result.append(self._dollar())
                continue
            self._next()
            if char == self.rules.escape:
                if self._raw:
                    result.append(char)
                following = self._peek()
                if not following:
                    continue
                if following in ('"', "$", self.rules.escape):
                    char = self._next()
            result.append(char)
        raise DockerfileError("unexpected end of statement while looking for matching double-quote")

    def _heredoc(self) -> str:
        self._next()
        if self._peek() != "<":
            return "<"
        self._next()
        text = "<<"
        while self._peek() and self._peek() in "\t\r ":
            text += self._next()
        return text

    def _name(self) -> str:
        start = self._at
        char = self._peek()
        if char and char.isdecimal():
            while self._peek() and self._peek().isdecimal():
                self._next()
        elif char and char in _SPECIAL:
            self._next()
        else:
            while (char := self._peek()) and (char.isalpha() or char.isdecimal() or char == "_"):
                self._next()
        return self._source[start : self._at]

    def _get(self, name: str) -> str | None:
        value = self._values.get(name)
        (self.missing if value is None else self.used).add(name)
        return value

    def _dollar(self) -> str:
        self._next()
        if self._peek() != "{":
            name = self._name()
            if not name:
                return "$"
            value = self._get(name)
            return "$" + name if value is None and self.rules.keep_unset else value or ""
        self._next()
        if not self._peek():
            raise DockerfileError("syntax error: missing '}'")
        if self._peek() in "{}:":
            raise DockerfileError("syntax error: bad substitution")
        return self._braced(self._name())

    def _braced(self, name: str) -> str:
        operator = self._next()
        if operator == "}":
            value = self._get(name)
            return f"${{{name}}}" if value is None and self.rules.keep_unset else value or ""
        if operator == "/":
            return self._replace(name)
        shown = operator
        if operator == ":":
            operator = self._next()
            shown += operator or "\ufffd"
            if operator in ("#", "%"):
                raise DockerfileError(f"unsupported modifier ({shown}) in substitution")
        elif not operator or operator not in "+-?#%":
            raise DockerfileError(f"unsupported modifier ({operator or chr(0xFFFD)}) in substitution")
        word = self._part("}", "missing '}'", raw=operator in ("#", "%"))
        value = self._get(name)
        if value is None and self.rules.keep_unset:
            return f"${{{name}{shown}{word}}}"
        return self._modify(name, value, shown, word)

    def _part(self, stop: str, complaint: str, *, raw: bool) -> str:
        try:
            return self.until(stop, raw=raw)[0]
        except DockerfileError:
            if not self._peek():
                raise DockerfileError(f"syntax error: {complaint}") from None
            raise

    def _modify(self, name: str, value: str | None, shown: str, word: str) -> str:
        operator = shown[-1]
        unset = value is None or (shown[0] == ":" and value == "")
        if operator == "-":
            return word if unset else value or ""
        if operator == "+":
            return "" if unset else word
        if operator == "?":
            if unset:
                state = "unset" if value is None else "empty"
                raise DockerfileError(f"{name}: {word or f'is not allowed to be {state}'}")
            return value or ""
        if operator not in ("#", "%"):
            raise DockerfileError(f"unsupported modifier ({shown}) in substitution")
        longest = word.startswith(operator)
        if longest:
            word = word[1:]
        if operator == "#":
            return _trim_start(word, value or "", longest=longest)
        # The shortest match at the end is the first one of the reversed text.
        return _trim_start(_reversed_pattern(word), (value or "")[::-1], longest=longest)[::-1]

    def _replace(self, name: str) -> str:
        everywhere = self._peek() == "/"
        if everywhere:
            self._next()
        pattern = self._part("/", "missing '/' in ${}", raw=True)
        replacement = self._part("}", "missing '}'", raw=True)
        value = self._get(name)
        if value is None and self.rules.keep_unset:
            return f"${{{name}/{pattern}/{replacement}}}"
        found = _pattern(pattern, longest=True)
        return found.sub(lambda _: replacement, value or "", count=0 if everywhere else 1)


def _trim_start(pattern: str, value: str, *, longest: bool) -> str:
    match = _pattern(pattern, longest=longest).match(value)
    return value[match.end() :] if match else value


def _pattern(pattern: str, *, longest: bool) -> re.Pattern[str]:
    """Return the regular expression of a shell pattern with `*` and `?`, without bracket expressions."""
    out: list[str] = []
    chars = iter(range(len(pattern)))
    for i in chars:
        char = pattern[i]
        if char == "*":
            out.append(".*" if longest else ".*?")
        elif char == "?":
            out.append(".")
        elif char == "\\":
            following = pattern[i + 1 : i + 2]
            if following and following in "}/":
                # The braces needed this escape, the pattern does not.
                continue
            if following not in ("*", "?", "\\"):
                shown = following or "\ufffd"
                raise DockerfileError(f"invalid pattern ({pattern}) in substitution: invalid escape '\\{shown}'")
            out.append("\\" + following)
            next(chars)
        else:
            out.append("\\" + char if char in _REGEX else char)
    return re.compile("".join(out))


def _reversed_pattern(pattern: str) -> str:
    """Return the pattern read from its end, escapes still before what they escape."""
    parts = re.findall(r"\\.|.", pattern, re.DOTALL)
    return "".join(reversed(parts))
