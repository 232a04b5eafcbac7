"""A container's files seen from outside: what changed, export, and copies in and out."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from barque.base.errors import InvalidInputError, NotFoundError
from barque.engine import archives, etc_files
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
_EMPTY = [Mount("tmpfs", "tmpfs", ("ro",))]


async def changes(engine: "Engine", container: Container) -> list[Json]:
    """Return what the container changed in its image."""
    return await asyncio.to_thread(archives.changes, engine.snapshots, container.id)


def export(engine: "Engine", container: Container) -> AsyncIterator[bytes]:
    """Return the tar of the container's files."""
    mounts = engine.snapshots.mounts(container.id)
    engine.publish(container, "export")
    return stream_of(lambda: archives.export(mounts))


@asynccontextmanager
async def _root(engine: "Engine", container: Container) -> AsyncIterator[Root]:
    """Give the way to a container's files; until the block ends, all that it would see is mounted also where it does not run.

    Raises:
        BarqueError: a volume cannot be mounted.
    """
    if container.is_running:
        yield Root(container.pid, (), [Bind("", point["Destination"], False) for point in container.row["mounts"]])
        return
    binds = []
    with suppress(NotFoundError):
        binds = [Bind(source, target, False) for source, target in etc_files.places(engine, container)]
    async with AsyncExitStack() as stack:
        for point in container.row["mounts"]:
            source = point["Source"]
            steps: Sequence[Mount] = ()
            if point["Type"] == "volume":
                source = await stack.enter_async_context(engine.volumes.transfer(point["Name"], "copy"))
            elif point["Type"] == "image":
                steps = engine.snapshots.mounts(point["top"]) if point["top"] else _EMPTY
            if source or steps:
                binds.append(Bind(source, point["Destination"], not point["RW"], point.get("subpath") or "", steps))
        yield Root(0, engine.snapshots.mounts(container.id), binds)


async def stat(engine: "Engine", container: Container, path: str) -> Json:
    """Return a path's stat.

    Raises:
        NotFoundError: there is no such path.
        InvalidInputError: the path cannot be one.
    """
    _check_path(path)
    async with _root(engine, container) as root:
        try:
            return await asyncio.to_thread(archives.stat, root, path)
        except NotFoundError as error:
            raise _missing(container, path) from error


async def get(engine: "Engine", container: Container, path: str) -> ArchiveStream:
    """Return the tar of a path.

    Raises:
        NotFoundError: there is no such path.
    """
    found = await stat(engine, container, path)
    engine.publish(container, "archive-path")
    return ArchiveStream(found, _packed(engine, container, path))


async def _packed(engine: "Engine", container: Container, path: str) -> AsyncIterator[bytes]:
    async with _root(engine, container) as root, aclosing(stream_of(lambda: archives.get(root, path))) as chunks:
        async for chunk in chunks:
            yield chunk


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
    owner = None
    if copy_owner and container.config.get("User"):
        user = user_of_snapshot(engine.snapshots, container.id, container.config["User"], ())
        owner = (user.uid, user.gid)
    content = engine.image_store.content
    async with _root(engine, container) as root:
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
