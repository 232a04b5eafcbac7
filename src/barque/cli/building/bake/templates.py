"""Templates of HCL: text with ${ } and %{ } in it. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from barque.base.errors import InvalidInputError

if TYPE_CHECKING:
    from barque.cli.building.bake.hcl import Parser

_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\"}


def template(text: str, name: str, line: int, *, escapes: bool) -> list[Any]:
    """Return a template's parts: texts, trees, and the words of %{ } as tuples that begin with `%`.

    Raises:
        InvalidInputError: an escape or an expression is wrong.
    """
    from barque.cli.building.bake.hcl import LINES, Parser

    parts: list[Any] = []
    plain: list[str] = []
    at = 0

    def cut(*, strip: bool) -> None:
        joined = "".join(plain)
        plain.clear()
        parts.append(joined.rstrip() if strip else joined)

    strips = False
    while at < len(text):
        if text.startswith(("$${", "%%{"), at):
            plain.append(text[at + 1 : at + 3])
            at += 3
        elif text.startswith(("${", "%{"), at):
            word = text[at] == "%"
            at += 2
            left = text.startswith("~", at)
            inner = Parser(text, name, line)
            inner.at = at + left
            cut(strip=left)
            parts.append(_directive(inner) if word else inner.expression(lines=True))
            inner.skip(LINES)
            strips = inner.take("~")
            inner.need("}")
            at = inner.at
            if strips:
                while at < len(text) and text[at] in " \t\r\n":
                    at += 1
        elif escapes and text[at] == "\\":
            at, char = _escape(text, at + 1, name, line)
            plain.append(char)
        else:
            plain.append(text[at])
            at += 1
    cut(strip=False)
    return [part for part in parts if part != ""]


def _escape(text: str, at: int, name: str, line: int) -> tuple[int, str]:
    sign = text[at : at + 1]
    if sign in _ESCAPES and sign:
        return at + 1, _ESCAPES[sign]
    length = {"u": 4, "U": 8}.get(sign, 0)
    digits = text[at + 1 : at + 1 + length]
    if length and re.fullmatch(r"[0-9a-fA-F]+", digits) and len(digits) == length and int(digits, 16) < 0x110000:
        return at + 1 + length, chr(int(digits, 16))
    raise InvalidInputError(f"{name}:{line}: invalid escape \\{sign}")


def _directive(inner: Parser) -> tuple[Any, ...]:
    from barque.cli.building.bake.hcl import LINES

    inner.skip(LINES)
    at = inner.at
    word = inner.word("a word of a template")
    if word == "if":
        return ("%if", at, inner.expression(lines=True))
    if word == "for":
        names = []
        while True:
            inner.skip(LINES)
            names.append(inner.word())
            inner.skip(LINES)
            if not inner.take(","):
                break
        inner.need("in")
        return ("%for", at, names, inner.expression(lines=True))
    if word in ("else", "endif", "endfor"):
        return (f"%{word}", at)
    raise inner.fail(f"unknown word %{{ {word} }} in a template", at)
