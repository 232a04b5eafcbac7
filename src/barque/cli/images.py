"""Verbs that make, move and remove images."""

import os
import sys
from collections.abc import Iterator
from typing import Any

from barque.base.errors import InvalidInputError
from barque.cli.progress import show_progress
from barque.cli.verb import Invocation
from barque.client.api import quote
from barque.client.http import ApiError, Response
from barque.oci import platform as platforms
from barque.oci.reference import parse

PIECE_BYTES = 1 << 18


def _pieces(descriptor: int) -> Iterator[bytes]:
    while piece := os.read(descriptor, PIECE_BYTES):
        yield piece


def _name_and_tag(text: str) -> tuple[str, str]:
    """Return the name and the tag that an image is to get, as the API takes them.

    Raises:
        InvalidInputError: the text is no reference, or has a digest.
    """
    reference = parse(text)
    if reference.digest:
        raise InvalidInputError("refusing to create a tag with a digest reference")
    return reference.familiar_name, reference.with_default_tag().tag


def commit(call: Invocation) -> int:
    """Make an image of a container and print its id."""
    options = call.options
    name, tag = _name_and_tag(call.words[1]) if call.words[1:] else (None, None)
    answer = call.api.post(
        "/commit",
        container=call.words[0],
        repo=name,
        tag=tag,
        comment=options["message"] or None,
        author=options["author"] or None,
        changes=options["change"] or None,
        pause=None if options["pause"] else "0",
    )
    print(answer["Id"])
    return 0


def tag(call: Invocation) -> int:
    """Give an image another name."""
    try:
        name, label = _name_and_tag(call.words[1])
    except InvalidInputError as error:
        if "@" in call.words[1]:
            raise
        raise InvalidInputError(
            f'Error parsing reference: "{call.words[1]}" is not a valid repository/tag: {error}'
        ) from None
    call.api.post(f"/images/{quote(call.words[0], '/')}/tag", repo=name, tag=label)
    return 0


def rm(call: Invocation) -> int:
    """Remove images."""
    options = call.options
    wanted = [platform_json(one, "") for one in options["platform"]] or None
    code = 0
    for name in call.words:
        try:
            removed = call.api.delete(
                f"/images/{quote(name, '/')}",
                force=options["force"],
                noprune=options["no-prune"],
                platforms=wanted,
            )
        except ApiError as error:
            sys.stdout.flush()
            print(error, file=sys.stderr)
            if not (options["force"] and error.status == 404):
                code = 1
            continue
        for item in removed or []:
            print(f"Deleted: {item['Deleted']}" if item.get("Deleted") else f"Untagged: {item.get('Untagged')}")
    return code


def platform_json(text: str, prefix: str = "invalid platform: ") -> str:
    """Return a platform such as linux/arm64/v8 as the API's JSON.

    Args:
        text: what the user wrote.
        prefix: what stands before the error.

    Raises:
        InvalidInputError: it is no platform.
    """
    import json

    try:
        found = platforms.usual(platforms.parse(text))
    except InvalidInputError as error:
        raise InvalidInputError(f"{prefix}{error}") from None
    keys = ("os", "architecture", "variant")
    return json.dumps({key: part for key, part in zip(keys, found, strict=True) if part}, separators=(",", ":"))


def import_image(call: Invocation) -> int:
    """Make an image of a tar archive."""
    options = call.options
    source = call.words[0]
    name = call.words[1] if call.words[1:] else ""
    if name:
        parse(name)
    parameters: dict[str, Any] = {
        "fromSrc": "-",
        "repo": name or None,
        "message": options["message"] or None,
        "changes": options["change"] or None,
        "platform": options["platform"] or None,
    }
    body: Iterator[bytes] | None = None
    descriptor = -1
    if source == "-":
        body = _pieces(0)
    elif source.startswith(("http://", "https://")):
        parameters["fromSrc"] = source
    else:
        descriptor = _open(source)
        parameters["fromSrc"] = "-"
        body = _pieces(descriptor)
    try:
        headers = {"Content-Type": "application/x-tar"}
        response = call.api.send("POST", "/images/create", parameters=parameters, body=body, headers=headers)
        show_progress(response.json_stream(), to_stdout=True)
        response.close()
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    return 0


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidInputError(f"open {path}: {os.strerror(error.errno or 0).lower()}") from error


def load(call: Invocation) -> int:
    """Load images of an archive."""
    options = call.options
    if not options["input"] and os.isatty(0):
        raise InvalidInputError("requested load from stdin, but stdin is empty")
    descriptor = _open(options["input"]) if options["input"] else 0
    quiet = options["quiet"] or not os.isatty(1)
    try:
        response = call.api.send(
            "POST",
            "/images/load",
            parameters={
                "quiet": "1" if quiet else "0",
                "platform": platform_json(options["platform"]) if options["platform"] else None,
            },
            body=_pieces(descriptor),
            headers={"Content-Type": "application/x-tar"},
        )
        show_progress(response.json_stream(), to_stdout=True)
        response.close()
    finally:
        if descriptor:
            os.close(descriptor)
    return 0


def save(call: Invocation) -> int:
    """Write images as an archive."""
    options = call.options
    _refuse_terminal(options["output"], "save image")
    platform = platform_json(options["platform"]) if options["platform"] else None
    if len(call.words) == 1:
        path, names = f"/images/{quote(call.words[0], '/')}/get", None
    else:
        path, names = "/images/get", call.words
    _write(call.api.send("GET", path, parameters={"names": names, "platform": platform}), options["output"])
    return 0


def export(call: Invocation) -> int:
    """Write a container's file system as an archive."""
    _refuse_terminal(call.options["output"], "export container")
    response = call.api.send("GET", f"/containers/{quote(call.words[0])}/export")
    _write(response, call.options["output"])
    return 0


def _refuse_terminal(output: str, what: str) -> None:
    if not output and os.isatty(1):
        raise InvalidInputError("cowardly refusing to save to a terminal. Use the -o flag or redirect")
    if output and os.path.isdir(output):
        raise InvalidInputError(f"failed to {what}: cannot write to a directory")
    folder = os.path.dirname(output) or "."
    if output and not os.path.isdir(folder):
        raise InvalidInputError(f"failed to {what}: invalid output path: stat {folder}: no such file or directory")


def _write(response: Response, output: str) -> None:
    from barque.cli.session import write_all

    if not output:
        for piece in response.chunks():
            write_all(1, piece)
        response.close()
        return
    temporary = f"{os.path.dirname(output) or '.'}/.tmp-{os.path.basename(output)}{os.urandom(4).hex()}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        for piece in response.chunks():
            write_all(descriptor, piece)
        os.rename(temporary, output)
    except BaseException:
        os.unlink(temporary)
        raise
    finally:
        os.close(descriptor)
        response.close()
