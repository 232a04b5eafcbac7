"""A container's output and input: logs, attach, the terminal's size."""

import os
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from barque.base.errors import ConflictError, InvalidInputError, UnsupportedError
from barque.engine import log_files, log_shipping, logs
from barque.engine.container import Container
from barque.engine.detach import parse_keys
from barque.engine.log_changes import Changes, changes_of
from barque.engine.types import Attachment, AttachOptions, LogOptions, LogStream
from barque.keeper.client import KeeperError

if TYPE_CHECKING:
    from barque.engine.engine import Engine


def check_running(container: Container) -> None:
    """Refuse a container that does not run.

    Raises:
        ConflictError: it does not.
    """
    if container.status == "restarting":
        raise ConflictError(f"Container {container.id} is restarting, wait until the container is running")
    if not container.is_running:
        raise ConflictError(f"container {container.id} is not running")


def read_logs(engine: "Engine", container: Container, options: LogOptions) -> LogStream:
    """Return log output.

    Raises:
        InvalidInputError: neither stream is wanted.
        UnsupportedError: the container keeps no log.
    """
    if not (options.stdout or options.stderr):
        raise InvalidInputError("Bad parameters: you must choose at least one stream")
    if not _is_readable(container):
        raise UnsupportedError("configured logging driver does not support reading")

    def alive() -> bool:
        return container.is_running or container.status in ("restarting", "created")

    def changes() -> Changes:
        return changes_of(engine.log_folders, engine.folder(container.id), container)

    chunks = logs.read(container.row["log_path"], options, tty=container.tty, alive=alive, changes=changes)
    return LogStream(container.tty, chunks)


def _is_readable(container: Container) -> bool:
    return bool(container.row["log_path"]) and not log_shipping.cache_disabled(container.host["LogConfig"]["Config"])


async def clear_logs(engine: "Engine", container: Container) -> None:
    """Forget what a container has logged.

    Raises:
        ConflictError: a log server has not got all of it yet.
        UnsupportedError: there is no log.
    """
    path = container.row["log_path"]
    if not path:
        raise UnsupportedError("configured logging driver does not support reading")
    if engine.logs.behind(container):
        raise ConflictError(f"the log of container {container.id} is not delivered yet: it cannot be cleared now")
    if container.is_running:
        await engine.keeper.log_clear(container.id)
    else:
        for name in log_files.files_of(path):
            if name == path:
                os.truncate(name, 0)
            else:
                os.unlink(name)
    engine.publish(container, "clear_logs")


async def attach(engine: "Engine", container: Container, options: AttachOptions) -> Attachment:
    """Return a container's streams.

    Raises:
        ConflictError: it is paused or restarting.
    """
    if container.status == "paused":
        raise ConflictError(f"container {container.id} is paused, unpause the container before attach")
    if container.status == "restarting":
        raise ConflictError(f"container {container.id} is restarting, wait until the container is running")
    keys = parse_keys(options.detach_keys)
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
    return Attachment(
        sock, container.tty, keys, _earlier(container, options), lambda: engine.publish(container, "detach")
    )


def _earlier(container: Container, options: AttachOptions) -> AsyncIterator[bytes] | None:
    if not (options.logs and _is_readable(container)):
        return None
    wanted = LogOptions(stdout=options.stdout, stderr=options.stderr)
    return logs.read(container.row["log_path"], wanted, tty=container.tty, alive=lambda: False)


async def resize(engine: "Engine", container: Container, height: int, width: int) -> None:
    """Set the size of a container's terminal, in characters.

    Raises:
        ConflictError: it does not run, or has no terminal.
    """
    check_running(container)
    try:
        await engine.keeper.resize(container.id, None, height, width)
    except KeeperError as error:
        raise ConflictError(f"cannot resize container {container.id}: {error}") from error
    engine.publish(container, "resize", height=str(height), width=str(width))
