"""Volumes that are taken, removed or lost while others are measured or made."""

import asyncio
import io
import os
import shutil
import tarfile
import threading

import pytest

from barque.base.errors import ConflictError
from barque.engine import volumes as module
from barque.engine.events import Events
from barque.engine.state import Database
from barque.engine.volume_drivers import LocalDriver
from barque.engine.volume_plugins import Plugins
from barque.engine.volume_table import ANONYMOUS
from barque.engine.volumes import Volumes
from barque.storage.content import ContentStore


@pytest.fixture
async def table(tmp_path):
    users = []
    database = Database(str(tmp_path / "state.db"))
    made = Volumes(str(tmp_path / "volumes"), database, Events(), lambda: users, lambda: 1, Plugins(()))
    made.users = users
    yield made
    database.close()


async def test_a_volume_that_a_container_takes_while_it_is_measured_stays(table, monkeypatch):
    for name in ("taken", "free"):
        await table.ensure(name, labels={ANONYMOUS: ""}, options={})
    measure = module.tree_usage

    def slow(path):
        if "/taken/" in path:
            table.users.append(("c", {"taken"}))
        return measure(path)

    monkeypatch.setattr(module, "tree_usage", slow)
    assert (await table.prune({}))["VolumesDeleted"] == ["free"]
    assert list(table.rows) == ["taken"]


async def test_a_volume_whose_folder_is_lost_takes_nothing(table):
    await table.ensure("lost", labels={ANONYMOUS: ""}, options={})
    shutil.rmtree(table.path("lost"))
    assert [row["UsageData"]["Size"] for row in await table.usage()] == [0]
    assert (await table.prune({}))["VolumesDeleted"] == ["lost"]


async def test_of_two_who_make_one_volume_both_get_the_same(table):
    rows = await asyncio.gather(*(table.ensure("vol", labels={"who": who}, options={}) for who in ("a", "b")))
    assert rows[0] is rows[1]
    assert table.rows["vol"] is rows[0]


async def test_a_volume_that_is_made_while_one_of_its_name_is_removed_has_a_folder(table, monkeypatch):
    await table.ensure("vol", labels={}, options={})
    remove, began, may_go_on = LocalDriver.remove, threading.Event(), threading.Event()

    def slow(driver, name):
        began.set()
        may_go_on.wait()
        remove(driver, name)

    monkeypatch.setattr(LocalDriver, "remove", slow)
    removing = asyncio.ensure_future(table.remove("vol", force=False))
    await asyncio.to_thread(began.wait)
    making = asyncio.ensure_future(table.ensure("vol", labels={}, options={}))
    for _ in range(100):
        # Turns enough, of the loop and of threads, to make it too early.
        await asyncio.to_thread(int)
    may_go_on.set()
    await asyncio.gather(removing, making)
    assert os.path.isdir(table.path("vol"))
    assert list(table.rows) == ["vol"]


async def test_a_volume_that_an_archive_goes_into_is_neither_pruned_nor_removed(table, tmp_path):
    table.content = ContentStore(str(tmp_path / "content"))
    await table.ensure("filled", labels={ANONYMOUS: ""}, options={})
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("inside"))
    begun, go_on = asyncio.Event(), asyncio.Event()
    parts = iter([archive.getvalue(), b""])

    async def read():
        begun.set()
        await go_on.wait()
        return next(parts)

    task = asyncio.create_task(table.restore("filled", read))
    await begun.wait()
    assert (await table.prune({}))["VolumesDeleted"] == []
    for refused in (table.remove("filled", force=True), table.rename("filled", "other")):
        with pytest.raises(ConflictError, match="volume is in use"):
            await refused
    go_on.set()
    await task
    assert (tmp_path / "volumes" / "filled" / "_data" / "inside").exists()
    assert (await table.prune({}))["VolumesDeleted"] == ["filled"]


async def test_a_mount_that_nobody_waits_for_any_more_is_taken_back(table, monkeypatch):
    calls, began, may_go_on = [], threading.Event(), threading.Event()

    class Driver:
        def mount(self, name, options, user):
            began.set()
            may_go_on.wait()
            calls.append(("mount", user))
            return "/somewhere"

        def unmount(self, name, options, user, *, last):
            calls.append(("unmount", user, last))

    async def driver(name):
        return Driver()

    await table.ensure("vol", labels={}, options={})
    table.rows["vol"]["driver"] = "plugin"
    monkeypatch.setattr(table, "_driver", driver)
    mounting = asyncio.ensure_future(table.mount("vol", "first"))
    await asyncio.to_thread(began.wait)
    mounting.cancel()
    # Whoever wants it meanwhile comes after the one has been taken back.
    after = asyncio.ensure_future(table.mount("vol", "second"))
    await asyncio.sleep(0)
    assert not mounting.done()
    may_go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await mounting
    assert await after == "/somewhere"
    assert calls == [("mount", "first"), ("unmount", "first", True), ("mount", "second")]
    assert not table.is_mounted("vol", "first") and table.is_mounted("vol", "second")
    await table.unmount("vol", "second")
    assert calls[-1] == ("unmount", "second", True)
