"""The values of `RUN --mount` and `RUN --device`."""

import csv
import io
import re
from collections.abc import Callable
from dataclasses import dataclass

from barque.dockerfile.errors import DockerfileError
from barque.dockerfile.text import quoted, suggestion

_TYPES = ("bind", "cache", "tmpfs", "secret", "ssh")
_SHARING = ("shared", "private", "locked")
_KEYS = ("type", "from", "source", "target", "readonly", "id", "sharing", "required", "size", "mode", "uid", "gid",
         "src", "dst", "destination", "ro", "rw", "readwrite", "env")  # fmt: skip
_TRUE = frozenset(("1", "t", "T", "TRUE", "true", "True"))
_FALSE = frozenset(("0", "f", "F", "FALSE", "false", "False"))
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(?:([kmgtp])(?:i?b)?|b)?", re.IGNORECASE)


@dataclass(slots=True)
class MountRequest:
    """One mount of a RUN; `env` is None where not given, `size` in bytes, 0: no limit."""

    type: str = "bind"
    source_stage: str = ""
    source: str = ""
    target: str = ""
    readonly: bool = False
    size: int = 0
    id: str = ""
    sharing: str = ""
    required: bool = False
    env: str | None = None
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None


@dataclass(frozen=True, slots=True)
class DeviceRequest:
    """One device of a RUN."""

    name: str
    required: bool = False


def parse_mount(text: str, expand: Callable[[str], str] | None) -> MountRequest:
    """Return a mount of its comma-separated text.

    Args:
        text: the flag's value.
        expand: replaces variables in values; None: only `from` is looked at, the rest is read later.

    Raises:
        DockerfileError: an unknown key or a bad value.
    """
    mount = MountRequest()
    fixed = False
    for item in _fields(text, "mounts"):
        key, equals, value = item.partition("=")
        key = key.lower()
        if expand is None:
            if equals and key == "from":
                if "$" in value[:-1]:
                    raise DockerfileError(f"'{key}' doesn't support variable expansion, define alias stage instead")
                mount.source_stage = value
            continue
        if equals:
            _assign(mount, key, expand(value), item)
        else:
            _switch(mount, key, item)
        fixed = fixed or key in ("readonly", "ro", "readwrite", "rw")
    if not fixed:
        mount.readonly = mount.type not in ("cache", "tmpfs")
    if expand is not None:
        _check(mount)
    return mount


def _fields(text: str, kind: str) -> list[str]:
    try:
        rows = list(csv.reader(io.StringIO(text), strict=True))
    except csv.Error as error:
        raise DockerfileError(f"failed to parse csv {kind}: {error}") from None
    if len(rows) != 1:
        raise DockerfileError(f"failed to parse csv {kind}: not one line")
    return rows[0]


def _switch(mount: MountRequest, key: str, item: str) -> None:
    if key in ("readonly", "ro"):
        mount.readonly = True
    elif key in ("readwrite", "rw"):
        mount.readonly = False
    elif key == "required":
        _required(mount, key, "true")
    else:
        raise DockerfileError(f"invalid field '{item}' must be a key=value pair")


def _assign(mount: MountRequest, key: str, value: str, item: str) -> None:
    if key in _PLAIN:
        setattr(mount, _PLAIN[key], value)
    elif key == "type":
        mount.type = _one_of(value, _TYPES, "mount type")
    elif key == "sharing":
        mount.sharing = _one_of(value, _SHARING, "sharing value")
    elif key in ("readonly", "ro"):
        mount.readonly = _truth(key, value)
    elif key in ("readwrite", "rw"):
        mount.readonly = not _truth(key, value)
    elif key == "required":
        _required(mount, key, value)
    elif key == "size":
        if mount.type != "tmpfs":
            raise DockerfileError(f"unexpected key '{key}' for mount type '{mount.type}'")
        mount.size = _bytes(key, value)
    elif key in ("mode", "uid", "gid"):
        setattr(mount, key, _number(key, value))
    else:
        raise DockerfileError(f"unexpected key '{key}' in '{item}'" + suggestion(key, _KEYS))


_PLAIN = {"from": "source_stage", "source": "source", "src": "source", "target": "target", "dst": "target",
          "destination": "target", "id": "id", "env": "env"}  # fmt: skip


def _one_of(value: str, allowed: tuple[str, ...], what: str) -> str:
    if value.lower() not in allowed:
        raise DockerfileError(f"unsupported {what} {quoted(value)}" + suggestion(value, allowed))
    return value.lower()


def _required(mount: MountRequest, key: str, value: str) -> None:
    if mount.type not in ("secret", "ssh"):
        raise DockerfileError(f"unexpected key '{key}' for mount type '{mount.type}'")
    mount.required = _truth(key, value)


def _truth(key: str, value: str) -> bool:
    if value not in _TRUE and value not in _FALSE:
        raise DockerfileError(f"invalid value for {key}: {value}")
    return value in _TRUE


def _bytes(key: str, value: str) -> int:
    match = _SIZE.fullmatch(value)
    if match is None:
        raise DockerfileError(f"invalid value for {key}: {value}")
    return int(float(match[1]) * 1024 ** " kmgtp".index((match[2] or " ").lower()))


def _number(key: str, value: str) -> int:
    base = 8 if key == "mode" else 10
    digits = "01234567" if base == 8 else "0123456789"
    if not value or any(c not in digits for c in value) or int(value, base) >= 1 << 32:
        raise DockerfileError(f"invalid value {value} for {key}")
    return int(value, base)


def _check(mount: MountRequest) -> None:
    if mount.type not in ("secret", "ssh", "cache"):
        for key in ("mode", "uid", "gid"):
            if getattr(mount, key) is not None:
                raise DockerfileError(f"{key} not allowed for {quoted(mount.type)} type mounts")
    if mount.type == "secret":
        if mount.source_stage:
            raise DockerfileError("secret mount should not have a from")
        if mount.sharing:
            raise DockerfileError("secret mount should not define sharing")
        if not (mount.source or mount.target or mount.id):
            raise DockerfileError("invalid secret mount. one of source, target required")
        if mount.source and mount.id:
            raise DockerfileError("both source and id can't be set")
    if mount.sharing and mount.type != "cache":
        raise DockerfileError(f"invalid cache sharing set for {mount.type} mount")


def parse_device(text: str) -> DeviceRequest:
    """Return a device of its comma-separated text.

    Raises:
        DockerfileError: an unknown key or a bad value.
    """
    name, required = "", False
    for item in _fields(text, "devices"):
        key, equals, value = item.partition("=")
        key = key.lower()
        if key == "required":
            required = _truth(key, value) if equals else True
        elif key == "name" and equals:
            if name:
                raise DockerfileError(f"device name already set to {name}")
            name = value
        elif not name:
            name = item
        elif not equals:
            raise DockerfileError(f"invalid field '{item}' must be a key=value pair")
        else:
            raise DockerfileError(f"unexpected key '{key}' in '{item}'" + suggestion(key, ("name", "required")))
    return DeviceRequest(name, required)
