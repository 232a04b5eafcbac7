"""Volumes: named or anonymous, local or a plugin's; the API's verbs."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any

from barque.base.errors import BarqueError, ConflictError, InvalidInputError, NotFoundError
from barque.base.times import format_ns
from barque.engine import archives, pumps, volume_archives, volume_options
from barque.engine.filters import check_known, finder, label_matches, truth
from barque.engine.volume_drivers import LOCAL, PluginDriver, plugin_volumes
from barque.engine.volume_table import ANONYMOUS, VolumeTable
from barque.storage.content import ContentStore
from barque.storage.snapshots import Mount
from barque.storage.trees import tree_usage

Json = dict[str, Any]
Filters = dict[str, list[str]]
Names = list[str]
Rows = list[Json]


class Volumes(VolumeTable):
    """Implements the API's VolumesBackend; see VolumeTable for the arguments."""

    content: ContentStore
    layers_of: Callable[[str], Sequence[Mount]]

    _pruning = False

    async def list(self, filters: Filters) -> Json:
        """Return the volumes that pass the filters."""
        check_known(filters, {"name", "driver", "label", "dangling"})
        used = self._used()
        dangling = truth("dangling", filters["dangling"][0]) if filters.get("dangling") else None
        named = finder(filters.get("name", []))
        shown, warnings = await self._all()
        found = []
        for volume in shown:
            name, labels = volume["Name"], volume["Labels"] or {}
            if not all(label_matches(labels, value) for value in filters.get("label", [])):
                continue
            if filters.get("name") and not named(name):
                continue
            if filters.get("driver") and volume["Driver"] not in filters["driver"]:
                continue
            if dangling is not None and dangling == (name in used):
                continue
            found.append(volume)
        return {"Volumes": found, "Warnings": warnings or None}

    async def _all(self) -> tuple[Rows, Names]:
        shown = [self._show(row) for row in self.rows.values()]
        if not self.plugins.names():
            return shown, []
        listed, warnings = await asyncio.to_thread(plugin_volumes, self.plugins)
        places = {(item["driver"], item["Name"]): item for item in listed}
        for volume in shown:
            item = places.pop((volume["Driver"], volume["Name"]), None)
            if item is not None:
                volume["Mountpoint"] = item.get("Mountpoint") or ""
        for (driver, name), item in places.items():
            if name not in self.rows:
                shown.append(_foreign(name, driver, item))
        return shown, warnings

    async def inspect(self, name: str) -> Json:
        """Return one volume.

        Raises:
            NotFoundError: there is none.
        """
        row = await self._found(name)
        shown = self._show(row)
        if row["driver"] != LOCAL:
            driver = await self._driver(row["driver"])
            details = await asyncio.to_thread(driver.status, name)
            shown["Mountpoint"] = details.get("Mountpoint") or ""
            if details.get("Status"):
                shown["Status"] = details["Status"]
            if isinstance(driver, PluginDriver):
                shown["Scope"] = await asyncio.to_thread(driver.scope)
        return shown

    async def create(self, config: Json) -> Json:
        """Make a volume, or return the one of this name.

        Raises:
            InvalidInputError: a bad name or option.
            ConflictError: it exists with another driver.
        """
        if config.get("ClusterVolumeSpec"):
            raise InvalidInputError("cluster volumes are not supported: leave ClusterVolumeSpec out")
        known = config.get("Name") in self.rows
        row = await self.ensure(
            config.get("Name") or "", driver=config.get("Driver") or "",
            labels=config.get("Labels") or {}, options=config.get("DriverOpts") or {},
        )  # fmt: skip
        try:
            await self._database.flush()
        except BarqueError:
            if not known:
                await self._delete(row)
            raise
        return await self.inspect(row["name"])

    async def remove(self, name: str, *, force: bool) -> None:
        """Remove a volume and its data.

        Raises:
            NotFoundError: there is none and force is not given.
            ConflictError: a container uses it.
        """
        try:
            row = await self._found(name)
        except NotFoundError:
            if force:
                return
            raise
        users = self._users_of(name)
        if users:
            raise ConflictError(f"remove {name}: volume is in use - [{', '.join(users)}]")
        await self._delete(row, force=force)
        await self._database.flush()

    async def prune(self, filters: Filters, *, dry_run: bool = False) -> Json:
        """Remove unused anonymous local volumes without options, with all=true unused named ones too.

        Raises:
            ConflictError: another prune goes on.
        """
        check_known(filters, {"label", "label!", "all"})
        if len(filters.get("all", [])) > 1:
            raise InvalidInputError(f"invalid filter 'all={filters['all']}'")
        everything = bool(filters.get("all")) and truth("all", filters["all"][0])
        if self._pruning:
            raise ConflictError("a prune operation is already running")
        self._pruning = True
        try:
            return await self._prune(filters, everything=everything, dry_run=dry_run)
        finally:
            self._pruning = False

    async def _prune(self, filters: Filters, *, everything: bool, dry_run: bool) -> Json:
        names, won = [], 0
        for row in list(self.rows.values()):
            labels = row["labels"]
            if row["driver"] != LOCAL or row["options"] or row["name"] in self._used():
                continue
            if not everything and ANONYMOUS not in labels:
                continue
            if not all(label_matches(labels, value) for value in filters.get("label", [])):
                continue
            if any(label_matches(labels, value) for value in filters.get("label!", [])):
                continue
            size = await self._size(row["name"])
            if row["name"] in self._used() or self.rows.get(row["name"]) is not row:
                # A container took it, or somebody removed it, while it was measured.
                continue
            if not dry_run:
                await self._delete(row)
            won += size
            names.append(row["name"])
        if not dry_run:
            self._events.publish("volume", "prune", "", {"reclaimed": str(won)})
        return {"VolumesDeleted": names, "SpaceReclaimed": won}

    async def usage(self) -> Rows:
        """Return the local volumes without options with their sizes and numbers of users."""
        found = []
        counts: dict[str, int] = {}
        for _, names in self._users():
            for name in names:
                counts[name] = counts.get(name, 0) + 1
        for row in list(self.rows.values()):
            if row["driver"] != LOCAL or row["options"]:
                continue
            size = await self._size(row["name"])
            data = {"Size": size, "RefCount": counts.get(row["name"], 0)}
            found.append({**self._show(row), "UsageData": data})
        return found

    async def _size(self, name: str) -> int:
        """Return the bytes of a local volume, 0 where its folder is gone."""
        try:
            return (await asyncio.to_thread(tree_usage, self.path(name))).size
        except FileNotFoundError:
            return 0

    async def rename(self, name: str, new: str) -> Json:
        """Give a local volume that nobody uses another name.

        Raises:
            ConflictError: the name is taken, or a container uses the volume.
            InvalidInputError: it is a plugin's, or the name is bad.
        """
        row = await self._found(name)
        volume_options.check_name(new)
        if row["driver"] != LOCAL:
            raise InvalidInputError(f"rename {name}: only local volumes can be renamed, this one is {row['driver']}'s")
        users = self._users_of(name)
        if users or self._mounted.get(name):
            raise ConflictError(f"rename {name}: volume is in use - [{', '.join(users)}]")
        if new in self.rows:
            raise ConflictError(f"rename {name}: a volume named {new} already exists")
        labels = {key: value for key, value in row["labels"].items() if key != ANONYMOUS}
        self._local.rename(name, new)
        del self.rows[name]
        self.rows[new] = row = {**row, "name": new, "labels": labels}
        self._database.delete("volume", name)
        self._database.put("volume", new, row)
        await self._database.flush()
        self._events.publish("volume", "rename", new, {"driver": LOCAL, "oldName": name})
        return self._show(row)

    async def export(self, name: str) -> AsyncIterator[bytes]:
        """Return the tar of a volume's files."""
        async with self.transfer(name, "export"):
            # What hinders is told before the first byte is sent.
            return self._exported(name)

    async def _exported(self, name: str) -> AsyncIterator[bytes]:
        async with (
            self.transfer(name, "export") as path,
            aclosing(pumps.stream_of(lambda: volume_archives.export(path))) as chunks,
        ):
            async for chunk in chunks:
                yield chunk

    async def restore(
        self, name: str, read: Callable[[], Awaitable[bytes]], *, image: str = "", clear: bool = False
    ) -> None:
        """Unpack a tar, perhaps compressed, or an image's files into a volume; `clear` empties it first.

        Raises:
            NotFoundError: there is no such volume.
            InvalidInputError: the archive is bad; the volume then holds what it held before.
        """
        await self._found(name)
        layers = self.layers_of(image) if image else ()
        async with self.transfer(name, "import") as path:
            if image:
                chunks = archives.export(layers)
                await asyncio.to_thread(volume_archives.restore, path, chunks, self.content, clear=clear)
            else:
                await pumps.chunks_of(read, lambda parts: volume_archives.restore(path, parts, self.content, clear=clear))

    def _show(self, row: Json) -> Json:
        return {
            "CreatedAt": format_ns(row["created_ns"] // 1_000_000_000 * 1_000_000_000),
            "Driver": row["driver"],
            "Labels": row["labels"] or None,
            "Mountpoint": self.path(row["name"]) if row["driver"] == LOCAL else "",
            "Name": row["name"],
            "Options": row["options"] or None,
            "Scope": "local",
        }


def _foreign(name: str, driver: str, item: Json) -> Json:
    return {
        "CreatedAt": str(item.get("CreatedAt") or ""), "Driver": driver, "Labels": None,
        "Mountpoint": str(item.get("Mountpoint") or ""), "Name": name, "Options": None, "Scope": "local",
    }  # fmt: skip
