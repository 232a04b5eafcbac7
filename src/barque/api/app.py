"""The HTTP application: finds the route of a request, keeps its errors in Docker's form, sets the headers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from aiohttp import web

import barque
from barque.api import backends, routes
from barque.api.call import MAX_VERSION, Call, error_answer
from barque.api.hijack import Finished, UpgradableHandler
from barque.api.router import Route, Table, dotted, split_version
from barque.base.errors import BarqueError

log = logging.getLogger(__name__)

HEADERS: Mapping[str, str] = {
    "Api-Version": dotted(MAX_VERSION),
    "Docker-Experimental": "false",
    "Ostype": "linux",
    "Server": f"Barque/{barque.__version__} (linux)",
}


class App:
    """Answers requests out of an engine.

    Args:
        backend: the engine.
        experimental: what the daemon says of itself in a header.
    """

    def __init__(self, backend: backends.Backend, *, experimental: bool = False) -> None:
        self._backend = backend
        self.headers = {**HEADERS, "Docker-Experimental": "true" if experimental else "false"}
        self._table = Table()
        self.working: set[asyncio.Future[web.StreamResponse]] = set()
        """Requests that change something, also those whose clients have gone."""
        routes.add_all(self._table)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        try:
            return await self._dispatch(request)
        except BarqueError as error:
            return self._failed(request, error.http_status, str(error))
        except ConnectionError:
            raise
        except OSError as error:
            log.warning("%s %s: %s", request.method, request.path, error)
            # Its file is the engine's own affair.
            return self._failed(request, 500, (error.strerror or str(error)).lower())
        except web.HTTPException as error:
            return self._failed(request, error.status, error.reason)
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            return self._failed(request, 500, "internal error; the daemon's log has more")

    async def _dispatch(self, request: web.BaseRequest) -> web.StreamResponse:
        version, path = split_version(request.path)
        found = self._table.find(request.method, path)
        if found is None:
            return error_answer(404, "page not found")
        route, params = found
        call = Call(request, self._backend, version or MAX_VERSION, params)
        return await self._run(route, call)

    async def _run(self, route: Route, call: Call) -> web.StreamResponse:
        if route.follows:
            return await route.handler(call)
        # A client that goes away must not leave half of a change behind.
        task = asyncio.ensure_future(route.handler(call))
        self.working.add(task)
        task.add_done_callback(self.working.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_forget)
            raise

    def _failed(self, request: web.BaseRequest, status: int, message: str) -> web.StreamResponse:
        log.debug("%s %s: %d %s", request.method, request.path, status, message)
        if isinstance(request, _Request) and request.answered:
            # The answer has begun: that it breaks off is all that can be told.
            if request.transport is not None:
                request.transport.abort()
            return Finished()
        return error_answer(status, message)


def _forget(task: asyncio.Future[web.StreamResponse]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.debug("a request whose client has gone: %s", task.exception())


class _Request(web.BaseRequest):
    """A request that gives its answer the headers which all answers carry."""

    common: Mapping[str, str] = HEADERS
    answered = False

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        self.answered = True
        for name, value in self.common.items():
            response.headers[name] = value


def make_app(backend: backends.Backend, *, experimental: bool = False) -> ApiServer:
    """Return the server that a runner puts on its sockets; call it inside the running loop."""
    app = App(backend, experimental=experimental)
    loop = asyncio.get_running_loop()

    class Request(_Request):
        common = app.headers

    def request_of(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
        return Request(message, payload, protocol, writer, task, loop, client_max_size=1 << 40)

    return ApiServer(
        app,
        request_factory=request_of,
        handler_cancellation=True,
        access_log=None,
        auto_decompress=False,
        max_field_size=1 << 16,
        max_line_size=1 << 16,
        lingering_time=2.0,
    )


class ApiServer(web.Server):
    """aiohttp's server with our handler of connections."""

    def __init__(self, app: App, **settings: Any) -> None:
        super().__init__(app.handle, **settings)
        self._app = app
        self.accepted = 0
        """How many connections have been accepted, those included of which nothing is known yet but that."""

    @property
    def rests(self) -> bool:
        """Tell whether there is neither a client nor a request that goes on without its client."""
        return not self.connections and not self._app.working

    def __call__(self) -> UpgradableHandler:
        """Return the handler of a new connection."""
        self.accepted += 1
        return UpgradableHandler(self, loop=self._loop, **self._kwargs)
