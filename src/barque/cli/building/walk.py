"""What a folder holds, as a build is sent it: in walking order, less what patterns leave out.

Names, order and the meaning of patterns are fsutil's.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from barque.base.errors import InvalidInputError
from barque.dockerfile.patterns import Matcher, has_wildcards, wildcard

if TYPE_CHECKING:
    from collections.abc import Iterator

_MOST_LINKS = 255


class Entry(NamedTuple):
    """One file: its path below the folder, its attributes, what it links to, its extended attributes."""

    path: str
    stat: os.stat_result
    link: str
    attributes: dict[str, bytes]


class Choice:
    """Which files of a folder are wanted.

    Raises:
        DockerfileError: a pattern is malformed.
    """

    def __init__(self, includes: list[str], excludes: list[str]) -> None:
        self._includes = Matcher(includes) if includes else None
        self._excludes = Matcher(excludes) if excludes else None
        self._starts = [_fixed(one) for one in includes]
        self._back = [_fixed(one[1:]) for one in excludes if one.startswith("!")]

    def wants(self, path: str) -> bool:
        """Tell whether a file is wanted."""
        if self._includes is not None and not self._includes.matches(path):
            return False
        return self._excludes is None or not self._excludes.matches(path)

    def enters(self, path: str) -> bool:
        """Tell whether something in a folder may be wanted."""
        if self._includes is not None and not self._includes.matches(path) and not _leads(path, self._starts):
            return False
        if self._excludes is None or not self._excludes.matches(path):
            return True
        return _leads(path, self._back)


def _fixed(pattern: str) -> list[str]:
    """Return the parts of a pattern before its first wildcard."""
    parts: list[str] = []
    for part in pattern.strip("/").split("/"):
        if has_wildcards(part) or "\\" in part:
            return parts
        parts.append(part)
    return parts


def _leads(path: str, starts: list[list[str]]) -> bool:
    parts = path.split("/")
    return any(parts[: len(start)] == start[: len(parts)] for start in starts)


def walk(root: str, choice: Choice) -> Iterator[Entry]:
    """Yield the wanted files of a folder; a folder comes before what is in it, and only if it is wanted or needed.

    Raises:
        OSError: something cannot be read.
    """
    inodes: dict[tuple[int, int], str] = {}
    waiting: list[Entry] = []
    for path, found in _below(root, "", choice):
        folder = stat.S_ISDIR(found.st_mode)
        while waiting and not path.startswith(waiting[-1].path + "/"):
            waiting.pop()
        if not choice.wants(path):
            if folder:
                waiting.append(Entry(path, found, "", {}))
            continue
        yield from waiting
        waiting.clear()
        yield _entry(root, path, found, inodes)


def _below(root: str, folder: str, choice: Choice) -> Iterator[tuple[str, os.stat_result]]:
    stack: list[Iterator[tuple[str, os.stat_result]]] = [_listed(root, folder)]
    while stack:
        step = next(stack[-1], None)
        if step is None:
            stack.pop()
            continue
        path, found = step
        if not stat.S_ISDIR(found.st_mode):
            yield step
        elif choice.enters(path):
            yield step
            stack.append(_listed(root, path))


def _listed(root: str, folder: str) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(f"{root}/{folder}" if folder else root) as found:
        entries = sorted(found, key=lambda entry: os.fsencode(entry.name))
    for entry in entries:
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            # Removed since the folder was read.
            continue
        yield (f"{folder}/{entry.name}" if folder else entry.name), status


def _entry(root: str, path: str, found: os.stat_result, inodes: dict[tuple[int, int], str]) -> Entry:
    full = f"{root}/{path}"
    if stat.S_ISLNK(found.st_mode):
        return Entry(path, found, os.readlink(full), {})
    link = ""
    if stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
        first = inodes.setdefault((found.st_dev, found.st_ino), path)
        link = "" if first == path else first
    return Entry(path, found, link, _attributes(full) if stat.S_ISREG(found.st_mode) else {})


def _attributes(path: str) -> dict[str, bytes]:
    try:
        return {name: os.getxattr(path, name) for name in os.listxattr(path) if name.startswith("user.")}
    except OSError:
        return {}


def followed(root: str, paths: list[str]) -> list[str]:
    """Return paths with what they lead to by symbolic links: what must be sent so that they can be read.

    Raises:
        InvalidInputError: links lead in a circle.
    """
    found: dict[str, None] = {}
    for path in paths:
        _follow(root, [part for part in path.split("/") if part not in ("", ".")], found, 0)
    # The folder itself is wanted whole.
    return [] if "" in found else list(found)


def _follow(root: str, parts: list[str], found: dict[str, None], depth: int) -> None:
    if depth > _MOST_LINKS:
        raise InvalidInputError(f"{'/'.join(parts)}: too many links")
    at: list[str] = []
    for number, part in enumerate(parts):
        if part == "..":
            at = at[:-1]
            continue
        if has_wildcards(part):
            for name in _matching(root, at, part):
                _follow(root, [*at, name, *parts[number + 1 :]], found, depth + 1)
            return
        at.append(part)
        full = f"{root}/{'/'.join(at)}"
        if os.path.islink(full):
            found["/".join(at)] = None
            target = os.readlink(full)
            base = [] if target.startswith("/") else at[:-1]
            rest = [one for one in target.split("/") if one not in ("", ".")]
            _follow(root, [*base, *rest, *parts[number + 1 :]], found, depth + 1)
            return
    found["/".join(at)] = None


def _matching(root: str, at: list[str], pattern: str) -> list[str]:
    expression = wildcard(pattern)
    try:
        names = os.listdir(f"{root}/{'/'.join(at)}" if at else root)
    except OSError:
        return []
    return sorted(name for name in names if expression.match(name))
