"""What this engine does not have, each with an answer that says so."""

from aiohttp import web

from barque.api.call import Call, answer, nothing
from barque.api.router import Handler, Table
from barque.base.errors import NotFoundError, UnavailableError, UnsupportedError

_NOT_A_MANAGER = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node '
    "to swarm and try again."
)
_SWARM = ("swarm", "nodes", "services", "tasks", "secrets", "configs")
_METHODS = ("GET", "POST", "PUT", "DELETE")


def add(table: Table) -> None:
    """Add these routes."""
    for noun in _SWARM:
        for method in _METHODS:
            table.add(method, f"/{noun}", swarm)
            table.add(method, f"/{noun}/{{rest*}}", swarm)
    table.add("GET", "/plugins", list_plugins)
    table.add("GET", "/plugins/{name*}/json", no_plugin)
    table.add("DELETE", "/plugins/{name*}", no_plugin)
    for verb in ("enable", "disable", "upgrade", "push", "set"):
        table.add("POST", f"/plugins/{{name*}}/{verb}", no_plugin)
    table.add("GET", "/plugins/privileges", _refused("plugins are not supported"))
    table.add("POST", "/plugins/pull", _refused("plugins are not supported"))
    table.add("POST", "/plugins/create", _refused("plugins are not supported"))
    for method, path in (("GET", ""), ("POST", ""), ("DELETE", "/{name}")):
        table.add(method, f"/containers/{{ref}}/checkpoints{path}", _refused("checkpoints are not supported"))
    for noun in ("containers", "images", "networks", "volumes", "info", "version", "events", "_ping"):
        table.add("OPTIONS", f"/{noun}", options)
        table.add("OPTIONS", f"/{noun}/{{rest*}}", options)


def _refused(message: str) -> Handler:
    async def refuse(call: Call) -> web.StreamResponse:
        raise UnsupportedError(message)

    return refuse


async def swarm(call: Call) -> web.StreamResponse:
    """Say that this is no cluster."""
    raise UnavailableError(_NOT_A_MANAGER)


async def list_plugins(call: Call) -> web.StreamResponse:
    """List no plugins."""
    call.filters()
    return answer([])


async def no_plugin(call: Call) -> web.StreamResponse:
    """Say that there is no such plugin."""
    raise NotFoundError(f'plugin "{call.params["name"]}" not found')


async def options(call: Call) -> web.StreamResponse:
    """Answer a browser's question beforehand."""
    return nothing(200)
