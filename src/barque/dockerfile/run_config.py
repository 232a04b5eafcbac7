"""What instructions make of a run config: of how containers of an image run, as its config tells it."""

import posixpath
import re
from collections.abc import Callable, Mapping
from typing import Any

from barque.base.errors import InvalidInputError
from barque.base.signals import parse_signal
from barque.dockerfile import instructions as of

Json = dict[str, Any]
_SHELL = ["/bin/sh", "-c"]
_PORT = re.compile(r"(\d+)(?:-(\d+))?")


def configure(config: Json, made: of.Instruction) -> None:
    """Change a run config as an instruction says whose variables are replaced.

    CMD stays when ENTRYPOINT changes: whether it was the base's, and goes, the caller knows.

    Raises:
        InvalidInputError: it cannot be carried out.
    """
    _APPLY[type(made)](config, made)


def environment_of(config: Mapping[str, Any]) -> dict[str, str]:
    """Return a config's variables."""
    return {key: value for key, _, value in (entry.partition("=") for entry in config.get("Env") or [])}


def shell_of(config: Mapping[str, Any]) -> list[str]:
    """Return the command that reads command lines."""
    return list(config.get("Shell") or _SHELL)


def command_of(config: Mapping[str, Any], made: of.Command) -> list[str]:
    """Return the words of a command, the shell before them where one reads it."""
    return [*shell_of(config), *made.words] if made.shell and made.words else list(made.words)


def ports_of(word: str) -> list[str]:
    """Return the ports that a word of EXPOSE means; an address or host port before it means nothing.

    Raises:
        InvalidInputError: it is no port.
    """
    port, _, protocol = word.rpartition(":")[2].partition("/")
    protocol = protocol.lower() or "tcp"
    if not port:
        raise InvalidInputError(f"no port specified: {word}<empty>")
    if protocol not in ("tcp", "udp", "sctp"):
        raise InvalidInputError(f"invalid proto: {protocol}")
    match = _PORT.fullmatch(port)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
    if not first <= last < 65536:
        raise InvalidInputError(f"invalid containerPort: {port}")
    return [f"{number}/{protocol}" for number in range(first, last + 1)]


def _env(config: Json, made: of.Env) -> None:
    entries = list(config.get("Env") or [])
    for pair in made.pairs:
        at = next((at for at, old in enumerate(entries) if old.partition("=")[0] == pair.key), len(entries))
        entries[at : at + 1] = [str(pair)]
    config["Env"] = entries


def _label(config: Json, made: of.Label) -> None:
    config["Labels"] = (config.get("Labels") or {}) | {pair.key: pair.value for pair in made.pairs}


def _workdir(config: Json, made: of.Workdir) -> None:
    if not made.path:
        raise InvalidInputError("cannot normalize nothing")
    path = posixpath.normpath(posixpath.join("/", config.get("WorkingDir") or "/", made.path))
    config["WorkingDir"] = "/" + path.lstrip("/")


def _cmd(config: Json, made: of.Cmd) -> None:
    config["Cmd"] = command_of(config, made)


def _entrypoint(config: Json, made: of.Entrypoint) -> None:
    config["Entrypoint"] = command_of(config, made) or None


def _healthcheck(config: Json, made: of.Healthcheck) -> None:
    config["Healthcheck"] = dict(made.health)


def _expose(config: Json, made: of.Expose) -> None:
    found: Json = {port: {} for word in made.ports for port in ports_of(word)}
    config["ExposedPorts"] = (config.get("ExposedPorts") or {}) | found


def _user(config: Json, made: of.User) -> None:
    config["User"] = made.user


def _volume(config: Json, made: of.Volume) -> None:
    if not all(made.paths):
        raise InvalidInputError("VOLUME specified can not be an empty string")
    config["Volumes"] = (config.get("Volumes") or {}) | {path: {} for path in made.paths}


def _stopsignal(config: Json, made: of.StopSignal) -> None:
    parse_signal(made.signal)
    config["StopSignal"] = made.signal


def _onbuild(config: Json, made: of.Onbuild) -> None:
    config["OnBuild"] = [*(config.get("OnBuild") or []), made.expression]


def _shell(config: Json, made: of.Shell) -> None:
    config["Shell"] = list(made.words)


_APPLY: dict[type, Callable[[Json, Any], None]] = {
    of.Env: _env, of.Label: _label, of.Workdir: _workdir, of.Cmd: _cmd, of.Entrypoint: _entrypoint,
    of.Healthcheck: _healthcheck, of.Expose: _expose, of.User: _user, of.Volume: _volume,
    of.StopSignal: _stopsignal, of.Onbuild: _onbuild, of.Shell: _shell,
}  # fmt: skip
