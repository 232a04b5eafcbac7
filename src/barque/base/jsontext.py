"""JSON in and out by the interpreter's own C scanner and encoder, without the regular expressions of `json`.

Importing `json` compiles patterns and pulls in `re` and `enum`, which doubles the start of a short command.
Where the C parts are missing or differ, `json` itself is used.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_WHITESPACE = " \t\n\r"


class _Scanning:
    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float
    memo: dict[str, str] = {}  # noqa: RUF012 - the scanner's own, emptied after each use


def _refuse(value: object) -> Any:
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def _c_parts() -> tuple[Any, Any]:
    try:
        import _json

        scan = _json.make_scanner(_Scanning)  # type: ignore[arg-type]
        encode = _json.make_encoder(None, _refuse, _json.encode_basestring, None, ":", ",", False, False, True)
        if scan('{"a":[1]}', 0) == ({"a": [1]}, 9) and "".join(encode({"a": [1]}, 0)) == '{"a":[1]}':
            return scan, encode
    except (ImportError, AttributeError, TypeError):
        pass
    return None, None


_scan, _encode = _c_parts()


def loads(text: str | bytes) -> Any:
    """Return the value of one JSON text.

    Raises:
        ValueError: the text is not JSON, or more follows.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8")
    value, end = raw_decode(text, _start(text, 0))
    if _start(text, end) != len(text):
        raise ValueError(f"Extra data: char {end}")
    return value


def raw_decode(text: str, start: int = 0) -> tuple[Any, int]:
    """Return the value that begins at `start`, and where it ends.

    Raises:
        ValueError: no JSON value begins there.
    """
    if _scan is None:
        import json

        return json.JSONDecoder().raw_decode(text, start)
    try:
        found: tuple[Any, int] = _scan(text, start)
    except StopIteration as stop:
        raise ValueError(f"Expecting value: char {stop.value}") from None
    return found


def dumps(value: Any) -> str:
    """Return a value as compact JSON, characters outside ASCII as they are.

    Raises:
        TypeError: it holds something that JSON has no form for.
    """
    if _encode is None:
        import json

        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return "".join(_encode(value, 0))


def _start(text: str, place: int) -> int:
    while place < len(text) and text[place] in _WHITESPACE:
        place += 1
    return place
