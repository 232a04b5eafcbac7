"""Questions to registries: credentials, and what a name means there."""

import re

from aiohttp import web

from barque.api import checks
from barque.api.call import Call, answer
from barque.api.router import Table
from barque.base.errors import InvalidInputError


def add(table: Table) -> None:
    """Add these routes."""
    table.add("POST", "/auth", login)
    table.add("GET", "/distribution/{name*}/json", inspect)


async def login(call: Call) -> web.StreamResponse:
    """Prove credentials."""
    body = checks.checked(await call.body() or {}, checks.AUTH, "AuthConfig")
    server = body.get("serveraddress") or ""
    if not re.fullmatch(r"[\w.:/\[\]-]*", server):
        raise InvalidInputError(f"invalid registry address: {server}")
    return answer(await call.backend.registries.login(body))


async def inspect(call: Call) -> web.StreamResponse:
    """Tell what a name means in its registry."""
    return answer(await call.backend.registries.inspect(call.params["name"], auth=call.auth()))
