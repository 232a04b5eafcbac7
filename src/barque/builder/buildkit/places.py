"""Where in a Dockerfile an error comes from: told to clients in the details of the error, as BuildKit does."""

import base64
import json
from collections.abc import Mapping

from barque.base.errors import InvalidInputError
from barque.builder.buildkit.details import Details
from barque.builder.buildkit.option_values import foreign
from barque.builder.graph import Vertex
from barque.builder.solver import Session
from barque.dockerfile.directives import syntax
from barque.dockerfile.errors import DockerfileError
from barque.dockerfile.line import Fragment

Lines = dict[Vertex, tuple[int, int, Fragment | None]]
"""The first and last line of steps, and what was included for them."""
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


def placed(error: DockerfileError, name: str, text: str) -> InvalidInputError:
    """Return what is wrong with a Dockerfile as an error of the client's, with its place in it or in what it includes."""
    made = InvalidInputError(str(error))
    if error.line:
        known = (name, text) if error.file is None else (error.file.name, error.file.text)
        made.details = details_of((*known, error.line, error.end))
    return made


def foreign_line(options: Mapping[str, str], name: str, text: str) -> str:
    """Return the line that names a frontend which is an image, empty where the built-in one is meant.

    Args:
        options: the frontend's.
        name: the Dockerfile's.
        text: its text.

    Raises:
        InvalidInputError: it names no image.
    """
    if "cmdline" in options:
        # Such a frontend asks for the built-in one.
        return ""
    wished, found = options.get("build-arg:BUILDKIT_SYNTAX", ""), syntax(text)
    line = wished or (found.value if found is not None else "")
    try:
        return line if line and foreign(line) else ""
    except InvalidInputError as error:
        if wished or found is None:
            raise InvalidInputError(f"failed with build-arg:BUILDKIT_SYNTAX = {wished}: {error}") from None
        error.details = details_of((name, text, found.line, found.line))
        raise


def remember(session: Session, vertices: Lines, name: str, text: str) -> None:
    """Note which lines of a file, or of what it includes, vertices come from."""
    session.options.setdefault(_OPTION, []).append((vertices, name, text))


def of_failure(session: Session) -> Details:
    """Return where the step comes from that failed, nothing where no step of a file did."""
    for vertices, name, text in session.options.get(_OPTION, []):
        for vertex, (start, end, file) in vertices.items():
            task = session.tasks.get(vertex)
            if task is None or not task.done() or task.cancelled() or task.exception() is None or not start:
                continue
            # A step whose input failed fails with it; the one whose inputs are all well is meant.
            if all(_well(session, needed) for needed in vertex.inputs):
                return details_of((file.name, file.text, start, end) if file is not None else (name, text, start, end))
    return []


def _well(session: Session, vertex: Vertex) -> bool:
    task = session.tasks.get(vertex)
    return task is None or (task.done() and not task.cancelled() and task.exception() is None)


def remembered(session: Session) -> list[tuple[Lines, str, str]]:
    """Return what was noted: lines by vertex, the file's name, its text."""
    found: list[tuple[Lines, str, str]] = session.options.get(_OPTION, [])
    return found


def included_at(session: Session, vertex: Vertex) -> str:
    """Return where a step stands that an INCLUDE brought (file:line), empty for all others."""
    for vertices, _, _ in remembered(session):
        start, _, file = vertices.get(vertex, (0, 0, None))
        if file is not None:
            return f"{file.name}:{start}"
    return ""
