"""A container's files seen from outside: what changed, export, and copies in and out."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

from barque.base.errors import InvalidInputError, NotFoundError
from barque.engine import archives
from barque.engine.archives import Root
from barque.engine.container import Container
from barque.engine.pumps import chunks_of, stream_of
from barque.engine.rootfiles import user_of_snapshot
from barque.engine.types import ArchiveStream
from barque.kernel.private_mounts import Bind
from barque.storage.snapshots import Mount

if TYPE_CHECKING:
    from barque.engine.engine import Engine

Json = dict[str, Any]


async def changes(engine: "Engine", container: Container) -> list[Json]:
    """Return what the container changed in its image."""
    return await asyncio.to_thread(archives.changes, engine.snapshots, container.id)


def export(engine: "Engine", container: Container) -> AsyncIterator[bytes]:
    """Return the tar of the container's files."""
    mounts = engine.snapshots.mounts(container.id)
    engine.publish(container, "export")
    return stream_of(lambda: archives.export(mounts))


def _root(engine: "Engine", container: Container) -> Root:
    binds = [Bind(p["Source"], p["Destination"], not p["RW"], p.get("subpath") or "")
             for p in container.row["mounts"] if p["Source"] and os.path.exists(p["Source"])]  # fmt: skip
    if container.is_running:
        return Root(container.pid, (), binds)
    mounts: list[Mount] = engine.snapshots.mounts(container.id)
    return Root(0, mounts, binds)


async def stat(engine: "Engine", container: Container, path: str) -> Json:
    """Return a path's stat.

    Raises:
        NotFoundError: there is no such path.
        InvalidInputError: the path cannot be one.
    """
    _check_path(path)
    try:
        return await asyncio.to_thread(archives.stat, _root(engine, container), path)
    except NotFoundError as error:
        raise _missing(container, path) from error


async def get(engine: "Engine", container: Container, path: str) -> ArchiveStream:
    """Return the tar of a path.

    Raises:
        NotFoundError: there is no such path.
    """
    found = await stat(engine, container, path)
    root = _root(engine, container)
    engine.publish(container, "archive-path")
    return ArchiveStream(found, stream_of(lambda: archives.get(root, path)))


async def put(
    engine: "Engine",
    container: Container,
    path: str,
    read: Callable[[], Awaitable[bytes]],
    *,
    keep_kind: bool,
    copy_owner: bool,
) -> None:
    """Unpack a tar into a folder of the container.

    Args:
        engine: whose container it is.
        container: the container.
        path: the folder.
        read: gives the next bytes of the tar.
        keep_kind: a folder never becomes a file nor a file a folder.
        copy_owner: files belong to the container's user.

    Raises:
        NotFoundError: there is no such folder.
    """
    _check_path(path)
    root = _root(engine, container)
    owner = None
    if copy_owner and container.config.get("User"):
        user = user_of_snapshot(engine.snapshots, container.id, container.config["User"], ())
        owner = (user.uid, user.gid)
    content = engine.image_store.content
    try:
        await chunks_of(
            read,
            lambda chunks: archives.put(root, path, chunks, content=content, keep_kind=keep_kind, owner=owner),
        )
    except NotFoundError as error:
        raise _missing(container, path) from error
    engine.publish(container, "extract-to-dir")


def _missing(container: Container, path: str) -> NotFoundError:
    return NotFoundError(f"Could not find the file {path} in container {container.name}")


def _check_path(path: str) -> None:
    if not path:
        raise InvalidInputError("missing parameter: path")
    if "\0" in path:
        raise InvalidInputError("invalid path: it holds a NUL byte")
