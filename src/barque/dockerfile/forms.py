"""The split of a logical line into name, flags and arguments, and the forms that arguments have."""

import json
import re
from collections.abc import Callable

from barque.dockerfile.errors import DockerfileError
from barque.dockerfile.line import Line
from barque.dockerfile.text import SPACE, quoted

_BLANK = re.compile(r"[\t\v\f\r ]+")


def split(text: str, escape: str) -> Line:
    """Return a logical line as name, flags and arguments.

    Raises:
        DockerfileError: the arguments have not the form that the instruction needs.
    """
    pieces = _BLANK.split(text.strip(SPACE), maxsplit=1)
    flags: list[str] = []
    rest = ""
    if len(pieces) == 2:
        rest, flags = _flags(pieces[1], escape)
    read = _FORMS.get(pieces[0].lower(), _ignored)
    args, as_json, inner = read(rest.strip(SPACE), escape)
    return Line(pieces[0], tuple(flags), tuple(args), as_json, text, inner)


def _flags(text: str, escape: str) -> tuple[str, list[str]]:
    """Return what follows the leading `--flag` words, and these, their quotes removed."""
    flags: list[str] = []
    at, size = 0, len(text)
    while True:
        while at < size and text[at] in SPACE:
            at += 1
        if not text.startswith("--", at):
            return text[at:], flags
        at, word, quotes = _flag(text, at, escape)
        if word == "--":
            return text[at:], flags
        if quotes or word:
            flags.append(word)
        if at >= size:
            return "", flags


def _flag(text: str, at: int, escape: str) -> tuple[int, str, bool]:
    word: list[str] = []
    quote, quotes = "", False
    while at < len(text):
        char = text[at]
        if not quote and char in SPACE:
            break
        at += 1
        if char == quote:
            quote = ""
            continue
        if not quote and char in "'\"":
            quote, quotes = char, True
            continue
        if char == escape:
            if at == len(text):
                break
            char = text[at]
            at += 1
        word.append(char)
    return at, "".join(word), quotes


def words_of(text: str, escape: str) -> list[str]:
    """Return the space-delimited words of text; quotes and escapes stay in them."""
    words: list[str] = []
    word: list[str] = []
    quote, quoted_word = "", False
    at, size = 0, len(text)
    while at < size:
        char = text[at]
        at += 1
        if not quote and char in SPACE:
            if word or quoted_word:
                words.append("".join(word))
            word, quoted_word = [], False
            continue
        if not quote and char in "'\"":
            quote, quoted_word = char, True
        elif char == quote:
            quote = ""
        elif char == escape and quote != "'":
            if at == size:
                # An escape character at the very end escapes nothing.
                break
            word.append(char)
            char = text[at]
            at += 1
        word.append(char)
    if word or quoted_word:
        words.append("".join(word))
    return words


_Form = tuple[list[str], bool, "Line | None"]


def _ignored(rest: str, escape: str) -> _Form:
    return [""], False, None


def _string(rest: str, escape: str) -> _Form:
    return ([rest] if rest else []), False, None


def _blank_delimited(rest: str, escape: str) -> _Form:
    return (_BLANK.split(rest) if rest else []), False, None


def _names_or_pairs(rest: str, escape: str) -> _Form:
    return words_of(rest, escape), False, None


def _pairs(name: str) -> Callable[[str, str], _Form]:
    def read(rest: str, escape: str) -> _Form:
        words = words_of(rest, escape)
        if words and "=" not in words[0]:
            parts = _BLANK.split(rest, maxsplit=1)
            if len(parts) < 2:
                raise DockerfileError(f"{name} must have two arguments")
            return [parts[0], parts[1], ""], False, None
        args: list[str] = []
        for word in words:
            key, equals, value = word.partition("=")
            if not equals:
                raise DockerfileError(
                    f"Syntax error - can't find = in {quoted(word)}. Must be of the form: name=value"
                )
            args += [key, value, "="]
        return args, False, None

    return read


def _array(rest: str) -> list[str] | None:
    """Return the JSON array of strings that rest is, None where it is no JSON array.

    Raises:
        DockerfileError: an item is not a string.
    """
    rest = rest.lstrip(SPACE)
    if not rest.startswith("["):
        return None
    try:
        value = json.loads(rest, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    if not all(isinstance(item, str) for item in value):
        raise DockerfileError("when using JSON array syntax, arrays must be comprised of strings only")
    return list(value)


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _maybe_json(rest: str, escape: str) -> _Form:
    if not rest:
        return [], False, None
    value = _array(rest)
    return ([rest], False, None) if value is None else (value, True, None)


def _maybe_json_list(rest: str, escape: str) -> _Form:
    value = _array(rest)
    return _blank_delimited(rest, escape) if value is None else (value, True, None)


def _health(rest: str, escape: str) -> _Form:
    parts = re.split(f"[{SPACE}]+", rest, maxsplit=1)
    if not parts[0]:
        return [], False, None
    args, as_json, _ = _maybe_json(parts[1] if len(parts) > 1 else "", escape)
    return [parts[0], *args], as_json, None


def _trigger(rest: str, escape: str) -> _Form:
    if not rest:
        return [], False, None
    inner = split(rest, escape)
    return [inner.name, *inner.args], inner.json, inner


_FORMS: dict[str, Callable[[str, str], _Form]] = {
    "add": _maybe_json_list,
    "arg": _names_or_pairs,
    "cmd": _maybe_json,
    "copy": _maybe_json_list,
    "entrypoint": _maybe_json,
    "env": _pairs("ENV"),
    "expose": _blank_delimited,
    "from": _blank_delimited,
    "healthcheck": _health,
    "label": _pairs("LABEL"),
    "maintainer": _string,
    "onbuild": _trigger,
    "run": _maybe_json,
    "shell": _maybe_json,
    "stopsignal": _string,
    "user": _string,
    "volume": _maybe_json_list,
    "workdir": _string,
}
INSTRUCTIONS = tuple(name.upper() for name in _FORMS)
# An extension of ours, which is not proposed to those who mistype another name.
_FORMS["include"] = _maybe_json_list
