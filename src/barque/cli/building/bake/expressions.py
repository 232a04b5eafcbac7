"""Evaluating expressions of HCL. Pure; values are texts, numbers, truths, None, lists and dicts."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from barque.base.errors import InvalidInputError
from barque.cli.building.bake.hcl import Tree

Function = Callable[..., Any]
_MOST_ITEMS = 100_000
# What a function of ours says of arguments that do not fit it.
_UNFIT = (ArithmeticError, AttributeError, LookupError, StopIteration, TypeError, ValueError, csv.Error, re.error)


class Scope(Protocol):
    """What names mean."""

    def variable(self, name: str) -> Any:
        """Return a variable's value.

        Raises:
            InvalidInputError: there is none.
        """
        ...

    def function(self, name: str) -> Function:
        """Return a function.

        Raises:
            InvalidInputError: there is none.
        """
        ...


class Inner:
    """A scope with more variables."""

    def __init__(self, outer: Scope, values: Mapping[str, Any]) -> None:
        self._outer, self._values = outer, values

    def variable(self, name: str) -> Any:
        """Return a variable (see Scope)."""
        return self._values[name] if name in self._values else self._outer.variable(name)

    def function(self, name: str) -> Function:
        """Return a function (see Scope)."""
        return self._outer.function(name)


def text_of(value: Any) -> str:
    """Return a value as text in a template.

    Raises:
        InvalidInputError: it is a list, an object or null.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return number_text(value)
    what = "null" if value is None else "a list" if isinstance(value, list) else "an object"
    raise InvalidInputError(f"{what} cannot be part of a text")


def number_text(value: float) -> str:
    """Return a number as text, without an empty fraction."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def truth(value: Any) -> bool:
    """Return a value as a condition.

    Raises:
        InvalidInputError: it is neither true nor false.
    """
    if isinstance(value, bool):
        return value
    if value in ("true", "false"):
        return bool(value == "true")
    raise InvalidInputError(f"a condition must be true or false, not {value!r}")


def number(value: Any) -> float:
    """Return a value as a number.

    Raises:
        InvalidInputError: it is none.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            try:
                return float(value)
            except ValueError:
                pass
    raise InvalidInputError(f"a number is required, not {value!r}")


def evaluate(tree: Tree, scope: Scope) -> Any:
    """Return an expression's value.

    Raises:
        InvalidInputError: a name is unknown, or a value does not fit.
    """
    return _KINDS[tree[0]](tree, scope)


def _template(tree: Tree, scope: Scope) -> Any:
    parts = tree[2]
    if len(parts) == 1 and not isinstance(parts[0], str) and not parts[0][0].startswith("%"):
        # A template of one expression alone is that value.
        return evaluate(parts[0], scope)
    out: list[str] = []
    _parts(parts, 0, scope, out)
    return "".join(out)


def _parts(parts: list[Any], at: int, scope: Scope, out: list[str] | None) -> int:
    """Add parts' texts up to a word that ends them; without `out` they are only passed over. Return where it stands."""
    while at < len(parts):
        part = parts[at]
        if isinstance(part, str):
            if out is not None:
                out.append(part)
            at += 1
        elif part[0] == "%if":
            at = _if_parts(parts, at, scope, out)
        elif part[0] == "%for":
            at = _for_parts(parts, at, scope, out)
        elif part[0].startswith("%"):
            return at
        else:
            if out is not None:
                out.append(text_of(evaluate(part, scope)))
            at += 1
    return at


def _ended(parts: list[Any], at: int, *words: str) -> str:
    if at >= len(parts) or parts[at][0] not in words:
        raise InvalidInputError(f"%{{ {words[-1][1:]} }} is missing in a template")
    return str(parts[at][0])


def _if_parts(parts: list[Any], at: int, scope: Scope, out: list[str] | None) -> int:
    holds = out is not None and truth(evaluate(parts[at][2], scope))
    at = _parts(parts, at + 1, scope, out if holds else None)
    if _ended(parts, at, "%else", "%endif") == "%else":
        at = _parts(parts, at + 1, scope, None if holds else out)
        _ended(parts, at, "%endif")
    return at + 1


def _for_parts(parts: list[Any], at: int, scope: Scope, out: list[str] | None) -> int:
    start = at + 1
    end = _parts(parts, start, scope, None)
    _ended(parts, end, "%endfor")
    if out is not None:
        for key, value in items(evaluate(parts[at][3], scope)):
            _parts(parts, start, Inner(scope, _bound(parts[at][2], key, value)), out)
    return end + 1


def items(value: Any) -> list[tuple[Any, Any]]:
    """Return keys and values of a list or an object.

    Raises:
        InvalidInputError: it is neither.
    """
    if isinstance(value, list):
        return list(enumerate(value))
    if isinstance(value, dict):
        return sorted(value.items())
    raise InvalidInputError("a list or an object is required here")


def _bound(names: list[str], key: Any, value: Any) -> dict[str, Any]:
    return {names[0]: value} if len(names) == 1 else {names[0]: key, names[1]: value}


def _for(tree: Tree, scope: Scope) -> Any:
    _, _, names, collection, key, value, grouped, condition = tree
    found: Any = [] if value is None else {}
    for one, other in items(evaluate(collection, scope)):
        inner = Inner(scope, _bound(names, one, other))
        if condition is not None and not truth(evaluate(condition, inner)):
            continue
        made = evaluate(key, inner)
        if value is None:
            found.append(made)
            continue
        name = text_of(made)
        if grouped:
            found.setdefault(name, []).append(evaluate(value, inner))
        elif name in found:
            raise InvalidInputError(f"two items of an object have the key {name!r}")
        else:
            found[name] = evaluate(value, inner)
    if len(found) > _MOST_ITEMS:
        raise InvalidInputError("a list of more than 100000 items")
    return found


def _index(tree: Tree, scope: Scope) -> Any:
    return part(evaluate(tree[2], scope), evaluate(tree[3], scope))


def part(value: Any, key: Any) -> Any:
    """Return an item of a list or an object.

    Raises:
        InvalidInputError: there is none.
    """
    if isinstance(value, list):
        place = int(number(key))
        if not 0 <= place < len(value):
            raise InvalidInputError(f"the list has no item {place}: it has {len(value)}")
        return value[place]
    if isinstance(value, dict):
        if text_of(key) not in value:
            raise InvalidInputError(f"the object has no attribute {key!r}")
        return value[text_of(key)]
    raise InvalidInputError(f"a value without parts has no {key!r}")


def _splat(tree: Tree, scope: Scope) -> Any:
    value = evaluate(tree[2], scope)
    if value is None:
        return []
    listed = value if isinstance(value, list) else [value]
    return [evaluate(tree[3], Inner(scope, {"*": one})) for one in listed]


def _binary(tree: Tree, scope: Scope) -> Any:
    _, _, sign, left_tree, right_tree = tree
    left = evaluate(left_tree, scope)
    if sign in ("&&", "||"):
        right = evaluate(right_tree, scope)
        return truth(left) and truth(right) if sign == "&&" else truth(left) or truth(right)
    right = evaluate(right_tree, scope)
    if sign in ("==", "!="):
        same = type(left) is type(right) or not (isinstance(left, bool) or isinstance(right, bool))
        return (same and left == right) is (sign == "==")
    one, other = number(left), number(right)
    if sign in ("/", "%") and other == 0:
        raise InvalidInputError("division by zero")
    return whole(_OPERATIONS[sign](one, other))


def whole(value: Any) -> Any:
    """Return a number without a fraction as an int where that is exact."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


_OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b, "/": lambda a, b: a / b,
    "%": lambda a, b: abs(a) % abs(b) * (-1 if a < 0 else 1), "<": lambda a, b: a < b, ">": lambda a, b: a > b,
    "<=": lambda a, b: a <= b, ">=": lambda a, b: a >= b,
}  # fmt: skip


def _unary(tree: Tree, scope: Scope) -> Any:
    value = evaluate(tree[3], scope)
    return not truth(value) if tree[2] == "!" else -number(value)


def _call(tree: Tree, scope: Scope) -> Any:
    _, _, name, trees, spread = tree
    if name in ("try", "can"):
        return _attempt(name, trees, scope)
    arguments = [evaluate(one, scope) for one in trees]
    if spread:
        last = arguments.pop()
        if not isinstance(last, list):
            raise InvalidInputError(f"{name}: what is followed by ... must be a list")
        arguments += last
    try:
        return scope.function(name)(*arguments)
    except _UNFIT as error:
        raise InvalidInputError(f"function {name}: the arguments do not fit: {error}") from None


def _attempt(name: str, trees: list[Tree], scope: Scope) -> Any:
    """Return the first value that can be had (`try`), or whether one can (`can`)."""
    for one in trees:
        try:
            value = evaluate(one, scope)
        except InvalidInputError:
            continue
        return True if name == "can" else value
    if name == "can":
        return False
    raise InvalidInputError("function try: no argument can be evaluated")


def _object(tree: Tree, scope: Scope) -> Any:
    return {text_of(evaluate(key, scope)): evaluate(value, scope) for key, value in tree[2]}


_KINDS: dict[str, Callable[[Tree, Scope], Any]] = {
    "value": lambda tree, scope: tree[2], "variable": lambda tree, scope: scope.variable(tree[2]),
    "item": lambda tree, scope: scope.variable("*"), "template": _template, "for": _for, "index": _index, "splat": _splat,
    "binary": _binary, "unary": _unary, "call": _call, "object": _object,
    "tuple": lambda tree, scope: [evaluate(one, scope) for one in tree[2]],
    "if": lambda tree, scope: evaluate(tree[3] if truth(evaluate(tree[2], scope)) else tree[4], scope),
}  # fmt: skip
