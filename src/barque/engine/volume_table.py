"""The volumes that there are, and who has them mounted: what containers and the API's verbs need of them."""

import asyncio
import logging
import os
import uuid
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any
from weakref import WeakValueDictionary

from barque.base.errors import BarqueError, ConflictError, InvalidInputError, NotFoundError
from barque.base.ids import new_id
from barque.engine.events import Events
from barque.engine.settling import settled
from barque.engine.state import Database
from barque.engine.volume_drivers import LOCAL, LocalDriver, PluginDriver, VolumeDriver
from barque.engine.volume_plugins import PluginError, Plugins

Json = dict[str, Any]
ANONYMOUS = "com.docker.volume.anonymous"
_REMOVING = "removing volume "
"""With the name behind it, the key of a note that a folder is to go with its row."""
log = logging.getLogger(__name__)


class VolumeTable:
    """Rows of volumes, their drivers, and their users while they are mounted.

    Args:
        folder: where the local volumes lie.
        database: keeps their rows.
        events: told of changes.
        users: gives (container id, names of its volumes) of all containers.
        now_ns: the clock.
        plugins: drivers outside the engine.
    """

    def __init__(
        self,
        folder: str,
        database: Database,
        events: Events,
        users: Callable[[], Iterable[tuple[str, set[str]]]],
        now_ns: Callable[[], int],
        plugins: Plugins,
    ) -> None:
        self._database = database
        self._events = events
        self._users = users
        self._now_ns = now_ns
        self._local = LocalDriver(folder)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._mounted: dict[str, set[str]] = {}
        self._transfers: set[tuple[str, str]] = set()
        self.plugins = plugins
        self.rows: dict[str, Json] = database.load("volume")

    async def ensure(self, name: str, *, driver: str = "", labels: Json, options: Json) -> Json:
        """Return the volume's row; it is made where missing, an anonymous one for an empty name.

        Raises:
            NotFoundError: there is no such driver.
            ConflictError: a volume of this name has another driver.
        """
        if not all(isinstance(v, str) for v in [*labels.values(), *options.values()]):
            raise InvalidInputError("invalid JSON: labels and options must be strings")
        if name in self.rows:
            if driver and driver != self.rows[name]["driver"]:
                raise ConflictError(f"create {name}: conflict: volume name must be unique")
            return self.rows[name]
        chosen = driver or LOCAL
        try:
            backend = await self._driver(chosen)
        except (NotFoundError, PluginError) as error:
            raise NotFoundError(
                f"create {name}: error looking up volume plugin {chosen}: {error}"
                if name else f"error looking up volume plugin {chosen}: {error}"
            ) from error  # fmt: skip
        if not name:
            name, labels = new_id(), {**labels, ANONYMOUS: ""}
        try:
            backend.check(name, options)
        except InvalidInputError as error:
            text = str(error)
            raise InvalidInputError(text if text.startswith("create ") else f"create {name}: {text}") from None
        async with self._lock(name):
            if name in self.rows:
                # Somebody else made it meanwhile.
                return self.rows[name]
            await asyncio.to_thread(backend.create, name, options)
            row = {"name": name, "labels": labels, "options": options, "created_ns": self._now_ns(), "driver": chosen}
            self.rows[name] = row
            self._database.put("volume", name, row)
        self._events.publish("volume", "create", name, {"driver": chosen})
        return row

    async def mount(self, name: str, user: str) -> str:
        """Make a volume's data reachable for a user; return the path.

        Raises:
            BarqueError: it cannot be mounted.
            NotFoundError: it is gone.
        """
        row = await self._found(name)
        if row["driver"] == LOCAL and not row["options"]:
            os.makedirs(self.path(name), exist_ok=True)
            return self.path(name)
        driver = await self._driver(row["driver"])
        async with self._lock(name):
            mounting = asyncio.ensure_future(asyncio.to_thread(driver.mount, name, row["options"], user))
            try:
                path = await settled(mounting)
            except asyncio.CancelledError:
                if not mounting.cancelled() and mounting.exception() is None:
                    await self._unmounted(driver, row, user)
                raise
            self._mounted.setdefault(name, set()).add(user)
        return path

    async def _unmounted(self, driver: VolumeDriver, row: Json, user: str) -> None:
        """Take back a mount that nobody waits for any more, unless it is a second one for its user."""
        name, users = row["name"], self._mounted.get(row["name"], set())
        if user in users:
            return
        try:
            await settled(asyncio.ensure_future(
                asyncio.to_thread(lambda: driver.unmount(name, row["options"], user, last=not users))
            ))  # fmt: skip
        except (BarqueError, OSError) as error:
            log.warning("volume %s, whose mounting was called off, stays mounted: %s", name, error)

    async def unmount(self, name: str, user: str) -> None:
        """Tell that a user needs the data no longer."""
        row = self.rows.get(name)
        if row is None or user not in self._mounted.get(name, ()):
            return
        async with self._lock(name):
            users = self._mounted.get(name, set())
            if user not in users:
                return
            users.discard(user)
            driver = await self._driver(row["driver"])
            # The lock is held until it is done: whoever mounts it next comes after that.
            await settled(asyncio.ensure_future(
                asyncio.to_thread(lambda: driver.unmount(name, row["options"], user, last=not users))
            ))  # fmt: skip

    @asynccontextmanager
    async def transfer(self, name: str, kind: str) -> AsyncIterator[str]:
        """Mount a volume whose files are read or written besides containers; until the block ends it counts as used.

        Raises:
            BarqueError: it cannot be mounted.
            NotFoundError: it is gone.
        """
        user = f"{kind}-{uuid.uuid4().hex}"
        self._transfers.add((name, user))
        try:
            yield await self.mount(name, user)
        finally:
            try:
                await self.unmount(name, user)
            finally:
                self._transfers.discard((name, user))

    def is_mounted(self, name: str, user: str) -> bool:
        """Tell whether a volume is mounted for a user."""
        return user in self._mounted.get(name, ())

    async def restore_users(self, running: Iterable[tuple[str, set[str]]]) -> None:
        """Take note, after a start of the engine, of who uses what; let go what nobody uses."""
        for container, names in running:
            for name in names:
                row = self.rows.get(name)
                if row is not None and (row["driver"] != LOCAL or row["options"]):
                    self._mounted.setdefault(name, set()).add(container)
        for name, row in self.rows.items():
            if row["driver"] == LOCAL and row["options"] and not self._mounted.get(name):
                await asyncio.to_thread(self._local.unmount, name, row["options"], "", last=True)

    async def sweep(self) -> None:
        """Remove the folders of volumes whose removal, or whose making, was cut short by the daemon's end."""
        for key in [key for key in self._database.load("engine") if key.startswith(_REMOVING)]:
            name = key.removeprefix(_REMOVING)
            if name not in self.rows:
                try:
                    await asyncio.to_thread(self._local.remove, name)
                except OSError as error:
                    log.warning("the folder of volume %s, which was removed, is left over: %s", name, error)
                    continue
            self._database.delete("engine", key)
        await asyncio.to_thread(self._local.drop_empty, set(self.rows))

    def path(self, name: str) -> str:
        """Return the folder of a local volume's data."""
        return self._local.path(name)

    async def place(self, name: str) -> str:
        """Return where a volume's data is shown to be, empty where its driver does not say yet."""
        row = self.rows[name]
        if row["driver"] == LOCAL:
            return self.path(name)
        try:
            driver = await self._driver(row["driver"])
            return await asyncio.to_thread(driver.path, name)
        except BarqueError:
            return ""

    async def drop_anonymous(self, names: Iterable[str]) -> None:
        """Remove those of the volumes that are anonymous and no longer used."""
        for name in names:
            row = self.rows.get(name)
            if row is not None and ANONYMOUS in row["labels"] and name not in self._used():
                await self._delete(row, force=True)

    async def _delete(self, row: Json, *, force: bool = False) -> None:
        name = row["name"]
        try:
            driver = await self._driver(row["driver"])
            if row["driver"] != LOCAL:
                await asyncio.to_thread(driver.remove, name)
        except BarqueError as error:
            if not force:
                raise BarqueError(f"remove {name}: {error}") from error
            driver = self._local
        self.rows.pop(name, None)
        self._mounted.pop(name, None)
        if row["driver"] == LOCAL:
            self._database.put("engine", _REMOVING + name, {})
        self._database.delete("volume", name)
        if row["driver"] == LOCAL:
            try:
                async with self._lock(name):
                    await asyncio.to_thread(driver.remove, name)
                self._database.delete("engine", _REMOVING + name)
            except OSError as error:
                # What could not be removed is still a volume.
                self.rows[name] = row
                self._database.put("volume", name, row)
                self._database.delete("engine", _REMOVING + name)
                raise BarqueError(f"remove {name}: {(error.strerror or str(error)).lower()}") from error
        self._events.publish("volume", "destroy", name, {"driver": row["driver"]})

    async def _driver(self, name: str) -> VolumeDriver:
        if name == LOCAL:
            return self._local
        return PluginDriver(await asyncio.to_thread(self.plugins.get, name, "VolumeDriver"))

    def _lock(self, name: str) -> asyncio.Lock:
        """Return what one at a time has who makes, mounts or removes a volume; it is gone with its last user."""
        return self._locks.setdefault(name, asyncio.Lock())

    def _used(self) -> set[str]:
        return {name for _, names in self._users() for name in names} | {name for name, _ in self._transfers}

    def _users_of(self, name: str) -> list[str]:
        """Return the containers that have a volume and what else goes on with its files."""
        users = [container for container, names in self._users() if name in names]
        return users + [user for used, user in self._transfers if used == name]

    async def _found(self, name: str) -> Json:
        """Return a volume's row; one that only a plugin knows gets a row now."""
        if name in self.rows:
            return self.rows[name]
        for plugin in await asyncio.to_thread(self.plugins.of_kind, "VolumeDriver") if self.plugins.names() else ():
            try:
                details = await asyncio.to_thread(PluginDriver(plugin).status, name)
            except BarqueError:
                continue
            if details.get("Name") == name:
                row = {"name": name, "labels": {}, "options": {}, "created_ns": self._now_ns(), "driver": plugin.name}
                self.rows[name] = row
                self._database.put("volume", name, row)
                return row
        raise NotFoundError(f"get {name}: no such volume")
