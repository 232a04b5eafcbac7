"""`images --tree`: each image with its platforms below it."""

from __future__ import annotations

import os
import sys

from barque.cli.units import human_size

TYPE_CHECKING = False  # the module typing costs every start of the command milliseconds
if TYPE_CHECKING:
    from typing import Any

_SPACES = " " * 3
_TITLES = ("ID", "DISK USAGE", "CONTENT SIZE", "EXTRA")
_WIDTHS = (12, 10, 12, 5)
_UNTAGGED = "<untagged>"


def show(images: list[dict[str, Any]]) -> None:
    """Print the tree."""
    print(
        "WARNING: This is an experimental feature. The output may change and shouldn't be depended on.", file=sys.stderr
    )
    tops = [(_top(image), _children(image)) for image in images]
    spaced = any(children for _, children in tops)
    names = [name for (top, children) in tops for name in (*top[0], *(child[0] for child in children))]
    width = max([len("IMAGE"), *map(len, names)])
    out = _styled(sys.stdout.isatty())
    print(out(_line("IMAGE", width, _TITLES, header=True), "1"))
    for (tags, values), children in tops:
        for tag in tags[:-1]:
            print(out(tag, "1;34"))
        print(_line(tags[-1], width, values))
        for name, row, available in children:
            text = _line(name, width, row)
            print(text if available else out(text, "2"))
        if spaced:
            print()


def _top(image: dict[str, Any]) -> tuple[list[str], tuple[str, str, str, str]]:
    manifests = image.get("Manifests") or []
    content = sum(m["Size"]["Content"] for m in manifests)
    used = image.get("Containers", 0) > 0 or any((m.get("ImageData") or {}).get("Containers") for m in manifests)
    tags = sorted(tag for tag in image.get("RepoTags") or [] if tag != "<none>:<none>") or [_UNTAGGED]
    return tags, (_short(image["Id"]), human_size(image["Size"], 3), human_size(content, 3), "U" if used else "")


def _children(image: dict[str, Any]) -> list[tuple[str, tuple[str, str, str, str], bool]]:
    shown = [m for m in image.get("Manifests") or [] if m.get("Kind") == "image"]
    rows = []
    for number, manifest in enumerate(shown):
        data = manifest["ImageData"]
        platform = data.get("Platform") or {}
        parts = [platform.get(key) for key in ("os", "architecture", "variant")]
        branch = "└─ " if number == len(shown) - 1 else "├─ "
        size = manifest["Size"]
        values = (
            _short(manifest["ID"]),
            human_size(size["Total"], 3),
            human_size(size["Content"], 3),
            "U" if data.get("Containers") else "",
        )
        rows.append((branch + "/".join(p for p in parts if p), values, bool(manifest.get("Available"))))
    return rows


def _line(name: str, width: int, values: tuple[str, ...], *, header: bool = False) -> str:
    cells = [f"{name:<{width}}"]
    for number, (value, room) in enumerate(zip(values, _WIDTHS, strict=True)):
        right = number in (1, 2) and not header
        cells.append(f"{value:>{room}}" if right else f"{value:<{room}}")
    return _SPACES.join(cells).rstrip()


def _short(identity: str) -> str:
    return identity.partition(":")[2][:12]


def _styled(terminal: bool) -> Any:
    plain = not terminal or bool(os.environ.get("NO_COLOR"))

    def style(text: str, code: str) -> str:
        return text if plain else f"\x1b[{code}m{text}\x1b[0m"

    return style
