"""HCL's native syntax: text to bodies of attributes and blocks, and expressions to trees. Pure.

A tree is a tuple: its kind, its position, its parts. Evaluating is `expressions`' business.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from barque.base.errors import InvalidInputError
from barque.cli.building.bake.templates import template

Tree = tuple[Any, ...]
_NAME = re.compile(r"[^\W\d][\w-]*")
_NUMBER = re.compile(r"\d+(\.\d+)?([eE][+-]?\d+)?")
_SPACE = re.compile(r"(?:[ \t\r]|#[^\n]*|//[^\n]*|/\*.*?\*/)+", re.DOTALL)
LINES = re.compile(r"(?:[ \t\r\n]|#[^\n]*|//[^\n]*|/\*.*?\*/)+", re.DOTALL)
_HEREDOC = re.compile(r"<<(-?)([^\W\d][\w-]*)\r?\n")
_BINARY: tuple[tuple[str, ...], ...] = (("||",), ("&&",), ("==", "!="), ("<=", ">=", "<", ">"), ("+", "-"), ("*", "/", "%"))
_DEEPEST = 40


@dataclass(slots=True)
class Block:
    """A block: its type, its labels, its attributes by name, the blocks in it, its line."""

    type: str
    labels: list[str]
    line: int
    attributes: dict[str, Tree] = field(default_factory=dict)
    blocks: list[Block] = field(default_factory=list)


class Parser:
    """Reads one file.

    Args:
        text: what it holds.
        name: what errors call it.
        first_line: the number of its first line, where it is a part of another.
    """

    def __init__(self, text: str, name: str, first_line: int = 1) -> None:
        self.text, self.name, self._first = text, name, first_line
        self.at = 0
        self._depth = 0

    def fail(self, message: str, at: int | None = None) -> InvalidInputError:
        """Return an error at a position, here by default."""
        at = self.at if at is None else at
        before = self.text[:at]
        line = before.count("\n") + self._first
        return InvalidInputError(f"{self.name}:{line},{at - before.rfind(chr(10))}: {message}")

    def body(self, *, block: Block | None = None) -> Block:
        """Return the attributes and blocks up to the end of the file, or of a block.

        Raises:
            InvalidInputError: a mistake in the syntax.
        """
        found = block or Block("", [], self._first)
        while True:
            self.skip(LINES)
            if self.at >= len(self.text):
                if block is not None:
                    raise self.fail("the block is not closed: } is missing")
                return found
            if block is not None and self.take("}"):
                return found
            self._item(found)

    def _item(self, into: Block) -> None:
        start = self.at
        name = self.word("an attribute's or a block's name")
        self.skip(_SPACE)
        if self.text.startswith("=", self.at) and not self.text.startswith("==", self.at):
            self.at += 1
            if name in into.attributes:
                raise self.fail(f"the attribute {name} is set twice", start)
            into.attributes[name] = self.expression(lines=False)
            self._end_of_item()
            return
        labels = []
        while not self.take("{"):
            if self.text.startswith('"', self.at):
                labels.append(self._plain_string())
            else:
                labels.append(self.word("{ or a label"))
            self.skip(_SPACE)
        made = Block(name, labels, self.text[:start].count("\n") + self._first)
        self._deeper()
        into.blocks.append(self.body(block=made))
        self._depth -= 1

    def _end_of_item(self) -> None:
        self.skip(_SPACE)
        if self.at < len(self.text) and self.text[self.at] not in "\n}":
            raise self.fail(f"a new line is missing before {self.text[self.at : self.at + 10]!r}")

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise self.fail("nested too deeply")

    def skip(self, what: re.Pattern[str]) -> None:
        """Pass over white space and comments."""
        while (match := what.match(self.text, self.at)) is not None:
            self.at = match.end()

    def take(self, sign: str) -> bool:
        """Pass over a sign where it stands here; tell whether it does."""
        if self.text.startswith(sign, self.at):
            self.at += len(sign)
            return True
        return False

    def need(self, sign: str) -> None:
        """Pass over a sign.

        Raises:
            InvalidInputError: another stands here.
        """
        self.skip(LINES)
        if not self.take(sign):
            raise self.fail(f"{sign!r} is missing" + (f" before {self.text[self.at : self.at + 10]!r}" if self.at < len(self.text) else ""))

    def word(self, what: str = "a name") -> str:
        """Pass over a name and return it.

        Raises:
            InvalidInputError: something else stands here.
        """
        match = _NAME.match(self.text, self.at)
        if match is None:
            raise self.fail(f"{what} is expected" + (f", not {self.text[self.at : self.at + 10]!r}" if self.at < len(self.text) else ""))
        self.at = match.end()
        return match[0]

    def _plain_string(self) -> str:
        parts = self._quoted()
        if not all(isinstance(part, str) for part in parts):
            raise self.fail("a label cannot hold ${ }")
        return "".join(parts)

    # Expressions. `lines`: new lines are white space here, as in parentheses.

    def expression(self, *, lines: bool) -> Tree:
        """Return the expression that begins here."""
        self._deeper()
        at = self.at
        condition = self._operation(0, lines)
        self._blank(lines)
        if self.take("?"):
            yes = self.expression(lines=lines)
            self._blank(lines)
            if not self.take(":"):
                raise self.fail("':' of the condition is missing")
            condition = ("if", at, condition, yes, self.expression(lines=lines))
        self._depth -= 1
        return condition

    def _blank(self, lines: bool) -> None:
        self.skip(LINES if lines else _SPACE)

    def _operation(self, level: int, lines: bool) -> Tree:
        if level == len(_BINARY):
            return self._unary(lines)
        left = self._operation(level + 1, lines)
        while True:
            self._blank(lines)
            at = self.at
            sign = next((one for one in _BINARY[level] if self.take(one)), "")
            if not sign:
                return left
            left = ("binary", at, sign, left, self._operation(level + 1, lines))

    def _unary(self, lines: bool) -> Tree:
        self._blank(lines)
        at = self.at
        for sign in "-!":
            if self.take(sign):
                self._deeper()
                inner = self._unary(lines)
                self._depth -= 1
                return ("unary", at, sign, inner)
        return self._postfix(self._primary(lines), lines)

    def _postfix(self, tree: Tree, lines: bool) -> Tree:
        while True:
            at = self.at
            if self.text.startswith(".", at) and not self.text.startswith("...", at):
                self.at += 1
                if self.take("*"):
                    tree = self._splat(tree, at)
                elif (match := re.compile(r"\d+").match(self.text, self.at)) is not None:
                    self.at = match.end()
                    tree = ("index", at, tree, ("value", at, int(match[0])))
                else:
                    tree = ("index", at, tree, ("value", at, self.word("an attribute's name")))
            elif self.take("["):
                self.skip(LINES)
                if self.take("*"):
                    self.need("]")
                    tree = self._splat(tree, at)
                    continue
                key = self.expression(lines=True)
                self.need("]")
                tree = ("index", at, tree, key)
            else:
                return tree

    def _splat(self, tree: Tree, at: int) -> Tree:
        return ("splat", at, tree, self._postfix(("item", at), False))

    def _primary(self, lines: bool) -> Tree:
        at = self.at
        sign = self.text[at : at + 1]
        if sign == '"':
            return ("template", at, self._quoted())
        if sign == "(":
            self.at += 1
            inner = self.expression(lines=True)
            self.need(")")
            return inner
        if sign == "[":
            return self._tuple(at)
        if sign == "{":
            return self._object(at)
        if (match := _HEREDOC.match(self.text, at)) is not None:
            return self._heredoc(match)
        if (match := _NUMBER.match(self.text, at)) is not None:
            self.at = match.end()
            if not (match[1] or match[2]):
                return ("value", at, int(match[0]))
            found = float(match[0])
            return ("value", at, int(found) if found.is_integer() else found)
        name = self.word("a value")
        if name in ("true", "false", "null"):
            return ("value", at, {"true": True, "false": False, "null": None}[name])
        if self.take("("):
            return self._call(name, at)
        return ("variable", at, name)

    def _call(self, name: str, at: int) -> Tree:
        arguments: list[Tree] = []
        spread = False
        while True:
            self.skip(LINES)
            if self.take(")"):
                return ("call", at, name, arguments, spread)
            arguments.append(self.expression(lines=True))
            self.skip(LINES)
            spread = self.take("...")
            self.skip(LINES)
            if not self.take(",") and not self.text.startswith(")", self.at):
                raise self.fail("',' or ')' is missing")

    def _for(self, at: int, close: str) -> Tree | None:
        match = re.compile(r"for(?=[ \t\r\n])").match(self.text, self.at)
        if match is None:
            return None
        self.at = match.end()
        self.skip(LINES)
        names = [self.word()]
        self.skip(LINES)
        if self.take(","):
            self.skip(LINES)
            names.append(self.word())
        self.need("in")
        collection = self.expression(lines=True)
        self.need(":")
        key = self.expression(lines=True)
        value = None
        grouped = False
        if close == "}":
            self.need("=>")
            value = self.expression(lines=True)
            self.skip(LINES)
            grouped = self.take("...")
        self.skip(LINES)
        condition = self.expression(lines=True) if self.take("if") else None
        self.need(close)
        return ("for", at, names, collection, key, value, grouped, condition)

    def _tuple(self, at: int) -> Tree:
        self.at += 1
        self.skip(LINES)
        loop = self._for(at, "]")
        if loop is not None:
            return loop
        items: list[Any] = []
        while True:
            self.skip(LINES)
            if self.take("]"):
                return ("tuple", at, items)
            items.append(self.expression(lines=True))
            self.skip(LINES)
            if not self.take(",") and not self.text.startswith("]", self.at):
                raise self.fail("',' or ']' is missing")

    def _object(self, at: int) -> Tree:
        self.at += 1
        self.skip(LINES)
        loop = self._for(at, "}")
        if loop is not None:
            return loop
        items: list[Any] = []
        while True:
            self.skip(LINES)
            if self.take("}"):
                return ("object", at, items)
            key = self._key()
            self.skip(LINES)
            if not self.take("=") and not self.take(":"):
                raise self.fail("'=' or ':' is missing")
            items.append((key, self.expression(lines=False)))
            self.skip(_SPACE)
            if not self.take(",") and self.text[self.at : self.at + 1] not in ("}", "\n"):
                raise self.fail("',' or '}' is missing")

    def _key(self) -> Tree:
        at = self.at
        match = _NAME.match(self.text, at)
        if match is not None and re.compile(r"\s*[=:](?!=)").match(self.text, match.end()):
            self.at = match.end()
            return ("value", at, match[0])
        return self._operation(0, True)

    # Templates.

    def _quoted(self) -> list[Any]:
        self.at += 1
        end = self._end_of_quoted()
        parts = template(self.text[self.at : end], self.name, self._line(), escapes=True)
        self.at = end + 1
        return parts

    def _line(self) -> int:
        return self.text[: self.at].count("\n") + self._first

    def _end_of_quoted(self) -> int:
        at, depth = self.at, 0
        inner: list[int] = []
        while at < len(self.text):
            char = self.text[at]
            if char == "\\" and not depth:
                at += 2
                continue
            if char == '"':
                # Inside ${ } a quote begins a string of its own.
                if not depth:
                    return at
                if inner and inner[-1] == depth:
                    inner.pop()
                else:
                    inner.append(depth)
            elif char == "\n" and not depth:
                break
            elif self.text.startswith(("${", "%{"), at) and not (at and self.text[at - 1] == char):
                depth += 1
                at += 1
            elif depth and char == "{" and not (inner and inner[-1] == depth):
                depth += 1
            elif depth and char == "}" and not (inner and inner[-1] == depth):
                depth -= 1
            at += 1
        raise self.fail("the text is not closed: \" is missing")

    def _heredoc(self, match: re.Match[str]) -> Tree:
        at, self.at = self.at, match.end()
        first = self._line()
        end = re.compile(rf"^[ \t]*{re.escape(match[2])}[ \t\r]*$", re.MULTILINE).search(self.text, self.at)
        if end is None:
            raise self.fail(f"the text is not closed: a line with {match[2]} is missing")
        text = self.text[self.at : end.start()]
        self.at = end.end()
        if match[1]:
            rows = text.split("\n")
            indent = min((len(row) - len(row.lstrip(" \t")) for row in rows if row.strip()), default=0)
            text = "\n".join(row[indent:] for row in rows)
        return ("template", at, template(text, self.name, first, escapes=False))
