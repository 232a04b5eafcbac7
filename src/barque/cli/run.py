"""`run` and `create`."""

from __future__ import annotations

import os
import sys

from barque.base.errors import BarqueError, InvalidInputError
from barque.cli.flags import Options
from barque.cli.run_spec import create_body
from barque.cli.verb import Invocation
from barque.client.http import ApiError

TYPE_CHECKING = False  # the module typing costs every start of the command milliseconds
if TYPE_CHECKING:
    from typing import Any

PULL_CHOICES = ("always", "missing", "never")


def create(call: Invocation) -> int:
    """Create a container and print its id."""
    body = create_body(call.options, call.words)
    _check_pull(call.options)
    try:
        print(_create(call, body))
    except BarqueError as error:
        from barque.cli.main import ExitError

        print(error, file=sys.stderr)
        raise ExitError(1) from error
    return 0


def _check_pull(options: Options) -> None:
    if options["pull"] not in PULL_CHOICES:
        raise InvalidInputError(
            f'invalid pull option: \'{options["pull"]}\': must be one of "always", "missing" or "never"'
        )


def _check_image(image: str) -> None:
    # The usual form needs no grammar, whose patterns take longer than all the rest of the command line.
    plain = image.replace("-", "").replace(".", "", 1).replace(":", "", 1)
    if plain.isascii() and plain.isalnum() and plain.islower() and image[0].isalnum() and image[-1].isalnum():
        return
    from barque.oci.reference import parse

    identity = image.removeprefix("sha256:")
    if len(identity) != 64 or not identity.isalnum():
        parse(image)


def run(call: Invocation) -> int:
    """Create a container, start it, and stay with it unless it is detached.

    Returns:
        The container's exit code, or 125, 126 or 127 where it did not start.
    """
    options = call.options
    if options["detach"] and options["attach"]:
        from barque.cli.main import ExitError

        print("conflicting options: cannot specify both --attach and --detach", file=sys.stderr)
        raise ExitError(1)
    body = create_body(options, call.words)
    _check_pull(options)
    if not options["detach"]:
        from barque.cli.terminal import check_tty

        check_tty(body["AttachStdin"], body["Tty"])
    identity = _create(call, body)
    if options["detach"]:
        return _start_detached(call, identity)
    from barque.cli.run_attached import start_attached

    return start_attached(call, identity, body)


def _start_detached(call: Invocation, identity: str) -> int:
    try:
        call.api.post(f"/containers/{identity}/start")
    except ApiError as error:
        return report_start_failure(call, error)
    print(identity)
    return 0


def report_start_failure(call: Invocation, error: BarqueError) -> int:
    """Print why a container did not start.

    Returns:
        127 where its program is missing, 126 where it may not be run, else 125.
    """
    print(f"barque: {error}\n\nRun 'barque {call.typed} --help' for more information", file=sys.stderr)
    text = str(error).lower()
    if any(
        cause in text
        for cause in ("executable file not found", "no such file or directory", "system cannot find the file specified")
    ):
        return 127
    if "permission denied" in text or "is a directory" in text:
        return 126
    return 125


def _create(call: Invocation, body: dict[str, object]) -> str:
    options = call.options
    image = str(body["Image"])
    _check_image(image)
    cidfile = options["cidfile"]
    descriptor = _open_cidfile(cidfile) if cidfile else -1
    identity = ""
    try:
        if options["pull"] == "always":
            _pull(call, image)
        answer = _post_create(call, body, image)
        identity = str(answer["Id"])
        if descriptor >= 0:
            os.write(descriptor, identity.encode())
    finally:
        if descriptor >= 0:
            os.close(descriptor)
            if not identity:
                os.unlink(cidfile)
    for warning in answer.get("Warnings") or []:
        print(f"WARNING: {warning}", file=sys.stderr)
    return identity


def _open_cidfile(path: str) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        raise InvalidInputError(
            f"container ID file found, make sure the other container isn't running or delete {path}"
        ) from None
    except OSError as error:
        raise InvalidInputError(
            f"failed to create the container ID file: open {path}: {os.strerror(error.errno or 0).lower()}"
        ) from error


def _post_create(call: Invocation, body: dict[str, object], image: str) -> dict[str, Any]:
    options = call.options
    parameters = {"name": options["name"] or None, "platform": _platform(options)}
    try:
        return dict(call.api.call("POST", "/containers/create", parameters=parameters, json_body=body))
    except ApiError as error:
        if error.status != 404 or "no such image" not in error.message.lower() or options["pull"] != "missing":
            raise
    if not options["quiet"]:
        print(f"Unable to find image '{_familiar(image)}' locally", file=sys.stderr)
    _pull(call, image)
    return dict(call.api.call("POST", "/containers/create", parameters=parameters, json_body=body))


def _platform(options: Options) -> str | None:
    return options["platform"] or os.environ.get("DOCKER_DEFAULT_PLATFORM") or None


def _familiar(image: str) -> str:
    last = image.rsplit("/", 1)[-1]
    return image if ":" in last or "@" in image else f"{image}:latest"


def _pull(call: Invocation, image: str) -> None:
    from barque.cli.progress import show_progress
    from barque.cli.transfers import auth_header
    from barque.oci.reference import parse

    name, tag = split_reference(image)
    parameters = {"fromImage": name, "tag": tag, "platform": _platform(call.options)}
    headers = auth_header(parse(image).domain, call.global_options)
    response = call.api.send("POST", "/images/create", parameters=parameters, headers=headers)
    show_progress(response.json_stream(), quiet=call.options["quiet"])
    response.close()


def split_reference(image: str) -> tuple[str, str]:
    """Return an image's name and its tag or digest, latest where neither is given."""
    name, at, digest = image.partition("@")
    if at:
        return name, digest
    last = image.rsplit("/", 1)[-1]
    if ":" in last:
        name, _, tag = image.rpartition(":")
        return name, tag
    return image, "latest"
