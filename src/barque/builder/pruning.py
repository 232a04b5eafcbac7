"""What the build cache takes, and making it smaller; blocking."""

import os
import re
import time
from dataclasses import dataclass, field
from typing import Any

from barque.base.errors import InvalidInputError
from barque.base.times import format_ns
from barque.builder.cache import BuildCache, Record
from barque.builder.execution import CacheMounts
from barque.images.store import ImageStore
from barque.storage.trees import tree_usage

Json = dict[str, Any]
_FILTERS = ("until", "unused-for", "id", "parent", "type", "description", "inuse", "shared", "private", "label", "label!")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(h|m|s|ms|us|ns)")
_UNITS = {"h": 3600e9, "m": 60e9, "s": 1e9, "ms": 1e6, "us": 1e3, "ns": 1.0}
_ID_LENGTH = 25


@dataclass(slots=True)
class PruneOptions:
    """What to prune; sizes in bytes, 0: no such limit."""

    all: bool = False
    filters: dict[str, list[str]] = field(default_factory=dict)
    reserved_space: int = 0
    max_used_space: int = 0
    min_free_space: int = 0


class Pruner:
    """Looks at the cache and removes parts of it."""

    def __init__(self, cache: BuildCache, mounts: CacheMounts, store: ImageStore) -> None:
        self._cache = cache
        self._mounts = mounts
        self._store = store

    def usage(self) -> list[Json]:
        """Return a row for every record and cache mount."""
        shared = self._shared()
        rows = [self._row(record, shared) for record in self._cache.records()]
        for name, used in self._mounts.folders().items():
            path = f"{self._mounts.root}/{name}"
            found = os.stat(path)
            rows.append({
                "ID": name[:_ID_LENGTH], "Type": "exec.cachemount", "Description": f"cached mount {name[:12]}",
                "InUse": used, "Shared": False, "Size": tree_usage(path).size, "CreatedAt": format_ns(found.st_ctime_ns),
                "LastUsedAt": format_ns(found.st_mtime_ns), "UsageCount": 1, "Parents": None,
                "key": name, "used_ns": found.st_mtime_ns,
            })  # fmt: skip
        return [{k: v for k, v in row.items() if k not in ("key", "used_ns")} for row in rows]

    def prune(self, options: PruneOptions) -> tuple[list[str], int]:
        """Remove what the options choose; return ids and bytes won.

        Raises:
            InvalidInputError: an unknown filter or a bad value.
        """
        unknown = sorted(set(options.filters) - set(_FILTERS))
        if unknown:
            raise InvalidInputError(f"invalid filter '{unknown[0]}'")
        oldest_ns = _oldest(options.filters)
        shared = self._shared()
        chosen: list[Record] = []
        for record in self._cache.records():
            row = self._row(record, shared)
            if _passes(row, options.filters) and (oldest_ns is None or record.used_ns <= oldest_ns):
                chosen.append(record)
        chosen.sort(key=lambda r: (r.used_ns, r.created_ns))
        mounts = [] if options.filters.get("type") not in (None, ["exec.cachemount"]) else self._old_mounts(oldest_ns)
        return self._remove(chosen, mounts, options, shared)

    def _old_mounts(self, oldest_ns: int | None) -> list[str]:
        return [
            name for name, used in self._mounts.folders().items()
            if not used and (oldest_ns is None or os.stat(f"{self._mounts.root}/{name}").st_mtime_ns <= oldest_ns)
        ]  # fmt: skip

    def _remove(
        self, chosen: list[Record], mounts: list[str], options: PruneOptions, shared: set[str]
    ) -> tuple[list[str], int]:
        total = sum(record.size for record in self._cache.records())
        keep = max(options.reserved_space, options.max_used_space)
        removed: list[str] = []
        keys: list[str] = []
        won = 0
        for record in chosen:
            if keep and total - won <= keep:
                break
            keys.append(record.key)
            removed.append(record.key[:_ID_LENGTH])
            won += 0 if record.chain in shared else record.size
        for name in mounts if not keep or total - won > keep else []:
            won += tree_usage(f"{self._mounts.root}/{name}").size
            self._mounts.remove(name)
            removed.append(name[:_ID_LENGTH])
        self._cache.remove(keys)
        self._store.sweep()
        return removed, won

    def _shared(self) -> set[str]:
        return {chain for image in self._store.images() for chain in image.chain}

    def _row(self, record: Record, shared: set[str]) -> Json:
        kind = "exec.cachemount" if record.kind == "cachemount" else "regular"
        return {
            "ID": record.key[:_ID_LENGTH], "Type": kind, "Description": record.description, "InUse": False,
            "Shared": record.chain in shared, "Size": record.size, "CreatedAt": format_ns(record.created_ns),
            "LastUsedAt": format_ns(record.used_ns) if record.used_ns else None, "UsageCount": record.uses,
            "Parents": None,
        }  # fmt: skip


def _oldest(filters: dict[str, list[str]]) -> int | None:
    values = [*filters.get("until", []), *filters.get("unused-for", [])]
    if not values:
        return None
    if len(values) > 1:
        raise InvalidInputError("invalid filter 'until': more than one value")
    parts = _DURATION.findall(values[0])
    if not parts or "".join(n + u for n, u in parts) != values[0]:
        raise InvalidInputError(f'time: invalid duration "{values[0]}"')
    return time.time_ns() - int(sum(float(n) * _UNITS[u] for n, u in parts))


def _passes(row: Json, filters: dict[str, list[str]]) -> bool:
    # Records have no labels: `system prune` sends its filter here too, and it chooses none of them.
    if "label" in filters:
        return False
    for name, key in (("id", "ID"), ("type", "Type"), ("description", "Description")):
        wanted = filters.get(name)
        if wanted and not any(str(row[key]).startswith(value) if name == "id" else value in str(row[key]) for value in wanted):
            return False
    for name, value in (("inuse", row["InUse"]), ("shared", row["Shared"]), ("private", not row["Shared"])):
        if name in filters and not value:
            return False
    return True
