"""Builds from beginning to end: the session that they share, the request, the progress, the outcome."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from typing import TYPE_CHECKING, Any, Protocol

from grpclib.exceptions import GRPCError, StreamTerminatedError

from barque.base.errors import BarqueError, UnavailableError
from barque.builder.buildkit.pb import control_pb2
from barque.cli.building import nested
from barque.cli.building.files import FileSend, FileSync, Upload
from barque.cli.building.link import CONTROL, Link
from barque.cli.building.stores import Store, Stores

if TYPE_CHECKING:
    from barque.builder.buildkit.connection import Service
    from barque.cli.building.request import BuildRequest

FRONTEND = "dockerfile.v0"
_LAST_WORDS_S = 3.0


class Display(Protocol):
    """Shows builds' progress."""

    def take(self, status: Any, name: str) -> None:
        """Show what a build says; name is the build's, empty where there is one alone."""
        ...


class SolveError(BarqueError):
    """A build failed; `details` is what the engine says of the place."""

    def __init__(self, message: str, details: list[tuple[str, bytes]]) -> None:
        super().__init__(f"failed to solve: {message}")
        self.details = details


class Builds:
    """Carries builds out over one link, each with a session of its own.

    Args:
        link: to the engine, open.
        services: what the builds may ask of us besides files.
        display: shows progress.
    """

    def __init__(self, link: Link, services: list[Service], display: Display) -> None:
        self._link = link
        self._services = services
        self._display = display

    async def _offer(self, request: BuildRequest) -> str:
        """Offer the engine what a build needs; return the session's id."""
        upload = Upload()
        folders: dict[str, str] = {}
        stores: dict[str, Store] = {}
        for one in request.all():
            stores |= one.inputs.stores
            folders |= one.inputs.folders
            for name, opened in one.inputs.uploads.items():
                upload.add(name, opened)
        services: list[Service] = [FileSync(folders), upload, *self._services]
        if stores:
            services.append(Stores(stores))
        destinations = {str(n): one.destination for n, one in enumerate(request.outputs) if one.destination is not None}
        if destinations:
            services.append(FileSend(destinations))
        identity = secrets.token_hex(12)
        await self._link.offer(identity, request.inputs.key, *services)
        return identity

    async def run(self, request: BuildRequest, *, shown: str = "") -> tuple[str, dict[str, str]]:
        """Carry one build out; return its ref and what the engine says of what was made.

        Raises:
            SolveError: it failed.
            UnavailableError: the connection broke.
        """
        ref = secrets.token_hex(13)[:25]
        message = control_pb2.SolveRequest(
            Ref=ref, Session=await self._offer(request), Entitlements=request.entitlements,
            Exporters=[control_pb2.Exporter(Type=one.type, Attrs=one.attributes) for one in request.outputs],
            Cache=control_pb2.CacheOptions(
                Exports=[control_pb2.CacheOptionsEntry(Type=kind, Attrs=fields) for kind, fields in request.cache_exports]
            ),
        )  # fmt: skip
        if not request.linked:
            message.Frontend = FRONTEND
            message.FrontendAttrs.update(request.frontend_options())
        beside = [asyncio.create_task(self._follow(ref, shown))]
        if request.linked:
            beside.append(asyncio.create_task(nested.lead(self._link, ref, request)))
        try:
            response = await self._solve(message)
            await asyncio.to_thread(_name_caches, request, response)
            return ref, response
        finally:
            _, late = await asyncio.wait(beside, timeout=_LAST_WORDS_S)
            for task in late:
                task.cancel()
            for output in request.outputs:
                if output.destination is not None:
                    output.destination.close()

    async def _solve(self, message: Any) -> dict[str, str]:
        try:
            async with self._link.stream(f"{CONTROL}/Solve") as stream:
                await stream.send_message(message, end=True)
                reply = await stream.recv_message()
        except GRPCError as error:
            raise SolveError(error.message or error.status.name, _details(error)) from None
        except (OSError, StreamTerminatedError) as error:
            raise UnavailableError(f"the connection to the engine broke while it built: {error}") from None
        return dict(reply.ExporterResponse) if reply is not None else {}

    async def _follow(self, ref: str, shown: str) -> None:
        try:
            async with self._link.stream(f"{CONTROL}/Status") as stream:
                await stream.send_message(control_pb2.StatusRequest(Ref=ref), end=True)
                while (status := await stream.recv_message()) is not None:
                    self._display.take(status, shown)
        except (GRPCError, OSError, StreamTerminatedError):
            # The build's own answer tells what happened.
            return


def _name_caches(request: BuildRequest, response: dict[str, str]) -> None:
    """Let the folders that a cache went to say which manifest it is; blocking.

    Raises:
        BarqueError: the folder cannot be written to, or the engine did not say.
    """
    for store in request.inputs.stores.values():
        text = response.get("cache.manifest")
        if not store.writable or not text:
            continue
        try:
            described = json.loads(text)
            if os.path.exists(store.blob(str(described.get("digest")))):
                store.put(described)
        except (OSError, ValueError, AttributeError) as error:
            raise BarqueError(f"the cache in {store.folder} could not be given its tag: {error}") from None


def _details(error: GRPCError) -> list[tuple[str, bytes]]:
    return list(error.details) if isinstance(error.details, list) else []
