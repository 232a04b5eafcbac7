"""Go's regular expressions, searched for in time that grows evenly with the text.

A filter of the API holds a pattern of anybody's. Python's engine tries one way through it after the other, which for some
patterns takes for ever; here all ways are followed side by side, as Go's engine does. Whether something matches is all that
is asked: what a group holds is not kept, and of a quantifier it does not matter whether it is greedy.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

_STEPS = 1000
"""What the patterns of one search may have together; Go allows one repetition as often."""
_DEPTH = 100
_REMEMBERED = 1000

_WORD = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")
_CONTROLS = {"a": "\a", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_CODE = re.compile(r"x([0-9A-Fa-f]{2})|x\{([0-9A-Fa-f]{1,6})\}|(0[0-7]{0,2}|[1-7][0-7]{1,2})")
_COUNT = re.compile(r"\{([0-9]{1,9})(?:(,)([0-9]{1,9})?)?\}")
_FLAGS = re.compile(r"\(\?([imsU]*)(?:-([imsU]+))?([:)])")
_NAMED = re.compile(r"\(\?P?<[A-Za-z_0-9]+>")
_CATEGORY = re.compile(r"[pP](?:([A-Z])|\{(\^?)([A-Z][a-z]?)\})")
_POSIX = re.compile(r"\[:(\^?)([a-z]+):\]")

Accepts = Callable[[str], bool]
Holds = Callable[[str, str], bool]

_PERL: dict[str, Accepts] = {
    "d": lambda char: "0" <= char <= "9",
    "s": lambda char: char in "\t\n\f\r ",
    "w": _WORD.__contains__,
}
_CLASSES: dict[str, Accepts] = {
    "alnum": lambda char: char in _WORD and char != "_",
    "alpha": lambda char: char.isascii() and char.isalpha(),
    "ascii": str.isascii,
    "blank": lambda char: char in "\t ",
    "cntrl": lambda char: char < " " or char == "\x7f",
    "digit": _PERL["d"],
    "graph": lambda char: "!" <= char <= "~",
    "lower": lambda char: "a" <= char <= "z",
    "print": lambda char: " " <= char <= "~",
    "punct": lambda char: "!" <= char <= "~" and (char not in _WORD or char == "_"),
    "space": lambda char: char in "\t\n\v\f\r ",
    "upper": lambda char: "A" <= char <= "Z",
    "word": _WORD.__contains__,
    "xdigit": frozenset("0123456789abcdefABCDEF").__contains__,
}


class RegexError(ValueError):
    """A pattern that Go refuses as well, or one that is too large."""


class _One(NamedTuple):
    """One character."""

    accepts: Accepts


class _At(NamedTuple):
    """A place between two characters, "" before the first and after the last."""

    holds: Holds


class _Row(NamedTuple):
    parts: tuple["_Node", ...]


class _Choice(NamedTuple):
    parts: tuple["_Node", ...]


class _Times(NamedTuple):
    part: "_Node"
    least: int
    most: int | None


class _Fork(NamedTuple):
    """A step that goes on at others at once."""

    targets: tuple[int, ...]


_Node = _One | _At | _Row | _Choice | _Times
_Step = _One | _At | _Fork | None
"""None: found."""


class Search:
    """Looks in texts for any of several patterns, as Docker's filters do: a pattern that is none matches nothing.

    Raises:
        RegexError: the patterns together are too large.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self._steps: list[_Step] = []
        self._left = _STEPS
        self._starts: list[int] = []
        for pattern in patterns:
            try:
                tree = _Parser(pattern).parsed()
            except RegexError:
                continue
            self._starts.append(len(self._steps))
            self._add(tree)
            self._steps.append(None)
        self._known: dict[tuple[frozenset[int], str, str], tuple[bool, frozenset[int]]] = {}

    def finds(self, text: str) -> bool:
        """Tell whether one of the patterns is somewhere in the text."""
        reached: frozenset[int] = frozenset()
        for before, after in zip(("", *text), (*text, ""), strict=True):
            key = (reached, before, after)
            if key not in self._known:
                if len(self._known) >= _REMEMBERED:
                    self._known.clear()
                self._known[key] = self._advanced(*key)
            found, reached = self._known[key]
            if found:
                return True
        return False

    def _advanced(self, reached: frozenset[int], before: str, after: str) -> tuple[bool, frozenset[int]]:
        """Return whether the end of a pattern is reached between two characters, and the steps behind the second one."""
        waiting = [*reached, *self._starts]
        seen = set(waiting)
        taken = set()
        while waiting:
            at = waiting.pop()
            step = self._steps[at]
            if step is None:
                return True, frozenset()
            following: tuple[int, ...] = ()
            if isinstance(step, _Fork):
                following = step.targets
            elif isinstance(step, _At):
                following = (at + 1,) if step.holds(before, after) else ()
            elif after and step.accepts(after):
                taken.add(at + 1)
            waiting += [target for target in following if target not in seen]
            seen.update(following)
        return False, frozenset(taken)

    def _add(self, node: _Node) -> None:
        self._left -= 1
        if self._left < 0:
            raise RegexError(f"patterns of more than {_STEPS} steps are not searched for")
        if isinstance(node, _Row):
            for part in node.parts:
                self._add(part)
        elif isinstance(node, _Choice):
            self._add_choice(node.parts)
        elif isinstance(node, _Times):
            self._add_times(node)
        else:
            self._steps.append(node)

    def _add_choice(self, parts: tuple[_Node, ...]) -> None:
        fork = self._hold_place()
        starts, ends = [], []
        for part in parts:
            starts.append(len(self._steps))
            self._add(part)
            ends.append(self._hold_place())
        self._steps[fork] = _Fork(tuple(starts))
        for end in ends:
            self._steps[end] = _Fork((len(self._steps),))

    def _add_times(self, node: _Times) -> None:
        for _ in range(node.least):
            self._add(node.part)
        if node.most is None:
            fork = self._hold_place()
            self._add(node.part)
            self._steps.append(_Fork((fork,)))
            self._steps[fork] = _Fork((fork + 1, len(self._steps)))
            return
        forks = []
        for _ in range(node.most - node.least):
            forks.append(self._hold_place())
            self._add(node.part)
        for fork in forks:
            self._steps[fork] = _Fork((fork + 1, len(self._steps)))

    def _hold_place(self) -> int:
        self._steps.append(None)
        return len(self._steps) - 1


class _Parser:
    """Reads one pattern (the syntax of Go's package regexp/syntax)."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0
        self._flags: frozenset[str] = frozenset()

    def parsed(self) -> _Node:
        """Return the tree of the whole pattern.

        Raises:
            RegexError: it is none.
        """
        tree = self._choice()
        if self._at < len(self._text):
            raise RegexError(f"unexpected ): `{self._text}`")
        return tree

    def _choice(self) -> _Node:
        self._depth += 1
        if self._depth > _DEPTH:
            raise RegexError("expression nests too deeply")
        parts = [_Row(tuple(self._row()))]
        while self._took("|"):
            parts.append(_Row(tuple(self._row())))
        self._depth -= 1
        return parts[0] if len(parts) == 1 else _Choice(tuple(parts))

    def _row(self) -> Iterator[_Node]:
        while self._at < len(self._text) and self._text[self._at] not in "|)":
            flags = _FLAGS.match(self._text, self._at)
            if flags and flags[3] == ")":
                self._at = flags.end()
                self._set_flags(flags)
            elif self._took("\\Q"):
                yield from self._quoted()
            else:
                yield self._repeated(self._atom())

    def _quoted(self) -> Iterator[_Node]:
        """Yield what stands up to \\E, or the pattern's end, as it is; a quantifier behind it is of its last character."""
        end = self._text.find("\\E", self._at)
        chars = self._text[self._at : end if end >= 0 else None]
        self._at = end + 2 if end >= 0 else len(self._text)
        for at, char in enumerate(chars, 1):
            one = self._literal(char)
            yield one if at < len(chars) else self._repeated(one)

    def _repeated(self, part: _Node) -> _Node:
        times = self._quantifier()
        if times is None:
            return part
        if times[0] > 1000 or (times[1] or 0) > 1000 or (times[1] is not None and times[1] < times[0]):
            raise RegexError(f"invalid repeat count: `{self._text}`")
        self._took("?")
        if self._quantifier() is not None:
            raise RegexError(f"invalid nested repetition operator: `{self._text}`")
        return _Times(part, *times)

    def _quantifier(self) -> tuple[int, int | None] | None:
        for sign, times in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self._took(sign):
                return times
        found = _COUNT.match(self._text, self._at)
        if found is None:
            return None
        self._at = found.end()
        least = int(found[1])
        return least, int(found[3]) if found[3] else None if found[2] else least

    def _atom(self) -> _Node:
        char = self._text[self._at]
        if char == "(":
            return self._group()
        if char == "[":
            return _One(self._class())
        if char in "*+?":
            raise RegexError(f"missing argument to repetition operator: `{char}`")
        self._at += 1
        if char == "\\":
            return self._escaped()
        if char == ".":
            return _One(bool if "s" in self._flags else "\n".__ne__)
        if char == "^":
            return _At(_begins_line if "m" in self._flags else _begins)
        if char == "$":
            return _At(_ends_line if "m" in self._flags else _ends)
        return self._literal(char)

    def _group(self) -> _Node:
        flags, kept = _FLAGS.match(self._text, self._at), self._flags
        named = _NAMED.match(self._text, self._at)
        if flags:
            self._at = flags.end()
            self._set_flags(flags)
        elif named:
            self._at = named.end()
        elif self._text.startswith("(?", self._at):
            raise RegexError(f"invalid or unsupported Perl syntax: `{self._text[self._at :]}`")
        else:
            self._at += 1
        inner = self._choice()
        self._flags = kept
        if not self._took(")"):
            raise RegexError(f"missing closing ): `{self._text}`")
        return inner

    def _set_flags(self, found: re.Match[str]) -> None:
        if not found[1] and not found[2] and found[3] == ")":
            raise RegexError("missing argument: `(?)`")
        self._flags = (self._flags | set(found[1])) - set(found[2] or "")

    def _escaped(self) -> _Node:
        """Return what a backslash, which has been read, and the characters behind it mean outside of brackets."""
        places: dict[str, Holds] = {"A": _begins, "z": _ends, "b": _at_word, "B": lambda *sides: not _at_word(*sides)}
        for letter, holds in places.items():
            if self._took(letter):
                return _At(holds)
        found = self._class_escape()
        return _One(self._folded(found)) if found else self._literal(self._escaped_char())

    def _class_escape(self) -> Accepts | None:
        letter = self._text[self._at : self._at + 1]
        if letter.lower() in _PERL and letter:
            self._at += 1
            return _negated(_PERL[letter.lower()], when=letter.isupper())
        found = _CATEGORY.match(self._text, self._at)
        if found is None:
            return None
        self._at = found.end()
        wanted = found[1] or found[3]
        inverse = (letter == "P") != bool(found[2])
        return _negated(lambda char: unicodedata.category(char).startswith(wanted), when=inverse)

    def _escaped_char(self) -> str:
        code = _CODE.match(self._text, self._at)
        if code:
            self._at = code.end()
            number = int(code[3], 8) if code[3] else int(code[1] or code[2], 16)
            if number > 0x10FFFF:
                raise RegexError(f"invalid escape sequence: `{self._text}`")
            return chr(number)
        char = self._text[self._at : self._at + 1]
        self._at += 1
        if char in _CONTROLS:
            return _CONTROLS[char]
        if not char or not char.isascii() or char in _WORD:
            raise RegexError(f"invalid escape sequence: `\\{char}`")
        return char

    def _class(self) -> Accepts:
        begin = self._at
        self._at += 1
        inverse = self._took("^")
        members: list[Accepts] = []
        while not members or not self._took("]"):
            if self._at >= len(self._text):
                raise RegexError(f"missing closing ]: `{self._text[begin:]}`")
            members.append(self._folded(self._member()))
        return _negated(lambda char: any(accepts(char) for accepts in members), when=inverse)

    def _member(self) -> Accepts:
        posix = _POSIX.match(self._text, self._at)
        if posix:
            if posix[2] not in _CLASSES:
                raise RegexError(f"invalid character class range: `{posix[0]}`")
            self._at = posix.end()
            return _negated(_CLASSES[posix[2]], when=bool(posix[1]))
        if self._text.startswith("\\", self._at):
            self._at += 1
            named = self._class_escape()
            if named:
                return named
            self._at -= 1
        low = high = self._member_char()
        if self._text.startswith("-", self._at) and not self._text.startswith("-]", self._at):
            self._at += 1
            high = self._member_char()
            if high < low:
                raise RegexError(f"invalid character class range: `{low}-{high}`")
        return lambda char: low <= char <= high

    def _member_char(self) -> str:
        if self._took("\\"):
            return self._escaped_char()
        char = self._text[self._at : self._at + 1]
        if not char:
            raise RegexError("missing closing ]")
        self._at += 1
        return char

    def _literal(self, wanted: str) -> _One:
        return _One(self._folded(wanted.__eq__))

    def _folded(self, accepts: Accepts) -> Accepts:
        if "i" not in self._flags:
            return accepts
        return lambda char: any(accepts(one) for one in (char, char.lower(), char.upper()))

    def _took(self, sign: str) -> bool:
        """Go on behind a sign if it is next."""
        if not self._text.startswith(sign, self._at):
            return False
        self._at += len(sign)
        return True


def _negated(accepts: Accepts, *, when: bool) -> Accepts:
    return (lambda char: not accepts(char)) if when else accepts


def _begins(before: str, _: str) -> bool:
    return not before


def _ends(_: str, after: str) -> bool:
    return not after


def _begins_line(before: str, _: str) -> bool:
    return before in ("", "\n")


def _ends_line(_: str, after: str) -> bool:
    return after in ("", "\n")


def _at_word(before: str, after: str) -> bool:
    return (before in _WORD) != (after in _WORD)
