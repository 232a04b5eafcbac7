"""Containers: all that answers at once."""

from aiohttp import web

from barque.api import checks, shapes
from barque.api.call import Call, answer, nothing
from barque.api.router import Table
from barque.base.errors import InvalidInputError, NotFoundError, UnsupportedError


def add(table: Table) -> None:
    """Add these routes."""
    table.add("GET", "/containers/json", list_, follows=True)
    table.add("POST", "/containers/create", create)
    table.add("POST", "/containers/prune", prune)
    table.add("POST", "/commit", commit)
    table.add("GET", "/containers/{ref}/json", inspect, follows=True)
    table.add("GET", "/containers/{ref}/top", top)
    table.add("GET", "/containers/{ref}/changes", changes)
    for verb, handler in {
        "start": start, "stop": stop, "restart": restart, "kill": kill, "pause": pause, "unpause": unpause,
        "rename": rename, "update": update, "resize": resize,
    }.items():  # fmt: skip
        table.add("POST", f"/containers/{{ref}}/{verb}", handler)
    table.add("DELETE", "/containers/{ref}", remove)
    # A link's name has a slash: parent/alias.
    table.add("DELETE", "/containers/{ref}/{alias}", remove_link)


async def list_(call: Call) -> web.StreamResponse:
    """List containers."""
    rows = await call.backend.containers.list(
        all=call.flag("all"), limit=call.number("limit"), size=call.flag("size"), filters=call.filters()
    )
    return answer(rows)


async def create(call: Call) -> web.StreamResponse:
    """Make a container."""
    body = await call.body()
    if body is None:
        raise InvalidInputError("config cannot be empty in order to create a container")
    config = checks.checked(body, checks.CREATE, "ContainerConfigWrapper")
    host = config.get("HostConfig")
    if host is not None and call.version < (1, 42):
        # These were not read before the version that brought them.
        host.pop("ConsoleSize", None)
    if host is not None and call.version < (1, 43):
        host.pop("Annotations", None)
    value = await call.backend.containers.create(config, call.text("name"), call.text("platform"))
    value["Warnings"] = value.get("Warnings") or []
    return answer(value, 201)


async def inspect(call: Call) -> web.StreamResponse:
    """Tell everything about a container."""
    value = await call.backend.containers.inspect(call.params["ref"], size=call.flag("size"))
    return answer(shapes.container(value, call.version))


async def start(call: Call) -> web.StreamResponse:
    """Start a container."""
    body = await call.body()
    if body:
        raise InvalidInputError(
            "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24"
        )
    if call.text("checkpoint") or call.text("checkpoint-dir"):
        raise UnsupportedError("checkpoints are not supported")
    await call.backend.containers.start(call.params["ref"])
    return nothing()


async def stop(call: Call) -> web.StreamResponse:
    """Stop a container."""
    await call.backend.containers.stop(call.params["ref"], signal=_signal(call), timeout_s=_timeout(call))
    return nothing()


async def restart(call: Call) -> web.StreamResponse:
    """Stop and start a container."""
    await call.backend.containers.restart(call.params["ref"], signal=_signal(call), timeout_s=_timeout(call))
    return nothing()


def _signal(call: Call) -> str:
    return call.text("signal") if call.version >= (1, 42) else ""


def _timeout(call: Call) -> int | None:
    return call.number("t") if call.text("t") else None


async def kill(call: Call) -> web.StreamResponse:
    """Send a signal to a container."""
    await call.backend.containers.kill(call.params["ref"], signal=call.text("signal"))
    return nothing()


async def pause(call: Call) -> web.StreamResponse:
    """Freeze a container."""
    await call.backend.containers.pause(call.params["ref"])
    return nothing()


async def unpause(call: Call) -> web.StreamResponse:
    """Thaw a container."""
    await call.backend.containers.unpause(call.params["ref"])
    return nothing()


async def rename(call: Call) -> web.StreamResponse:
    """Give a container another name."""
    await call.backend.containers.rename(call.params["ref"], call.text("name"))
    return nothing()


async def update(call: Call) -> web.StreamResponse:
    """Change limits and restart policy of a container."""
    changed = checks.checked(await call.body() or {}, checks.UPDATE, "UpdateConfig")
    value = await call.backend.containers.update(call.params["ref"], changed)
    return answer(value)


async def resize(call: Call) -> web.StreamResponse:
    """Set the size of a container's terminal."""
    height, width = size_of(call)
    await call.backend.containers.resize(call.params["ref"], height=height, width=width)
    return nothing(200)


def size_of(call: Call) -> tuple[int, int]:
    """Return the wanted size of a terminal: rows, columns.

    Raises:
        InvalidInputError: no number of 16 bits.
    """
    return _side(call, "h", "height"), _side(call, "w", "width")


def _side(call: Call, parameter: str, word: str) -> int:
    text = call.text(parameter)
    if not (text.isascii() and text.isdigit()):
        raise InvalidInputError(f'invalid resize {word} "{text}": invalid syntax')
    if len(text) > 9 or int(text) >= 1 << 16:
        raise InvalidInputError(f'invalid resize {word} "{text}": value out of range')
    return int(text)


async def remove(call: Call) -> web.StreamResponse:
    """Remove a container."""
    await call.backend.containers.remove(
        call.params["ref"], force=call.flag("force"), volumes=call.flag("v"), link=call.flag("link")
    )
    return nothing()


async def remove_link(call: Call) -> web.StreamResponse:
    """Remove a link between containers."""
    if not call.flag("link"):
        raise NotFoundError("page not found")
    ref = f"{call.params['ref']}/{call.params['alias']}"
    await call.backend.containers.remove(ref, force=False, volumes=False, link=True)
    return nothing()


async def top(call: Call) -> web.StreamResponse:
    """List a container's processes."""
    return answer(await call.backend.containers.top(call.params["ref"], call.text("ps_args")))


async def changes(call: Call) -> web.StreamResponse:
    """List what a container changed in its image's files."""
    return answer(await call.backend.containers.changes(call.params["ref"]))


async def prune(call: Call) -> web.StreamResponse:
    """Remove stopped containers."""
    return answer(await call.backend.containers.prune(call.filters(), dry_run=call.flag("dry-run")))


async def commit(call: Call) -> web.StreamResponse:
    """Make an image out of a container."""
    body = await call.body()
    config = None if body is None else checks.checked(body, checks.CONFIG, "Config")
    ref = call.text("container")
    if not ref:
        raise InvalidInputError("no container to commit was named")
    value = await call.backend.containers.commit(
        ref,
        repo=call.text("repo"),
        tag=call.text("tag"),
        comment=call.text("comment"),
        author=call.text("author"),
        pause=call.flag("pause", default=True),
        changes=call.texts("changes"),
        config=config,
    )
    return answer(value, 201)
