"""Taking over at start: rows against what the keeper minds, and what must be brought back."""

import asyncio
import glob
import json
import logging
import os
import shutil
import signal
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from barque.base.errors import BarqueError
from barque.base.ids import is_full_id
from barque.engine import endpoints, etc_files, health, links, removal, start_order, uptime
from barque.engine.container import Container
from barque.keeper.client import Keeper, KeeperError
from barque.kernel import mount as km
from barque.runtime.cgroups import Cgroup, open_manager
from barque.storage.snapshots import ACTIVE, init_layer_name

if TYPE_CHECKING:
    from barque.engine.engine import Engine

Json = dict[str, Any]
log = logging.getLogger(__name__)
_END_S = 10.0
_SWEEP_TRIES, _SWEEP_PAUSE_S = 25, 0.2
_SETTLE_S = 0.5
_REMOVAL_TRIES, _FIRST_PAUSE_S, _LONGEST_PAUSE_S = 18, 0.05, 5.0


class Found(NamedTuple):
    """What has ended while no engine was there.

    `unheard` are ends, by container, that are still to be told as any other end is: their rows say that they run.
    """

    ended: set[str]
    unheard: dict[str, Json]


async def reconcile(engine: "Engine", *, dozed: bool) -> Found:
    """Load all containers; adopt those that run, note the end of those that do not.

    Args:
        engine: the engine that opens.
        dozed: the engine only slept: what ended meanwhile is left to be told, so that it has all that an end has.
    """
    tasks = {row["id"]: row for row in await engine.keeper.list() if row["exec_id"] is None}
    began = {task_id: uptime.from_ticks(task["start_time"]) for task_id, task in tasks.items() if task["start_time"]}
    for row in engine.database.load("container").values():
        engine.add(Container(row))
    unheard: dict[str, Json] = {}
    ended = set()
    for container in engine.containers_by_id.values():
        task = tasks.pop(container.id, None)
        if dozed and container.is_running and (task is None or "exit" in task):
            unheard[container.id] = (task or {}).get("exit") or _exit_file(engine.bundle(container.id)) or _unknown_exit()
            container.began_ns = began.get(container.id, container.began_ns)
        elif _settle(engine, container, task):
            ended.add(container.id)
    ended |= unheard.keys()
    for task_id, task in tasks.items():
        await _end_stranger(engine.keeper, task_id, running="exit" not in task)
    living = [c for c in engine.containers_by_id.values() if c.is_running and c.id not in unheard]
    running = {c.id: c.pid for c in living}
    for container_id in running:
        links.open_ways(engine, engine.containers_by_id[container_id])
    for container_id, sandbox in engine.network.restore(running).items():
        engine.containers_by_id[container_id].sandbox = sandbox
        endpoints.settle(engine, engine.containers_by_id[container_id])
        etc_files.adopt(engine, engine.containers_by_id[container_id])
    for container in living:
        container.started.set()
        container.began_ns = began.get(container.id) or uptime.began_ns(container.pid)
        health.start(engine, container)
        engine.time_limits.begin(container)
    await engine.volumes.restore_users(
        (c.id, {p["Name"] for p in c.row["mounts"] if p["Type"] == "volume"})
        for c in engine.containers_by_id.values() if c.is_running
    )  # fmt: skip
    await engine.volumes.sweep()
    _sweep(engine)
    return Found(ended, unheard)


async def end_unknown(engine: "Engine") -> None:
    """End what a new keeper found running although we think that its start failed with the old one."""
    for task in await engine.keeper.list():
        if task["exec_id"] is not None or "exit" in task:
            continue
        container = engine.containers_by_id.get(task["id"])
        if container is None:
            await _end_stranger(engine.keeper, task["id"], running=True)
            continue
        async with container.lock:
            if not container.is_running:
                await end_task(engine, container)
    await sweep_groups(engine)


async def sweep_groups(engine: "Engine") -> None:
    """Remove control groups that a keeper which was killed left: of containers that do not run and do not start."""
    parent = engine.config.cgroup_parent.strip("/")
    names = {os.path.basename(path) for pattern in (f"/sys/fs/cgroup/{parent}/*", f"/sys/fs/cgroup/*/{parent}/*")
             for path in glob.glob(pattern) if is_full_id(os.path.basename(path))}  # fmt: skip
    for name in names:
        container = engine.containers_by_id.get(name)
        if container is not None and (container.is_running or container.lock.locked()):
            continue
        group = open_manager(f"/{parent}/{name}")
        if await _is_anothers(engine, group):
            continue
        for _ in range(_SWEEP_TRIES):
            # Busy until the last of its processes is wholly gone.
            if await asyncio.to_thread(group.delete):
                break
            await asyncio.sleep(_SWEEP_PAUSE_S)
            container = engine.containers_by_id.get(name)
            if container is not None and (container.is_running or container.lock.locked()):
                break
        else:
            log.warning("the control group of container %s is left over: it has processes still", name)


async def _is_anothers(engine: "Engine", group: Cgroup) -> bool:
    """Tell whether another engine beside this one, whose keeper is the parent of what runs in it, minds a group."""
    processes = group.processes()
    if not processes:
        # It may have been made just now, for a process that is about to join.
        await asyncio.sleep(_SETTLE_S)
        processes = group.processes()
    for pid in processes:
        try:
            with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
                parent = int(file.read().rpartition(")")[2].split()[1])
            with open(f"/proc/{parent}/cmdline", "rb") as file:
                is_keeper = b"barque/keeper/boot.py" in file.read()
        except (OSError, ValueError, IndexError):
            continue
        if is_keeper and parent != engine.keeper.pid:
            return True
    return False


async def remove_group(name: str, group: Cgroup) -> None:
    """Remove the control group of a container that is gone, with what a keeper that was killed left running in it."""
    pause_s = _FIRST_PAUSE_S
    for _ in range(_REMOVAL_TRIES):
        if await asyncio.to_thread(group.delete):
            return
        group.kill(signal.SIGKILL)
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
    log.warning("the control group of container %s is left over: it has processes still", name)


async def end_task(engine: "Engine", container: Container) -> None:
    """End and forget a process of a container that should have none.

    Raises:
        BarqueError: it does not end.
    """
    deadline = time.monotonic() + _END_S
    while True:
        try:
            await engine.keeper.forget(container.id)
            return
        except KeeperError as error:
            if time.monotonic() > deadline:
                raise
            log.info("container %s: ending a process of which nothing was known: %s", container.name, error)
        try:
            await engine.keeper.signal(container.id, None, 9)
        except KeeperError:
            pass
        await asyncio.sleep(0.05)


def _unknown_exit() -> Json:
    return {"exit_code": 255, "oom_killed": False, "at_ns": time.time_ns()}


def _settle(engine: "Engine", container: Container, task: Json | None) -> bool:
    """Bring a row up to what the keeper knows; tell whether the container ended while no daemon was there."""
    state = container.state
    if task is not None and "exit" not in task:
        now = {"pid": task["pid"], "status": "paused" if _frozen(engine, container) else "running", "started_before": True}
        if now.items() - state.items():
            state.update(now)
            engine.save(container)
        return False
    if container.status in ("running", "paused", "restarting") or state["pid"]:
        _remove_cgroup(engine, container)
        ended = (task or {}).get("exit") or _exit_file(engine.bundle(container.id)) or {}
        code = ended.get("exit_code", state["exit_code"] if container.status == "restarting" else 255)
        state.update(
            pid=0, status="exited", exit_code=code, oom_killed=bool(ended.get("oom_killed")),
            finished_ns=ended.get("at_ns") or time.time_ns(),
        )  # fmt: skip
        engine.save(container)
        return True
    if container.status == "removing":
        state["status"] = "dead"
        engine.save(container)
    return False


def _frozen(engine: "Engine", container: Container) -> bool:
    try:
        return open_manager(engine.cgroup_path(container)).is_frozen()
    except OSError:
        return False


def _remove_cgroup(engine: "Engine", container: Container) -> None:
    """Remove what a keeper that died with its containers left."""
    try:
        open_manager(engine.cgroup_path(container)).delete()
    except OSError as error:
        log.warning("the control group of container %s is left over: %s", container.name, error)


def _exit_file(bundle: str) -> Json | None:
    try:
        with open(f"{bundle}/exit.json", encoding="utf-8") as file:
            found = json.load(file)
            return found if isinstance(found, dict) else None
    except (OSError, ValueError):
        return None


async def _end_stranger(keeper: Keeper, task_id: str, *, running: bool) -> None:
    """End a process whose container is not known any more."""
    log.warning("ending container %s, of which no record is left", task_id)
    try:
        if running:
            await keeper.signal(task_id, None, 9)
        await keeper.forget(task_id)
    except BarqueError as error:
        log.warning("container %s: %s", task_id, error)


def _sweep(engine: "Engine") -> None:
    """Remove what a create or a removal that was cut short left."""
    known = engine.containers_by_id
    for info in list(engine.snapshots.walk()):
        made_by_engine = is_full_id(info.name) or info.name.startswith(init_layer_name(""))
        if info.kind == ACTIVE and made_by_engine and info.name not in known:
            try:
                engine.snapshots.remove(info.name)
            except (BarqueError, OSError) as error:
                log.warning("snapshot %s is left over: %s", info.name, error)
    for folder in (f"{engine.config.data_root}/containers", f"{engine.config.exec_root}/containers"):
        for name in os.listdir(folder):
            if is_full_id(name) and name not in known:
                km.unmount_below(f"{folder}/{name}")
                shutil.rmtree(f"{folder}/{name}", ignore_errors=True)


def bring_back(engine: "Engine", containers: Iterable[Container]) -> None:
    """Start what its policy wants to run, and remove what was to be removed at its end."""
    for container in containers:
        if container.is_running:
            continue
        if container.status == "dead" or (container.host.get("AutoRemove") and container.status == "exited"):
            engine.spawn(_remove(engine, container))
        elif wants_start(container):
            engine.spawn(_start(engine, container))


def wants_start(container: Container) -> bool:
    """Tell whether the policy brings the container back at the engine's start."""
    state = container.state
    name = container.host["RestartPolicy"]["Name"]
    if name == "always":
        return bool(state["started_before"])
    if name == "unless-stopped":
        return bool(state["started_before"]) and not state["stopped_by_user"]
    if name == "on-failure":
        return container.status == "exited" and state["exit_code"] != 0 and not state["stopped_by_user"]
    return False


async def _start(engine: "Engine", container: Container) -> None:
    try:
        waits = start_order.dependencies(container, engine.containers_by_id.values())
        await start_order.wait_for([(c, condition) for c, condition in waits if c.is_running or wants_start(c)])
        await engine.keeper.forget(container.id)
        await engine.lifecycle.start(container)
    except (BarqueError, OSError) as error:
        log.warning("container %s could not be brought back: %s", container.name, error)


async def _remove(engine: "Engine", container: Container) -> None:
    try:
        await removal.remove(engine, container, force=True, volumes=bool(container.host.get("AutoRemove")))
    except (BarqueError, OSError) as error:
        log.warning("container %s could not be removed: %s", container.name, error)
