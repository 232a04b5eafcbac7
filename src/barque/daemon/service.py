"""The running daemon: the engine behind the API, and what signals do to both."""

import asyncio
import importlib
import logging
import os
import signal
import socket
import ssl
import types
from collections.abc import Callable
from typing import TYPE_CHECKING

from aiohttp import web

import barque
from barque.api.app import make_app
from barque.daemon import config as configs, dozing, log as daemon_log, tls
from barque.daemon.flags import DaemonError
from barque.daemon.listeners import Listener
from barque.daemon.notify import notify
from barque.daemon.options import Options
from barque.engine.engine import Engine, Slept
from barque.engine.quiet import is_quiet
from barque.kernel import signals

if TYPE_CHECKING:
    from barque.builder.service import Builder

log = logging.getLogger("barque.daemon")
_BUILDER_AFTER_S = 0.3

_FORCED_AFTER = 3
_LONGEST_LOOK_S = 5.0
_LAST_ANSWERS_S = 2.0
_BACKLOG = 1024


def _tell_tasks() -> None:
    """Write to the log where every coroutine is, for the search of what waits for what."""
    for task in asyncio.all_tasks():
        places = [f"{frame.f_code.co_qualname if hasattr(frame.f_code, 'co_qualname') else frame.f_code.co_name}:"
                  f"{frame.f_lineno}" for frame in _frames(task)]  # fmt: skip
        log.warning("task %s: %s", task.get_name(), " > ".join(places))


def _frames(task: "asyncio.Task[object]") -> list[types.FrameType]:
    """Return the frames of a task's coroutine and of those it awaits, the outermost first."""
    found = []
    waiting: object = task.get_coro()
    while waiting is not None:
        frame = getattr(waiting, "cr_frame", None) or getattr(waiting, "gi_frame", None) or getattr(waiting, "ag_frame", None)
        if frame is not None:
            found.append(frame)
        waiting = getattr(waiting, "cr_await", None) or getattr(waiting, "gi_yieldfrom", None)
    return found


class Service:
    """Opens the engine, serves it on the sockets, closes both when told."""

    def __init__(self, options: Options, opened: list[Listener]) -> None:
        self._options = options
        self._opened = opened
        self._config = configs.engine_config(options.of_start())
        # What a signal had changed before the daemon dozed off.
        configs.reload(self._config, options)
        self._ended = asyncio.Event()
        self._signals = 0

    async def run(self, slept: Slept | None = None) -> Slept | None:
        """Serve until a signal ends it, or until there is nothing to do; return then what the next daemon needs.

        Args:
            slept: what the daemon before this one in its process left.
        """
        engine = self._engine = Engine(self._config)
        self._obey()
        dozing.give_room_back(self._config.data_root)
        try:
            await engine.open(slept)
        except BaseException:
            # A signal that came while it opened is still to be taken.
            self._signalled()
            if self._ended.is_set():
                await engine.take_leave(slept)
            raise
        builds: list[Builder] = []
        engine.make_builds = lambda: _builder(engine, builds)
        left: Slept | None = None
        try:
            left = await self._serve(engine, builds, awakened=slept is not None)
        finally:
            if left is None:
                notify("STOPPING=1")
            engine.make_builds = None
            for builder in builds:
                await builder.close()
            awake = left is None
            await engine.close(stop_containers=awake and not self._config.live_restore, keeper_stays=not awake)
        if left is None:
            log.info("daemon ended")
        return left

    async def _serve(self, engine: Engine, builds: "list[Builder]", *, awakened: bool) -> Slept | None:
        server = make_app(engine, experimental=self._config.experimental)
        plain: list[asyncio.Server] = []
        secured: list[asyncio.Server] = []
        metrics: list[web.ServerRunner] = []
        try:
            plain = await _listen(server, self._opened)
            for listener in self._opened:
                if listener.tls is not None:
                    secured.append(await _secured(server, listener.sock, listener.tls))
                if not awakened:
                    log.info("API listens on %s", listener.shown)
            if self._options["metrics-addr"]:
                metrics.append(await _serve_metrics(engine, self._options["metrics-addr"]))
            if not awakened:
                log.info("daemon %s has completed its start (pid %d)", barque.__version__, os.getpid())
                engine.spawn(_prepare_builds(engine))
            notify(f"READY=1\nMAINPID={os.getpid()}")

            def rests() -> bool:
                return server.rests and all(builder.rests for builder in builds) and is_quiet(engine)

            def seen() -> object:
                return server.accepted, server.requests_count, engine.events.published

            can_doze = not secured and not metrics
            while not await self._until_idle(seen, rests, can_doze):
                before = seen()
                # From here on clients wait in the sockets, which stay open, and signals in the kernel.
                for front in plain:
                    front.close()
                self._obey_no_more()
                alike = rests() and seen() == before and not self._ended.is_set()
                if alike and dozing.reserve_room(self._config.data_root):
                    return engine.doze()
                self._obey()
                plain = await _listen(server, self._opened)
            return None
        finally:
            for front in (*plain, *secured):
                front.close()
            for page in metrics:
                await page.cleanup()
            # Their clients' connections end with them: nothing waits for a build to come to its own end.
            for builder in builds:
                await builder.cancel_all()
            # What has been accepted by now is begun, and ended by this.
            await asyncio.sleep(0)
            server.pre_shutdown()
            await server.shutdown(_LAST_ANSWERS_S)

    async def _until_idle(self, seen: Callable[[], object], rests: Callable[[], bool], can_doze: bool) -> bool:
        """Wait until the daemon is to end (True), or until it may doze (False)."""
        limit_s = self._options["idle-timeout"]
        if not limit_s or not can_doze:
            await self._ended.wait()
            return True
        watch = dozing.Watch()
        while not self._ended.is_set():
            if watch.idle_s(seen(), quiet=rests()) >= limit_s:
                return False
            try:
                await asyncio.wait_for(self._ended.wait(), min(limit_s / 4, _LONGEST_LOOK_S))
            except TimeoutError:
                continue
        return True

    def _obey(self) -> None:
        """Take signals from now on, those first that came while nobody took them."""
        self._signal_fd = signals.descriptor(dozing.SIGNALS)
        asyncio.get_running_loop().add_reader(self._signal_fd, self._signalled)

    def _obey_no_more(self) -> None:
        """Leave signals where they are from now on."""
        asyncio.get_running_loop().remove_reader(self._signal_fd)
        os.close(self._signal_fd)

    def _signalled(self) -> None:
        for number in signals.take(self._signal_fd):
            match number:
                case signal.SIGHUP:
                    self._reload()
                case signal.SIGUSR2:
                    _tell_tasks()
                case _:
                    self._end()

    def _end(self) -> None:
        self._signals += 1
        if self._signals >= _FORCED_AFTER:
            log.error("forced to end without cleaning up")
            os._exit(128 + signal.SIGINT)
        log.info("ending as a signal asks")
        self._ended.set()

    def _reload(self) -> None:
        notify("RELOADING=1")
        try:
            self._options.load_file()
            changed = configs.reload(self._config, self._options)
            self._engine.disk_budget.apply(self._config.disk_budget)
            self._engine.event_hooks.apply(self._config.event_hooks)
            daemon_log.set_up(
                self._options["log-level"],
                as_json=self._options["log-format"] == "json",
                debug=self._options["debug"],
            )
            log.info("configuration read again; changed: %s", ", ".join(changed) or "nothing")
        except DaemonError as error:
            log.error("the configuration stays as it was: %s", error)
        notify("READY=1")


async def _listen(server: web.Server, listeners: list[Listener]) -> list[asyncio.Server]:
    """Serve plain sockets by copies, so that they stay when serving ends."""
    loop = asyncio.get_running_loop()
    return [
        await loop.create_server(server, sock=one.sock.dup(), backlog=_BACKLOG) for one in listeners if one.tls is None
    ]


def _builder(engine: Engine, made: "list[Builder]") -> "Builder":
    """Make the builder; its code is a good part of all, which no other request should wait for."""
    from barque.builder.service import Builder

    made.append(Builder(engine))
    return made[-1]


async def _prepare_builds(engine: Engine) -> None:
    """Have the builder ready before somebody builds; the requests that come first are answered first."""
    await asyncio.sleep(_BUILDER_AFTER_S)
    await asyncio.to_thread(importlib.import_module, "barque.builder.service")
    # Also sweeps what builds left that a killed daemon did not end.
    log.debug("the builder is ready: %s", engine.builds is not None)


async def _serve_metrics(engine: Engine, address: str) -> "web.ServerRunner":
    """Serve the engine's numbers at /metrics.

    Raises:
        DaemonError: the address is none, or is taken.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal():
        raise DaemonError(f"invalid metrics-addr: {address}: use host:port")

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.path != "/metrics":
            return web.Response(status=404, text="404 page not found\n")
        return web.Response(text=engine.metrics.page(), content_type="text/plain", charset="utf-8")

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    try:
        await web.TCPSite(runner, host.strip("[]") or "0.0.0.0", int(port)).start()
    except OSError as error:
        await runner.cleanup()
        raise DaemonError(f"cannot serve metrics at {address}: {error.strerror}") from None
    log.info("metrics are served at %s", address)
    return runner


async def _secured(server: web.Server, sock: socket.socket, context: ssl.SSLContext) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    return await loop.create_server(lambda: tls.Secured(context, server), sock=sock, backlog=_BACKLOG)
