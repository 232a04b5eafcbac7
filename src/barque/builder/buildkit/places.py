"""Where in a Dockerfile an error comes from: told to clients in the details of the error, as BuildKit does."""

import base64
import json

from barque.builder.buildkit.details import Details
from barque.builder.graph import Vertex
from barque.builder.solver import Session

Place = tuple[str, str, int, int]
"""A file's name, its text, and the first and last line, counted from 1."""
SOURCE = "github.com/moby/buildkit/errdefs.Source+json"
_OPTION = "places"


def details_of(place: Place) -> Details:
    """Return a place as an error's details."""
    name, text, start, end = place
    data = base64.b64encode(text.encode("utf-8", "surrogateescape")).decode()
    span = {"start": {"line": start}, "end": {"line": max(start, end)}}
    value = {"info": {"filename": name, "data": data, "language": "Dockerfile"}, "ranges": [span]}
    return [(SOURCE, json.dumps(value).encode())]


def remember(session: Session, vertices: dict[Vertex, tuple[int, int]], name: str, text: str) -> None:
    """Note which lines of a file vertices come from."""
    session.options.setdefault(_OPTION, []).append((vertices, name, text))


def of_failure(session: Session) -> Details:
    """Return where the step comes from that failed, nothing where no step of a file did."""
    for vertices, name, text in session.options.get(_OPTION, []):
        for vertex, (start, end) in vertices.items():
            task = session.tasks.get(vertex)
            if task is None or not task.done() or task.cancelled() or task.exception() is None or not start:
                continue
            # A step whose input failed fails with it; the one whose inputs are all well is meant.
            if all(_well(session, needed) for needed in vertex.inputs):
                return details_of((name, text, start, end))
    return []


def _well(session: Session, vertex: Vertex) -> bool:
    task = session.tasks.get(vertex)
    return task is None or (task.done() and not task.cancelled() and task.exception() is None)


def remembered(session: Session) -> list[tuple[dict[Vertex, tuple[int, int]], str, str]]:
    """Return what was noted: lines by vertex, the file's name, its text."""
    found: list[tuple[dict[Vertex, tuple[int, int]], str, str]] = session.options.get(_OPTION, [])
    return found
