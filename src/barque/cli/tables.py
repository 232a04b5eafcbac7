"""Rows printed as a table, by a Go template, or as JSON: what `--format` chooses between."""

from __future__ import annotations

from barque.base.errors import InvalidInputError

TYPE_CHECKING = False  # the module typing costs every start of the command milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    Getter = Callable[[Any], Any]


class Row:
    """One object seen through its named columns."""

    __slots__ = ("columns", "item", "kind")

    def __init__(self, item: Any, columns: dict[str, Getter], kind: str = "") -> None:
        self.item = item
        self.kind = kind
        self.columns = columns

    def template_field(self, name: str) -> Any:
        """Return a column's value.

        Raises:
            TemplateError: there is no such column.
        """
        getter = self.columns.get(name)
        if getter is None:
            from barque.base.go_lexer import TemplateError

            raise TemplateError(
                f'template: :1:2: executing "" at <.{name}>: can\'t evaluate field {name} in type '
                f"*{'' if '.' in self.kind else 'formatter.'}{self.kind}Context"
            )
        return getter(self.item)

    def template_call(self, name: str, arguments: list[Any]) -> str | None:
        """Return a label's value for `.Label "name"`, None for every other call."""
        if name != "Label" or len(arguments) != 1 or not isinstance(self.item, dict):
            return None
        return str((self.item.get("Labels") or {}).get(arguments[0], ""))

    def template_json(self) -> dict[str, Any]:
        """Return all columns as one JSON object."""
        return {name: self.columns[name](self.item) for name in sorted(self.columns) if not name.startswith("_")}


class _Headers:
    def __init__(self, headers: dict[str, str]) -> None:
        self.headers = headers

    def template_call(self, name: str, arguments: list[Any]) -> str | None:
        return str(arguments[0]).rpartition(".")[2] if name == "Label" and len(arguments) == 1 else None

    def template_field(self, name: str) -> str:
        return self.headers.get(name, name.upper())

    def template_json(self) -> str:
        return ""


def align(rows: Sequence[Sequence[str]], least: int = 10) -> str:
    """Return rows with their cells in columns: 3 blanks apart, at least so many wide, as Docker's tables are."""
    if not rows:
        return ""
    widths: dict[int, int] = {}
    for row in rows:
        for column, cell in enumerate(row[:-1]):
            widths[column] = max(widths.get(column, 0), len(cell))
    lines = []
    for row in rows:
        cells = [cell.ljust(max(widths[column] + 3, least)) for column, cell in enumerate(row[:-1])]
        lines.append("".join(cells) + row[-1])
    return "\n".join(lines) + "\n"


def show(
    items: Sequence[Any],
    columns: dict[str, Getter],
    headers: dict[str, str],
    form: str,
    default: str,
    kind: str = "",
) -> None:
    """Print items by a format.

    Args:
        items: the objects.
        columns: how each named column reads an object.
        headers: the heading of each column; the name in upper case where it is missing.
        form: what --format said; empty or "table" prints the default table.
        default: the names of the default table's columns.
        kind: what error texts call the rows.

    Raises:
        InvalidInputError: the template is wrong.
    """
    if form in ("", "table") and "{{" not in form:
        _print_table(items, columns, headers, default)
        return
    if form == "json":
        from barque.base.go_functions import to_json

        for item in items:
            print(to_json(Row(item, columns)))
        return
    if form.startswith("table"):
        _print_table(items, columns, headers, form[5:].lstrip(), kind, literal=True)
        return
    template = parse_template(form)
    for item in items:
        print(_render_row(template, Row(item, columns, kind)))


def _render_row(template: Any, row: Any) -> str:
    from barque.base.go_lexer import TemplateError

    try:
        return str(template.render(row))
    except TemplateError as error:
        # Of containers the format is looked at beforehand, which fails in other words.
        what = "failed to execute template" if getattr(row, "kind", "") == "Container" else "template parsing error"
        raise InvalidInputError(f"{what}: {error}") from error


def _print_table(
    items: Sequence[Any], columns: dict[str, Getter], headers: dict[str, str], form: str, kind: str = "", *, literal: bool = False
) -> None:
    if not literal:
        names = form.split()
        rows = [[headers.get(name, name.upper()) for name in names]]
        rows += [[str(columns[name](item)) for name in names] for item in items]
        print(align(rows), end="")
        return
    template = parse_template(form.replace("\\t", "\t").replace("\\n", "\n"))
    lines = [_render_row(template, _Headers(headers))]
    lines += [_render_row(template, Row(item, columns, kind)) for item in items]
    print(align([line.split("\t") for line in lines]), end="")


def parse_template(form: str) -> Any:
    """Return a parsed template.

    Raises:
        InvalidInputError: it is no template.
    """
    from barque.base.go_lexer import TemplateError
    from barque.base.go_template import Template

    try:
        return Template(form.replace("\\t", "\t").replace("\\n", "\n"))
    except TemplateError as error:
        raise InvalidInputError(f"template parsing error: {error}") from error


def render(template: Any, data: Any) -> str:
    """Execute a parsed template.

    Raises:
        InvalidInputError: the template does not fit the data.
    """
    from barque.base.go_lexer import TemplateError

    try:
        return str(template.render(data))
    except TemplateError as error:
        raise InvalidInputError(f"template parsing error: {error}") from error
