"""The BuildKit side of the builder, as the API hands connections to it."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from barque.builder.buildkit import provenance, worker
from barque.builder.buildkit.builds import Builds
from barque.builder.buildkit.caching import Caches
from barque.builder.buildkit.connection import GrpcServer
from barque.builder.buildkit.contexts import ContextFolders
from barque.builder.buildkit.control import Control
from barque.builder.buildkit.exporters import EngineExporters
from barque.builder.buildkit.foreign import ForeignFrontends
from barque.builder.buildkit.frontends import DockerfileFrontends
from barque.builder.buildkit.gateway import Gateway, Tools
from barque.builder.buildkit.health import Health
from barque.builder.buildkit.history import History
from barque.builder.buildkit.history_store import HistoryContent, HistoryStore
from barque.builder.buildkit.sessions import Sessions, session_of
from barque.builder.collecting import history_limits
from barque.engine.etc_files import host_gateway

if TYPE_CHECKING:
    from barque.builder.service import Builder
    from barque.engine.engine import Engine

Json = dict[str, Any]


class BuildKit:
    """Serves BuildKit's clients; made when the first of them comes."""

    def __init__(self, engine: "Engine", builder: "Builder") -> None:
        identity = worker.Identity(engine.engine_id, host_gateway(engine), worker.platforms_here())
        self.sessions = Sessions()
        self._builds = Builds()
        folders = ContextFolders(builder.contexts)
        caches = Caches(engine, builder)
        frontends = DockerfileFrontends(engine, builder.solver, builder.sources, folders, caches)
        exporters = EngineExporters(engine, builder.solver, builder.cache, frontends.finished_config, caches)
        records = HistoryStore(f"{engine.config.data_root}/builder/history")
        self._history = History(records, lambda: history_limits(engine.config.builder), partial(provenance.recorded, engine.image_store))
        control = Control(
            self._builds, self.sessions, (caches, frontends, exporters, _Cache(builder)), self._history, identity
        )
        tools = Tools(self._builds, builder.solver, frontends, builder.sources, builder.operations.mounts)
        frontends.foreign = ForeignFrontends(engine, tools, identity).solve
        gateway = Gateway(engine, tools, identity)
        self._server = GrpcServer(control, gateway, Health(), HistoryContent(records))

    @property
    def rests(self) -> bool:
        """Tell whether no build is under way and all that are over are recorded."""
        return self._builds.none_under_way and self._history.is_settled

    async def close(self) -> None:
        """Wait until the builds that are over are recorded."""
        await self._history.settled()

    def serve(self) -> asyncio.Protocol:
        """Return the protocol of a connection whose client calls us."""
        return self._server.protocol()

    async def open_session(self, headers: dict[str, list[str]]) -> tuple[asyncio.Protocol, Callable[[], None]]:
        """Return the protocol of a connection whose client we call, and what to do when it ends.

        Raises:
            InvalidInputError: the headers name no session, or one that is open.
        """
        session = session_of(headers)
        await self.sessions.add(session)
        return session.client.protocol, lambda: self.sessions.remove(session)


class _Cache:
    def __init__(self, builder: "Builder") -> None:
        self._builder = builder

    async def usage(self) -> list[Json]:
        return await self._builder.disk_usage()

    def built(self) -> None:
        self._builder.built()

    async def prune(self, **options: Any) -> list[Json]:
        rows, _ = await self._builder.pruned(**options)
        return rows
