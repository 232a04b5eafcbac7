"""A container's mounts from the request to the start: volumes made and filled, sources found, parts bound.

What is bound is not always what the user named: a part of a volume or image is opened without following
links out of it and bound on `<bundle>/mounts/<n>` first; that place goes as soon as the container has it.
"""

import asyncio
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from barque.base.errors import BarqueError, InvalidInputError, NotFoundError
from barque.engine import id_maps
from barque.engine.container import Container
from barque.engine.mount_points import guard_root
from barque.kernel import mount as km
from barque.kernel.openat2 import RESOLVE_BENEATH, open_in_root
from barque.kernel.private_mounts import mount_at
from barque.runtime.copy_up import copy_tree
from barque.storage.mounts import mounted

if TYPE_CHECKING:
    from barque.engine.engine import Engine

Json = dict[str, Any]


async def make(engine: "Engine", container_id: str, points: list[Json]) -> None:
    """Make what a new container's mounts need: volumes, with the image's files in them, and folders to bind.

    Raises:
        InvalidInputError: a source is missing.
        NotFoundError: no such volume driver or image.
    """
    fresh = []
    for point in points:
        guard_root(point, engine.config.data_root)
        if point["Type"] == "bind":
            # In a thread: a file system whose server is gone answers when it likes.
            await asyncio.to_thread(make_source, point)
            point["Propagation"] = point["Propagation"] or "rprivate"
        elif point["Type"] == "image":
            image = engine.image_store.resolve(point["Name"])
            point["image"], point["top"] = image.id, image.top
            point["Source"] = engine.snapshots.places(image.top)[0] if image.top else ""
        elif point["Type"] == "volume":
            await make_volume(engine, point)
            if point["copy"] and not point.get("subpath"):
                fresh.append(point)
    if fresh:
        await _fill(engine, container_id, fresh)


def make_source(point: Json) -> None:
    """Make the folder that a bind mount shows, where the user did not say that it must be there.

    Raises:
        InvalidInputError: it is missing.
    """
    if os.path.lexists(point["Source"]):
        return
    if not point["make"]:
        raise InvalidInputError(
            f'invalid mount config for type "bind": bind source path does not exist: {point["Source"]}'
        )
    os.makedirs(point["Source"], mode=0o755, exist_ok=True)


async def make_volume(engine: "Engine", point: Json) -> None:
    """Make the volume of a mount, where it is missing, and note its name, driver and place."""
    row = await engine.volumes.ensure(
        point["Name"], driver=point.get("driver") or "", labels=point.get("labels") or {},
        options=point.get("driver_options") or {},
    )  # fmt: skip
    point["Name"], point["Driver"] = row["name"], row["driver"]
    point["Source"] = await engine.volumes.place(row["name"])
    if row["driver"] == "local" and not point["Mode"] and not point["anonymous"]:
        point["Mode"] = "z"


async def _fill(engine: "Engine", container_id: str, points: list[Json]) -> None:
    """Fill empty volumes with what the image has at their places."""
    paths: list[tuple[Json, str]] = []
    try:
        for point in points:
            paths.append((point, await engine.volumes.mount(point["Name"], container_id)))
        empty = [(point["Destination"], path) for point, path in paths if not os.listdir(path)]
        if empty:
            await asyncio.to_thread(_copy_up, engine, container_id, empty)
    finally:
        for point, _ in paths:
            await engine.volumes.unmount(point["Name"], container_id)


def _copy_up(engine: "Engine", container_id: str, places: list[tuple[str, str]]) -> None:
    with mounted(engine.snapshots.mounts(container_id)) as root:
        for destination, path in places:
            try:
                source = open_in_root(root, destination, os.O_RDONLY | os.O_DIRECTORY)
            except NotADirectoryError:
                raise InvalidInputError(f"cannot mount volume over existing file, file exists {destination}") from None
            except OSError:
                continue
            target = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                copy_tree(source, target)
                found = os.fstat(source)
                os.fchown(target, found.st_uid, found.st_gid)
                os.fchmod(target, found.st_mode & 0o7777)
            finally:
                os.close(source)
                os.close(target)


async def prepare(engine: "Engine", container: Container) -> list[Json]:
    """Return the mounts of a container that is about to start, each with the `path` to bind.

    Raises:
        BarqueError: a volume cannot be mounted, a source or part is missing.
    """
    ready: list[Json] = []
    for number, point in enumerate(container.row["mounts"]):
        path = point["Source"]
        if point["Type"] == "bind":
            await asyncio.to_thread(make_source, point)
        elif point["Type"] == "volume":
            path = await mount_volume(engine, container, point)
        elif point["Type"] == "image":
            path = await asyncio.to_thread(_mount_image, engine, container, point, number)
        elif point["Type"] == "overlay":
            path = place(engine, container, number)
            os.makedirs(path, mode=0o755, exist_ok=True)
            await asyncio.to_thread(mount_at, point["mounts"], path)
        if point["Type"] == "volume" and point.get("subpath"):
            path = bind_part(path, point["subpath"], place(engine, container, number))
        ready.append({**point, "path": path})
    return ready


def add_id_maps(points: list[Json], user: tuple[int, int]) -> None:
    """Work out the id mappings of mounts that want them.

    Raises:
        InvalidInputError: a wish is malformed.
        OSError: a source is gone.
    """
    for point in points:
        if point.get("idmap"):
            found = os.stat(point["path"])
            maps = id_maps.maps_of(point["idmap"], (found.st_uid, found.st_gid), user)
            if maps is not None:
                point["maps"] = maps


async def mount_volume(engine: "Engine", container: Container, point: Json) -> str:
    """Mount a volume for a container and return where it is.

    Raises:
        BarqueError: it cannot be mounted.
    """
    try:
        path = await engine.volumes.mount(point["Name"], container.id)
    except NotFoundError:
        raise
    except BarqueError as error:
        raise BarqueError(f"error while mounting volume '{point['Source']}': {error}") from error
    point["Source"] = path
    return path


def tell_mounts(engine: "Engine", points: Iterable[Json], container: Container) -> None:
    """Tell of the volumes among a container's mounts that they are mounted."""
    for point in points:
        if point["Type"] == "volume":
            engine.events.publish("volume", "mount", point["Name"], {
                "driver": point["Driver"], "container": container.id, "destination": point["Destination"],
                "read/write": "true" if point["RW"] else "false", "propagation": point["Propagation"],
            })  # fmt: skip


def tell_unmounts(engine: "Engine", points: Iterable[Json], container: Container) -> None:
    """Tell of the volumes among a container's mounts that they are mounted no longer."""
    for point in points:
        if point["Type"] == "volume":
            engine.events.publish(
                "volume", "unmount", point["Name"], {"driver": point["Driver"], "container": container.id}
            )


def place(engine: "Engine", container: Container, number: int) -> str:
    """Return where a part is bound for the moment of a start."""
    return f"{engine.bundle(container.id)}/mounts/{number}"


def _mount_image(engine: "Engine", container: Container, point: Json, number: int) -> str:
    """Mount an image's layers read-only; a part of them is bound beside."""
    target = place(engine, container, number)
    os.makedirs(target, mode=0o755, exist_ok=True)
    if not point["top"]:
        return target
    mount_at(engine.snapshots.mounts(point["top"]), target)
    return bind_part(target, point["subpath"], f"{target}.part") if point.get("subpath") else target


def bind_part(base: str, part: str, target: str) -> str:
    """Bind a part of a tree on a place of our own, without leaving the tree.

    Raises:
        BarqueError: it is not there, or a link leads out of the tree.
    """
    root = os.open(base, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fd = open_in_root(root, part, os.O_PATH, resolve=RESOLVE_BENEATH)
        except OSError as error:
            raise BarqueError(f"cannot access path {base}/{part}: {(error.strerror or '').lower()}") from None
        try:
            _make_place(target, folder=os.path.isdir(f"/proc/self/fd/{fd}"))
            tree = km.open_tree(fd, "", km.OPEN_TREE_CLONE | km.AT_RECURSIVE | km.AT_EMPTY_PATH)
            try:
                km.move_mount(tree, target)
            finally:
                os.close(tree)
        finally:
            os.close(fd)
    finally:
        os.close(root)
    return target


def _make_place(place: str, *, folder: bool) -> None:
    os.makedirs(os.path.dirname(place), mode=0o711, exist_ok=True)
    if folder:
        os.makedirs(place, exist_ok=True)
    else:
        os.close(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))


def release_places(engine: "Engine", container_id: str) -> None:
    """Take away the places of a start: the container has its own copies, or never started."""
    folder = f"{engine.bundle(container_id)}/mounts"
    if not os.path.isdir(folder):
        return
    km.unmount_below(folder)
    for name in os.listdir(folder):
        path = f"{folder}/{name}"
        if os.path.isdir(path):
            os.rmdir(path)
        else:
            os.unlink(path)
    os.rmdir(folder)


def release_volumes(engine: "Engine", container: Container) -> None:
    """Let go the volumes of a container that has ended."""
    for point in container.row["mounts"]:
        if point["Type"] == "volume" and engine.volumes.is_mounted(point["Name"], container.id):
            engine.spawn(engine.volumes.unmount(point["Name"], container.id))
