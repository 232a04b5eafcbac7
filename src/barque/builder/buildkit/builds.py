"""Builds under way: what their clients asked for, what they refer to, and what came of them."""

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from barque.base.errors import BarqueError, InvalidInputError, NotFoundError
from barque.builder.buildkit.details import Details
from barque.builder.buildkit.progress import Report
from barque.builder.buildkit.sessions import ClientSession
from barque.builder.graph import Scratch, Vertex
from barque.builder.solver import Session

if TYPE_CHECKING:
    from barque.builder.buildkit.attestations import Predicate
    from barque.builder.buildkit.containers import FrontendContainer

_WAIT_S = 6.0
_KEPT_S = 10.0
_REMEMBERED = 4096


@dataclass(slots=True)
class Outcome:
    """What a frontend made: a vertex for each platform ("" without platforms), and what it says of them."""

    vertices: dict[str, Vertex] = field(default_factory=dict)
    metadata: dict[str, bytes] = field(default_factory=dict)
    attestations: dict[str, list[Any]] = field(default_factory=dict)


class References:
    """Names that clients know vertices by; the oldest of very many is forgotten."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Vertex] = OrderedDict()

    def add(self, vertex: Vertex) -> str:
        """Return a new name of a vertex, empty for nothing at all."""
        if isinstance(vertex, Scratch):
            return ""
        name = secrets.token_hex(12)
        self._known[name] = vertex
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return name

    def get(self, name: str) -> Vertex:
        """Return the vertex of a name.

        Raises:
            NotFoundError: nothing has it.
        """
        if not name:
            return Scratch()
        try:
            return self._known[name]
        except KeyError:
            raise NotFoundError(f"no such ref {name}") from None


class Build:
    """One build: its client, its steps, its progress."""

    def __init__(self, ref: str, client: ClientSession | None) -> None:
        self.ref = ref
        self.client = client
        self.report = Report(ref)
        self.session = Session(self.report)
        self.inputs: Mapping[str, Vertex] = {}
        self.entitlements: frozenset[str] = frozenset()
        self.returned: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.created_ns = 0
        self.completed_ns = 0
        self.frontend = ""
        self.options: dict[str, str] = {}
        self.response: dict[str, str] = {}
        self.error = ""
        self.details: Details = []
        """What goes with the error: the place in a Dockerfile."""
        self.exporters: list[tuple[str, dict[str, str]]] = []
        self.outcome = Outcome()
        self.predicates: dict[str, list[Predicate]] = {}
        self.scans: dict[str, Vertex] = {}
        """The steps that scan what is built, by platform."""
        self.inline = False
        """Whether the images of this build hold the records of its cache."""
        self.containers: dict[str, FrontendContainer] = {}
        """Those that its client has made, by the client's names."""

    def need_client(self) -> ClientSession:
        """Return the client's session.

        Raises:
            InvalidInputError: the client has none.
        """
        if self.client is None:
            raise InvalidInputError("the build needs a client session, and its client has none")
        return self.client

    def answer(self, outcome: Outcome | None, error: BarqueError | None) -> None:
        """Take what the client's own frontend came to."""
        if self.returned.done():
            return
        if outcome is not None:
            self.returned.set_result(outcome)
        elif error is not None:
            self.returned.set_exception(error)


class Builds:
    """The builds under way, by the ref that their clients gave them."""

    def __init__(self) -> None:
        self._running: dict[str, Build] = {}
        self._changed = asyncio.Condition()
        self.references = References()

    async def add(self, build: Build) -> None:
        """Let calls find a build.

        Raises:
            InvalidInputError: it has no ref, or its ref is in use.
        """
        if not build.ref:
            raise InvalidInputError("a solve request needs a ref")
        if build.ref in self._running:
            raise InvalidInputError(f"job ID {build.ref} exists")
        self._running[build.ref] = build
        async with self._changed:
            self._changed.notify_all()

    def remove_later(self, build: Build) -> None:
        """Forget a build that is over, but not before its client has had time to read its progress."""
        asyncio.get_running_loop().call_later(_KEPT_S, self._running.pop, build.ref, None)

    @property
    def none_under_way(self) -> bool:
        """Whether no build is under way, nor ended a moment ago."""
        return not self._running

    def under_way(self, ref: str) -> bool:
        """Tell whether a build is under way, or ended a moment ago."""
        return ref in self._running

    async def get(self, ref: str) -> Build:
        """Return a build; one that has not begun is waited for, at most 6 s.

        Raises:
            NotFoundError: it does not begin.
        """
        found = self._running.get(ref)
        if found is not None:
            return found
        try:
            async with asyncio.timeout(_WAIT_S), self._changed:
                await self._changed.wait_for(lambda: ref in self._running)
        except TimeoutError:
            raise NotFoundError(f"no such job {ref}") from None
        return self._running[ref]
