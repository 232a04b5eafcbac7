"""Which binds, volumes and tmpfs a request asks for, and where. Pure but for looking at bind sources."""

import os
import posixpath
import re
from collections.abc import Callable, Iterable
from typing import Any

from barque.base.errors import InvalidInputError

Json = dict[str, Any]
_PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
_MODES = {"rw", "ro", "z", "Z", "nocopy", "consistent", "cached", "delegated", *_PROPAGATIONS}
_VOLUME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")


def parse_bind(spec: str) -> Json:
    """Return the mount that an entry of HostConfig.Binds asks for.

    Raises:
        InvalidInputError: it is malformed.
    """
    parts = spec.split(":")
    if len(parts) == 1:
        return _point("volume", "", _destination(spec, parts[0]), "")
    if len(parts) > 3 or not all(parts[:2]):
        raise InvalidInputError(f"invalid volume specification: '{spec}'")
    source, target = parts[0], _destination(spec, parts[1])
    mode = parts[2] if len(parts) == 3 else ""
    words = [word for word in mode.split(",") if word]
    if any(word not in _MODES for word in words) or len({"ro", "rw"} & set(words)) == 2:
        raise InvalidInputError(f"invalid mode: {mode}")
    kind = "bind" if source.startswith("/") else "volume"
    if kind == "volume" and not _VOLUME_NAME.fullmatch(source):
        raise InvalidInputError(
            f'create {source}: "{source}" includes invalid characters for a local volume name, only '
            '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path'
        )
    point = _point(kind, source, target, mode)
    point["RW"] = "ro" not in words
    point["copy"] = kind == "volume" and "nocopy" not in words
    point["make"] = kind == "bind"
    found = [word for word in words if word in _PROPAGATIONS]
    if kind == "bind":
        point["Propagation"] = found[0] if found else "rprivate"
        point["Source"] = posixpath.normpath(source)
    return point


def _destination(spec: str, path: str) -> str:
    if not path.startswith("/"):
        raise InvalidInputError(
            f"invalid volume specification: '{spec}': invalid mount config for type \"bind\": "
            f"invalid mount path: '{path}' mount path must be absolute"
        )
    clean = "/" + posixpath.normpath(path).lstrip("/")
    if clean == "/":
        raise InvalidInputError(f"invalid volume specification: '{spec}': invalid mount config for type "
                                "\"volume\": invalid specification: destination can't be '/'")  # fmt: skip
    return clean


def _point(kind: str, source: str, target: str, mode: str) -> Json:
    return {
        "Type": kind, "Name": source if kind == "volume" else "", "Source": source if kind == "bind" else "",
        "Destination": target, "Driver": "local" if kind == "volume" else "", "Mode": mode, "RW": True,
        "Propagation": "", "copy": kind == "volume", "make": False, "anonymous": kind == "volume" and not source,
    }  # fmt: skip


def parse_mount(mount: Json) -> Json:
    """Return the mount that an entry of HostConfig.Mounts asks for.

    Raises:
        InvalidInputError: it is malformed, or a bind's source is missing.
    """
    kind = mount.get("Type") or ""
    if kind not in ("bind", "volume", "tmpfs"):
        raise InvalidInputError(f'invalid mount config: mount type unknown: "{kind}"')

    def wrong(text: str) -> InvalidInputError:
        return InvalidInputError(f'invalid mount config for type "{kind}": {text}')

    target, source = mount.get("Target") or "", mount.get("Source") or ""
    if not isinstance(target, str) or not isinstance(source, str):
        raise wrong("Source and Target must be strings")
    if not target:
        raise wrong("field Target must not be empty")
    if not target.startswith("/"):
        raise wrong(f"invalid mount path: '{target}' mount path must be absolute")
    target = posixpath.normpath("/" + target.lstrip("/"))
    if target == "/":
        raise wrong("invalid specification: destination can't be '/'")
    for other in ("Bind", "Volume", "Tmpfs"):
        if mount.get(other + "Options") and other.lower() != kind:
            raise wrong(f"exactly one of {kind.capitalize()}Options must be set")
    point = _point(kind, source, target, "")
    point["RW"] = not mount.get("ReadOnly")
    if kind == "bind":
        options = mount.get("BindOptions") or {}
        if not source:
            raise wrong("field Source must not be empty")
        if not source.startswith("/"):
            raise wrong(f"invalid mount path: '{source}' mount path must be absolute")
        if not os.path.lexists(source) and not options.get("CreateMountpoint"):
            raise wrong(f"bind source path does not exist: {source}")
        point["make"] = bool(options.get("CreateMountpoint"))
        point["Propagation"] = options.get("Propagation") or "rprivate"
        if point["Propagation"] not in _PROPAGATIONS:
            raise wrong(f"invalid propagation mode: {point['Propagation']}")
        point["non_recursive"] = bool(options.get("NonRecursive"))
    elif kind == "volume":
        options = mount.get("VolumeOptions") or {}
        if source and not _VOLUME_NAME.fullmatch(source):
            raise wrong(f"{source} includes invalid characters for a local volume name")
        point["copy"] = not options.get("NoCopy")
        point["labels"] = options.get("Labels") or {}
        point["subpath"] = options.get("Subpath") or ""
        driver = options.get("DriverConfig") or {}
        point["driver_options"] = driver.get("Options") or {}
        if (driver.get("Name") or "local") != "local":
            raise wrong(f'error looking up volume plugin {driver["Name"]}: plugin "{driver["Name"]}" not found')
    else:
        if source:
            raise wrong("field Source must not be specified")
        options = mount.get("TmpfsOptions") or {}
        if (options.get("SizeBytes") or 0) < 0:
            raise wrong("size cannot be negative")
        point["tmpfs"] = tmpfs_of_options(options, read_only=bool(mount.get("ReadOnly")))
    return point


def tmpfs_of_options(options: Json, *, read_only: bool) -> str:
    """Return mount options as --tmpfs takes them."""
    words = ["ro"] if read_only else []
    if options.get("Mode"):
        words.append(f"mode={options['Mode']:o}")
    if options.get("SizeBytes"):
        words.append(f"size={options['SizeBytes']}")
    words += [word if len(pair) == 1 else "=".join(pair)
              for pair in options.get("Options") or [] for word in pair[:1]]  # fmt: skip
    return ",".join(words)


def collect(config: Json, host: Json, points_of: Callable[[str], Iterable[Json]]) -> list[Json]:
    """Return all mounts of a request, by destination, later kinds winning over earlier ones as in Docker.

    Args:
        config: with the image's Volumes merged in.
        host: HostConfig.
        points_of: gives the mounts of the container that --volumes-from names.

    Raises:
        InvalidInputError: a mount is malformed, or two want one place.
    """
    found: dict[str, Json] = {}
    for entry in host.get("VolumesFrom") or []:
        name, _, mode = entry.partition(":")
        if mode not in ("", "ro", "rw", "z", "Z", "ro,z", "rw,z"):
            raise InvalidInputError(f"invalid mode: {mode}")
        for other in points_of(name):
            point = dict(other, copy=False)
            if mode:
                point["RW"], point["Mode"] = other["RW"] and "ro" not in mode.split(","), mode
            found[point["Destination"]] = point
    wanted: dict[str, Json] = {}
    for point in [*map(parse_bind, host.get("Binds") or []), *map(parse_mount, host.get("Mounts") or [])]:
        if point["Destination"] in wanted or point["Destination"] in (host.get("Tmpfs") or {}):
            raise InvalidInputError(f"Duplicate mount point: {point['Destination']}")
        wanted[point["Destination"]] = point
    found |= wanted
    for target in config.get("Volumes") or {}:
        clean = _destination(target, target)
        if clean not in found and clean not in (host.get("Tmpfs") or {}):
            found[clean] = _point("volume", "", clean, "")
    for target in host.get("Tmpfs") or {}:
        _destination(target, target)
    return [found[key] for key in sorted(found)]


def shown(points: Iterable[Json]) -> list[Json]:
    """Return Mounts as inspect and list show them."""
    result = []
    for point in points:
        if point["Type"] == "tmpfs":
            keys: tuple[str, ...] = ("Type", "Source", "Destination", "Mode", "RW", "Propagation")
        elif point["Type"] == "volume":
            keys = ("Type", "Name", "Source", "Destination", "Driver", "Mode", "RW", "Propagation")
        else:
            keys = ("Type", "Source", "Destination", "Mode", "RW", "Propagation")
        result.append({key: point[key] for key in keys})
    return result
