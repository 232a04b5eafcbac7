"""Bake files in HCL and JSON: variables, functions, groups and targets, evaluated."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any

from barque.base.errors import InvalidInputError
from barque.cli.building.bake import functions
from barque.cli.building.bake.expressions import Inner, evaluate, number, text_of, truth
from barque.cli.building.bake.hcl import Block, Parser, Tree
from barque.cli.building.bake.templates import template

if TYPE_CHECKING:
    from collections.abc import Mapping

Json = dict[str, Any]
_BLOCKS = ("variable", "function", "group", "target")
_META = ("matrix", "name")


@dataclass(slots=True)
class Definitions:
    """What files define: groups' members and targets' attributes by name; what groups and variables are for."""

    groups: dict[str, list[str]] = field(default_factory=dict)
    targets: dict[str, Json] = field(default_factory=dict)
    descriptions: dict[str, str] = field(default_factory=dict)
    variables: list[Json] = field(default_factory=list)


def read_hcl(text: str, name: str) -> Block:
    """Return what a file in HCL's native syntax says.

    Raises:
        InvalidInputError: a mistake in the syntax.
    """
    try:
        return Parser(text.removeprefix("\ufeff"), name).body()
    except RecursionError:
        raise InvalidInputError(f"{name}: nested too deeply") from None


def read_json(text: str, name: str) -> Block:
    """Return what a file in HCL's JSON syntax says; its texts are templates.

    Raises:
        InvalidInputError: it is no JSON object.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{name}: {error}") from None
    if not isinstance(value, dict):
        raise InvalidInputError(f"{name}: an object is expected")
    found = Block("", [], 1)
    for key, inner in value.items():
        if key not in _BLOCKS:
            found.attributes[key] = _tree(inner, name)
            continue
        for label, fields in inner.items() if isinstance(inner, dict) else ():
            block = Block(key, [label], 1)
            for one, attribute in fields.items() if isinstance(fields, dict) else ():
                if one == "validation":
                    for rule in attribute if isinstance(attribute, list) else [attribute]:
                        block.blocks.append(Block(one, [], 1, {k: _tree(v, name, bare=k == "condition") for k, v in rule.items()}))
                else:
                    block.attributes[one] = _tree(attribute, name, bare=(key == "function" and one == "result") or one == "type")
            found.blocks.append(block)
    return found


def _tree(value: Any, name: str, *, bare: bool = False) -> Tree:
    if isinstance(value, str):
        if bare and not value.startswith("${"):
            return Parser(value, name).expression(lines=True)
        return ("template", 0, template(value, name, 1, escapes=False))
    if isinstance(value, list):
        return ("tuple", 0, [_tree(one, name) for one in value])
    if isinstance(value, dict):
        return ("object", 0, [(("value", 0, key), _tree(one, name)) for key, one in value.items()])
    return ("value", 0, value)


class World:
    """All files together: evaluates what they define.

    Args:
        files: what they say, later ones over earlier ones.
        environment: gives variables their values.
        known: variables that are always there.
    """

    def __init__(self, files: list[Block], environment: Mapping[str, str], known: Json) -> None:
        self._environment = environment
        self._values: Json = dict(known)
        self._under_way: list[str] = []
        self._variables: dict[str, list[Block]] = {}
        self._functions: dict[str, Block] = {}
        self._globals: dict[str, Tree] = {}
        self._items: dict[str, dict[str, list[Block]]] = {"group": {}, "target": {}}
        self._defined: dict[tuple[str, str], Json] = {}
        for file in files:
            self._globals |= file.attributes
            for block in file.blocks:
                self._take(block)

    def _take(self, block: Block) -> None:
        if block.type not in _BLOCKS:
            raise InvalidInputError(f"line {block.line}: unsupported block type {block.type!r}: use {', '.join(_BLOCKS)}")
        if len(block.labels) != 1:
            raise InvalidInputError(f"line {block.line}: a {block.type} has one name")
        name = block.labels[0]
        if block.type == "variable":
            self._variables.setdefault(name, []).append(block)
        elif block.type == "function":
            self._functions[name] = block
        else:
            self._items[block.type].setdefault(name, []).append(block)

    # What names mean.

    def variable(self, name: str) -> Any:
        """Return a variable's value (see Scope)."""
        if name in self._values:
            return self._values[name]
        if name in ("target", "group"):
            return _Lazy(self, name)
        if name in self._under_way:
            raise InvalidInputError(f"variable cycle not allowed for {name}")
        self._under_way.append(name)
        try:
            if name in self._variables:
                value = self._valued(name, self._variables[name])
            elif name in self._globals:
                value = self._environment.get(name, evaluate(self._globals[name], self))
            else:
                raise InvalidInputError(f"undefined variable {name!r}")
        finally:
            self._under_way.pop()
        self._values[name] = value
        return value

    def function(self, name: str) -> Any:
        """Return a function (see Scope)."""
        block = self._functions.get(name)
        if block is None:
            return functions.find(name)
        params = _names(block, "params")
        rest = _names(block, "variadic_params") if "variadic_params" in block.attributes else []

        def call(*values: Any) -> Any:
            if len(values) < len(params) or (len(values) > len(params) and not rest):
                raise ValueError(f"{len(params)} are expected, not {len(values)}")
            if len(self._under_way) > 100:
                raise InvalidInputError(f"function {name} calls itself without an end")
            bound = dict(zip(params, values, strict=False))
            if rest:
                bound[rest[0]] = list(values[len(params) :])
            self._under_way.append(f"{name}()")
            try:
                return evaluate(block.attributes["result"], Inner(self, bound))
            finally:
                self._under_way.pop()

        return call

    def _valued(self, name: str, blocks: list[Block]) -> Any:
        attributes = {key: tree for block in blocks for key, tree in block.attributes.items()}
        kind = attributes.get("type")
        default = evaluate(attributes["default"], self) if "default" in attributes else None
        if name in self._environment:
            value = _converted(self._environment[name], kind, default, name)
        else:
            value = _typed(default, kind, name) if kind is not None and default is not None else default
        self._values[name] = value
        for block in blocks:
            for rule in (one for one in block.blocks if one.type == "validation"):
                if not truth(evaluate(rule.attributes["condition"], self)):
                    text = evaluate(rule.attributes["error_message"], self) if "error_message" in rule.attributes else "condition failed"
                    raise InvalidInputError(f"{name}: {text_of(text)}")
        return value

    # What there is.

    def all(self) -> Definitions:
        """Return all groups and targets, evaluated.

        Raises:
            InvalidInputError: something is not defined, or does not fit.
        """
        try:
            return self._all()
        except RecursionError:
            raise InvalidInputError("the definitions are nested too deeply") from None

    def _all(self) -> Definitions:
        found = Definitions()
        for name, variables in self._variables.items():
            described = self._text(variables[-1], "description")
            found.variables.append({"name": name, "description": described, "value": self.variable(name)})
        for name, blocks in self._items["group"].items():
            members: list[str] = []
            for block in blocks:
                members = [text_of(one) for one in evaluate(block.attributes["targets"], self)] if "targets" in block.attributes else members
            found.groups[name] = members
            found.descriptions[name] = self._text(blocks[-1], "description")
        for name, blocks in self._items["target"].items():
            self._target(name, blocks, found)
        return found

    def _text(self, block: Block, name: str) -> str:
        value = evaluate(block.attributes[name], self) if name in block.attributes else ""
        return text_of(value) if value is not None else ""

    def _target(self, name: str, blocks: list[Block], found: Definitions) -> None:
        matrix_block = next((block for block in blocks if "matrix" in block.attributes), None)
        if matrix_block is None:
            found.targets[name] = self.attributes("target", name)
            return
        matrix = evaluate(matrix_block.attributes["matrix"], self)
        if not isinstance(matrix, dict) or not all(isinstance(values, list) for values in matrix.values()):
            raise InvalidInputError(f"target {name}: matrix must be an object of lists")
        if "name" not in matrix_block.attributes:
            raise InvalidInputError(f"target {name}: a matrix needs a name for each of its targets: name = \"...${{...}}\"")
        members = []
        for values in product(*matrix.values()):
            scope = Inner(self, dict(zip(matrix, values, strict=True)))
            made = text_of(evaluate(matrix_block.attributes["name"], scope))
            if made in found.targets:
                raise InvalidInputError(f"duplicate target name {made!r} of the matrix of {name}")
            found.targets[made] = self._evaluated(blocks, scope)
            members.append(made)
        found.groups[name] = members

    def attributes(self, kind: str, name: str) -> Json:
        """Return a block's attributes, as others refer to them.

        Raises:
            InvalidInputError: there is no such block, or it refers to itself.
        """
        if (kind, name) not in self._defined:
            if name not in self._items[kind]:
                raise InvalidInputError(f"there is no {kind} {name!r}")
            mark = f"{kind}.{name}"
            if mark in self._under_way:
                raise InvalidInputError(f"reference cycle not allowed for {mark}")
            self._under_way.append(mark)
            self._defined[kind, name] = self._evaluated(self._items[kind][name], self)
            self._under_way.pop()
        return self._defined[kind, name]

    def _evaluated(self, blocks: list[Block], scope: Any) -> Json:
        made: Json = {}
        for block in blocks:
            for inner in block.blocks:
                raise InvalidInputError(f"line {inner.line}: unsupported block {inner.type!r} in a target; write {inner.type} = {{ }}")
            for key, tree in block.attributes.items():
                if key in _META:
                    continue
                value = evaluate(tree, scope)
                if isinstance(value, dict) and isinstance(made.get(key), dict):
                    value = {**made[key], **value}
                made[key] = value
        return made


class _Lazy(dict[str, Any]):
    """Blocks of a kind, evaluated when they are looked at."""

    def __init__(self, world: World, kind: str) -> None:
        super().__init__()
        self._world, self._kind = world, kind

    def __contains__(self, name: object) -> bool:
        return True

    def __getitem__(self, name: str) -> Json:
        return self._world.attributes(self._kind, name)


def _names(block: Block, attribute: str) -> list[str]:
    tree = block.attributes.get(attribute, ("tuple", 0, []))
    if tree[0] == "variable":
        return [tree[2]]
    if tree[0] != "tuple":
        raise InvalidInputError(f"function {block.labels[0]}: {attribute} must be a list of names")
    return [one[2] if one[0] == "variable" else text_of(evaluate(one, functions_only)) for one in tree[2]]


class _NoVariables:
    def variable(self, name: str) -> Any:
        raise InvalidInputError(f"undefined variable {name!r}")

    def function(self, name: str) -> Any:
        return functions.find(name)


functions_only = _NoVariables()


def _kind_of(tree: Tree) -> tuple[str, Tree | None]:
    if tree[0] == "variable":
        return str(tree[2]), None
    if tree[0] == "call":
        return str(tree[2]), tree[3][0] if tree[3] else None
    raise InvalidInputError("a type is string, number, bool, list(...), set(...), map(...), tuple(...) or object(...)")


def _converted(text: str, tree: Tree | None, default: Any, name: str) -> Any:
    """Return an environment's value as the variable's type says, or as its default is."""
    if tree is None and isinstance(default, list | dict):
        raise InvalidInputError(f"variable {name} is a list or an object: give it a type, such as list(string), to set it from outside")
    if tree is None:
        kind = "bool" if isinstance(default, bool) else "number" if isinstance(default, int | float) else "string"
    else:
        kind = _kind_of(tree)[0]
    if kind in ("list", "set", "tuple", "map", "object"):
        value: Any = None
        if text.lstrip().startswith(("[", "{")):
            try:
                value = json.loads(text)
            except ValueError:
                raise InvalidInputError(f"failed to parse {name} as JSON: {text!r}") from None
        else:
            value = text.split(",") if text else []
        return _typed(value, tree or ("variable", 0, kind), name)
    return _typed(text, ("variable", 0, kind), name)


def _typed(value: Any, tree: Tree, name: str) -> Any:
    kind, inner = _kind_of(tree)
    if value is None or kind == "any":
        return value
    if kind == "bool":
        known = {"1": True, "t": True, "true": True, "0": False, "f": False, "false": False}
        if not isinstance(value, bool) and str(value).lower() not in known:
            raise InvalidInputError(f"failed to parse {name} as bool: {value!r}")
        return value if isinstance(value, bool) else known[str(value).lower()]
    if kind == "number":
        try:
            return number(value)
        except InvalidInputError:
            raise InvalidInputError(f"failed to parse {name} as number: {value!r}") from None
    if kind == "string":
        return text_of(value)
    if kind in ("list", "set", "tuple") and isinstance(value, list):
        return [_typed(one, inner, name) for one in value] if inner is not None and kind != "tuple" else value
    if kind in ("map", "object") and isinstance(value, dict):
        return {key: _typed(one, inner, name) for key, one in value.items()} if inner is not None and kind == "map" else value
    raise InvalidInputError(f"the value of {name} is no {kind}: {value!r}")
