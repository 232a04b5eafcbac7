"""Instructions that `import --change` and `commit --change` apply to a run configuration."""

import json
import posixpath
import re
import shlex
from collections.abc import Callable, Iterable
from typing import Any

from barque.base.errors import InvalidInputError

Json = dict[str, Any]
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(h|ms|us|µs|ns|m|s)")
_UNITS = {"h": 3600e9, "m": 60e9, "s": 1e9, "ms": 1e6, "us": 1e3, "µs": 1e3, "ns": 1.0}
_PORT = re.compile(r"(\d+)(?:-(\d+))?(?:/(tcp|udp|sctp))?", re.IGNORECASE)


def apply_changes(config: Json, changes: Iterable[str]) -> Json:
    """Return a copy of the run configuration with the instructions applied in order.

    Raises:
        InvalidInputError: an instruction is unknown or malformed.
    """
    made: Json = json.loads(json.dumps(config))
    for text in changes:
        for line in _lines(text):
            word, _, rest = line.partition(" ")
            apply = _INSTRUCTIONS.get(word.upper())
            if apply is None:
                raise InvalidInputError(f"{word.upper()} is not a valid change command")
            rest = rest.strip()
            if not rest:
                raise InvalidInputError(f"{word.upper()} requires at least one argument")
            apply(made, rest)
    return made


def _lines(text: str) -> list[str]:
    joined = re.sub(r"\\\s*\n", "", text)
    return [line.strip() for line in joined.splitlines() if line.strip()]


def _words(rest: str) -> list[str] | None:
    """Return the JSON array of strings that rest is, None if it is no such thing."""
    if not rest.startswith("["):
        return None
    try:
        value = json.loads(rest)
    except ValueError:
        return None
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    return None


def _split(rest: str) -> list[str]:
    try:
        return shlex.split(rest)
    except ValueError as error:
        raise InvalidInputError(f"Syntax error - {error}: {rest}") from None


def _command(rest: str) -> list[str]:
    words = _words(rest)
    return ["/bin/sh", "-c", rest] if words is None else words


def _cmd(config: Json, rest: str) -> None:
    config["Cmd"] = _command(rest)


def _entrypoint(config: Json, rest: str) -> None:
    config["Entrypoint"] = _command(rest)
    config.pop("Cmd", None)


def _pairs(name: str, rest: str) -> list[tuple[str, str]]:
    first = rest.split(None, 1)
    if "=" not in first[0]:
        if len(first) < 2:
            raise InvalidInputError(f"{name} must have two arguments")
        return [(first[0], first[1])]
    pairs = []
    for word in _split(rest):
        key, equals, value = word.partition("=")
        if not equals:
            raise InvalidInputError(f"Syntax error - can't find = in {word!r}. Must be of the form: name=value")
        if not key:
            raise InvalidInputError(f"{name} names can not be blank")
        pairs.append((key, value))
    return pairs


def _env(config: Json, rest: str) -> None:
    values = list(config.get("Env") or [])
    for key, value in _pairs("ENV", rest):
        values = [v for v in values if v.partition("=")[0] != key] + [f"{key}={value}"]
    config["Env"] = values


def _label(config: Json, rest: str) -> None:
    config["Labels"] = {**(config.get("Labels") or {}), **dict(_pairs("LABEL", rest))}


def _expose(config: Json, rest: str) -> None:
    ports = dict(config.get("ExposedPorts") or {})
    for word in _split(rest):
        match = _PORT.fullmatch(word)
        if match is None:
            raise InvalidInputError(f"invalid containerPort: {word}")
        first, last = int(match[1]), int(match[2] or match[1])
        if not 0 < first <= last < 65536:
            raise InvalidInputError(f"invalid containerPort: {word}")
        for port in range(first, last + 1):
            ports[f"{port}/{(match[3] or 'tcp').lower()}"] = {}
    config["ExposedPorts"] = ports


def _onbuild(config: Json, rest: str) -> None:
    word = rest.split(None, 1)[0].upper()
    if word in ("ONBUILD", "FROM", "MAINTAINER"):
        raise InvalidInputError(f"{word} isn't allowed as an ONBUILD trigger")
    config["OnBuild"] = [*(config.get("OnBuild") or []), rest]


def _user(config: Json, rest: str) -> None:
    config["User"] = rest


def _volume(config: Json, rest: str) -> None:
    words = _words(rest)
    volumes = dict(config.get("Volumes") or {})
    for path in _split(rest) if words is None else words:
        if not path.strip():
            raise InvalidInputError("VOLUME specified can not be an empty string")
        volumes[path.strip()] = {}
    config["Volumes"] = volumes


def _workdir(config: Json, rest: str) -> None:
    config["WorkingDir"] = posixpath.normpath(posixpath.join("/", config.get("WorkingDir") or "/", rest))


def _stopsignal(config: Json, rest: str) -> None:
    if not re.fullmatch(r"\d{1,2}|(?:SIG)?[A-Za-z][A-Za-z0-9+-]*", rest):
        raise InvalidInputError(f"Invalid signal: {rest}")
    config["StopSignal"] = rest


def _shell(config: Json, rest: str) -> None:
    words = _words(rest)
    if not words:
        raise InvalidInputError("SHELL requires the arguments to be in JSON form")
    config["Shell"] = words


def _healthcheck(config: Json, rest: str) -> None:
    if rest.upper() == "NONE":
        config["Healthcheck"] = {"Test": ["NONE"]}
        return
    check: Json = {}
    while rest.startswith("--"):
        flag, _, rest = rest.partition(" ")
        rest = rest.strip()
        name, _, value = flag[2:].partition("=")
        if name == "retries":
            if not value.isdecimal() or int(value) < 1:
                raise InvalidInputError(f"--retries must be at least 1 (not {value})")
            check["Retries"] = int(value)
            continue
        key = _HEALTH_TIMES.get(name)
        if key is None:
            raise InvalidInputError(f"unknown flag: --{name}")
        check[key] = _duration(value)
    kind, _, rest = rest.partition(" ")
    rest = rest.strip()
    if kind.upper() != "CMD":
        raise InvalidInputError(f"Unknown type {kind.upper()!r} in HEALTHCHECK (try CMD)")
    if not rest:
        raise InvalidInputError("Missing command after HEALTHCHECK CMD")
    words = _words(rest)
    check["Test"] = ["CMD-SHELL", rest] if words is None else ["CMD", *words]
    config["Healthcheck"] = check


_HEALTH_TIMES = {
    "interval": "Interval",
    "timeout": "Timeout",
    "start-period": "StartPeriod",
    "start-interval": "StartInterval",
}


def _duration(text: str) -> int:
    parts = _DURATION.findall(text)
    if not parts or "".join(n + u for n, u in parts) != text:
        raise InvalidInputError(f'time: invalid duration "{text}"')
    return int(sum(float(number) * _UNITS[unit] for number, unit in parts))


_INSTRUCTIONS: dict[str, Callable[[Json, str], None]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "ONBUILD": _onbuild,
    "SHELL": _shell,
    "STOPSIGNAL": _stopsignal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
