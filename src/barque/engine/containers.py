"""The API's containers: finds the container that is meant and calls the use case."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

from barque.base.errors import BarqueError, ConflictError, InvalidInputError, NotFoundError, UnsupportedError
from barque.engine import archives, logs, resources, stats, top, views
from barque.engine.archives import Root
from barque.engine.checks import check_resources
from barque.engine.container import Container
from barque.engine.create import conflict, create
from barque.engine.detach import parse_keys
from barque.engine.names import check_name
from barque.engine.pumps import chunks_of, stream_of
from barque.engine.types import ArchiveStream, Attachment, AttachOptions, LogOptions, LogStream
from barque.engine.volumes import tree_size
from barque.images.store import container_size
from barque.keeper.client import KeeperError
from barque.oci.reference import parse
from barque.runtime.cgroups import open_manager
from barque.storage.snapshots import Mount

if TYPE_CHECKING:
    from barque.engine.engine import Engine

Json = dict[str, Any]
Rows = list[Json]
Names = list[str]
Filters = dict[str, list[str]]
_UPDATABLE = (
    "BlkioWeight", "CpuShares", "CpuPeriod", "CpuQuota", "CpusetCpus", "CpusetMems", "Memory", "MemorySwap",
    "MemoryReservation", "NanoCpus", "PidsLimit", "CpuRealtimePeriod", "CpuRealtimeRuntime",
)  # fmt: skip


class Containers:
    """Implements the API's ContainersBackend."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine

    async def create(self, config: Json, name: str, platform: str) -> Json:
        """Make a container."""
        return await create(self._engine, config, name, platform)

    async def list(self, *, all: bool, limit: int, size: bool, filters: Filters) -> Rows:
        """Return the containers that pass the filters, newest first."""
        engine = self._engine
        chosen = views.select(engine, filters, everything=all, limit=limit)
        rows = [views.summary(engine, container) for container in chosen]
        if size:
            for row, container in zip(rows, chosen, strict=True):
                row.update(await self._sizes(container))
        return rows

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
        await self._engine.lifecycle.start(self._engine.find(ref))

    async def stop(self, ref: str, *, signal: str, timeout_s: int | None) -> None:
        """Stop a container."""
        await self._engine.lifecycle.stop(self._engine.find(ref), signal, timeout_s)

    async def restart(self, ref: str, *, signal: str, timeout_s: int | None) -> None:
        """Stop and start a container."""
        await self._engine.lifecycle.restart(self._engine.find(ref), signal, timeout_s)

    async def kill(self, ref: str, *, signal: str) -> None:
        """Send a signal to a container."""
        await self._engine.lifecycle.kill(self._engine.find(ref), signal)

    async def pause(self, ref: str) -> None:
        """Freeze a container."""
        await self._engine.lifecycle.pause(self._engine.find(ref))

    async def unpause(self, ref: str) -> None:
        """Let a frozen container run on."""
        await self._engine.lifecycle.unpause(self._engine.find(ref))

    async def wait(self, ref: str, condition: str) -> Awaitable[Json]:
        """Register a wait; the awaitable gives {"StatusCode"}."""
        return self._engine.lifecycle.wait(self._engine.find(ref), condition)

    async def rename(self, ref: str, name: str) -> None:
        """Give a container another name.

        Raises:
            ConflictError: the name is taken.
        """
        engine = self._engine
        container = engine.find(ref)
        if not name:
            raise InvalidInputError("Neither old nor new names may be empty")
        new = check_name(name)
        if new == container.name:
            raise InvalidInputError("Renaming a container with the same name as its current name")
        if new in engine.by_name:
            raise conflict(new, engine.by_name[new])
        async with container.lock:
            old = container.name
            engine.by_name[new] = container.id
            engine.by_name.pop(old, None)
            container.row["name"] = new
            engine.changed(container)
            engine.save(container)
            await engine.database.flush()
        engine.publish(container, "rename", oldName=f"/{old}")

    async def remove(self, ref: str, *, force: bool, volumes: bool, link: bool) -> None:
        """Remove a container.

        Raises:
            UnsupportedError: a link is to be removed.
        """
        container = self._engine.find(ref)
        if link:
            raise UnsupportedError(f"cannot remove link {ref}: links are not supported")
        await self._engine.lifecycle.remove(container, force=force, volumes=volumes)

    async def top(self, ref: str, ps_args: str) -> Json:
        """Return the container's processes."""
        engine = self._engine
        container = self._running(ref)
        pids = open_manager(engine.cgroup_path(container)).processes()
        found = await top.processes(pids, ps_args)
        engine.publish(container, "top")
        return found

    def _running(self, ref: str) -> Container:
        container = self._engine.find(ref)
        if not container.is_running:
            word = "restarting, wait until the container is running" if container.status == "restarting" \
                else "not running"  # fmt: skip
            raise ConflictError(f"Container {container.id} is {word}"
                                if container.status == "restarting" else f"container {container.id} is {word}")  # fmt: skip
        return container

    async def logs(self, ref: str, options: LogOptions) -> LogStream:
        """Return log output.

        Raises:
            InvalidInputError: neither stream is wanted.
            UnsupportedError: the container keeps no log.
        """
        container = self._engine.find(ref)
        if not (options.stdout or options.stderr):
            raise InvalidInputError("Bad parameters: you must choose at least one stream")
        if not container.row["log_path"]:
            raise UnsupportedError("configured logging driver does not support reading")
        return LogStream(container.tty, self._read_log(container, options))

    def _read_log(self, container: Container, options: LogOptions) -> AsyncIterator[bytes]:
        def alive() -> bool:
            return container.is_running or container.status in ("restarting", "created")

        if container.status == "created":
            options = options._replace(follow=options.follow)
        return logs.read(container.row["log_path"], options, tty=container.tty, alive=alive)

    async def attach(self, ref: str, options: AttachOptions) -> Attachment:
        """Return a container's streams.

        Raises:
            ConflictError: it is paused or restarting.
        """
        engine = self._engine
        container = engine.find(ref)
        if container.status == "paused":
            raise ConflictError(f"container {container.id} is paused, unpause the container before attach")
        if container.status == "restarting":
            raise ConflictError(f"container {container.id} is restarting, wait until the container is running")
        keys = parse_keys(options.detach_keys)
        prelude = None
        if options.logs and container.row["log_path"]:
            wanted = LogOptions(stdout=options.stdout, stderr=options.stderr)
            prelude = logs.read(container.row["log_path"], wanted, tty=container.tty, alive=lambda: False)
        sock = None
        if options.stream:
            try:
                sock = await engine.keeper.attach(
                    container.id, None, stdin=options.stdin and bool(container.config.get("OpenStdin")),
                    stdout=options.stdout, stderr=options.stderr,
                )  # fmt: skip
            except KeeperError as error:
                raise ConflictError(f"cannot attach to container {container.id}: {error}") from error
        engine.publish(container, "attach")
        return Attachment(sock, container.tty, keys, prelude, lambda: engine.publish(container, "detach"))

    async def resize(self, ref: str, *, height: int, width: int) -> None:
        """Set the size of a container's terminal."""
        container = self._running(ref)
        try:
            await self._engine.keeper.resize(container.id, None, height, width)
        except KeeperError as error:
            raise ConflictError(f"cannot resize container {container.id}: {error}") from error
        self._engine.publish(container, "resize", height=str(height), width=str(width))

    async def stats(self, ref: str, *, stream: bool, one_shot: bool) -> AsyncIterator[Json]:
        """Return readings of a container's counters."""
        container = self._engine.find(ref)
        return stats.stream(self._engine, container, live=stream, one_shot=one_shot)

    async def changes(self, ref: str) -> Rows:
        """Return what the container changed in its image."""
        container = self._engine.find(ref)
        found = await asyncio.to_thread(archives.changes, self._engine.snapshots, container.id)
        return without_mount_points(found)

    async def export(self, ref: str) -> AsyncIterator[bytes]:
        """Return the tar of the container's files."""
        container = self._engine.find(ref)
        mounts = self._engine.snapshots.mounts(container.id)
        self._engine.publish(container, "export")
        return stream_of(lambda: archives.export(mounts))

    def _root(self, container: Container) -> Root:
        if container.is_running:
            return Root(container.pid)
        engine = self._engine
        binds = [(p["Source"], p["Destination"], not p["RW"])
                 for p in container.row["mounts"] if p["Source"] and os.path.exists(p["Source"])]  # fmt: skip
        mounts: list[Mount] = engine.snapshots.mounts(container.id)
        return Root(0, mounts, binds)

    async def archive_stat(self, ref: str, path: str) -> Json:
        """Return a path's stat."""
        container = self._engine.find(ref)
        _check_path(path)
        try:
            return await asyncio.to_thread(archives.stat, self._root(container), path)
        except NotFoundError as error:
            raise self._missing(container, path) from error

    def _missing(self, container: Container, path: str) -> NotFoundError:
        return NotFoundError(f"Could not find the file {path} in container {container.name}")

    async def archive_get(self, ref: str, path: str) -> ArchiveStream:
        """Return the tar of a path."""
        found = await self.archive_stat(ref, path)
        container = self._engine.find(ref)
        root = self._root(container)
        self._engine.publish(container, "archive-path")
        return ArchiveStream(found, stream_of(lambda: archives.get(root, path)))

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
        engine = self._engine
        container = engine.find(ref)
        _check_path(path)
        root = self._root(container)
        owner = None
        if copy_uid_gid and container.config.get("User"):
            from barque.engine.rootfiles import user_of_snapshot

            user = user_of_snapshot(engine.snapshots, container.id, container.config["User"], ())
            owner = (user.uid, user.gid)
        content = engine.image_store.content
        try:
            await chunks_of(
                read,
                lambda chunks: archives.put(
                    root, path, chunks, content=content, keep_kind=no_overwrite_dir_non_dir, owner=owner
                ),
            )
        except NotFoundError as error:
            raise self._missing(container, path) from error
        engine.publish(container, "extract-to-dir")

    async def update(self, ref: str, changes: Json) -> Json:
        """Change limits and the restart policy; return {"Warnings"}.

        Raises:
            InvalidInputError: a value that cannot be.
            ConflictError: it is being removed.
        """
        engine = self._engine
        container = engine.find(ref)
        if container.status in ("removing", "dead"):
            raise ConflictError(f"Cannot update container {container.id}: Container is marked for removal and "
                                "cannot be \"update\".")  # fmt: skip
        for key in _UPDATABLE:
            wanted = str if key.startswith("Cpuset") else int
            if changes.get(key) is not None and not isinstance(changes[key], wanted):
                raise InvalidInputError(f"invalid JSON: {key} has a wrong type")
        given = {key: changes[key] for key in _UPDATABLE if changes.get(key) not in (None, 0, "")}
        merged = {**container.host, **given}
        if "Memory" in given and "MemorySwap" not in given and 0 < (merged.get("MemorySwap") or 0) < given["Memory"]:
            raise InvalidInputError("Memory limit should be smaller than already set memoryswap limit, "
                                    "update the memoryswap at the same time")  # fmt: skip
        warnings = check_resources(merged, update=True)
        policy = changes.get("RestartPolicy") or {}
        if policy.get("Name"):
            from barque.engine.checks import check_policy

            check_policy({**container.host, "RestartPolicy": policy})
            merged["RestartPolicy"] = {"Name": policy["Name"],
                                       "MaximumRetryCount": policy.get("MaximumRetryCount") or 0}  # fmt: skip
        async with container.lock:
            if container.is_running and given:
                try:
                    cgroup = open_manager(engine.cgroup_path(container))
                    warnings += await asyncio.to_thread(cgroup.update, resources.limits(merged))
                except OSError as error:
                    raise BarqueError(f"Cannot update container {container.id}: {error}") from error
            container.row["host"] = merged
            engine.changed(container)
            engine.save(container)
            await engine.database.flush()
        engine.publish(container, "update")
        return {"Warnings": warnings}

    async def prune(self, filters: Filters) -> Json:
        """Remove stopped containers."""
        engine = self._engine
        removed, won = [], 0
        for container in views.prunable(engine, filters):
            size = await asyncio.to_thread(tree_size, engine.snapshots.layer_dir(container.id))
            try:
                await engine.lifecycle.remove(container, force=False, volumes=False)
            except BarqueError:
                continue
            removed.append(container.id)
            won += size
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
        """Make an image of a container; return {"Id"}.

        Raises:
            ConflictError: the container is being removed.
        """
        engine = self._engine
        container = engine.find(ref)
        if container.status in ("removing", "dead"):
            raise ConflictError(f"You cannot commit container {container.id} which is {container.status.capitalize()}")
        reference = parse(f"{repo}:{tag}" if tag else repo).with_default_tag() if repo else None
        own = {key: value for key, value in container.config.items() if key not in ("Hostname", "Image")}
        for key, value in (config or {}).items():
            if value and key not in ("Hostname", "Image", "HostConfig", "NetworkingConfig"):
                own[key] = value
        parent = engine.image_of(container)
        frozen = pause and container.status == "running"
        command = " ".join([container.row["path"], *container.row["args"]])
        if frozen:
            try:
                await engine.lifecycle.pause(container)
            except ConflictError:
                # It ended just now: nothing writes any more.
                frozen = False
        try:
            image = await asyncio.to_thread(
                lambda: engine.image_store.commit(
                    parent, container.id, config=own, changes=changes, author=author, comment=comment,
                    created_by=command, reference=reference,
                )
            )  # fmt: skip
        finally:
            if frozen and container.status == "paused":
                await engine.lifecycle.unpause(container)
        engine.publish(container, "commit", comment=comment, imageID=image.id,
                       imageRef=str(reference or ""))  # fmt: skip
        return {"Id": image.id}

    async def exec_create(self, ref: str, config: Json) -> Json:
        """Prepare a process in a container."""
        return await self._engine.execs.create(self._engine.find(ref), config)

    async def exec_start(
        self, exec_id: str, *, detach: bool, tty: bool, console_size: tuple[int, int] | None
    ) -> Attachment | None:
        """Start it."""
        return await self._engine.execs.start(exec_id, detach=detach, console_size=console_size)

    async def exec_resize(self, exec_id: str, *, height: int, width: int) -> None:
        """Set the size of its terminal."""
        await self._engine.execs.resize(exec_id, height, width)

    async def exec_inspect(self, exec_id: str) -> Json:
        """Return what is known of it."""
        return await self._engine.execs.inspect(exec_id)


def without_mount_points(changes: Rows) -> Rows:
    """Leave out the files of /etc that the engine mounts over, and /etc where nothing else in it changed."""
    hidden = {"/etc/hosts", "/etc/hostname", "/etc/resolv.conf"}
    kept = [change for change in changes if not (change["Path"] in hidden and change["Kind"] == 1)]
    if len(kept) < len(changes) and not any(change["Path"].startswith("/etc/") for change in kept):
        kept = [change for change in kept if change["Path"] != "/etc"]
    return kept


def _check_path(path: str) -> None:
    if not path:
        raise InvalidInputError("missing parameter: path")
    if "\0" in path:
        raise InvalidInputError("invalid path: it holds a NUL byte")
