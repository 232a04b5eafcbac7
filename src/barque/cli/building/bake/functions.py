"""The functions of bake files: those of buildx, by their names. Pure but for the clock, chance and the home folder."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import ipaddress
import json
import math
import os
import posixpath
import re
import time
import unicodedata
import uuid
from collections.abc import Callable
from itertools import product
from typing import Any
from urllib.parse import quote_plus

from barque.base.errors import InvalidInputError
from barque.cli.building.bake.expressions import number, part, text_of, whole

Function = Callable[..., Any]
_UNSUPPORTED = ("rsadecrypt", "convert", "semvercmp")
_TIME_UNITS = {"h": 3600, "m": 60, "s": 1, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_DATE_PARTS = {"YYYY": "%Y", "YY": "%y", "MMMM": "%B", "MMM": "%b", "MM": "%m", "DD": "%d", "EEEE": "%A", "EEE": "%a",
               "hh": "%H", "HH": "%I", "AA": "%p", "mm": "%M", "ss": "%S"}  # fmt: skip


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError("a list is required")
    return value


def _text(value: Any) -> str:
    return text_of(value)


def _distinct(*lists: Any) -> list[Any]:
    found: list[Any] = []
    for one in (one for values in lists for one in _list(values)):
        if one not in found:
            found.append(one)
    return found


def _flatten(value: Any) -> list[Any]:
    found: list[Any] = []
    for one in _list(value):
        found += _flatten(one) if isinstance(one, list) else [one]
    return found


def _format(text: str, *values: Any) -> str:
    used = 0

    def one(match: re.Match[str]) -> str:
        nonlocal used
        flags, place, verb = match[1], match[2], match[3]
        if verb == "%":
            return "%"
        used = int(place) if place else used + 1
        if not 0 < used <= len(values):
            raise ValueError(f"no value for {match[0]}")
        value = values[used - 1]
        if verb == "v" and "#" in flags:
            return _json(value)
        if verb == "v":
            shown = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
            return f"%{flags}s" % shown
        if verb == "t":
            return text_of(bool(value))
        if verb == "q":
            return json.dumps(text_of(value))
        if verb == "b":
            return f"{int(number(value)):b}"
        return f"%{flags}{verb}" % (text_of(value) if verb == "s" else int(number(value)) if verb in "dxXo" else float(number(value)))

    made = re.sub(r"%([-+ 0#]*\d*(?:\.\d+)?)(?:\[(\d+)\])?([%vtqbsdxXoeEfFgG])", one, text)
    if used < len(values) and "%[" not in text:
        raise ValueError("too many values")
    return made


def _formatlist(text: str, *values: Any) -> list[str]:
    count = max((len(value) for value in values if isinstance(value, list)), default=1)
    return [_format(text, *(value[n] if isinstance(value, list) else value for value in values)) for n in range(count)]


def _regex(pattern: str, text: str) -> Any:
    match = re.search(pattern, text)
    if match is None:
        raise ValueError("pattern did not match any part of the given string")
    return _groups(match)


def _groups(match: re.Match[str]) -> Any:
    if match.re.groupindex:
        return match.groupdict()
    return list(match.groups()) if match.re.groups else match[0]


def _regex_replace(text: str, pattern: str, replacement: str) -> str:
    def expanded(match: re.Match[str]) -> str:
        found = dict(enumerate((match[0], *match.groups("")))) | match.groupdict("")

        def one(part: re.Match[str]) -> str:
            name = part[1] or part[2]
            # A name that no group has is nothing; $$ is a dollar.
            return "$" if name is None else found.get(int(name) if name.isdecimal() else name, "")

        return re.sub(r"\$(?:\$|(\w+)|\{(\w+)\})", one, replacement)

    return re.sub(pattern, expanded, text)


def _replace(text: str, old: str, new: str) -> str:
    return text.replace(old, new)


def _range(*values: Any) -> list[Any]:
    numbers = [number(one) for one in values]
    start, end = (0.0, numbers[0]) if len(numbers) == 1 else (numbers[0], numbers[1])
    step = numbers[2] if len(numbers) > 2 else (1 if start <= end else -1)
    if step == 0 or (end - start) * step < 0 or abs((end - start) / step) > 1024:
        raise ValueError("a range of more than 1024 items")
    found = []
    while (start < end) if step > 0 else (start > end):
        found.append(whole(start))
        start += step
    return found


def _length(value: Any) -> int:
    if not isinstance(value, list | dict):
        raise ValueError("a list or an object is required")
    return len(value)


def _slice(value: Any, start: Any, end: Any) -> list[Any]:
    low, high = int(number(start)), int(number(end))
    if not 0 <= low <= high <= len(_list(value)):
        raise ValueError("the places are outside of the list")
    return _list(value)[low:high]


def _substr(text: str, offset: Any, length: Any) -> str:
    parts = _characters(text)
    start, count = int(number(offset)), int(number(length))
    start = max(0, len(parts) + start) if start < 0 else start
    return "".join(parts[start:] if count < 0 else parts[start : start + count])


def _characters(text: str) -> list[str]:
    """Return a text's characters as people count them: with the marks that follow them."""
    found: list[str] = []
    for one in text:
        if found and unicodedata.combining(one):
            found[-1] += one
        else:
            found.append(one)
    return found


def _element(value: Any, place: Any) -> Any:
    index = int(number(place))
    if index < 0:
        raise ValueError("a place is not negative")
    return _list(value)[index % len(value)]


def _cased(text: str, change: Callable[[str], str]) -> str:
    """Change each letter that has one other form; others stay."""
    return "".join(change(one) if len(change(one)) == 1 else one for one in text)


def _signum(value: Any) -> int:
    if not float(number(value)).is_integer():
        raise ValueError("a whole number is required")
    return (number(value) > 0) - (number(value) < 0)


def _set(values: list[Any]) -> list[Any]:
    return sorted(_distinct(values), key=lambda one: one if isinstance(one, str) else text_of(one))


def _unified(values: list[Any]) -> list[Any]:
    """Return values of one type: texts where they are of several."""
    kinds = {type(one) for one in values}
    simple = kinds <= {str, bool, int, float} and (str in kinds or bool in kinds) and len(kinds) > 1
    return [text_of(one) for one in values] if simple else values


def _index(value: Any, wanted: Any) -> int:
    return _list(value).index(wanted)


def _coalesce(*values: Any) -> Any:
    return _unified([one for one in values if one is not None])[0]


def _coalescelist(*values: Any) -> Any:
    return next(one for one in values if one)


def _lookup(value: dict[str, Any], key: str, *default: Any) -> Any:
    return value[key] if key in value or not default else default[0]


def _merge(*values: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for one in values:
        found |= one or {}
    return found


def _indent(spaces: Any, text: str) -> str:
    return text.replace("\n", "\n" + " " * int(number(spaces)))


def _hashed(name: str) -> Function:
    return lambda text: hashlib.new(name, str(text).encode(), usedforsecurity=False).hexdigest()


def _cidrsubnet(prefix: str, bits: Any, place: Any) -> str:
    network = ipaddress.ip_network(prefix, strict=False)
    made = network.prefixlen + int(number(bits))
    index = int(number(place))
    if made > network.max_prefixlen or not 0 <= index < 1 << int(number(bits)):
        raise ValueError(f"{prefix} has no such part")
    base = int(network.network_address) + (index << (network.max_prefixlen - made))
    return f"{ipaddress.ip_address(base)}/{made}"


def _cidrsubnets(prefix: str, *bits: Any) -> list[str]:
    network = ipaddress.ip_network(prefix, strict=False)
    found: list[str] = []
    place = int(network.network_address)
    for one in bits:
        length = network.prefixlen + int(number(one))
        size = 1 << (network.max_prefixlen - length)
        place = -(-place // size) * size
        if place + size - 1 > int(network.broadcast_address):
            raise ValueError(f"{prefix} has no room for all parts")
        found.append(f"{ipaddress.ip_address(place)}/{length}")
        place += size
    return found


def _cidrhost(prefix: str, place: Any) -> str:
    return str(ipaddress.ip_network(prefix, strict=False)[int(number(place))])


def _seconds(text: str) -> float:
    parts = re.findall(r"(\d+(?:\.\d+)?)(h|ms|us|ns|m|s)", text)
    if not parts or "".join(a + b for a, b in parts) != text.lstrip("+-"):
        raise ValueError(f"invalid duration {text!r}")
    total = sum(float(count) * _TIME_UNITS[unit] for count, unit in parts)
    return -total if text.startswith("-") else total


def _instant(text: str) -> Any:
    from datetime import datetime

    return datetime.fromisoformat(text)


def _timeadd(text: str, duration: str) -> str:
    from datetime import timedelta

    return str((_instant(text) + timedelta(seconds=_seconds(duration))).isoformat()).replace("+00:00", "Z")


def _formatdate(form: str, text: str) -> str:
    instant = _instant(text)

    def one(match: re.Match[str]) -> str:
        if match[0].startswith("'"):
            return match[0][1:-1].replace("''", "'")
        if match[0] in ("Z", "ZZZ", "ZZZZ", "ZZZZZ"):
            offset = str(instant.strftime("%z"))
            if not instant.utcoffset() and match[0] in ("Z", "ZZZ"):
                return "Z" if match[0] == "Z" else "UTC"
            return f"{offset[:3]}:{offset[3:]}" if match[0] in ("Z", "ZZZZZ") else offset
        if match[0] in _DATE_PARTS:
            return str(instant.strftime(_DATE_PARTS[match[0]]))
        single = {"D": instant.day, "M": instant.month, "h": instant.hour, "H": (instant.hour - 1) % 12 + 1,
                  "m": instant.minute, "s": instant.second, "aa": instant.strftime("%p").lower()}  # fmt: skip
        if match[0] not in single:
            raise ValueError(f"invalid date format {match[0]!r}")
        return str(single[match[0]])

    return re.sub(r"'(?:[^']|'')*'|([A-Za-z])\1*", one, form)


def _uuidv5(space: str, name: str) -> str:
    known = {"dns": uuid.NAMESPACE_DNS, "url": uuid.NAMESPACE_URL, "oid": uuid.NAMESPACE_OID, "x500": uuid.NAMESPACE_X500}
    return str(uuid.uuid5(known.get(space) or uuid.UUID(space), name))


def _bcrypt(text: str, *cost: Any) -> str:
    import bcrypt

    return str(bcrypt.hashpw(text.encode(), bcrypt.gensalt(int(number(cost[0])) if cost else 10)).decode())


def _csvdecode(text: str) -> list[dict[str, str]]:
    return [dict(row) for row in csv.DictReader(io.StringIO(text))]


def _sanitize(text: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_-]", "_", text)


def _hasindex(value: Any, key: Any) -> bool:
    try:
        part(value, key)
    except InvalidInputError:
        return False
    return True


def _json(value: Any) -> str:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, sort_keys=True)
    return re.sub("[<>&\u2028\u2029]", lambda match: f"\\u{ord(match[0]):04x}", text)


FUNCTIONS: dict[str, Function] = {
    "absolute": lambda a: abs(number(a)), "add": lambda a, b: whole(number(a) + number(b)), "and": lambda a, b: a and b,
    "base64decode": lambda t: base64.b64decode(t, validate=True).decode(),
    "base64encode": lambda t: base64.b64encode(_text(t).encode()).decode(),
    "basename": lambda p: posixpath.basename(p.rstrip("/")) or ("/" if p else "."), "bcrypt": _bcrypt,
    "byteslen": lambda t: len(t.encode()), "bytesslice": lambda t, o, n: t.encode()[o : o + n].decode(),
    "ceil": lambda a: math.ceil(number(a)), "chomp": lambda t: t.rstrip("\r\n"),
    "chunklist": lambda v, n: [_list(v)[i : i + int(n)] for i in range(0, len(v), int(n) or len(v))], "cidrhost": _cidrhost,
    "cidrnetmask": lambda p: str(ipaddress.ip_network(p, strict=False).netmask), "cidrsubnet": _cidrsubnet,
    "cidrsubnets": _cidrsubnets,
    "coalesce": _coalesce, "coalescelist": _coalescelist, "compact": lambda v: [one for one in _list(v) if one not in ("", None)],
    "concat": lambda *v: [one for values in v for one in _list(values)], "contains": lambda v, one: one in _list(v),
    "csvdecode": _csvdecode, "dirname": lambda p: posixpath.dirname(p.rstrip("/")) or ("/" if p.startswith("/") else "."),
    "distinct": _distinct, "divide": lambda a, b: whole(number(a) / number(b)),
    "element": _element, "equal": lambda a, b: a == b, "flatten": _flatten,
    "floor": lambda a: math.floor(number(a)), "format": _format, "formatdate": _formatdate, "formatlist": _formatlist,
    "greaterthan": lambda a, b: number(a) > number(b), "greaterthanorequalto": lambda a, b: number(a) >= number(b),
    "hasindex": _hasindex, "homedir": lambda: os.path.expanduser("~"), "indent": _indent, "index": part, "indexof": _index,
    "int": lambda a: int(number(a)), "join": lambda s, *v: s.join(_text(one) for values in v for one in _list(values)),
    "jsondecode": json.loads, "jsonencode": _json, "keys": sorted, "length": _length,
    "lessthan": lambda a, b: number(a) < number(b), "lessthanorequalto": lambda a, b: number(a) <= number(b),
    "log": lambda a, b: whole(math.log(number(a), number(b))), "lookup": _lookup, "lower": lambda t: _cased(_text(t), str.lower),
    "max": lambda *v: max(number(one) for one in v), "md5": _hashed("md5"), "merge": _merge,
    "min": lambda *v: min(number(one) for one in v), "modulo": lambda a, b: whole(math.fmod(number(a), number(b))),
    "multiply": lambda a, b: whole(number(a) * number(b)), "negate": lambda a: -number(a), "not": lambda a: not a,
    "notequal": lambda a, b: a != b, "or": lambda a, b: a or b, "parseint": lambda t, base: int(t, int(base)),
    "pow": lambda a, b: whole(math.pow(number(a), number(b))), "range": _range, "regex": _regex,
    "regexall": lambda p, t: [_groups(match) for match in re.finditer(p, t)], "regex_replace": _regex_replace,
    "replace": _replace, "reverse": lambda t: "".join(reversed(_characters(t))), "reverselist": lambda v: _list(v)[::-1], "sanitize": _sanitize,
    "sethaselement": lambda v, one: one in _list(v),
    "setintersection": lambda first, *rest: _set([one for one in _list(first) if all(one in other for other in rest)]),
    "setproduct": lambda *v: [list(one) for one in product(*map(_list, v))],
    "setsubtract": lambda a, b: _set([one for one in _list(a) if one not in _list(b)]),
    "setsymmetricdifference": lambda a, b: _set([*(x for x in a if x not in b), *(x for x in b if x not in a)]),
    "setunion": lambda *v: _set(_distinct(*v)), "sha1": _hashed("sha1"), "sha256": _hashed("sha256"), "sha512": _hashed("sha512"),
    "signum": _signum, "slice": _slice, "sort": lambda v: sorted(map(_text, _list(v))),
    "split": lambda s, t: t.split(s) if s else list(t), "strlen": lambda t: len(_characters(t)), "substr": _substr, "subtract": lambda a, b: whole(number(a) - number(b)),
    "timeadd": _timeadd, "timestamp": lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    "title": lambda t: re.sub(r"(?<!\w)\w", lambda m: _cased(m[0], str.upper), t), "trim": lambda t, cut: t.strip(cut),
    "trimprefix": lambda t, cut: t.removeprefix(cut), "trimspace": lambda t: t.strip(),
    "trimsuffix": lambda t, cut: t.removesuffix(cut), "upper": lambda t: _cased(_text(t), str.upper), "urlencode": quote_plus,
    "uuidv4": lambda: str(uuid.uuid4()), "uuidv5": _uuidv5, "values": lambda v: [value for _, value in sorted(v.items())],
    "zipmap": lambda names, v: dict(zip(names, v, strict=True)),
}  # fmt: skip


def find(name: str) -> Function:
    """Return a function.

    Raises:
        InvalidInputError: there is none.
    """
    if name in FUNCTIONS:
        return FUNCTIONS[name]
    if name in _UNSUPPORTED:
        raise InvalidInputError(f"the function {name} is not supported by barque bake")
    raise InvalidInputError(f"there is no function {name!r}")
