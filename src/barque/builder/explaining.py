"""Explaining a build's steps while it runs: hit, or what differs from the nearest earlier run."""

from collections.abc import Callable
from typing import Any

from barque.base.times import format_ns
from barque.builder.cache import BuildCache
from barque.builder.explain import NO_CACHE, Reason, Run, nearest, reasons
from barque.builder.graph import Layers, Source, Vertex
from barque.builder.keys import key_of
from barque.builder.results import Result
from barque.builder.solver import Session

Json = dict[str, Any]


class Explainer:
    """Explains the steps of one build; `rows` holds what was said, in the form of JSON.

    `included_at` says where a step stands that was included, empty for others.
    """

    def __init__(self, cache: BuildCache, session: Session, included_at: Callable[[Session, Vertex], str]) -> None:
        self._cache = cache
        self._session = session
        self._included_at = included_at
        self.rows: list[Json] = []

    def missed(self, vertex: Vertex) -> list[str]:
        """Return why a step is carried out, a sentence each; nothing of steps that are never cached."""
        facts = self._session.facts.get(vertex)
        if facts is None:
            return []
        if vertex.no_cache:
            found = [NO_CACHE]
        else:
            kind = type(vertex).__name__.lower()
            runs = [Run(one.description, one.facts, one.created_ns) for one in self._cache.records() if one.kind == kind]
            before = nearest(vertex.name, facts, runs)
            found = [self._named(reason, vertex) for reason in reasons(vertex.name, facts, before)]
        row: Json = {"step": vertex.name, "cached": False, "reasons": [one._asdict() for one in found]}
        place = self._place(row, vertex)
        self.rows.append(row)
        return [f"not in the cache: {one.text}{place}" for one in found]

    def _place(self, row: Json, vertex: Vertex) -> str:
        """Note which line of an included text a step is, and return how that is told."""
        found = self._included_at(self._session, vertex)
        if found:
            row["included"] = found
        return f" ({found})" if found else ""

    def _named(self, reason: Reason, vertex: Vertex) -> Reason:
        """Say of other files below a step which step they come from."""
        if reason.kind != "root" or not vertex.inputs:
            return reason
        below = vertex.inputs[0]
        if isinstance(below, Layers | Source):
            return Reason("base", below.name, f"the base differs: {below.name or 'the image that it starts from'}")
        return Reason("root", below.name, f"the step before it gave other files: {below.name}") if below.name else reason

    def hit(self, vertex: Vertex, result: Result) -> list[str]:
        """Return which run a step's result comes from."""
        facts = self._session.facts.get(vertex)
        if facts is None:
            return []
        record = self._cache.peek(key_of(facts))
        made = format_ns(result.created_ns) if result.created_ns else ""
        row: Json = {"step": vertex.name, "cached": True, "reasons": []}
        if made:
            row["made"] = made
        place = self._place(row, vertex)
        if record is None:
            row["imported"] = True
            self.rows.append(row)
            return [f"in a cache that was imported{place}"]
        row["uses"] = record.uses
        self.rows.append(row)
        times = "once" if record.uses == 1 else f"{record.uses} times"
        return [f"in the cache: made at {made[:19]}Z, used {times}{place}"]
