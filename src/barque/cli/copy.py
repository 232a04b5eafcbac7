"""`cp`: files and folders between a container and this machine, and tar streams."""

import base64
import json
import os
import stat
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

from barque.base.errors import InvalidInputError
from barque.cli.copy_archive import Counter, extract, packed
from barque.cli.units import human_size
from barque.cli.verb import Invocation
from barque.client.api import Api, quote
from barque.client.http import ApiError

GO_FOLDER = 1 << 31
GO_LINK = 1 << 27
PIECE_BYTES = 1 << 18


class Place(NamedTuple):
    """Where something is: a container (or "" for this machine) and a path."""

    container: str
    path: str


def split_place(text: str) -> Place:
    """Divide CONTAINER:PATH; absolute paths and paths that begin with a dot are always on this machine."""
    if text.startswith(("/", ".")):
        return Place("", text)
    container, colon, path = text.partition(":")
    return Place(container, path) if colon else Place("", text)


def cp(call: Invocation) -> int:
    """Copy."""
    source, target = map(split_place, call.words)
    if not call.words[0] or not call.words[1]:
        raise InvalidInputError("source can not be empty" if not call.words[0] else "destination can not be empty")
    if source.container and target.container:
        raise InvalidInputError("copying between containers is not supported")
    quiet = call.options["quiet"] if call.options.given("quiet") else not sys.stdout.isatty()
    if source.container:
        count = _out(call, source, target.path)
        place = target.path
    elif target.container:
        count = _into(call, source.path, target)
        place = f"{target.container}:{target.path}"
    else:
        raise InvalidInputError("must specify at least one container source")
    if not quiet and target.path != "-":
        print(f"Successfully copied {human_size(count, 3)} to {place}", file=sys.stderr)
    return 0


def _archive(api: Api, place: Place, method: str, **more: Any) -> Any:
    parameters = {"path": place.path, **more.pop("parameters", {})}
    return api.send(method, f"/containers/{quote(place.container)}/archive", parameters=parameters, **more)


def _stat(api: Api, place: Place) -> dict[str, Any] | None:
    try:
        response = _archive(api, place, "HEAD")
    except ApiError as error:
        if error.status == 404:
            return None
        raise
    response.close()
    found = json.loads(base64.b64decode(response.headers.get("x-docker-container-path-stat", "")))
    return dict(found)


def _out(call: Invocation, source: Place, target: str) -> int:
    if target != "-":
        folder = target if target.endswith("/") else os.path.dirname(os.path.abspath(target))
        if not os.path.isdir(folder):
            raise InvalidInputError(
                f"invalid output path: directory {json.dumps(folder)} does not exist"
                if not os.path.lexists(folder.rstrip("/"))
                else "not a directory"
            )
    rebase = ""
    if call.options["follow-link"]:
        found = _stat(call.api, source)
        if found and found["mode"] & GO_LINK:
            link = found["linkTarget"]
            path = link if link.startswith("/") else os.path.join(os.path.dirname(source.path), link)
            rebase = os.path.basename(source.path)
            source = Place(source.container, path)
    try:
        response = _archive(call.api, source, "GET")
    except ApiError as error:
        if error.status == 404 and not error.message:
            raise InvalidInputError(f"Could not find the file {source.path} in container {source.container}") from error
        raise
    counter = Counter(response.chunks())
    if target == "-":
        from barque.cli.session import write_all

        for piece in counter:
            write_all(1, piece)
    else:
        found = json.loads(base64.b64decode(response.headers["x-docker-container-path-stat"]))
        extract(
            counter,
            target,
            name=rebase or found["name"],
            folder=bool(found["mode"] & GO_FOLDER),
            contents=found["name"] in (".", "/"),
            owners=call.options["archive"],
        )
    response.close()
    return counter.count


def _into(call: Invocation, source: str, target: Place) -> int:
    found = _stat(call.api, target)
    target, found = _follow(call.api, target, found)
    folder = bool(found and found["mode"] & GO_FOLDER)
    if source == "-":
        if not folder:
            raise InvalidInputError(f'destination "{target.container}:{target.path}" must be a directory')
        body: Iterator[bytes] = _standard_input()
        destination = target.path
    else:
        body, destination = _local(call, source, target, folder, found is not None)
    counter = Counter(body)
    parameters = {"noOverwriteDirNonDir": "true", "copyUIDGID": "true" if call.options["archive"] else None}
    place = Place(target.container, destination)
    headers = {"Content-Type": "application/x-tar"}
    _archive(call.api, place, "PUT", parameters=parameters, body=counter, headers=headers).close()
    return counter.count


def _follow(api: Api, target: Place, found: dict[str, Any] | None) -> tuple[Place, dict[str, Any] | None]:
    if found and found["mode"] & GO_LINK:
        link = found["linkTarget"]
        path = link if link.startswith("/") else os.path.join(os.path.dirname(target.path), link)
        return Place(target.container, path), _stat(api, Place(target.container, path))
    return target, found


def _standard_input() -> Iterator[bytes]:
    while piece := os.read(0, PIECE_BYTES):
        yield piece


def _local(call: Invocation, source: str, target: Place, folder: bool, exists: bool) -> tuple[Iterator[bytes], str]:
    follow = call.options["follow-link"] or source.endswith("/")
    path = source.rstrip("/") or "/"
    contents = source.endswith("/.") or source == "."
    try:
        found = os.stat(path) if follow or contents else os.lstat(path)
    except OSError as error:
        raise InvalidInputError(f"lstat {path}: {os.strerror(error.errno or 0).lower()}") from error
    is_folder = stat.S_ISDIR(found.st_mode)
    base = os.path.basename(os.path.abspath(path))
    if folder:
        name, destination = ("." if contents else base), target.path
    elif exists:
        if is_folder:
            raise InvalidInputError("cannot copy directory")
        name, destination = os.path.basename(target.path), os.path.dirname(target.path) or "/"
    else:
        if target.path.endswith("/") and not is_folder:
            raise InvalidInputError("no such directory")
        clean = target.path.rstrip("/")
        name, destination = os.path.basename(clean), os.path.dirname(clean) or "/"
        if contents and name in (".", ""):
            name = "."
    return packed(path, name, follow=follow or contents), destination
