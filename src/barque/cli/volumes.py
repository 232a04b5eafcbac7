"""The `volume` verbs but prune and inspect."""

import sys
from typing import Any

from barque.base.errors import InvalidInputError, UnsupportedError
from barque.cli.env_files import pairs
from barque.cli.tables import show
from barque.cli.verb import Invocation, filters_json, for_each
from barque.client.api import quote

CLUSTER_FLAGS = [
    "availability",
    "group",
    "limit-bytes",
    "required-bytes",
    "scope",
    "secret",
    "sharing",
    "topology-preferred",
    "topology-required",
    "type",
]


def ls(call: Invocation) -> int:
    """List volumes."""
    options = call.options
    if options["cluster"]:
        raise UnsupportedError("cluster volumes are not supported")
    rows = (call.api.get("/volumes", filters=filters_json(options["filter"])) or {}).get("Volumes") or []
    rows.sort(key=lambda volume: volume["Name"])
    if options["quiet"] and options["format"] in ("", "table"):
        for row in rows:
            print(row["Name"])
        return 0
    show(rows, columns(), {"Name": "VOLUME NAME"}, options["format"], "Driver Name", "volume")
    return 0


def columns() -> dict[str, Any]:
    """Return how each column reads one volume."""
    return {
        "Name": lambda v: v["Name"],
        "Driver": lambda v: v["Driver"],
        "Scope": lambda v: v.get("Scope") or "local",
        "Mountpoint": lambda v: v.get("Mountpoint") or "",
        "Labels": lambda v: ",".join(f"{k}={x}" for k, x in sorted((v.get("Labels") or {}).items())),
        "Links": lambda v: str((v.get("UsageData") or {}).get("RefCount", "N/A")),
        "Size": _size,
        "Status": lambda v: "N/A",
        "Group": lambda v: "N/A",
        "Availability": lambda v: "N/A",
    }


def _size(volume: dict[str, Any]) -> str:
    from barque.cli.units import human_size

    usage = volume.get("UsageData")
    return human_size(usage["Size"]) if usage else "N/A"


def create(call: Invocation) -> int:
    """Create a volume and print its name."""
    options = call.options
    used = [name for name in CLUSTER_FLAGS if options.given(name)]
    if used:
        raise UnsupportedError(f"--{used[0]}: cluster volumes are not supported")
    from barque.cli.run_values import VALIDATORS

    for label in options["label"]:
        try:
            VALIDATORS["label"](label)
        except ValueError as error:
            raise InvalidInputError(str(error)) from error
    body = {
        "Name": call.words[0] if call.words else "",
        "Driver": options["driver"],
        "DriverOpts": pairs(options["opt"]),
        "Labels": pairs(options["label"]),
    }
    print(call.api.post("/volumes/create", body)["Name"])
    return 0


def rm(call: Invocation) -> int:
    """Remove volumes."""
    options = call.options

    def act(name: str) -> str:
        call.api.delete(f"/volumes/{quote(name)}", force=options["force"])
        return name

    return for_each(call.words, act, missing_ok=options["force"])


def rename(call: Invocation) -> int:
    """Give a volume another name."""
    old, new = call.words
    call.api.post(f"/volumes/{quote(old)}/rename", name=new)
    return 0


def update(call: Invocation) -> int:
    """Refuse what only cluster volumes have, in the engine's words."""
    call.api.call("PUT", f"/volumes/{quote(call.words[0])}", parameters={"version": 0}, json_body={})
    return 0


def export(call: Invocation) -> int:
    """Write a volume's files as a tar to a file, to standard output, or as an image."""
    name, target, image = call.words[0], call.options["output"], call.options["image"]
    if image and target:
        raise InvalidInputError("conflicting options: --output and --image")
    response = call.api.send("GET", f"/volumes/{quote(name)}/archive")
    try:
        if image:
            return _export_image(call, image, response)
        if not target and sys.stdout.isatty():
            raise InvalidInputError("cowardly refusing to save to a terminal. Use the -o flag or redirect")
        _write(response, target)
    finally:
        response.close()
    return 0


def _write(response: Any, target: str) -> None:
    import os

    from barque.cli.session import write_all

    if not target:
        for piece in response.chunks():
            write_all(1, piece)
        return
    temporary = f"{target}.part"
    try:
        with open(temporary, "wb") as file:
            for piece in response.chunks():
                file.write(piece)
        os.rename(temporary, target)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def _export_image(call: Invocation, image: str, archive: Any) -> int:

    repo, _, tag = image.partition(":") if "/" not in image.rpartition(":")[2] else (image, "", "")
    other = call.api.beside()
    response = other.send(
        "POST", "/images/create", parameters={"fromSrc": "-", "repo": repo, "tag": tag},
        headers={"Content-Type": "application/x-tar"}, body=archive.chunks(),
    )  # fmt: skip
    for message in response.json_stream():
        if message.get("error"):
            raise InvalidInputError(message["error"])
        if message.get("status"):
            print(message["status"])
    response.close()
    return 0


def restore(call: Invocation) -> int:
    """Unpack a tar or an image's files into a volume, which is made where it is missing."""
    name, source, image = call.words[0], call.words[1] if len(call.words) > 1 else "-", call.options["image"]
    if image and len(call.words) > 1:
        raise InvalidInputError("conflicting options: a file and --image")
    call.api.post("/volumes/create", {"Name": name})
    path = f"/volumes/{quote(name)}/archive"
    clear = {"clear": call.options["clear"]}
    if image:
        call.api.call("PUT", path, parameters={**clear, "image": image})
        return 0
    file = sys.stdin.buffer if source == "-" else open(source, "rb")  # noqa: SIM115
    with file:
        pieces = iter(lambda: file.read(1 << 20), b"")
        call.api.send(
            "PUT", path, parameters=clear, headers={"Content-Type": "application/x-tar"}, body=pieces
        ).close()  # fmt: skip
    return 0
