"""`--mount` values, and which `-v` values are binds."""

from __future__ import annotations

import os

from barque.cli.units import parse_bytes

TYPE_CHECKING = False  # the module typing costs every start of the command milliseconds
if TYPE_CHECKING:
    from typing import Any

_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FALSE = ("0", "f", "F", "FALSE", "false", "False")
_BOOLEAN = ("readonly", "ro", "volume-nocopy", "bind-nonrecursive", "bind-create-src")
_SECTIONS = {"bind": "BindOptions", "volume": "VolumeOptions", "tmpfs": "TmpfsOptions", "image": "ImageOptions"}


def parse_mount(text: str) -> dict[str, Any]:
    """Parse one `--mount` value into the API's mount.

    Raises:
        ValueError: a field is unknown, wrong, or does not fit the type.
    """
    fields = csv_fields(text)
    if not fields:
        raise ValueError("EOF")
    mount: dict[str, Any] = {"Type": "volume"}
    used: set[str] = set()
    for field in fields:
        key, equals, value = field.partition("=")
        key = key.lower()
        if not equals:
            if key == "idmap":
                value = "owner"
            elif key not in _BOOLEAN:
                raise ValueError(f"invalid field '{field}' must be a key=value pair")
            else:
                value = "true"
        kind = key.partition("-")[0]
        if "-" in key and kind in _SECTIONS:
            used.add(kind)
        _set(mount, key, value, field)
    _check(mount, used)
    idmap = mount.pop("idmap", "")
    if idmap:
        if mount["Type"] not in ("bind", "volume"):
            raise ValueError(f"cannot mix 'idmap' with mount type '{mount['Type']}'")
        mount.setdefault(_SECTIONS[mount["Type"]], {})["IdMap"] = idmap
    return mount


def csv_fields(text: str) -> list[str]:
    """Split at commas, respecting double quotes around whole fields.

    Raises:
        ValueError: a quote is not closed or stands inside a field.
    """
    if '"' not in text:
        return text.split(",") if text else []
    import csv

    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as error:
        raise ValueError(f"parse error on line 1, column 1: {error}") from None
    return rows[0] if rows else []


def _set(mount: dict[str, Any], key: str, value: str, field: str) -> None:
    if key == "type":
        mount["Type"] = value.lower()
    elif key in ("source", "src"):
        mount["Source"] = os.path.abspath(value) if value == "." or value.startswith(("./", "../")) else value
    elif key in ("target", "dst", "destination"):
        mount["Target"] = value
    elif key in ("readonly", "ro"):
        if _boolean(key, value):
            mount["ReadOnly"] = True
    elif key == "consistency":
        mount["Consistency"] = value.lower()
    elif key.startswith("bind-"):
        _set_bind(mount.setdefault("BindOptions", {}), key, value, field)
    elif key.startswith("volume-"):
        _set_volume(mount.setdefault("VolumeOptions", {}), key, value, field)
    elif key == "idmap":
        mount["idmap"] = value
    elif key == "image-subpath":
        mount.setdefault("ImageOptions", {})["Subpath"] = value
    elif key == "tmpfs-size":
        try:
            mount.setdefault("TmpfsOptions", {})["SizeBytes"] = parse_bytes(value)
        except ValueError:
            raise ValueError(f"invalid value for {key}: {value}") from None
    elif key == "tmpfs-mode":
        if not value or not all(c in "01234567" for c in value):
            raise ValueError(f"invalid value for {key}: {value}")
        mount.setdefault("TmpfsOptions", {})["Mode"] = int(value, 8)
    else:
        raise ValueError(f"unexpected key '{key}' in '{field}'")


def _set_bind(options: dict[str, Any], key: str, value: str, field: str) -> None:
    if key == "bind-propagation":
        options["Propagation"] = value.lower()
    elif key == "bind-nonrecursive":
        options["NonRecursive"] = _boolean(key, value)
    elif key == "bind-create-src":
        options["CreateMountpoint"] = _boolean(key, value)
    elif key == "bind-recursive":
        if value not in ("enabled", "disabled", "writable", "readonly"):
            raise ValueError(
                f'invalid value for {key}: {value} (must be "enabled", "disabled", "writable", or "readonly")'
            )
        names = {"disabled": "NonRecursive", "writable": "ReadOnlyNonRecursive", "readonly": "ReadOnlyForceRecursive"}
        if value in names:
            options[names[value]] = True
    else:
        raise ValueError(f"unexpected key '{key}' in '{field}'")


def _set_volume(options: dict[str, Any], key: str, value: str, field: str) -> None:
    name, _, content = value.partition("=")
    if key == "volume-subpath":
        options["Subpath"] = value
    elif key == "volume-nocopy":
        options["NoCopy"] = _boolean(key, value)
    elif key == "volume-label":
        options.setdefault("Labels", {})[name] = content
    elif key == "volume-driver":
        options.setdefault("DriverConfig", {})["Name"] = value
    elif key == "volume-opt":
        options.setdefault("DriverConfig", {}).setdefault("Options", {})[name] = content
    else:
        raise ValueError(f"unexpected key '{key}' in '{field}'")


def _boolean(key: str, value: str) -> bool:
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise ValueError(f"invalid value for {key}: {value}")


def _check(mount: dict[str, Any], used: set[str]) -> None:
    kind = mount["Type"]
    if not kind:
        raise ValueError("type is required")
    if not mount.get("Target"):
        raise ValueError("target is required")
    for other in ("bind", "volume", "image", "tmpfs"):
        if other in used and kind != other:
            raise ValueError(f"cannot mix '{other}-*' options with mount type '{kind}'")
    bind = mount.get("BindOptions", {})
    if not mount.get("ReadOnly") and (bind.get("ReadOnlyNonRecursive") or bind.get("ReadOnlyForceRecursive")):
        value = "writable" if bind.get("ReadOnlyNonRecursive") else "readonly"
        raise ValueError(f"option 'bind-recursive={value}' requires 'readonly' to be specified in conjunction")
    if bind.get("ReadOnlyForceRecursive") and bind.get("Propagation") != "rprivate":
        raise ValueError(
            "option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in conjunction"
        )


def split_volumes(values: list[str]) -> tuple[list[str], dict[str, Any]]:
    """Divide `-v` values into Binds and the anonymous Volumes of the image configuration."""
    binds: list[str] = []
    volumes: dict[str, Any] = {}
    for value in values:
        source, colon, rest = value.partition(":")
        if not colon:
            volumes[value] = {}
            continue
        if source == "." or source.startswith(("./", "../")) or source == "..":
            value = f"{os.path.abspath(source)}:{rest}"
        if value not in binds:
            binds.append(value)
    return binds, volumes
