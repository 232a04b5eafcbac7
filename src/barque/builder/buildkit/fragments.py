"""What a Dockerfile includes: brought out of the build's context, or one that the client named."""

import asyncio
import json
from collections.abc import Mapping

from barque.base.errors import InvalidInputError
from barque.builder.buildkit.builds import Build
from barque.builder.buildkit.named import NamedContexts
from barque.builder.context import fragment_text
from barque.builder.graph import Vertex
from barque.builder.results import Result, opened
from barque.builder.solver import Solver
from barque.storage.snapshots import Snapshotter


class Fragments:
    """The texts that one request includes, each brought once.

    Args:
        tools: the solver, the layers.
        build: whose request it is.
        options: the frontend's.
        named: what the client named.
    """

    def __init__(
        self, tools: tuple[Solver, Snapshotter], build: Build, options: Mapping[str, str], named: NamedContexts
    ) -> None:
        self._solver, self._snapshots = tools
        self._build = build
        self._options = options
        self._named = named
        self._known: dict[tuple[str, str], str] = {}
        self.given: Vertex | None = None
        """The build's context where that is no folder of the client's."""

    async def read(self, context: str, path: str) -> str:
        """Return a file's text (see including.Read)."""
        found = self._known.get((context, path))
        if found is None:
            shown = f"{context}:{path}" if context else path
            with self._build.report.work(f"[internal] load included {shown}"):
                result = await self._where(context, path)
                found = self._known[context, path] = await asyncio.to_thread(self._text, result, path)
        return found

    async def _where(self, context: str, path: str) -> Result:
        """Return files among which one is, and what links lead to on the way."""
        if not context and self.given is None:
            return await self._folder(self._options.get("contextkey", "context"), path)
        if not context:
            assert self.given is not None
            return await self._solver.solve(self.given, self._build.session)
        folder = self._named.folder(context)
        if folder is not None:
            return await self._folder(folder, path)
        base = await self._named.context(context, "")
        if base is None:
            raise InvalidInputError(f"no context has the name {context}; give one (--build-context {context}=...)")
        return await self._solver.solve(base.vertex, self._build.session)

    async def _folder(self, name: str, path: str) -> Result:
        # The one file comes, whatever .dockerignore says; the client follows its links.
        local = self._build.session.options["locals"]
        found: Result = await local(name, {"local.followpaths": json.dumps([path])}, kept=False)
        return found

    def _text(self, result: Result, path: str) -> str:
        with opened(self._snapshots, result) as tree:
            return fragment_text(tree, path)
