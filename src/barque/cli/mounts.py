"""`mount`: what is mounted in containers that exist."""

from typing import Any

from barque.base.errors import InvalidInputError
from barque.cli.tables import show
from barque.cli.verb import Invocation
from barque.client.api import quote


def add(call: Invocation) -> int:
    """Mount files, volumes or tmpfs in a container."""
    from barque.cli.run_mounts import parse_mount, split_volumes

    options = call.options
    binds, anonymous = split_volumes(options["volume"])
    if anonymous:
        raise InvalidInputError(f"{min(anonymous)}: a source and a target are needed (SRC:DST[:MODE])")
    wishes: list[dict[str, Any]] = [{"Bind": bind} for bind in binds]
    try:
        wishes += [parse_mount(text) for text in options["mount"]]
    except ValueError as error:
        raise InvalidInputError(f'invalid argument for "--mount" flag: {error}') from error
    if not wishes:
        raise InvalidInputError("nothing to mount: use -v or --mount")
    for wish in wishes:
        call.api.post(f"/containers/{quote(call.words[0])}/mounts", wish)
    return 0


def rm(call: Invocation) -> int:
    """Take mounts out of a container."""
    return take(call, "mounts")


def take(call: Invocation, kind: str) -> int:
    """Take what a container was given, `mounts` or `devices`, away again: CONTAINER PATH…."""
    name, *targets = call.words
    for target in targets:
        call.api.delete(f"/containers/{quote(name)}/{kind}", target=target)
    return 0


def ls(call: Invocation) -> int:
    """List what is mounted in a container."""
    rows = call.api.get(f"/containers/{quote(call.words[0])}/json").get("Mounts") or []
    columns = {
        "Destination": lambda m: m["Destination"],
        "Type": lambda m: m["Type"],
        "Source": lambda m: m.get("Name") or m.get("Source") or "",
        "Mode": lambda m: "rw" if m["RW"] else "ro",
        "Propagation": lambda m: m.get("Propagation") or "",
    }
    show(rows, columns, {}, call.options["format"], "Destination Type Source Mode Propagation")
    return 0
