"""What the build cache takes, and making it smaller; blocking."""

import os
import re
import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from barque.base.errors import InvalidInputError
from barque.base.times import format_ns, parse_ns
from barque.builder.cache import BuildCache, Record
from barque.builder.filters import of_words, passes
from barque.images.store import ImageStore
from barque.storage.trees import tree_usage

Json = dict[str, Any]
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s|us|ns)")
_UNITS = {"h": 3600e9, "m": 60e9, "s": 1e9, "ms": 1e6, "us": 1e3, "ns": 1.0}
_ID_LENGTH = 25
_AGES = ("until", "unused-for")


@dataclass(slots=True)
class PruneOptions:
    """What to prune; sizes in bytes, 0: no such limit.

    `all`: layers that images have, too. `filters`: words of the Engine API. `matching`: one of these filters
    must hold (see filters). `unused_ns`: only what was not used for so long. `dry_run`: only choose.
    """

    all: bool = False
    filters: dict[str, list[str]] = field(default_factory=dict)
    reserved_space: int = 0
    max_used_space: int = 0
    min_free_space: int = 0
    matching: list[str] = field(default_factory=list)
    unused_ns: int = 0
    dry_run: bool = False


class Folders(Protocol):
    """Folders that belong to the cache beside its layers: those of cache mounts, those of clients."""

    def listed(self) -> "list[Folder]":
        """Return all of them."""
        ...

    def remove(self, name: str) -> None:
        """Remove one that is not in use."""
        ...


class Folder(NamedTuple):
    """One folder: its name and path, what it is for, whether a build uses it, how often builds did; times in nanoseconds."""

    name: str
    path: str
    kind: str
    description: str
    in_use: bool
    uses: int
    created_ns: int
    used_ns: int


@dataclass(slots=True)
class _Part:
    """A record or a folder: its row, and how to remove it."""

    row: Json
    used_ns: int
    record: Record | None = None
    folder: Folder | None = None
    owner: Folders | None = None


class Pruner:
    """Looks at the cache and removes parts of it.

    Args:
        cache: the records.
        store: has their layers.
        folders: what else there is.
    """

    def __init__(self, cache: BuildCache, store: ImageStore, folders: list[Folders]) -> None:
        self._cache = cache
        self._store = store
        self._folders = folders

    def usage(self, in_use: set[str]) -> list[Json]:
        """Return a row for every record and folder; layers that several records have are counted once.

        Args:
            in_use: chain ids of the layers that builds under way stand on.
        """
        return [part.row for part in self._parts(in_use)]

    def prune(self, options: PruneOptions, in_use: set[str]) -> tuple[list[Json], int]:
        """Remove what the options choose, the longest unused first; return the rows and the bytes won.

        Raises:
            InvalidInputError: an unknown filter or a bad value.
        """
        words = {name: values for name, values in options.filters.items() if name not in (*_AGES, "label", "label!")}
        fits, fits_words = passes(options.matching), passes([of_words(words)] if words else [])
        oldest_ns = _oldest(options)
        # Records have no labels: `system prune` sends its filter here too, and it chooses none of them.
        if "label" in options.filters:
            return [], 0
        parts = self._parts(in_use)
        chosen = [
            part for part in parts
            if not part.row["InUse"] and (options.all or not part.row["Shared"])
            and (oldest_ns is None or part.used_ns <= oldest_ns) and fits(part.row) and fits_words(part.row)
        ]  # fmt: skip
        return self._remove(parts, chosen, options)

    def _remove(self, parts: list[_Part], chosen: list[_Part], options: PruneOptions) -> tuple[list[Json], int]:
        total = sum(part.row["Size"] for part in parts)
        keep = self._kept_bytes(total, options)
        gone, won = self._choose(parts, chosen, total, keep)
        if options.dry_run:
            return [part.row for part in gone], won
        self._cache.remove(part.record.key for part in gone if part.record is not None)
        for part in gone:
            if part.folder is not None and part.owner is not None:
                part.owner.remove(part.folder.name)
        if gone:
            self._store.sweep()
        return [part.row for part in gone], won

    def _kept_bytes(self, total: int, options: PruneOptions) -> int | None:
        """Return how many bytes may stay; None: there is no such limit, all that is chosen goes."""
        if not (options.reserved_space or options.max_used_space or options.min_free_space):
            return None
        keep = options.max_used_space
        if options.min_free_space:
            found = os.statvfs(self._store.content.folder)
            missing = options.min_free_space - found.f_bavail * found.f_frsize
            if missing > 0:
                keep = min(keep or total, total - missing)
            elif not keep:
                keep = total
        return max(keep, options.reserved_space, 0)

    def _choose(
        self, parts: list[_Part], chosen: list[_Part], total: int, keep: int | None
    ) -> tuple[list[_Part], int]:
        """Return what goes, in order: a layer goes only when nothing stands on it any more."""
        standing: dict[str, int] = {}
        alike: dict[str, int] = {}
        for part in parts:
            if part.record is not None and part.record.diff:
                alike[part.record.chain] = alike.get(part.record.chain, 0) + 1
                standing[part.record.parent] = standing.get(part.record.parent, 0) + 1
        waiting = sorted(chosen, key=lambda part: (part.used_ns, part.row["UsageCount"]))
        gone: list[_Part] = []
        won = 0
        again = True
        while again:
            again, later = False, []
            for part in waiting:
                if keep is not None and total - won <= keep:
                    return gone, won
                record = part.record
                # A record that changed nothing, or that another one of the same layer stays for, holds nothing.
                if record is not None and record.diff and standing.get(record.chain) and alike[record.chain] == 1:
                    later.append(part)
                    continue
                gone.append(part)
                again = True
                won += part.row["Size"] if not part.row["Shared"] else 0
                if record is not None and record.diff:
                    alike[record.chain] -= 1
                    standing[record.parent] -= 1
            waiting = later
        return gone, won

    def _parts(self, used: set[str]) -> list[_Part]:
        shared = {chain for image in self._store.images() for chain in image.chain}
        records = self._cache.records()
        ids = {record.chain: record.key[:_ID_LENGTH] for record in reversed(records) if record.diff}
        counted: set[str] = set()
        parts = []
        for record in records:
            size = 0 if record.chain in counted else record.size
            if record.diff:
                counted.add(record.chain)
            parent = ids.get(record.parent)
            row = {
                "ID": record.key[:_ID_LENGTH], "Type": "regular", "Description": record.description,
                "InUse": record.chain in used, "Shared": bool(record.diff) and record.chain in shared, "Size": size,
                "CreatedAt": format_ns(record.created_ns), "UsageCount": record.uses,
                "LastUsedAt": format_ns(record.used_ns) if record.used_ns else None, "Parents": [parent] if parent else None,
            }  # fmt: skip
            parts.append(_Part(row, record.used_ns, record=record))
        for owner in self._folders:
            parts += [self._folder(one, owner) for one in owner.listed()]
        return parts

    def _folder(self, one: Folder, owner: Folders) -> _Part:
        row = {
            "ID": one.name[:_ID_LENGTH], "Type": one.kind, "Description": one.description, "InUse": one.in_use,
            "Shared": False, "Size": tree_usage(one.path).size, "CreatedAt": format_ns(one.created_ns),
            "LastUsedAt": format_ns(one.used_ns), "UsageCount": one.uses, "Parents": None,
        }  # fmt: skip
        return _Part(row, one.used_ns, folder=one, owner=owner)


def _oldest(options: PruneOptions) -> int | None:
    values = [(name, value) for name in _AGES for value in options.filters.get(name, [])]
    if options.unused_ns:
        return time.time_ns() - options.unused_ns
    if not values:
        return None
    if len(values) > 1:
        raise InvalidInputError("invalid filter 'until': filters expect only one value")
    name, text = values[0]
    try:
        return time.time_ns() - duration_ns(text)
    except InvalidInputError:
        pass
    try:
        return parse_ns(text)
    except ValueError:
        raise InvalidInputError(f"\"{name}\" filter expects a duration (e.g., '24h') or a timestamp, got {text!r}") from None


def duration_ns(text: str) -> int:
    """Return a duration such as 48h or 1h30m in nanoseconds.

    Raises:
        InvalidInputError: it is none.
    """
    parts = _DURATION.findall(text)
    if not parts or "".join(n + u for n, u in parts) != text:
        raise InvalidInputError(f'time: invalid duration "{text}"')
    return int(sum(float(n) * _UNITS[u] for n, u in parts))
