"""BuildKit's Control service: builds from beginning to end, their progress, the cache, the worker, the history."""

import asyncio
import json
import time
from typing import Any, Protocol

from barque.base.errors import BarqueError, InvalidInputError, UnsupportedError
from barque.builder.buildkit import places, worker
from barque.builder.buildkit.builds import Build, Builds, Outcome
from barque.builder.buildkit.caching import Caches
from barque.builder.buildkit.history import History
from barque.builder.buildkit.llb import Translator
from barque.builder.buildkit.option_values import allowed_devices
from barque.builder.buildkit.pb import control_pb2
from barque.builder.buildkit.progress import timestamp, told
from barque.builder.buildkit.sessions import Sessions, session_of
from barque.builder.buildkit.tunnel import Tunnel
from barque.builder.caches.exports import Wish, wish_of
from barque.builder.filters import passes
from barque.builder.graph import Vertex

Json = dict[str, Any]

class Frontends(Protocol):
    """Turns what a client asks for into vertices."""

    async def solve(self, build: Build, name: str, options: dict[str, str], inputs: dict[str, Vertex]) -> Outcome:
        """Run a frontend.

        Raises:
            UnsupportedError: there is no frontend of that name.
            BarqueError: what it reads is wrong.
        """
        ...

    def prepare(self, build: Build) -> None:
        """Let a build's steps reach what its client offers, whichever frontend they come from, or none."""
        ...

    def take_cache(self, build: Build, kind: str, attributes: dict[str, str]) -> None:
        """Let a build use a cache that lies elsewhere.

        Raises:
            UnsupportedError: such a cache, or an option, is not supported.
        """
        ...

class Exporters(Protocol):
    """Brings a build's outcome to where its client wants it."""

    async def export(self, build: Build, outcome: Outcome, exporters: list[tuple[str, dict[str, str]]]) -> dict[str, str]:
        """Solve what is not solved yet, export it, and return what the client is told of it."""
        ...

class CacheKeeper(Protocol):
    """The build cache as its owner sees it."""

    async def usage(self) -> list[Json]:
        """Return a row for each record, in the API's form."""
        ...

    def built(self) -> None:
        """Say that a build has ended."""
        ...

    async def prune(self, **options: Any) -> list[Json]:
        """Remove parts of it (see pruning.PruneOptions) and return their rows."""
        ...

class Control:
    """Serves moby.buildkit.v1.Control."""

    descriptor = control_pb2.DESCRIPTOR.services_by_name["Control"]

    def __init__(
        self, builds: Builds, sessions: Sessions, tools: "tuple[Caches, Frontends, Exporters, CacheKeeper]", history: History,
        identity: worker.Identity,
    ) -> None:  # fmt: skip
        self._builds = builds
        self._sessions = sessions
        self._caches, self._frontends, self._exporters, self._cache = tools
        self._history = history
        self._identity = identity

    async def solve(self, stream: Any) -> None:
        """Carry a build out and say what it exported."""
        request = await stream.recv_message()
        client = await self._sessions.get(request.Session) if request.Session else None
        build = Build(request.Ref, client)
        build.created_ns = time.time_ns()
        build.entitlements = frozenset(request.Entitlements)
        build.session.options["allow_host_network"] = "network.host" in build.entitlements
        build.session.options["allow_insecure"] = "security.insecure" in build.entitlements
        build.session.options["allow_devices"] = allowed_devices(build.entitlements)
        build.frontend = request.Frontend
        build.options = dict(request.FrontendAttrs)
        exporters = [(one.Type, dict(one.Attrs)) for one in request.Exporters]
        if request.ExporterDeprecated and not exporters:
            exporters = [(request.ExporterDeprecated, dict(request.ExporterAttrsDeprecated))]
        build.exporters = exporters
        _refuse_unknown(request)
        wishes = _wishes(request)
        build.inline = any(wish.kind == "inline" for wish in wishes)
        self._frontends.prepare(build)
        await self._builds.add(build)
        self._history.begun(build, internal=request.Internal)
        try:
            outcome = build.outcome = await self._outcome(build, request)
            build.response = await self._exporters.export(build, outcome, exporters)
            build.response |= await self._caches.export(build, outcome, wishes)
            if build.report.explainer is not None:
                build.response["barque.explain"] = json.dumps(build.report.explainer.rows)
            await stream.send_message(control_pb2.SolveResponse(ExporterResponse=build.response))
        except (BarqueError, OSError) as error:
            build.error = told(error)
            failed = BarqueError(build.error)
            details = error.details if isinstance(error, BarqueError) else ()
            failed.details = build.details = details or places.of_failure(build.session)
            raise failed from None
        except asyncio.CancelledError:
            build.error = "context canceled"
            raise
        finally:
            build.completed_ns = time.time_ns()
            await build.session.close()
            build.report.close()
            self._history.completed(build)
            self._builds.remove_later(build)
            self._cache.built()

    async def _outcome(self, build: Build, request: Any) -> Outcome:
        translator = Translator(self._builds.references)
        inputs = {name: translator.vertex(one) for name, one in request.FrontendInputs.items()}
        build.inputs = inputs
        for one in request.Cache.Imports:
            self._caches.take(build, one.Type, dict(one.Attrs))
        for ref in request.Cache.ImportRefsDeprecated:
            self._caches.take(build, "registry", {"ref": ref})
        if request.Frontend:
            return await self._frontends.solve(build, request.Frontend, dict(request.FrontendAttrs), inputs)
        # `def` is a word of the language: the field is reached by its name.
        if getattr(request.Definition, "def"):
            return Outcome({"": translator.vertex(request.Definition)})
        return await build.returned

    async def session(self, stream: Any) -> None:
        """Call the client's services through this very call."""
        headers: dict[str, list[str]] = {}
        for name, value in stream.metadata.items():
            headers.setdefault(name.lower(), []).append(str(value))
        session = session_of(headers)
        await self._sessions.add(session)
        try:
            await Tunnel(stream, session.client.protocol).run()
        finally:
            self._sessions.remove(session)

    async def status(self, stream: Any) -> None:
        """Send a build's progress until it is over, or what one showed that is recorded."""
        request = await stream.recv_message()
        if not self._builds.under_way(request.Ref) and self._history.has(request.Ref):
            async for said in self._history.shown(request.Ref):
                await stream.send_message(said)
            return
        build = await self._builds.get(request.Ref)
        async for said in build.report.follow():
            await stream.send_message(said)

    async def disk_usage(self, stream: Any) -> None:
        """Say what the cache holds."""
        request = await stream.recv_message()
        fits = passes(list(request.filter))
        rows = [row for row in await self._cache.usage() if fits(row)]
        await stream.send_message(control_pb2.DiskUsageResponse(record=[_record(row) for row in rows]))

    async def prune(self, stream: Any) -> None:
        """Make the cache smaller, and say what went."""
        request = await stream.recv_message()
        removed = await self._cache.prune(
            all=request.all, matching=list(request.filter), unused_ns=request.keepDuration,
            reserved_space=request.reservedSpace, max_used_space=request.maxUsedSpace,
            min_free_space=request.minFreeSpace,
        )  # fmt: skip
        for row in removed:
            await stream.send_message(_record(row))

    async def list_workers(self, stream: Any) -> None:
        """Name the one worker."""
        await stream.recv_message()
        await stream.send_message(control_pb2.ListWorkersResponse(record=[worker.record(self._identity)]))

    async def info(self, stream: Any) -> None:
        """Say which version this is."""
        await stream.recv_message()
        await stream.send_message(control_pb2.InfoResponse(buildkitVersion=worker.version()))

    async def listen_build_history(self, stream: Any) -> None:
        """Send the builds that were, and those to come."""
        request = await stream.recv_message()
        async for event in self._history.follow(request):
            await stream.send_message(event)

    async def update_build_history(self, stream: Any) -> None:
        """Pin, unpin or forget a build, or wait until it is recorded."""
        request = await stream.recv_message()
        if not request.Ref:
            raise InvalidInputError("a build's ref is needed")
        await self._history.update(request.Ref, pinned=request.Pinned, delete=request.Delete, finalize=request.Finalize)
        await stream.send_message(control_pb2.UpdateBuildHistoryResponse())

def _wishes(request: Any) -> list[Wish]:
    """Return the exports of the cache that a client asks for.

    Raises:
        UnsupportedError: such a cache, or an option, is not supported.
        InvalidInputError: an option's value is wrong.
    """
    wishes = [wish_of(one.Type, dict(one.Attrs)) for one in request.Cache.Exports]
    if request.Cache.ExportRefDeprecated and not wishes:
        wishes.append(wish_of("registry", {"ref": request.Cache.ExportRefDeprecated}))
    return wishes


def _refuse_unknown(request: Any) -> None:
    """Refuse what would otherwise be passed over.

    Raises:
        UnsupportedError: the request wants what is not supported.
    """
    if request.HasField("SourcePolicy") or request.SourcePolicySession:
        raise UnsupportedError("source policies are not supported")
    if request.ProxyNetwork:
        raise UnsupportedError("the proxy network is not supported")


def _record(row: Json) -> Any:
    from barque.base.times import parse_ns

    used = row.get("LastUsedAt")
    return control_pb2.UsageRecord(
        ID=row["ID"], Mutable=row["Type"] in ("exec.cachemount", "source.local"), InUse=row["InUse"], Size=row["Size"],
        CreatedAt=timestamp(parse_ns(row["CreatedAt"])), LastUsedAt=timestamp(parse_ns(used)) if used else None,
        UsageCount=row["UsageCount"], Description=row["Description"], RecordType=row["Type"], Shared=row["Shared"],
        Parents=row["Parents"] or [],
    )  # fmt: skip
