"""The API's containers: finds the container that is meant and calls the use case; rare ones are imported then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

from barque.base.errors import BarqueError, ConflictError, InvalidInputError, NotFoundError
from barque.engine import (
    commit as committing,
    container_files,
    container_streams,
    create as creation,
    endpoints,
    links,
    names,
    pausing,
    removal,
    stats,
    top,
    types,
    updating,
    views,
    waiting,
)
from barque.engine.container import Container
from barque.images.store import container_size
from barque.runtime.cgroups import open_manager
from barque.storage.trees import tree_usage

if TYPE_CHECKING:
    from barque.engine.engine import Engine

Json = dict[str, Any]
Rows = list[Json]
Names = list[str]
Filters = dict[str, list[str]]


class Containers:
    """Implements the API's ContainersBackend."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def create(self, config: Json, name: str, platform: str) -> Json:
        """Make a container."""
        with self._engine.metrics.timed("create"):
            return await creation.create(self._engine, config, name, platform)

    async def list(self, *, all: bool, limit: int, size: bool, filters: Filters) -> Rows:
        """Return the containers that pass the filters, newest first."""
        engine = self._engine
        chosen = views.select(engine, filters, everything=all, limit=limit)
        rows = [views.summary(engine, container) for container in chosen]
        if size:
            for row, container in zip(rows, chosen, strict=True):
                try:
                    row.update(await self._sizes(container))
                except NotFoundError:
                    # It was removed while those before it were measured.
                    row.clear()
        return [row for row in rows if row]

    async def _sizes(self, container: Container) -> Json:
        engine = self._engine
        written = await asyncio.to_thread(container_size, engine.snapshots, container.id)
        image = engine.image_of(container)
        return {"SizeRw": written, "SizeRootFs": written + (image.size if image else 0)}

    async def inspect(self, ref: str, *, size: bool) -> Json:
        """Return everything about a container."""
        container = self._engine.find(ref)
        shown = views.inspect(self._engine, container)
        if size:
            shown.update(await self._sizes(container))
        return shown

    async def start(self, ref: str) -> None:
        """Start a container."""
        with self._engine.metrics.timed("start"):
            await self._engine.lifecycle.start(self._engine.find(ref))

    async def stop(self, ref: str, *, signal: str, timeout_s: int | None) -> None:
        """Stop a container."""
        await self._engine.lifecycle.stop(self._engine.find(ref), signal, timeout_s)

    async def restart(self, ref: str, *, signal: str, timeout_s: int | None) -> None:
        """Stop and start a container."""
        await self._engine.lifecycle.restart(self._engine.find(ref), signal, timeout_s)

    async def kill(self, ref: str, *, signal: str) -> None:
        """Send a signal to a container."""
        try:
            await self._engine.lifecycle.kill(self._engine.find(ref), signal)
        except (ConflictError, NotFoundError) as error:
            raise type(error)(f"cannot kill container: {ref}: {error}") from error

    async def pause(self, ref: str) -> None:
        """Freeze a container."""
        await pausing.pause(self._engine, self._engine.find(ref))

    async def unpause(self, ref: str) -> None:
        """Let a frozen container run on."""
        await pausing.unpause(self._engine, self._engine.find(ref))

    async def wait(self, ref: str, condition: str) -> Awaitable[Json]:
        """Register a wait; the awaitable gives {"StatusCode"}."""
        return waiting.wait(self._engine.find(ref), condition)

    async def rename(self, ref: str, name: str) -> None:
        """Give a container another name.

        Raises:
            ConflictError: the name is taken.
        """
        engine = self._engine
        container = engine.find(ref)
        if not name:
            raise InvalidInputError("Neither old nor new names may be empty")
        refused = "Error when allocating new name: "
        try:
            new = names.check_name("/" + name.removeprefix("/"))
        except InvalidInputError as error:
            raise InvalidInputError(refused + str(error)) from None
        if new == container.name:
            raise InvalidInputError("Renaming a container with the same name as its current name")
        async with container.lock:
            if container.removed.is_set():
                raise NotFoundError(f"No such container: {ref}")
            try:
                engine.reserve_name(new, container.id)
            except ConflictError as error:
                raise ConflictError(refused + str(error)) from None
            old = container.name
            engine.by_name.pop(old, None)
            container.row["name"] = new
            endpoints.rename(engine, container)
            engine.changed(container)
            engine.save(container)
            await engine.database.flush()
        engine.publish(container, "rename", oldName=f"/{old}")

    async def remove(self, ref: str, *, force: bool, volumes: bool, link: bool) -> None:
        """Remove a container.

        Raises:
            InvalidInputError: a link is to be removed that is none.
        """
        if link:
            links.remove(self._engine, ref)
            await self._engine.database.flush()
            return
        container = self._engine.find(ref)
        with self._engine.metrics.timed("delete"):
            await removal.remove(self._engine, container, force=force, volumes=volumes)

    async def top(self, ref: str, ps_args: str) -> Json:
        """Return the container's processes."""
        engine = self._engine
        container = engine.find(ref)
        container_streams.check_running(container)
        pids = open_manager(engine.cgroup_path(container)).processes()
        found = await top.processes(pids, ps_args)
        engine.publish(container, "top")
        return found

    async def logs(self, ref: str, options: types.LogOptions) -> types.LogStream:
        """Return log output."""
        return container_streams.read_logs(self._engine, self._engine.find(ref), options)

    async def add_mount(self, ref: str, mount: Json) -> None:
        """Mount something in a container that exists."""
        from barque.engine import live_mounts

        await live_mounts.add(self._engine, self._engine.find(ref), mount)

    async def remove_mount(self, ref: str, target: str) -> None:
        """Take a mount out of a container."""
        from barque.engine import live_mounts

        await live_mounts.remove(self._engine, self._engine.find(ref), target)

    async def add_device(self, ref: str, device: Json) -> None:
        """Give a container that exists a device."""
        from barque.engine import live_devices

        await live_devices.add(self._engine, self._engine.find(ref), device)

    async def remove_device(self, ref: str, path: str) -> None:
        """Take a device from a container."""
        from barque.engine import live_devices

        await live_devices.remove(self._engine, self._engine.find(ref), path)

    async def clear_logs(self, ref: str) -> None:
        """Forget what a container has logged."""
        await container_streams.clear_logs(self._engine, self._engine.find(ref))

    async def attach(self, ref: str, options: types.AttachOptions) -> types.Attachment:
        """Return a container's streams."""
        return await container_streams.attach(self._engine, self._engine.find(ref), options)

    async def resize(self, ref: str, *, height: int, width: int) -> None:
        """Set the size of a container's terminal."""
        await container_streams.resize(self._engine, self._engine.find(ref), height, width)

    async def stats(self, ref: str, *, stream: bool, one_shot: bool) -> AsyncIterator[Json]:
        """Return readings of a container's counters."""
        container = self._engine.find(ref)
        return stats.stream(self._engine, container, live=stream, one_shot=one_shot)

    async def changes(self, ref: str) -> Rows:
        """Return what the container changed in its image."""
        with self._engine.metrics.timed("changes"):
            return await container_files.changes(self._engine, self._engine.find(ref))

    async def export(self, ref: str) -> AsyncIterator[bytes]:
        """Return the tar of the container's files."""
        return container_files.export(self._engine, self._engine.find(ref))

    async def archive_stat(self, ref: str, path: str) -> Json:
        """Return a path's stat."""
        return await container_files.stat(self._engine, self._engine.find(ref), path)

    async def archive_get(self, ref: str, path: str) -> types.ArchiveStream:
        """Return the tar of a path."""
        return await container_files.get(self._engine, self._engine.find(ref), path)

    async def archive_put(
        self,
        ref: str,
        path: str,
        read: Callable[[], Awaitable[bytes]],
        *,
        no_overwrite_dir_non_dir: bool,
        copy_uid_gid: bool,
    ) -> None:
        """Unpack a tar into a folder of the container."""
        await container_files.put(
            self._engine, self._engine.find(ref), path, read,
            keep_kind=no_overwrite_dir_non_dir, copy_owner=copy_uid_gid,
        )  # fmt: skip

    async def update(self, ref: str, changes: Json) -> Json:
        """Change limits and the restart policy; return {"Warnings"}."""
        return await updating.update(self._engine, self._engine.find(ref), changes)

    async def prune(self, filters: Filters, *, dry_run: bool = False) -> Json:
        """Remove stopped containers, or only say which."""
        engine = self._engine
        removed, won = [], 0
        for container in views.prunable(engine, filters):
            try:
                size = (await asyncio.to_thread(tree_usage, engine.snapshots.layer_dir(container.id))).size
                if not dry_run:
                    await removal.remove(engine, container, force=False, volumes=False)
            except (BarqueError, OSError):
                # It was started or removed meanwhile.
                continue
            removed.append(container.id)
            won += size
        if not dry_run:
            engine.events.publish("container", "prune", "", {"reclaimed": str(won)})
        return {"ContainersDeleted": removed or None, "SpaceReclaimed": won}

    async def commit(
        self,
        ref: str,
        *,
        repo: str,
        tag: str,
        comment: str,
        author: str,
        pause: bool,
        changes: Names,
        config: Json | None,
    ) -> Json:
        """Make an image of a container; return {"Id"}."""
        with self._engine.metrics.timed("commit"):
            return await committing.commit(
                self._engine, self._engine.find(ref), repo=repo, tag=tag, comment=comment, author=author, pause=pause,
                changes=changes, config=config,
            )  # fmt: skip

    async def exec_create(self, ref: str, config: Json) -> Json:
        """Prepare a process in a container."""
        return await self._engine.execs.create(self._engine.find(ref), config, ref)

    async def exec_start(
        self, exec_id: str, *, detach: bool, console_size: tuple[int, int] | None
    ) -> types.Attachment | None:
        """Start it."""
        return await self._engine.execs.start(exec_id, detach=detach, console_size=console_size)

    async def exec_resize(self, exec_id: str, *, height: int, width: int) -> None:
        """Set the size of its terminal."""
        await self._engine.execs.resize(exec_id, height, width)

    async def exec_inspect(self, exec_id: str) -> Json:
        """Return what is known of it."""
        return await self._engine.execs.inspect(exec_id)

