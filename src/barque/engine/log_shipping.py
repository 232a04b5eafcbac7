"""Logs that go elsewhere: which containers have them, from start to the last line's delivery."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
from typing import TYPE_CHECKING, Any

from barque.base.errors import BarqueError, InvalidInputError, NotFoundError
from barque.base.files import write_atomic
from barque.engine.container import Container
from barque.keeper import logfile
from barque.logdrivers import (
    attributes,
    drivers,
    entry,
    options,
    plugin as plugin_logs,
    shipper as shippers,
    source as sources,
    values,
)

if TYPE_CHECKING:
    from barque.engine.engine import Engine

Json = dict[str, Any]
log = logging.getLogger(__name__)
_DEFAULT_SIZE, _DEFAULT_FILES = 100 << 20, 5
"""Of the driver json-file where no size is asked for: a talkative container does not fill the disk."""
_CACHE_SIZE, _CACHE_FILES = 20 << 20, 5
_SPOOL_SIZE = 1 << 20
_EVENT_SIZE = 100
"""The bytes that an event is counted with where a buffer is asked for in events."""
_CLOSE_S = 3.0
_UNSENT_S = 60.0
"""So long a server is waited for after its container is gone, where nobody waits for it otherwise."""


class LogShipping:
    """The shippers of one engine.

    <container's folder>/ship.json   driver and facts, for a daemon that finds the log without its container
    <data-root>/unsent/<id>/         the folder of a removed container whose log is not delivered yet
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._unsent = f"{engine.config.data_root}/unsent"
        self._shippers: dict[str, shippers.Shipper] = {}

    def check(self, driver: str, wanted: dict[str, str]) -> None:
        """Refuse a log driver or options that cannot be.

        Raises:
            InvalidInputError: says why.
        """
        options.check(driver, wanted, self._is_plugin)

    def _is_plugin(self, name: str) -> bool:
        try:
            self._engine.plugins.get(name, "LogDriver")
        except BarqueError:
            return False
        return True

    async def begin(self, container: Container) -> None:
        """Connect the driver of a container that is about to start, and begin to deliver.

        Raises:
            BarqueError: the driver cannot be had, or in blocking mode its server.
        """
        settings = container.host["LogConfig"]
        if not options.is_remote(settings["Type"]):
            return
        old = self._shippers.get(container.id)
        if old is not None and old.resume():
            return
        facts = facts_of(container)
        driver = self._driver(settings["Type"], facts)
        # Without blocking nobody waits for a server, not even at the start; the shipper connects.
        if waits(settings["Config"]):
            try:
                await asyncio.to_thread(driver.open)
            except (BarqueError, OSError) as error:
                driver.close()
                raise BarqueError(f"failed to initialize logging driver: {error}") from error
        folder = self._engine.folder(container.id)
        known = {"driver": settings["Type"], "facts": facts.to_json(), "log": container.row["log_path"]}
        # Tokens of log servers are among the facts.
        write_atomic(f"{folder}/ship.json", json.dumps(known).encode(), mode=0o600, durable=False)
        record = f"{self._engine.bundle(container.id)}/spool.state"
        self._start(container.id, container.row["log_path"], facts, driver, record)

    def _driver(self, name: str, facts: entry.ContainerFacts) -> entry.Driver:
        try:
            return drivers.make(name, facts)
        except InvalidInputError:
            if name in options.DRIVERS:
                raise
        plugin = self._engine.plugins.get(name, "LogDriver")
        return plugin_logs.PluginLog(facts, plugin.call, f"{self._engine.config.exec_root}/log-plugins")

    def _start(self, name: str, path: str, facts: entry.ContainerFacts, driver: entry.Driver, record: str = "") -> None:
        compress = values.truth(facts.options.get("cache-compress", "true")) and not cache_disabled(facts.options)
        source = sources.LogSource(path, lambda inode: _compress(path, inode) if compress else None, record)
        shipper = self._shippers[name] = shippers.Shipper(name, source, driver, options.retries(facts.options))
        shipper.start()

    def ended(self, container: Container) -> None:
        """Let a shipper end once it has delivered all: the container's last line is in the log."""
        shipper = self._shippers.get(container.id)
        if shipper is not None:
            shipper.finish()

    def behind(self, container: Container) -> int:
        """Return the bytes of a container's log that its server has not got yet."""
        shipper = self._shippers.get(container.id)
        return shipper.behind() if shipper is not None and not shipper.ended else 0

    @property
    def is_delivering(self) -> bool:
        """Tell whether any log is or may be read for a server."""
        return any(not shipper.ended for shipper in self._shippers.values())

    def keep(self, container: Container) -> bool:
        """Take over the folder of a container that is removed, if its log is not delivered and must be."""
        shipper = self._shippers.get(container.id)
        if shipper is None or shipper.ended:
            self._shippers.pop(container.id, None)
            return False
        shipper.finish()
        if not shipper.behind():
            return False
        os.makedirs(self._unsent, mode=0o700, exist_ok=True)
        target = f"{self._unsent}/{container.id}"
        os.rename(self._engine.folder(container.id), target)
        shipper.move(f"{target}/{os.path.basename(container.row['log_path'])}")
        self._engine.spawn(self._wait_unsent(container.id, shipper, waits(container.host["LogConfig"]["Config"])))
        return True

    async def _wait_unsent(self, name: str, shipper: shippers.Shipper, for_ever: bool) -> None:
        over, loop = asyncio.Event(), asyncio.get_running_loop()
        shipper.on_end = lambda: loop.call_soon_threadsafe(over.set)
        # It may have ended before it knew whom to tell.
        if not shipper.ended:
            try:
                await asyncio.wait_for(over.wait(), None if for_ever else _UNSENT_S)
            except TimeoutError:
                log.warning("container %s: the rest of its log is given up: %s", name, shipper.failing)
                shipper.stop()
        self._shippers.pop(name, None)
        await asyncio.to_thread(shutil.rmtree, f"{self._unsent}/{name}", True)

    def restore(self) -> None:
        """Go on where a former daemon was: logs of containers, and of containers that are gone."""
        for container in self._engine.containers_by_id.values():
            folder = self._engine.folder(container.id)
            record = f"{self._engine.bundle(container.id)}/spool.state"
            if self._restore(container.id, folder, record) and not container.is_running:
                self._shippers[container.id].finish()
        for name in os.listdir(self._unsent) if os.path.isdir(self._unsent) else ():
            folder = f"{self._unsent}/{name}"
            if facts := self._restore(name, folder, ""):
                self._shippers[name].finish()
                self._engine.spawn(self._wait_unsent(name, self._shippers[name], waits(facts.options)))
            else:
                shutil.rmtree(folder, ignore_errors=True)

    def _restore(self, name: str, folder: str, record: str) -> entry.ContainerFacts | None:
        try:
            with open(f"{folder}/ship.json", encoding="utf-8") as file:
                row = json.load(file)
            facts = entry.ContainerFacts.from_json(row["facts"], dict(os.environ))
            driver = self._driver(row["driver"], facts)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError, BarqueError, NotFoundError) as error:
            log.error("container %s: its log is not delivered any more: %s", name, error)
            return None
        self._start(name, f"{folder}/{os.path.basename(row['log'])}", facts, driver, record)
        return facts

    async def close(self) -> None:
        """End all shippers; what is not delivered is delivered by the next daemon."""
        for shipper in self._shippers.values():
            shipper.stop()
        waits = [asyncio.to_thread(shipper.wait, _CLOSE_S) for shipper in self._shippers.values()]
        await asyncio.gather(*waits)


def facts_of(container: Container) -> entry.ContainerFacts:
    """Return what drivers know of a container."""
    row = container.row
    return entry.ContainerFacts(
        options=dict(container.host["LogConfig"]["Config"]), id=container.id, name=container.name,
        command=[row["path"], *row["args"]], image_id=row["image"], image_name=row["image_ref"],
        created_ns=row["created_ns"], env=list(container.config.get("Env") or []), labels=dict(container.labels),
        environment=dict(os.environ),
    )  # fmt: skip


def cache_disabled(wanted: dict[str, str]) -> bool:
    """Tell whether `logs` is not to work."""
    return values.truth(wanted.get("cache-disabled", "false"))


def waits(wanted: dict[str, str]) -> bool:
    """Tell whether a container waits for its log server: with `mode=blocking`, but for fluentd where that is asynchronous."""
    return wanted.get("mode") != "non-blocking" and not values.truth(wanted.get("fluentd-async") or "false")


def log_name(driver: str, container_id: str) -> str:
    """Return the name of a log's file, empty where there is none."""
    if driver == "none":
        return ""
    return f"{container_id}-json.log" if driver == "json-file" else "container-cached.log"


def keeper_settings(container: Container) -> Json:
    """Return the keeper's settings of a container's log.

    Raises:
        InvalidInputError: the tag's template is malformed.
    """
    driver, wanted = container.host["LogConfig"]["Type"], container.host["LogConfig"]["Config"]
    if driver == "none":
        return {"driver": "none"}
    facts = facts_of(container)
    shown = attributes.extra_attributes(facts)
    if wanted.get("tag") and driver in options.FILE_DRIVERS:
        shown["tag"] = attributes.tag(facts, "")
    made: Json = {"driver": "json-file", "path": container.row["log_path"], "attrs": shown}
    if driver == "json-file":
        text = wanted.get("max-size")
        size = _size(text) if text else _DEFAULT_SIZE
        count = int(wanted.get("max-file") or (1 if text else _DEFAULT_FILES))
        compress = values.truth(wanted.get("compress") or "false")
    elif driver == "local":
        size, count = _size(wanted.get("max-size", "20m")), int(wanted.get("max-file") or 5)
        compress = values.truth(wanted.get("compress") or "true") and count > 1
    else:
        size, count = _cache(wanted)
        compress = False
        if waits(wanted):
            made["guard"] = f"{container.row['log_path']}.sent"
    return {**made, "max_size": size, "max_file": count, "compress": compress}


def _size(text: str) -> int:
    return -1 if text == "-1" else values.size(text)


def _cache(wanted: dict[str, str]) -> tuple[int, int]:
    """Return size and number of the files of a log that is read behind: at least two, without blocking at least the buffer."""
    if cache_disabled(wanted):
        size, count = _SPOOL_SIZE, 2
    else:
        size = _size(wanted.get("cache-max-size", str(_CACHE_SIZE)))
        count = max(2, int(wanted.get("cache-max-file") or _CACHE_FILES))
    buffer = 0 if waits(wanted) else _buffer(wanted)
    # One file may be nearly empty when another is dropped; lines are longer in the file than they were.
    while size > 0 and size * (count - 1) < 2 * buffer:
        count += 1
    return size, count


def _buffer(wanted: dict[str, str]) -> int:
    events = values.size(wanted.get("fluentd-buffer-limit") or "0")
    return max(values.size(wanted.get("max-buffer-size", "1m")), events * _EVENT_SIZE)


def _compress(path: str, inode: int) -> None:
    try:
        logfile.compress(path, inode)
        logfile.compressed(path, inode, succeeded=True)
    except OSError as error:
        logfile.compressed(path, inode, succeeded=False)
        log.warning("%s: cannot be compressed: %s", path, error)
