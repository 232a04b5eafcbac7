"""`images` and `image ls`."""

import time
from typing import Any

from barque.base.durations import human_duration
from barque.base.errors import InvalidInputError
from barque.cli.tables import show
from barque.cli.units import human_size
from barque.cli.verb import Invocation, filters_json

HEADERS = {"ID": "IMAGE ID", "CreatedSince": "CREATED", "CreatedAt": "CREATED AT"}
NONE = "<none>"


def ls(call: Invocation) -> int:
    """List images."""
    options = call.options
    if options["tree"]:
        return _tree(call)
    pairs = list(options["filter"])
    if call.words:
        pairs.append(f"reference={call.words[0]}")
    images = call.api.get("/images/json", all=options["all"] or None, filters=filters_json(pairs))
    images.sort(key=lambda image: -image["Created"])
    from barque.cli.configuration import configured

    form = options["format"] or configured(call.global_options, "imagesFormat", "")
    truncated = not options["no-trunc"]
    if options["quiet"] and form in ("", "table"):
        for image in images:
            print(_identity(image["Id"], truncated))
        return 0
    want_digest = options["digests"] or "{{.Digest}}" in form
    rows = [row for image in images for row in rows_of(image, want_digest)]
    default = (
        "Repository Tag ID CreatedSince Size"
        if not options["digests"]
        else ("Repository Tag Digest ID CreatedSince Size")
    )
    show(rows, columns(truncated), HEADERS, form, default, "image")
    return 0


def _tree(call: Invocation) -> int:
    options = call.options
    for flag in ("quiet", "no-trunc", "digests", "format"):
        if options[flag]:
            shown = "show-digest" if flag == "digests" else flag
            raise InvalidInputError(f"--{shown} is not yet supported with --tree")
    pairs = [*options["filter"], *(f"reference={word}" for word in call.words)]
    images = call.api.get("/images/json", all=options["all"] or None, filters=filters_json(pairs), manifests=True)
    images.sort(key=lambda image: -image["Created"])
    from barque.cli.image_tree import show as show_tree

    show_tree([image for image in images if options["all"] or image.get("RepoTags") or image.get("RepoDigests")])
    return 0


def _identity(text: str, truncated: bool) -> str:
    return text.partition(":")[2][:12] if truncated else text


def rows_of(image: dict[str, Any], want_digest: bool) -> list[dict[str, Any]]:
    """Return one row a name of the image; a row without names where it has none."""
    tags: dict[str, list[str]] = {}
    digests: dict[str, list[str]] = {}
    for reference in image.get("RepoTags") or []:
        name, _, tag = reference.rpartition(":")
        if reference != "<none>:<none>":
            tags.setdefault(name, []).append(tag)
    for reference in image.get("RepoDigests") or []:
        name, _, digest = reference.partition("@")
        if name != NONE:
            digests.setdefault(name, []).append(digest)
    rows = []
    for name, found in tags.items():
        if not want_digest:
            rows += [_row(image, name, tag, NONE) for tag in found]
            continue
        for tag in found:
            rows += [_row(image, name, tag, digest) for digest in digests.get(name, [NONE])]
    for name, found in digests.items():
        if name not in tags:
            rows += [_row(image, name, NONE, digest) for digest in (found if want_digest else found[:1])]
    return rows or [_row(image, NONE, NONE, NONE)]


def _row(image: dict[str, Any], name: str, tag: str, digest: str) -> dict[str, Any]:
    return {**image, "repository": name, "tag": tag, "digest": digest}


def columns(truncated: bool) -> dict[str, Any]:
    """Return how each column reads one row of the list."""
    return {
        "ID": lambda i: _identity(i["Id"], truncated),
        "Repository": lambda i: i["repository"],
        "Tag": lambda i: i["tag"],
        "Digest": lambda i: i["digest"],
        "CreatedSince": lambda i: human_duration(time.time() - i["Created"]) + " ago" if i["Created"] > 0 else "N/A",
        "CreatedAt": lambda i: time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(i["Created"])),
        "Size": lambda i: human_size(i["Size"], 3),
        "Containers": lambda i: str(i["Containers"]) if i.get("Containers", -1) >= 0 else "N/A",
        "VirtualSize": lambda i: human_size(i.get("VirtualSize") or i["Size"]),
        "SharedSize": lambda i: human_size(i["SharedSize"]) if i.get("SharedSize", -1) >= 0 else "N/A",
        "UniqueSize": lambda i: human_size(i["Size"] - i["SharedSize"]) if i.get("SharedSize", -1) >= 0 else "N/A",
    }
