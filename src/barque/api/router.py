"""Which function answers which path: a table of methods and patterns, with or without a version in front."""

import re
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from aiohttp import web

from barque.api.call import MAX_VERSION, MIN_VERSION, Call
from barque.base.errors import InvalidInputError

Handler = Callable[[Call], Awaitable[web.StreamResponse]]

_VERSION = re.compile(r"/v(\d{1,6}(?:\.\d{1,6}){0,3})(?=/)")
_NAME = re.compile(r"\{(\w+)(\*?)\}")


class Route(NamedTuple):
    """A path and what answers it; a followed route ends when its client goes."""

    pattern: re.Pattern[str]
    handler: Handler
    follows: bool


class Table:
    """All routes, grouped by method and the first part of the path."""

    def __init__(self) -> None:
        self._routes: dict[tuple[str, str], list[Route]] = {}

    def add(self, method: str, path: str, handler: Handler, *, follows: bool = False) -> None:
        """Add a route; `{name}` is one part of a path, `{name*}` one or several."""
        text = _NAME.sub(lambda m: f"(?P<{m[1]}>{'.+' if m[2] else '[^/]+'})", path)
        key = (method, path.split("/")[1])
        self._routes.setdefault(key, []).append(Route(re.compile(text), handler, follows))

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]] | None:
        """Return the first route that fits, with the named parts of the path."""
        for route in self._routes.get((method, path.split("/", 2)[1]), ()):
            match = route.pattern.fullmatch(path)
            if match is not None:
                return route, match.groupdict()
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
