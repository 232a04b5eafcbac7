"""Running a registry server: its parts put together, its sockets, its end."""

import asyncio
import logging
import signal
import ssl
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from aiohttp import web

from barque.base.errors import BarqueError, InvalidInputError
from barque.registry.auth import Everyone, Guard, Htpasswd
from barque.registry.cache import Cache, expire_forever
from barque.registry.collect import Collector, Report, run_forever
from barque.registry.config import Config
from barque.registry.directory import open_directory
from barque.registry.metrics import Metrics
from barque.registry.repositories import Repositories
from barque.registry.server import ROUTES, Registry
from barque.registry.storage import Storage
from barque.registry.upstream import open_upstream

log = logging.getLogger("barque.registry")

_HEADERS_S = 30
"""A connection that sends no whole request for so long is closed."""
_DRAIN_S = 20
"""Requests in progress get so long when the server is told to end."""

Handle = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


async def serve(config: Config, *, ready: Callable[[list[str]], None] = lambda addresses: None) -> None:
    """Serve until a signal ends it.

    Args:
        config: what to serve, and where.
        ready: told the addresses that are listened on.

    Raises:
        BarqueError: the configuration cannot be carried out.
        OSError: an address is taken, a file is missing.
    """
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    async with AsyncExitStack() as stack:
        storage = await open_storage(config, stack)
        metrics = Metrics()
        repositories = Repositories(storage)
        background = None
        routes = ROUTES
        if config.upstream is not None:
            routes = Cache(await open_upstream(config.upstream, stack)).routes()
            if config.upstream.ttl_s and config.collecting.interval_s:
                background = expire_forever(repositories, config.collecting, config.upstream.ttl_s)
        elif config.collecting.interval_s and not config.settings.read_only:
            background = run_forever(repositories, config.collecting)
        if background is not None:
            stack.callback(loop.create_task(background).cancel)
        # Tokens give each user repositories of his own; what lies in the others is not to be had by its digest.
        settings = config.settings._replace(open_mounts=not config.token)
        registry = Registry(repositories, guard_of(config), settings, metrics, routes)
        context = tls_context(config)
        addresses = []
        for host, port in config.addresses:
            addresses.append(await _listen(stack, registry.handle, host, port, context))
        if config.metrics_address:
            await _listen(stack, _metrics_handler(metrics), *config.metrics_address, None)
        for address in addresses:
            log.info("listening on %s%s", address, " (TLS)" if context else "")
        ready(addresses)
        await ended.wait()
        log.info("ending; requests in progress get %d s", _DRAIN_S)


async def collect(config: Config, *, dry_run: bool) -> Report:
    """Collect garbage once, beside the servers that share the storage."""
    async with AsyncExitStack() as stack:
        storage = await open_storage(config, stack)
        return await Collector(Repositories(storage), config.collecting, dry_run=dry_run).run()


async def open_storage(config: Config, stack: AsyncExitStack) -> Storage:
    """Return the storage that the configuration names; the stack closes it."""
    if config.object_store is not None:
        from barque.registry.s3 import open_object_store

        return await open_object_store(config.object_store, stack)
    return open_directory(config.root)


def guard_of(config: Config) -> Guard:
    """Return who decides on requests.

    Raises:
        BarqueError: a file of users or keys is malformed, or a library is missing.
        OSError: it cannot be read.
    """
    try:
        if config.htpasswd:
            return Htpasswd(config.htpasswd, config.realm)
        if config.token:
            from barque.registry.tokens import Tokens, TokenSettings

            return Tokens(TokenSettings(*config.token))
    except ImportError as error:
        raise BarqueError(f"authentication needs a library that is not installed: {error.name}") from None
    return Everyone()


def tls_context(config: Config) -> ssl.SSLContext | None:
    """Return how connections are secured, None for plain ones.

    Raises:
        InvalidInputError: a file holds no certificate or key, or they do not belong together.
    """
    if not config.tls_cert:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(config.tls_cert, config.tls_key)
        if config.tls_client_ca:
            context.load_verify_locations(config.tls_client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (ssl.SSLError, OSError) as error:
        raise InvalidInputError(f"TLS: {error}") from None
    return context


async def _listen(stack: AsyncExitStack, handle: Handle, host: str, port: int, context: ssl.SSLContext | None) -> str:
    server = web.Server(
        handle,
        access_log=None,
        keepalive_timeout=_HEADERS_S,
        handler_cancellation=True,
        auto_decompress=False,
        max_field_size=1 << 15,
        max_line_size=1 << 15,
        lingering_time=5.0,
    )
    runner = web.ServerRunner(server, handle_signals=False, shutdown_timeout=_DRAIN_S)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    site = web.TCPSite(runner, host or None, port, ssl_context=context, backlog=1024)
    await site.start()
    bound = runner.addresses[0]
    return f"[{bound[0]}]:{bound[1]}" if ":" in bound[0] else f"{bound[0]}:{bound[1]}"


def _metrics_handler(metrics: Metrics) -> Handle:
    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        if request.method not in ("GET", "HEAD"):
            return web.Response(status=405)
        if request.path == "/metrics":
            return web.Response(text=metrics.text(), content_type="text/plain")
        if request.path == "/healthz":
            return web.Response(text="ok\n")
        return web.Response(status=404)

    return handle
