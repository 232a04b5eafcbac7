"""Command-line flags as tables, and the parser that reads a command line by such a table.

A table is text, one flag a line: `short|- name type[=default] description`. Types: bool, string, int,
uint, uint16, int64, bytes, duration, decimal, optional (its value only behind `=`); everything else takes a value as text. A type
that starts with `list` or `map` (or is one of REPEATED) may be given several times; `strings` are
split at commas too. A name that ends with `!` is known but not shown in the help text.
"""

from __future__ import annotations

from barque.base.errors import InvalidInputError
from barque.base.record import Record

TYPE_CHECKING = False  # the module typing costs every start of the command milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Validators = Callable[[], dict[str, Callable[[str], Any]]]

REPEATED = ("list", "map", "filter", "strings", "ulimit", "mount", "network", "gpu-request")
_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FALSE = ("0", "f", "F", "FALSE", "false", "False")


class UsageError(InvalidInputError):
    """The command line is wrong; `usage` asks for the usage line behind the message."""


class Flag(Record):
    """One line of a table."""

    short: str
    name: str
    kind: str
    default: str
    text: str
    hidden: bool

    @property
    def repeated(self) -> bool:
        """Whether each use adds a value."""
        return self.kind in REPEATED

    def shown(self) -> str:
        """Return the flag as error texts name it."""
        return f"-{self.short}, --{self.name}" if self.short else f"--{self.name}"


def read_table(table: str) -> list[Flag]:
    """Parse a table of flags."""
    flags = []
    for line in filter(None, table.splitlines()):
        short, name, kind, text = line.split(None, 3)
        kind, _, default = kind.partition("=")
        hidden = name.endswith("!")
        flags.append(Flag("" if short == "-" else short, name.rstrip("!"), kind, default, text, hidden))
    return flags


class Options:
    """Values by flag name; `changed` holds the names given on the command line."""

    def __init__(self, flags: list[Flag]) -> None:
        self.values: dict[str, Any] = {}
        self.changed: set[str] = set()
        self.validators: Validators = dict
        for flag in flags:
            self.values[flag.name] = _default(flag)

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def given(self, name: str) -> bool:
        """Whether the flag stood on the command line."""
        return name in self.changed


def _default(flag: Flag) -> Any:
    if flag.repeated:
        return []
    if flag.kind == "bool":
        return flag.default == "true"
    if flag.kind in ("int", "uint", "uint16", "int64"):
        return int(flag.default or 0)
    if flag.kind in ("bytes", "decimal", "duration"):
        return _value(flag, flag.default) if flag.default else 0
    return flag.default


def parse(
    flags: list[Flag],
    arguments: list[str],
    *,
    interspersed: bool = True,
    validators: Validators | None = None,
) -> tuple[Options, list[str]]:
    """Read a command line.

    Args:
        flags: the table.
        arguments: the words after the verb.
        interspersed: whether flags may stand behind the first positional word.
        validators: gives by the name of a repeated flag what checks and reads one value and raises ValueError;
            called once there is such a value.

    Raises:
        UsageError: a flag is unknown, lacks its value, or its value does not fit.
    """
    options = Options(flags)
    options.validators = validators or dict
    by_name = {flag.name: flag for flag in flags}
    by_short = {flag.short: flag for flag in flags if flag.short}
    rest: list[str] = []
    position = 0
    while position < len(arguments):
        word = arguments[position]
        position += 1
        if word == "--":
            rest += arguments[position:]
            break
        if word.startswith("--"):
            position = _long(options, by_name, word[2:], arguments, position)
        elif word.startswith("-") and len(word) > 1:
            position = _shorts(options, by_short, word[1:], arguments, position)
        elif interspersed:
            rest.append(word)
        else:
            rest += arguments[position - 1 :]
            break
    return options, rest


def _long(options: Options, by_name: dict[str, Flag], word: str, arguments: list[str], position: int) -> int:
    name, has_value, value = word.partition("=")
    if not name or name.startswith("-"):
        raise UsageError(f"bad flag syntax: --{word}")
    flag = by_name.get(name)
    if flag is None:
        if name == "help":
            options.values["help"] = True
            options.changed.add("help")
            return position
        raise UsageError(f"unknown flag: --{name}")
    if not has_value:
        if flag.kind in ("bool", "optional"):
            value = "true" if flag.kind == "bool" else ""
        elif position < len(arguments):
            value = arguments[position]
            position += 1
        else:
            raise UsageError(f"flag needs an argument: --{name}")
    _assign(options, flag, value)
    return position


def _shorts(options: Options, by_short: dict[str, Flag], word: str, arguments: list[str], position: int) -> int:
    rest = word
    while rest:
        letter, rest = rest[0], rest[1:]
        flag = by_short.get(letter)
        if flag is None:
            if letter == "h":
                options.values["help"] = True
                options.changed.add("help")
                continue
            raise UsageError(f"unknown shorthand flag: {letter!r} in -{letter}{rest}")
        if rest.startswith("=") and len(rest) > 1:
            _assign(options, flag, rest[1:])
            return position
        if flag.kind == "bool":
            _assign(options, flag, "true")
            continue
        if rest:
            _assign(options, flag, rest)
            return position
        if position >= len(arguments):
            raise UsageError(f"flag needs an argument: {letter!r} in -{letter}{rest}")
        _assign(options, flag, arguments[position])
        return position + 1
    return position


def _assign(options: Options, flag: Flag, value: str) -> None:
    try:
        parsed = _value(flag, value)
        if flag.repeated and flag.name in (readers := options.validators()):
            parsed = readers[flag.name](value)
    except ValueError as error:
        raise UsageError(f'invalid argument "{value}" for "{flag.shown()}" flag: {error}') from None
    if flag.kind == "strings":
        known = options.values[flag.name] if flag.name in options.changed else []
        options.values[flag.name] = known + value.split(",")
    elif flag.repeated:
        options.values[flag.name].append(parsed)
    else:
        options.values[flag.name] = parsed
    options.changed.add(flag.name)


def _value(flag: Flag, value: str) -> Any:
    if flag.kind == "bool":
        if value in _TRUE:
            return True
        if value in _FALSE:
            return False
        raise ValueError(f'strconv.ParseBool: parsing "{value}": invalid syntax')
    if flag.kind in ("int", "int64", "uint", "uint16"):
        return _integer(flag.kind, value)
    if flag.kind in ("bytes", "duration", "decimal"):
        from barque.base.durations import parse_duration
        from barque.cli.units import parse_bytes, parse_decimal

        read = {"bytes": parse_bytes, "duration": parse_duration, "decimal": parse_decimal}[flag.kind]
        return -1 if flag.name == "memory-swap" and value == "-1" else read(value)
    if flag.kind == "filter" and "=" not in value:
        raise ValueError("bad format of filter (expected name=value)")
    return value


def _integer(kind: str, value: str) -> int:
    call = "ParseUint" if kind.startswith("uint") else "ParseInt"
    try:
        if "_" in value or value != value.strip():
            raise ValueError
        number = int(value, 0) if not value.lstrip("+-").startswith("0") or value[:2] in ("0x", "0X") else int(value, 8)
    except ValueError:
        raise ValueError(f'strconv.{call}: parsing "{value}": invalid syntax') from None
    low, high = {"uint16": (0, 65535), "uint": (0, 2**64 - 1)}.get(kind, (-(2**63), 2**63 - 1))
    if number < 0 <= low:
        raise ValueError(f'strconv.{call}: parsing "{value}": invalid syntax')
    if not low <= number <= high:
        raise ValueError(f'strconv.{call}: parsing "{value}": value out of range')
    return number
