"""Which function answers which path: a table of methods and patterns, with or without a version in front."""

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from aiohttp import web

from barque.api.call import MAX_VERSION, MIN_VERSION, Call
from barque.base.errors import InvalidInputError

Handler = Callable[[Call], Awaitable[web.StreamResponse]]

_VERSION = re.compile(r"/v(\d{1,6}(?:\.\d{1,6}){0,3})(?=/)")


class Route(NamedTuple):
    """A path by its parts, and what answers it; a route that follows, or only reads, ends when its client goes.

    `names` are those of the parts that a request chooses, by their places; `several` is the place of one that may be
    several parts, -1 where there is none.
    """

    parts: tuple[str, ...]
    names: Mapping[int, str]
    several: int
    handler: Handler
    follows: bool

    def match(self, given: list[str]) -> dict[str, str] | None:
        """Return the named parts of a path, None where the route is not meant."""
        if self.several >= 0:
            behind = len(given) - len(self.parts) + self.several + 1
            if behind <= self.several:
                return None
            middle = "/".join(given[self.several : behind])
            given = [*given[: self.several], "" if "\n" in middle else middle, *given[behind:]]
        if len(given) != len(self.parts):
            return None
        found = {}
        for at, (part, word) in enumerate(zip(self.parts, given, strict=True)):
            if at in self.names:
                if not word:
                    return None
                found[self.names[at]] = word
            elif part != word:
                return None
        return found


class Table:
    """All routes, grouped by method and the first part of the path."""

    def __init__(self) -> None:
        self._routes: dict[tuple[str, str], list[Route]] = {}

    def add(self, method: str, path: str, handler: Handler, *, follows: bool = False) -> None:
        """Add a route; `{name}` is one part of a path, `{name*}` one or several."""
        # No regular expressions: to compile one for each route takes longer than to read all containers.
        parts = tuple(path.split("/"))
        named = {at: part[1:-1] for at, part in enumerate(parts) if part[:1] == "{"}
        several = next((at for at, name in named.items() if name[-1] == "*"), -1)
        names = {at: name.removesuffix("*") for at, name in named.items()}
        self._routes.setdefault((method, parts[1]), []).append(Route(parts, names, several, handler, follows))

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]] | None:
        """Return the first route that fits, with the named parts of the path."""
        given = path.split("/")
        for route in self._routes.get((method, given[1]), ()):
            found = route.match(given)
            if found is not None:
                return route, found
        return None


def split_version(path: str) -> tuple[tuple[int, int] | None, str]:
    """Return the version in front of a path, None where there is none, and the rest.

    Raises:
        InvalidInputError: we do not serve that version.
    """
    match = _VERSION.match(path)
    if match is None:
        return None, path
    return check_version(match[1]), path[match.end() :]


def check_version(text: str) -> tuple[int, int]:
    """Return a client's version as two numbers.

    Raises:
        InvalidInputError: it is too old or too new.
    """
    numbers = [int(part or 0) for part in text.split(".")[:2]]
    version = (numbers[0], numbers[1] if len(numbers) > 1 else 0)
    if version < MIN_VERSION:
        raise InvalidInputError(
            f"client version {text} is too old. Minimum supported API version is "
            f"{dotted(MIN_VERSION)}, please upgrade your client to a newer version"
        )
    if version > MAX_VERSION:
        raise InvalidInputError(
            f"client version {text} is too new. Maximum supported API version is {dotted(MAX_VERSION)}"
        )
    return version


def dotted(version: tuple[int, int]) -> str:
    """Return a version as text."""
    return f"{version[0]}.{version[1]}"
