"""Local volumes: folders under the data root, named or anonymous."""

import asyncio
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterable
from typing import Any

from barque.base.errors import ConflictError, InvalidInputError, NotFoundError, UnsupportedError
from barque.base.ids import new_id
from barque.base.times import format_ns, parse_ns
from barque.engine.events import Events
from barque.engine.filters import check_known, label_matches, truth
from barque.engine.state import Database

Json = dict[str, Any]
Filters = dict[str, list[str]]
ANONYMOUS = "com.docker.volume.anonymous"
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_OPTIONS = {"type", "device", "o"}


class Volumes:
    """Implements the API's VolumesBackend.

    Args:
        folder: where the volumes lie.
        database: keeps their rows.
        events: told of changes.
        users: gives (container id, names of its volumes) of all containers.
        now_ns: the clock.
    """

    def __init__(
        self,
        folder: str,
        database: Database,
        events: Events,
        users: Callable[[], Iterable[tuple[str, set[str]]]],
        now_ns: Callable[[], int],
    ) -> None:
        self._folder = folder
        self._database = database
        self._events = events
        self._users = users
        self._now_ns = now_ns
        self.rows: dict[str, Json] = database.load("volume")
        os.makedirs(folder, mode=0o701, exist_ok=True)

    async def list(self, filters: Filters) -> Json:
        """Return the volumes that pass the filters."""
        check_known(filters, {"name", "driver", "label", "dangling"})
        used = self._used()
        found = []
        for row in self.rows.values():
            if not all(label_matches(row["labels"], value) for value in filters.get("label", [])):
                continue
            if filters.get("name") and not any(value in row["name"] for value in filters["name"]):
                continue
            if filters.get("driver") and "local" not in filters["driver"]:
                continue
            if filters.get("dangling") and truth("dangling", filters["dangling"][0]) == (row["name"] in used):
                continue
            found.append(self._show(row))
        return {"Volumes": found, "Warnings": None}

    async def inspect(self, name: str) -> Json:
        """Return one volume.

        Raises:
            NotFoundError: there is none.
        """
        return self._show(self._row(name))

    async def create(self, config: Json) -> Json:
        """Make a volume, or return the one of this name.

        Raises:
            InvalidInputError: a bad name or option.
            ConflictError: it exists with other options.
        """
        row = self.ensure(
            config.get("Name") or "", driver=config.get("Driver") or "local",
            labels=config.get("Labels") or {}, options=config.get("DriverOpts") or {},
        )  # fmt: skip
        await self._database.flush()
        return self._show(row)

    async def remove(self, name: str, *, force: bool) -> None:
        """Remove a volume and its data.

        Raises:
            NotFoundError: there is none and force is not given.
            ConflictError: a container uses it.
        """
        if force and name not in self.rows:
            return
        row = self._row(name)
        users = [container for container, names in self._users() if name in names]
        if users:
            raise ConflictError(f"remove {name}: volume is in use - [{', '.join(users)}]")
        await self._delete(row)
        await self._database.flush()

    async def prune(self, filters: Filters) -> Json:
        """Remove unused anonymous volumes, with all=true unused named ones too."""
        check_known(filters, {"label", "label!", "all", "until"})
        used = self._used()
        everything = bool(filters.get("all")) and truth("all", filters["all"][0])
        names, won = [], 0
        for row in list(self.rows.values()):
            labels = row["labels"]
            if row["name"] in used or (not everything and ANONYMOUS not in labels):
                continue
            if not all(label_matches(labels, value) for value in filters.get("label", [])):
                continue
            if any(label_matches(labels, value) for value in filters.get("label!", [])):
                continue
            if any(row["created_ns"] > parse_ns(value) for value in filters.get("until", [])):
                continue
            won += await asyncio.to_thread(tree_size, self.path(row["name"]))
            await self._delete(row)
            names.append(row["name"])
        self._events.publish("volume", "prune", "", {"reclaimed": str(won)})
        return {"VolumesDeleted": names or None, "SpaceReclaimed": won}

    async def usage(self) -> "list[Json]":  # type: ignore[valid-type]
        """Return all volumes with their sizes and numbers of users."""
        found = []
        counts: dict[str, int] = {}
        for _, names in self._users():
            for name in names:
                counts[name] = counts.get(name, 0) + 1
        for row in self.rows.values():
            size = await asyncio.to_thread(tree_size, self.path(row["name"]))
            data = {"Size": size, "RefCount": counts.get(row["name"], 0)}
            found.append({**self._show(row), "UsageData": data})
        return found

    def ensure(self, name: str, *, driver: str = "local", labels: Json, options: Json) -> Json:
        """Return the volume's row; it is made where missing, an anonymous one for an empty name."""
        if driver != "local":
            raise NotFoundError(f'create {name}: error looking up volume plugin {driver}: plugin "{driver}" not found')
        if not all(isinstance(v, str) for v in [*labels.values(), *options.values()]):
            raise InvalidInputError("invalid JSON: labels and options must be strings")
        if name in self.rows:
            row = self.rows[name]
            if options and options != row["options"]:
                raise ConflictError(f"create {name}: conflict: volume name must be unique: "
                                    f"a volume named {name} already exists with other options")  # fmt: skip
            return row
        _check_options(options)
        if not name:
            name, labels = new_id(), {**labels, ANONYMOUS: ""}
        elif len(name) < 2:
            raise InvalidInputError("volume name is too short, names should be at least two alphanumeric characters")
        elif not _NAME.fullmatch(name):
            raise InvalidInputError(
                f'create {name}: "{name}" includes invalid characters for a local volume name, only '
                '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, '
                "use absolute path"
            )
        row = {"name": name, "labels": labels, "options": options, "created_ns": self._now_ns(), "driver": driver}
        os.makedirs(self.path(name), mode=0o755, exist_ok=True)
        os.chmod(f"{self._folder}/{name}", 0o701)
        os.chmod(self.path(name), 0o755)
        self.rows[name] = row
        self._database.put("volume", name, row)
        self._events.publish("volume", "create", name, {"driver": driver})
        return row

    def path(self, name: str) -> str:
        """Return the folder of a volume's data."""
        return f"{self._folder}/{name}/_data"

    def mount_of(self, name: str) -> Json | None:
        """Return {"type","device","o"} where the volume is a mount of its own kind, else None."""
        options = self.rows[name]["options"]
        return options if options.get("device") else None

    async def drop_anonymous(self, names: Iterable[str]) -> None:
        """Remove those of the volumes that are anonymous and no longer used."""
        used = self._used()
        for name in names:
            row = self.rows.get(name)
            if row is not None and ANONYMOUS in row["labels"] and name not in used:
                await self._delete(row)

    async def _delete(self, row: Json) -> None:
        name = row["name"]
        del self.rows[name]
        self._database.delete("volume", name)
        self._events.publish("volume", "destroy", name, {"driver": "local"})
        await asyncio.to_thread(shutil.rmtree, f"{self._folder}/{name}", True)

    def _used(self) -> set[str]:
        return {name for _, names in self._users() for name in names}

    def _row(self, name: str) -> Json:
        if name not in self.rows:
            raise NotFoundError(f"get {name}: no such volume")
        return self.rows[name]

    def _show(self, row: Json) -> Json:
        return {
            "CreatedAt": format_ns(row["created_ns"] // 1_000_000_000 * 1_000_000_000),
            "Driver": "local",
            "Labels": row["labels"] or None,
            "Mountpoint": self.path(row["name"]),
            "Name": row["name"],
            "Options": row["options"] or None,
            "Scope": "local",
        }


def _check_options(options: Json) -> None:
    for key in options:
        if key not in _OPTIONS:
            raise InvalidInputError(f'invalid option: "{key}"')
    if options and options.get("type") not in ("none", "bind", "tmpfs"):
        words = (options.get("o") or "").split(",")
        if not options.get("device"):
            raise InvalidInputError('missing required option: "device"')
        if "bind" not in words:
            raise UnsupportedError(f"local volumes of type {options.get('type')!r} are not supported: "
                                   "use tmpfs, or none with o=bind")  # fmt: skip
    if options and options.get("type") != "tmpfs" and not str(options.get("device") or "").startswith("/"):
        raise InvalidInputError('missing required option: "device"')


def tree_size(path: str) -> int:
    """Return the bytes of all files below path."""
    total = 0
    for folder, _, files in os.walk(path):
        for name in files:
            try:
                found = os.lstat(f"{folder}/{name}")
            except OSError:
                continue
            total += found.st_size if stat.S_ISREG(found.st_mode) else 0
    return total
