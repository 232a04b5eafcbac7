"""`images --tree`: each image with its platforms below it."""

from __future__ import annotations

import os
import sys

from barque.base.record import Record
from barque.cli import terminal
from barque.cli.units import human_size

TYPE_CHECKING = False  # the module typing costs every start of the command milliseconds
if TYPE_CHECKING:
    from typing import Any

_WARNING = "WARNING: This is an experimental feature. The output may change and shouldn't be depended on."
_GAP = " " * 3
_WIDTH_USUAL, _WIDTH_MIN, _NAME_WIDTH_MIN = 80, 20, 12
_BRANCH, _LAST_BRANCH = "├─ ", "└─ "
_BOLD_TITLE, _BOLD_NAME, _VALUE, _FAINT = "\x1b[39m\x1b[1m", "\x1b[34m\x1b[1m", "\x1b[39m", "\x1b[39m\x1b[2m"
_END = "\x1b[0m"
_IN_USE = "\x1b[38;5;0m\x1b[48;5;14m U \x1b[0m"
_LEGEND = f"\x1b[1m\x1b[106m\x1b[30mi{_END}{_END} \x1b[96mInfo → {_END}{_END} {_IN_USE} In Use "
_LEGEND_WIDTH = len("i Info →   U  In Use ")
_PLAIN_LEGEND = "Info ->  U In Use "


class _Column(Record):
    title: str
    width: int
    right: bool = False


_COLUMNS = (
    _Column("ID", 12), _Column("DISK USAGE", 10, True), _Column("CONTENT SIZE", 12, True), _Column("EXTRA", 5),
)  # fmt: skip


class _Row(Record):
    """The values of an image or of one of its platforms."""

    id: str
    usage: str
    content: str
    in_use: bool


class _Tree:
    """Prints images as wide as the terminal allows.

    Args:
        styled: the output is a terminal.
        width: columns of the terminal, 0 where there is none.
    """

    def __init__(self, *, styled: bool, width: int) -> None:
        self._styled = styled
        self._line = width
        self._width = max(width or _WIDTH_USUAL, _WIDTH_MIN)

    def show(self, images: list[dict[str, Any]]) -> None:
        tops = [(_names(image), _top(image), _platforms(image)) for image in images]
        names = [name for names, _, _ in tops for name in names]
        # Counted as Docker does: a branch's signs are of three bytes each.
        branches = [len(name) + len(_BRANCH.encode()) for _, _, rows in tops for name, _, _ in rows]
        columns, name_width = self._fitting(max([len("IMAGE"), *map(len, names), *branches]))
        print(self._style(_WARNING, "\x1b[93m"))
        print(self._legend())
        print()
        # Docker's titles are bold wherever they go.
        titles = [_BOLD_TITLE + column.title + _END + " " * (column.width - len(column.title)) for column in columns]
        print(_GAP.join([_BOLD_TITLE + "IMAGE" + _END + " " * (name_width - len("IMAGE")), *titles]))
        for names, row, rows in tops:
            for name in names[:-1]:
                print(self._style(_shortened(name, self._line), _BOLD_NAME))
            shown = self._cell(names[-1], name_width, _BOLD_NAME) if names else self._cell("<untagged>", name_width, _FAINT)
            print(_GAP.join([shown, *self._cells(row, columns, _VALUE)]))
            for number, (platform, below, available) in enumerate(rows):
                branch = _LAST_BRANCH if number == len(rows) - 1 else _BRANCH
                style = _VALUE if available else _FAINT
                shown = self._cell(branch + platform, name_width, style)
                print(_GAP.join([shown, *self._cells(below, columns, style)]))
            if any(rows for _, _, rows in tops):
                print()

    def _fitting(self, widest: int) -> tuple[list[_Column], int]:
        """Return the columns that leave room for names, and the room."""
        room = self._width
        columns = []
        for column in _COLUMNS:
            if room - column.width - len(_GAP) < _NAME_WIDTH_MIN:
                break
            room -= column.width + len(_GAP)
            columns.append(column)
        return columns, min(room, widest)

    def _legend(self) -> str:
        text, width = (_LEGEND, _LEGEND_WIDTH) if self._styled else (_PLAIN_LEGEND, len(_PLAIN_LEGEND))
        return " " * (self._width - width) + text

    def _cells(self, row: _Row, columns: list[_Column], style: str) -> list[str]:
        values = (row.id, row.usage, row.content)
        cells = [self._cell(v, c.width, style, right=c.right) for v, c in zip(values, columns, strict=False)]
        if len(columns) == len(_COLUMNS):
            cells.append(self._extra(row.in_use, columns[-1].width))
        return cells

    def _extra(self, in_use: bool, width: int) -> str:
        if self._styled and in_use:
            return _IN_USE + " " * (width - len(" U "))
        return ("U" if in_use else "").ljust(width)

    def _cell(self, text: str, width: int, style: str, *, right: bool = False) -> str:
        shown = _shortened(text, width)
        padding = " " * (width - len(shown))
        return padding + self._style(shown, style) if right else self._style(shown, style) + padding

    def _style(self, text: str, style: str) -> str:
        return style + text + _END if self._styled else text


def show(images: list[dict[str, Any]]) -> None:
    """Print the tree."""
    styled = terminal.is_terminal(1) and not os.environ.get("NO_COLOR")
    _Tree(styled=styled, width=terminal.size()[1]).show(images)
    sys.stdout.flush()


def _names(image: dict[str, Any]) -> list[str]:
    """Return an image's names, the longest first."""
    return sorted((tag for tag in image.get("RepoTags") or [] if tag != "<none>:<none>"), key=len, reverse=True)


def _top(image: dict[str, Any]) -> _Row:
    manifests = image.get("Manifests") or []
    content = sum(m["Size"]["Content"] for m in manifests)
    used = image.get("Containers", 0) > 0 or any((m.get("ImageData") or {}).get("Containers") for m in manifests)
    return _Row(_short(image["Id"]), human_size(image["Size"], 3), human_size(content, 3), used)


def _platforms(image: dict[str, Any]) -> list[tuple[str, _Row, bool]]:
    """Return the image's platforms: how each is called, its values, whether it is here."""
    rows = []
    for manifest in image.get("Manifests") or []:
        if manifest.get("Kind") != "image":
            continue
        data, size = manifest["ImageData"], manifest["Size"]
        platform = data.get("Platform") or {}
        parts = [platform.get(key) for key in ("os", "architecture", "variant")]
        row = _Row(
            _short(manifest["ID"]), human_size(size["Total"], 3), human_size(size["Content"], 3), bool(data.get("Containers"))
        )
        rows.append(("/".join(part for part in parts if part), row, bool(manifest.get("Available"))))
    return rows


def _short(identity: str) -> str:
    return identity.partition(":")[2][:12]


def _shortened(text: str, width: int) -> str:
    return text[: width - 1] + "…" if 0 < width < len(text) else text
