"""The command line of `barque runtime`: a table of options a verb, read without a library.

A verb's options end at the first word that is not one, so that a container's command keeps its own.
"""

from typing import Any, NamedTuple

from barque.base.errors import InvalidInputError

FLAG, VALUE, MANY = "flag", "value", "many"


class Option(NamedTuple):
    """An option: the name it is stored under, and how it takes a value."""

    name: str
    kind: str


def _table(text: str) -> dict[str, Option]:
    """Return options from words: `b,bundle=` takes a value, `e,env=*` many, `d,detach` none; all take --help."""
    table: dict[str, Option] = {}
    for word in [*text.split(), "h,help"]:
        kind = MANY if word.endswith("=*") else VALUE if word.endswith("=") else FLAG
        names = word.rstrip("*").rstrip("=").split(",")
        option = Option(names[-1].replace("-", "_"), kind)
        for name in names:
            table[f"-{name}" if len(name) == 1 else f"--{name}"] = option
    return table


GLOBAL = _table(
    "root= log= log-format= log-level= debug systemd-cgroup rootless= cgroup-manager= criu= v,version"
)
_START = "b,bundle= f,config= console-socket= pid-file= no-pivot no-new-keyring no-subreaper preserve-fds= keep"
VERBS: dict[str, dict[str, Option]] = {
    "create": _table(_START),
    "run": _table(_START + " d,detach"),
    "start": _table(""),
    "state": _table(""),
    "kill": _table("a,all r,regex"),
    "delete": _table("f,force r,regex"),
    "exec": _table(
        "console-socket= cwd= e,env=* t,tty u,user= g,additional-gids=* p,process= d,detach pid-file= "
        "process-label= apparmor= no-new-privs c,cap=* preserve-fds= cgroup= ignore-paused"
    ),
    "list": _table("f,format= q,quiet a,all"),
    "ps": _table("f,format="),
    "pause": _table(""),
    "resume": _table(""),
    "unpause": _table(""),
    "update": _table(
        "r,resources= memory= memory-reservation= memory-swap= cpu-period= cpu-quota= cpu-burst= cpu-share= "
        "cpu-rt-period= cpu-rt-runtime= cpuset-cpus= cpuset-mems= cpu-idle= pids-limit= blkio-weight= "
        "kernel-memory= kernel-memory-tcp="
    ),
    "events": _table("stats interval="),
    "features": _table(""),
    "spec": _table("b,bundle= rootless"),
}


ARGUMENTS = {"exec": "CONTAINER COMMAND [ARGUMENT...]", "ps": "CONTAINER [PS OPTION...]", "kill": "CONTAINER [SIGNAL]",
             "list": "", "features": "", "spec": ""}  # fmt: skip
"""The words after a verb's options, where they are not one container's id."""


class Parsed(NamedTuple):
    """What was given: the options by name, the words after them."""

    options: dict[str, Any]
    words: list[str]


def parse(table: dict[str, Option], arguments: list[str]) -> Parsed:
    """Read options up to the first other word, or past `--`.

    Raises:
        InvalidInputError: an option is unknown or lacks its value.
    """
    options: dict[str, Any] = {}
    position = 0
    while position < len(arguments):
        word = arguments[position]
        if word == "--":
            position += 1
            break
        if not word.startswith("-") or word == "-":
            break
        position += 1
        name, has_value, value = word.partition("=") if word.startswith("--") else (word, "", "")
        if not word.startswith("--") and len(word) > 2 and word not in table:
            name, has_value, value = word[:2], "=", word[2:].removeprefix("=")
        elif word.count("-") == 1 and len(word) > 2:
            name = word
        option = table.get(name) or table.get(f"-{name}")
        if option is None:
            raise InvalidInputError(f"flag provided but not defined: {word}")
        if option.kind == FLAG:
            options[option.name] = value.lower() not in ("false", "0") if has_value else True
            continue
        if not has_value:
            if position >= len(arguments):
                raise InvalidInputError(f"flag needs an argument: {word}")
            value = arguments[position]
            position += 1
        if option.kind == MANY:
            options.setdefault(option.name, []).append(value)
        else:
            options[option.name] = value
    return Parsed(options, arguments[position:])


def integer(options: dict[str, Any], name: str, default: int = 0) -> int:
    """Return an option's number.

    Raises:
        InvalidInputError: it is not one.
    """
    text = options.get(name)
    if text is None:
        return default
    try:
        return int(text)
    except ValueError:
        raise InvalidInputError(f"invalid value {text!r} for --{name.replace('_', '-')}: not a number") from None
