"""Taking containers away: their layer, their folders, their row."""

import os
import shutil
import signal as signals
from typing import TYPE_CHECKING

from barque.base.errors import BarqueError, ConflictError, NotFoundError
from barque.engine import reconcile, storage_options, waiting
from barque.engine.container import Container
from barque.kernel import mount as km
from barque.runtime.cgroups import CgroupError, open_manager

if TYPE_CHECKING:
    from barque.engine.engine import Engine


async def remove(engine: "Engine", container: Container, *, force: bool, volumes: bool) -> None:
    """Remove it and its files.

    Raises:
        ConflictError: it runs and force is not given.
        BarqueError: its files cannot be removed.
    """
    if container.status == "removing" and not container.removed.is_set() and container.auto_removing:
        raise ConflictError(f"removal of container {container.id} is already in progress")
    while True:
        if container.is_running or container.status == "restarting":
            _check_force(container, force=force)
            container.state["stopped_by_user"] = True
            auto, container.auto_removing = container.auto_removing, True
            try:
                await engine.lifecycle.end(container, signals.SIGKILL, 10)
            except BaseException:
                # It ends later, perhaps, and may have been made to go by itself then.
                container.auto_removing = auto
                raise
        async with container.lock:
            if container.removed.is_set():
                return
            # A start may have been under way while we waited for the lock.
            if not container.is_running:
                await _delete(engine, container, volumes=volumes)
                return


def _check_force(container: Container, *, force: bool) -> None:
    if force:
        return
    hint = (
        "container is paused and must be unpaused first"
        if container.status == "paused"
        else f"container is {container.status}: stop the container before removing or force remove"
    )
    raise ConflictError(f'cannot remove container "{container.name}": {hint}')


async def auto_remove(engine: "Engine", container: Container) -> None:
    """Remove a container that was to go with its end, unless a user does so already."""
    if container.auto_removing or engine.closing:
        return
    container.auto_removing = True
    async with container.lock:
        if container.removed.is_set() or container.is_running:
            return
        await _delete(engine, container, volumes=True)


def _remove_group(engine: "Engine", container: Container) -> None:
    try:
        group = open_manager(engine.cgroup_path(container))
    except CgroupError:
        # A path that no group can have.
        return
    if group.exists():
        # The keeper that made it died before it could remove it, perhaps long ago.
        engine.spawn(reconcile.remove_group(container.id, group))


async def _delete(engine: "Engine", container: Container, *, volumes: bool) -> None:
    previous = container.status
    container.state["status"] = "removing"
    engine.changed(container)
    engine.lifecycle.cancel_restart(container)
    try:
        await reconcile.end_task(engine, container)
        _remove_group(engine, container)
        try:
            storage_options.release(engine, container.id, container.host)
            engine.snapshots.remove(container.id)
        except NotFoundError:
            # A removal that was cut short took it away.
            pass
    except (BarqueError, OSError) as error:
        container.state["status"] = "dead" if previous != "created" else previous
        engine.changed(container)
        engine.save(container)
        raise BarqueError(
            f'container {container.id}: driver "{engine.snapshots.driver}" failed to remove root filesystem: {error}'
        ) from error
    folder, run = engine.folder(container.id), engine.bundle(container.id)
    engine.discard(container)
    engine.database.delete("container", container.id)
    container.removed.set()
    engine.execs.drop_container(container)
    engine.publish(container, "destroy")
    waiting.settle(container, "removed")
    if not engine.logs.keep(container):
        _clear(folder)
    _clear(run)
    if volumes:
        await engine.volumes.drop_anonymous([point["Name"] for point in container.row["mounts"] if point["anonymous"]])


def _clear(folder: str) -> None:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                # A folder that is empty and no place of a mount goes; else it is looked at more closely.
                if entry.is_dir(follow_symlinks=False):
                    os.rmdir(entry.path)
                else:
                    os.unlink(entry.path)
        os.rmdir(folder)
    except OSError:
        # What is still mounted inside would lose its files.
        km.unmount_below(folder)
        shutil.rmtree(folder, ignore_errors=True)
