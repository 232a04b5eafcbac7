"""Secrets and configs of this engine. Docker's own paths for them belong to its clusters and stay with those."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from aiohttp import web

from barque.api import backends
from barque.api.call import Call, answer, nothing
from barque.api.router import Handler, Table

_MOST = 2 << 20
if TYPE_CHECKING:
    Action = Callable[[Call, backends.SecretsBackend], Awaitable[web.StreamResponse]]


def add(table: Table) -> None:
    """Add these routes."""
    for noun in ("secrets", "configs"):
        table.add("GET", f"/barque/{noun}", _with(noun, _list))
        table.add("POST", f"/barque/{noun}", _with(noun, _create))
        table.add("GET", f"/barque/{noun}/{{name}}", _with(noun, _inspect))
        table.add("POST", f"/barque/{noun}/{{name}}/update", _with(noun, _update))
        table.add("DELETE", f"/barque/{noun}/{{name}}", _with(noun, _remove))


def _with(noun: str, action: Action) -> Handler:
    async def handle(call: Call) -> web.StreamResponse:
        return await action(call, call.backend.secrets if noun == "secrets" else call.backend.configs)

    return handle


async def _list(call: Call, store: backends.SecretsBackend) -> web.StreamResponse:
    return answer(await store.list(call.filters()))


async def _create(call: Call, store: backends.SecretsBackend) -> web.StreamResponse:
    return answer(await store.create(await call.body(limit=_MOST) or {}), 201)


async def _inspect(call: Call, store: backends.SecretsBackend) -> web.StreamResponse:
    return answer(await store.inspect(call.params["name"]))


async def _update(call: Call, store: backends.SecretsBackend) -> web.StreamResponse:
    await store.update(call.params["name"], await call.body(limit=_MOST) or {})
    return nothing(200)


async def _remove(call: Call, store: backends.SecretsBackend) -> web.StreamResponse:
    await store.remove(call.params["name"])
    return nothing()
