"""The functions of `--format` templates, and how Go prints, counts and compares values."""

from __future__ import annotations

from barque.base.go_lexer import TemplateError

TYPE_CHECKING = False  # the module typing costs every start of the command milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def go_print(value: Any) -> str:
    """Return a value as Go's %v prints it."""
    if isinstance(value, str):
        return value
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _go_float(value)
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{_inner(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, list):
        return "[" + " ".join(map(_inner, value)) + "]"
    return str(value)


def _inner(value: Any) -> str:
    return "<nil>" if value is None else go_print(value)


def _go_float(value: float) -> str:
    text = repr(value)
    if value.is_integer() and abs(value) < 1e21:
        return str(int(value))
    return text


def truth(value: Any) -> bool:
    """Return whether a value counts as true: not zero, empty, false or nil."""
    return bool(value) or hasattr(value, "template_field")


def items_of(value: Any) -> list[tuple[Any, Any]]:
    """Return what range goes over: keys (or indexes) and values.

    Raises:
        TemplateError: the value cannot be gone over.
    """
    if value is None:
        return []
    if isinstance(value, dict):
        return [(key, value[key]) for key in sorted(value)]
    if isinstance(value, list):
        return list(enumerate(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return [(number, number) for number in range(value)]
    raise TemplateError(f"template: :1: range can't iterate over {go_print(value)}")


def to_json(value: Any) -> str:
    """Return compact JSON with Go's order of keys for maps."""
    import json

    rows = value if isinstance(value, list) else [value]
    if rows and hasattr(rows[0], "template_json"):
        shown = [row.template_json() for row in rows]
        # Rows are escaped so that they may stand in a web page, other values are not.
        text = json.dumps(shown if isinstance(value, list) else shown[0], separators=(",", ":"), ensure_ascii=False)
        return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _table(*values: Any) -> str:
    return "".join(map(go_print, values))


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, dict):
            value = value.get(str(key))
        elif isinstance(value, (list, str)):
            if not isinstance(key, int) or not 0 <= key < len(value):
                raise TemplateError(f"error calling index: index out of range: {go_print(key)}")
            value = ord(value[key]) if isinstance(value, str) else value[key]
        else:
            raise TemplateError("error calling index: index of untyped nil")
    return value


def _slice(value: Any, *bounds: int) -> Any:
    start = bounds[0] if bounds else 0
    end = bounds[1] if len(bounds) > 1 else len(value)
    if not 0 <= start <= end <= len(value):
        raise TemplateError(f"error calling slice: index out of range: {end}")
    return value[start:end]


def _equal(first: Any, *others: Any) -> bool:
    if not others:
        raise TemplateError("error calling eq: missing argument for comparison")
    for other in others:
        if isinstance(first, bool) != isinstance(other, bool) or isinstance(first, str) != isinstance(other, str):
            raise TemplateError("error calling eq: incompatible types for comparison")
    return any(first == other for other in others)


def _not_equal(first: Any, second: Any) -> bool:
    return not _equal(first, second)


def _compare(test: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def run(first: Any, second: Any) -> bool:
        return test(first, second)

    return run


def _printf(form: str, *values: Any) -> str:
    import re

    rest = list(values)

    def put(found: re.Match[str]) -> str:
        flags, verb = found.group(1), found.group(2)
        if verb == "%":
            return "%"
        if not rest:
            return f"%!{verb}(MISSING)"
        value = rest.pop(0)
        if verb == "q":
            return to_json(value)
        if verb in "vs":
            return str(f"%{flags.replace('+', '').replace('#', '')}s" % go_print(value))
        if verb == "t":
            return go_print(value)
        if verb == "T":
            return {str: "string", int: "int", float: "float64", bool: "bool"}.get(type(value), "interface {}")
        try:
            return str(f"%{flags}{verb}" % value)
        except TypeError:
            return f"%!{verb}({go_print(value)})"

    return re.sub(r"%([-+# 0]*[0-9]*(?:\.[0-9]+)?)([a-zA-Z%])", put, form)


def _print(*values: Any) -> str:
    out = ""
    for number, value in enumerate(values):
        if number and not (isinstance(value, str) or isinstance(values[number - 1], str)):
            out += " "
        out += go_print(value)
    return out


def _pad(text: str, before: int, after: int) -> str:
    return " " * before + text + " " * after if text else text


def _truncate(text: str, length: int) -> str:
    return text[:length]


def _split(text: str, separator: str) -> list[str]:
    return text.split(separator) if separator else list(text)


def _title(text: str) -> str:
    out, start = [], True
    for character in text:
        out.append(character.upper() if start else character)
        start = not (character.isalnum() or character in "_'")
    return "".join(out)


def _call_html(text: Any) -> str:
    return go_print(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&#34;")


def _urlquery(text: Any) -> str:
    from urllib.parse import quote_plus

    return quote_plus(go_print(text), safe="-_.~")


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "json": to_json,
    "join": lambda values, separator: separator.join(map(go_print, values or [])),
    "lower": lambda text: text.lower(),
    "upper": lambda text: text.upper(),
    "split": _split,
    "title": _title,
    "pad": _pad,
    "truncate": _truncate,
    "table": _table,
    "println": lambda *values: " ".join(map(go_print, values)) + "\n",
    "print": _print,
    "printf": _printf,
    "len": lambda value: 0 if value is None else len(value),
    "index": _index,
    "slice": _slice,
    "eq": _equal,
    "ne": _not_equal,
    "lt": _compare(lambda a, b: a < b),
    "le": _compare(lambda a, b: a <= b),
    "gt": _compare(lambda a, b: a > b),
    "ge": _compare(lambda a, b: a >= b),
    "not": lambda value: not truth(value),
    "html": _call_html,
    "urlquery": _urlquery,
    "js": lambda text: to_json(text)[1:-1],
}
