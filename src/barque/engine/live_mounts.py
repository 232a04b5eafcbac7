"""Mounts added to and taken from containers that exist, running or not."""

import asyncio
import os
from typing import TYPE_CHECKING, Any

from barque.base.errors import BarqueError, ConflictError, InvalidInputError, NotFoundError
from barque.engine import container_mounts, mount_points, spec
from barque.engine.container import Container
from barque.runtime import live_mounts

if TYPE_CHECKING:
    from barque.engine.engine import Engine

Json = dict[str, Any]


def parsed(wish: Json) -> Json:
    """Return the mount that a request asks for: {"Bind": "src:dst:mode"} or an entry of HostConfig.Mounts.

    Raises:
        InvalidInputError: it is malformed, or no mount for a container that exists.
    """
    if wish.get("Bind"):
        if not isinstance(wish["Bind"], str):
            raise InvalidInputError("invalid JSON: Bind must be a string")
        point = mount_points.parse_bind(wish["Bind"])
    else:
        point = mount_points.parse_mount(wish)
    if point["Type"] == "image" or point.get("idmap"):
        what = "an id-mapped mount" if point.get("idmap") else "an image"
        raise InvalidInputError(f"{what} cannot be added to a container that exists: name it at create")
    if point["anonymous"]:
        raise InvalidInputError("a volume that is added to a container needs a name")
    return point


async def add(engine: "Engine", container: Container, wish: Json) -> None:
    """Mount something in a container now, and whenever it starts again.

    Raises:
        ConflictError: something is mounted there, or the container is being removed.
        InvalidInputError: the mount is malformed, or its source is missing.
        BarqueError: the kernel refuses it.
    """
    point = parsed(wish)
    async with container.lock:
        if container.status in ("removing", "dead"):
            raise ConflictError(f"container {container.id} is being removed")
        taken = {other["Destination"] for other in container.row["mounts"]} | set(container.host.get("Tmpfs") or {})
        if point["Destination"] in taken:
            raise ConflictError(f"Duplicate mount point: {point['Destination']}")
        await container_mounts.make(engine, container.id, [{**point, "copy": False}] if point["Type"] == "bind" else [])
        if point["Type"] == "bind":
            point["Propagation"] = point["Propagation"] or "rprivate"
        elif point["Type"] == "volume":
            await container_mounts.make_volume(engine, point)
        if container.is_running:
            await _attach(engine, container, point)
            container_mounts.tell_mounts(engine, [point], container)
        container.row["mounts"] = sorted([*container.row["mounts"], point], key=lambda p: p["Destination"])
        await _written(engine, container)
    engine.publish(container, "mount", destination=point["Destination"])


async def _attach(engine: "Engine", container: Container, point: Json) -> None:
    try:
        if point["Type"] == "tmpfs":
            words = spec.mount_of_point(point)["options"]
            await asyncio.to_thread(live_mounts.tmpfs, container.pid, point["Destination"], words)
            return
        path = point["Source"]
        place = ""
        if point["Type"] == "volume":
            path = await container_mounts.mount_volume(engine, container, point)
        if point.get("subpath"):
            place = container_mounts.place(engine, container, len(container.row["mounts"]))
            path = container_mounts.bind_part(path, point["subpath"], place)
        try:
            words = spec.mount_of_point(point)["options"]
            await asyncio.to_thread(live_mounts.bind, container.pid, path, point["Destination"], words)
        finally:
            if place:
                container_mounts.release_places(engine, container.id)
    except OSError as error:
        if point["Type"] == "volume" and not _uses(container, point["Name"]):
            await engine.volumes.unmount(point["Name"], container.id)
        reason = os.strerror(error.errno).lower() if error.errno else str(error)
        raise BarqueError(f"cannot mount at {point['Destination']} in container {container.id}: {reason}") from error


async def remove(engine: "Engine", container: Container, target: str) -> None:
    """Take a mount out of a container, now and for its next start.

    Raises:
        NotFoundError: nothing that a user asked for is mounted there.
        BarqueError: the kernel refuses it.
    """
    async with container.lock:
        found = [p for p in container.row["mounts"] if p["Destination"] == "/" + target.strip("/")]
        if not found:
            raise NotFoundError(f"nothing is mounted at {target} in container {container.id}")
        point = found[0]
        if container.is_running:
            try:
                await asyncio.to_thread(live_mounts.detach, container.pid, point["Destination"], _identity(point))
            except OSError as error:
                # The container may have unmounted it itself.
                if error.errno != 22:
                    raise BarqueError(f"cannot unmount {target} in container {container.id}: {error}") from error
        container.row["mounts"] = [p for p in container.row["mounts"] if p is not point]
        if point["Type"] == "volume" and container.is_running and not _uses(container, point["Name"]):
            container_mounts.tell_unmounts(engine, [point], container)
            await engine.volumes.unmount(point["Name"], container.id)
        await _written(engine, container)
        if point["anonymous"]:
            await engine.volumes.drop_anonymous([point["Name"]])
    engine.publish(container, "unmount", destination=point["Destination"])


def _identity(point: Json) -> tuple[int, int] | None:
    try:
        found = os.stat(point["Source"]) if point["Source"] else None
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if found else None


def _uses(container: Container, volume: str) -> bool:
    return any(p["Type"] == "volume" and p["Name"] == volume for p in container.row["mounts"])


async def _written(engine: "Engine", container: Container) -> None:
    engine.changed(container)
    engine.save(container)
    await engine.database.flush()
