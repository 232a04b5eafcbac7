"""Words of a Go template: text outside of {{ }}, and the tokens inside."""

from __future__ import annotations

from barque.base.record import Record

TYPE_CHECKING = False  # the module typing costs every start of the command milliseconds
if TYPE_CHECKING:
    from typing import Any
class TemplateError(ValueError):
    """A template cannot be parsed or executed."""


class Token(Record):
    """One token of an action; `kind` is field, variable, word, string, number, char, or the sign itself."""

    kind: str
    value: Any


_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"', "'": "'", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_WORD = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")
_DIGITS = frozenset("0123456789")


def split(source: str) -> list[str | list[Token]]:
    """Return texts and token lists in order; trim markers have been applied.

    Raises:
        TemplateError: an action is not closed or holds a character that no token begins with.
    """
    parts: list[str | list[Token]] = []
    trim_next = False
    position = 0
    while True:
        start = source.find("{{", position)
        text = source[position:] if start < 0 else source[position:start]
        if trim_next:
            text = text.lstrip()
        if start < 0:
            parts.append(text)
            return parts
        start += 2
        if source.startswith("- ", start):
            text = text.rstrip()
            start += 2
        parts.append(text)
        end, body = _action_end(source, start)
        trim_next = body.endswith(" -")
        if trim_next:
            body = body[:-2]
        if not body.strip().startswith("/*"):
            parts.append(tokens(body))
        position = end


def _action_end(source: str, start: int) -> tuple[int, str]:
    position, quote = start, ""
    while position < len(source):
        character = source[position]
        if quote:
            if character == "\\" and quote != "`":
                position += 1
            elif character == quote:
                quote = ""
        elif character in "\"`'":
            quote = character
        elif source.startswith("}}", position):
            return position + 2, source[start:position]
        position += 1
    if quote == '"':
        raise TemplateError("template: :1: unterminated quoted string")
    raise TemplateError("template: :1: unclosed action")


def tokens(body: str) -> list[Token]:
    """Return the tokens of one action."""
    result: list[Token] = []
    position = 0
    while position < len(body):
        character = body[position]
        if character.isspace():
            position += 1
            if result and result[-1].kind != "space":
                result.append(Token("space", " "))
            continue
        token, position = _token(body, position)
        result.append(token)
    return result


def _token(body: str, position: int) -> tuple[Token, int]:
    character = body[position]
    if character == '"' or character == "'":
        text, end = _quoted(body, position)
        return Token("string", text) if character == '"' else Token("number", ord(text)), end
    if character == "`":
        end = body.find("`", position + 1)
        if end < 0:
            raise TemplateError("template: :1: unterminated raw quoted string")
        return Token("string", body[position + 1 : end]), end + 1
    if character in "()|,=":
        return Token(character, character), position + 1
    if body.startswith(":=", position):
        return Token(":=", ":="), position + 2
    if character == ".":
        end = _word_end(body, position + 1)
        return Token("field", body[position + 1 : end]), end
    if character == "$":
        end = _word_end(body, position + 1)
        return Token("variable", body[position:end]), end
    if character in _DIGITS or (character in "+-" and body[position + 1 : position + 2] in _DIGITS):
        return _number(body, position)
    end = _word_end(body, position)
    if end == position:
        raise TemplateError(f"template: :1: unexpected {character!r} in action")
    return Token("word", body[position:end]), end


def _word_end(body: str, position: int) -> int:
    while position < len(body) and (body[position] in _WORD or (body[position] > "\x7f" and body[position].isalpha())):
        position += 1
    return position


def _number(body: str, position: int) -> tuple[Token, int]:
    end = position + 1
    while end < len(body) and (body[end] in _WORD or body[end] == "."):
        end += 1
    text = body[position:end]
    try:
        return Token("number", int(text, 0)), end
    except ValueError:
        pass
    try:
        return Token("number", float(text)), end
    except ValueError:
        raise TemplateError(f"template: :1: bad number syntax: {text!r}") from None


def _quoted(body: str, position: int) -> tuple[str, int]:
    quote = body[position]
    result: list[str] = []
    position += 1
    while position < len(body):
        character = body[position]
        if character == quote:
            return "".join(result), position + 1
        if character == "\\":
            position += 1
            character = _ESCAPES.get(body[position : position + 1], "\\" + body[position : position + 1])
        result.append(character)
        position += 1
    raise TemplateError("template: :1: unterminated quoted string")
