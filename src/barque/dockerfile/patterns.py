"""Paths against patterns: .dockerignore, and the wildcards of COPY and ADD."""

import itertools
import re
from collections.abc import Iterable
from typing import NamedTuple

from barque.dockerfile.directives import BOM
from barque.dockerfile.errors import DockerfileError
from barque.dockerfile.text import SPACE, clean


def read_ignore(text: str) -> list[str]:
    """Return the patterns of an ignore file, cleaned; those that bring files back begin with `!`."""
    patterns: list[str] = []
    for line in text.removeprefix(BOM).split("\n"):
        if line.startswith("#"):
            continue
        pattern = line.strip(SPACE)
        if not pattern:
            continue
        inverted = pattern.startswith("!")
        if inverted:
            pattern = pattern[1:].strip(SPACE)
        if pattern:
            pattern = clean(pattern)
            if len(pattern) > 1 and pattern.startswith("/"):
                pattern = pattern[1:]
        patterns.append("!" + pattern if inverted else pattern)
    return patterns


class _Rule(NamedTuple):
    pattern: re.Pattern[str]
    brings_back: bool


class Matcher:
    """Tells which paths a list of patterns matches; the last pattern that matches decides.

    Raises:
        DockerfileError: a pattern is malformed.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self._rules: list[_Rule] = []
        for text in patterns:
            pattern = text.strip(SPACE)
            if not pattern:
                continue
            pattern = clean(pattern)
            inverted = pattern.startswith("!")
            if inverted:
                pattern = pattern[1:]
                if not pattern:
                    raise DockerfileError('illegal exclusion pattern: "!"')
            check_wildcards(pattern)
            self._rules.append(_Rule(_compile(pattern), inverted))
        self.brings_back = any(rule.brings_back for rule in self._rules)

    def matches(self, path: str) -> bool:
        """Tell whether a slash-delimited path or a folder above it is matched."""
        matched = False
        parts = path.split("/")
        ways = ["/".join(parts[:end]) for end in range(len(parts), 0, -1)]
        for rule in self._rules:
            if rule.brings_back != matched:
                continue
            if any(rule.pattern.match(way) for way in ways):
                matched = not rule.brings_back
        return matched


def _compile(pattern: str) -> re.Pattern[str]:
    """Return the expression that a path must match whole: `**` crosses folders, `*` and `?` do not."""
    out: list[str] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*" and pattern.startswith("*", at):
            at += 1
            if pattern.startswith("/", at):
                at += 1
            out.append(".*" if at >= len(pattern) else "(?:.*/)?")
        elif char == "*":
            out.append("[^/]*")
        elif char == "?":
            out.append("[^/]")
        elif char == "\\":
            out.append(re.escape(pattern[at : at + 1]))
            at += 1
        elif char == "[":
            at, group = _bracket(pattern, at)
            out.append(group)
        else:
            out.append(re.escape(char))
    # A leading `**` that is followed by no slash ends a name: `**.go` matches a/b.go.
    text = "".join(out)
    if pattern.startswith("**") and not pattern.startswith("**/") and len(pattern) > 2:
        text = ".*" + text.removeprefix("(?:.*/)?")
    try:
        return re.compile(rf"(?:{text})\Z", re.DOTALL)
    except (re.error, OverflowError):
        raise DockerfileError("syntax error in pattern") from None


def check_wildcards(pattern: str) -> None:
    """Refuse a pattern that filepath.Match would refuse.

    Raises:
        DockerfileError: a bracket or an escape does not end.
    """
    wildcard(pattern)


def wildcard(pattern: str) -> re.Pattern[str]:
    """Return the expression of a pattern of filepath.Match, to be matched whole.

    What is between two stars is taken where it comes first, and no other way is tried: else a pattern of many stars takes for ever.

    Raises:
        DockerfileError: the pattern is malformed.
    """
    out: list[str] = []
    stars: list[int] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*":
            stars.append(len(out))
            out.append("[^/]*")
        elif char == "?":
            out.append("[^/]")
        elif char == "\\":
            if at >= len(pattern):
                raise DockerfileError("syntax error in pattern")
            out.append(re.escape(pattern[at]))
            at += 1
        elif char == "[":
            at, text = _bracket(pattern, at)
            out.append(text)
        else:
            out.append(re.escape(char))
    for begin, end in itertools.pairwise(stars):
        out[begin] = "(?>[^/]*?"
        out[end - 1] += ")"
    return re.compile("".join(out) + r"\Z", re.DOTALL)


def _bracket(pattern: str, at: int) -> tuple[int, str]:
    negated = pattern.startswith("^", at)
    at += negated
    ranges: list[str] = []
    while True:
        if pattern.startswith("]", at) and ranges:
            return at + 1, f"[{'^' if negated else ''}{''.join(ranges)}]"
        at, low = _bracket_char(pattern, at)
        high = low
        if pattern.startswith("-", at):
            at, high = _bracket_char(pattern, at + 1)
        if low <= high:
            ranges.append(f"{re.escape(low)}-{re.escape(high)}")
        else:
            # A range that is upside down holds nothing.
            ranges.append(r"" if ranges else r"\d\D" if negated else r"\0")


def _bracket_char(pattern: str, at: int) -> tuple[int, str]:
    char = pattern[at : at + 1]
    if not char or char in "-]":
        raise DockerfileError("syntax error in pattern")
    if char == "\\":
        at += 1
        char = pattern[at : at + 1]
    if not char or at + 1 >= len(pattern):
        raise DockerfileError("syntax error in pattern")
    return at + 1, char


def has_wildcards(path: str) -> bool:
    """Tell whether a path holds an unescaped `*`, `?` or `[`."""
    at = 0
    while at < len(path):
        if path[at] == "\\":
            at += 1
        elif path[at] in "*?[":
            return True
        at += 1
    return False
