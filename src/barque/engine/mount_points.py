"""Which binds, volumes, tmpfs and images a request asks to mount, and where. Pure but for looking at bind sources."""

import os
import posixpath
from collections.abc import Callable, Iterable
from typing import Any

from barque.base.errors import InvalidInputError, NotFoundError
from barque.engine import id_maps, volume_options

Json = dict[str, Any]
_PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
_MODE_KINDS: dict[str, str] = {
    "rw": "access", "ro": "access", "z": "label", "Z": "label", "nocopy": "copy",
    "consistent": "consistency", "cached": "consistency", "delegated": "consistency", "idmap": "idmap",
    **dict.fromkeys(_PROPAGATIONS, "propagation"),
}  # fmt: skip
_TMPFS_OPTIONS = ("size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol")
_TMPFS_WORDS = {
    "ro", "rw", "exec", "noexec", "suid", "nosuid", "dev", "nodev", "sync", "async", "dirsync", "atime", "noatime",
    "diratime", "nodiratime", "relatime", "norelatime", "strictatime", "nostrictatime", "defaults", "remount",
    "mand", "nomand", *_PROPAGATIONS, "unbindable", "runbindable",
}  # fmt: skip
_SECTIONS = {"bind": "BindOptions", "volume": "VolumeOptions", "image": "ImageOptions", "tmpfs": "TmpfsOptions",
             "cluster": "ClusterOptions"}  # fmt: skip


def valid_mode(mode: str) -> bool:
    """Tell whether mode is a list of words of `-v`, at most one of each kind."""
    if not mode:
        return True
    kinds = [_MODE_KINDS.get(word.partition("=")[0] if word.startswith("idmap=") else word) for word in mode.split(",")]
    return None not in kinds and len(set(kinds)) == len(kinds)


def parse_bind(spec: str, volume_driver: str = "") -> Json:
    """Return the mount that an entry of HostConfig.Binds asks for.

    Raises:
        InvalidInputError: it is malformed.
    """
    parts = spec.split(":")
    wrong = f"invalid volume specification: '{spec}'"
    if not parts[0] or len(parts) > 3 or (len(parts) == 2 and valid_mode(parts[1])):
        raise InvalidInputError(wrong)
    if len(parts) == 1:
        return _point("volume", "", _destination(wrong, "volume", parts[0]), "")
    source, mode = parts[0], parts[2] if len(parts) == 3 else ""
    if not valid_mode(mode):
        raise InvalidInputError(f"invalid mode: {mode}")
    words = [word for word in mode.split(",") if word]
    kind = "bind" if source.startswith("/") else "volume"
    target = _destination(wrong, kind, parts[1])
    _check_bind_words(wrong, kind, source, words)
    point = _point(kind, source, target, mode)
    point["RW"] = "ro" not in words
    point["copy"] = kind == "volume" and "nocopy" not in words
    point["make"] = kind == "bind"
    point["idmap"] = next((word.partition("=")[2] or "owner" for word in words if word.startswith("idmap")), "")
    if kind == "bind":
        point["Propagation"] = next((word for word in words if word in _PROPAGATIONS), "")
        point["Source"] = posixpath.normpath(source)
    else:
        point["driver"] = volume_driver
    return point


def _check_bind_words(wrong: str, kind: str, source: str, words: list[str]) -> None:
    if kind == "volume":
        volume_options.check_name(source)
    if kind == "volume" and any(word in _PROPAGATIONS for word in words):
        raise InvalidInputError(
            f'{wrong}: invalid mount config for type "volume": field BindOptions must not be specified'
        )
    if kind == "bind" and "nocopy" in words:
        raise InvalidInputError(
            f'{wrong}: invalid mount config for type "bind": field VolumeOptions must not be specified'
        )


def _destination(wrong: str, kind: str, path: str) -> str:
    prefix = f'{wrong}: invalid mount config for type "{kind}"'
    if not path:
        raise InvalidInputError(f"{prefix}: field Target must not be empty")
    if posixpath.normpath(path).lstrip("/") == "":
        raise InvalidInputError(f"{prefix}: invalid specification: destination can't be '/'")
    if not path.startswith("/"):
        raise InvalidInputError(f"{prefix}: invalid mount path: '{path}' mount path must be absolute")
    return "/" + posixpath.normpath(path).lstrip("/")


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
    wrong = f'invalid mount config for type "{kind}": '
    target, source = mount.get("Target") or "", mount.get("Source") or ""
    if not isinstance(target, str) or not isinstance(source, str):
        raise InvalidInputError(wrong + "Source and Target must be strings")
    if not target:
        raise InvalidInputError(wrong + "field Target must not be empty")
    if posixpath.normpath(target).lstrip("/") == "":
        raise InvalidInputError(wrong + "invalid specification: destination can't be '/'")
    if not target.startswith("/"):
        raise InvalidInputError(f"{wrong}invalid mount path: '{target}' mount path must be absolute")
    parsers = {"bind": _bind, "volume": _volume, "tmpfs": _tmpfs, "image": _image}
    if kind not in parsers:
        raise InvalidInputError(wrong + "mount type unknown")
    for other, section in _SECTIONS.items():
        if mount.get(section) is not None and other != kind:
            raise InvalidInputError(f"{wrong}field {section} must not be specified")
    point = _point(kind, source, "/" + posixpath.normpath(target).lstrip("/"), "")
    point["RW"] = not mount.get("ReadOnly")
    parsers[kind](point, mount, mount.get(_SECTIONS[kind]) or {}, wrong)
    return point


def _bind(point: Json, mount: Json, options: Json, wrong: str) -> None:
    source = point["Source"]
    if not source:
        raise InvalidInputError(wrong + "field Source must not be empty")
    propagation = options.get("Propagation") or ""
    if propagation and propagation not in _PROPAGATIONS:
        raise InvalidInputError(f"{wrong}invalid propagation mode: {propagation}")
    if not source.startswith("/"):
        raise InvalidInputError(f"{wrong}invalid mount path: '{source}' mount path must be absolute")
    make = bool(options.get("CreateMountpoint"))
    if not os.path.lexists(source) and not make:
        raise InvalidInputError(f"{wrong}bind source path does not exist: {source}")
    not_deep, by_force = bool(options.get("ReadOnlyNonRecursive")), bool(options.get("ReadOnlyForceRecursive"))
    for name, given in (("ReadOnlyNonRecursive", not_deep), ("ReadOnlyForceRecursive", by_force)):
        if given and point["RW"]:
            raise InvalidInputError(f"mount options conflict: !ReadOnly && BindOptions.{name}")
    if not_deep and by_force:
        raise InvalidInputError("mount options conflict: ReadOnlyNonRecursive && BindOptions.ReadOnlyForceRecursive")
    point.update(
        Source=posixpath.normpath(source), make=make, Propagation=propagation,
        non_recursive=bool(options.get("NonRecursive")), shallow_ro=not_deep, forced_ro=by_force,
        idmap=options.get("IdMap") or "",
    )  # fmt: skip


def _volume(point: Json, mount: Json, options: Json, wrong: str) -> None:
    name, subpath = point["Name"], options.get("Subpath") or ""
    if name:
        volume_options.check_name(name)
    if subpath and not name:
        raise InvalidInputError(wrong + "must not set Subpath when using anonymous volumes")
    if not local_path(subpath):
        raise InvalidInputError(wrong + "subpath must be a relative path within the volume")
    if not name and not point["RW"]:
        raise InvalidInputError(wrong + "must not set ReadOnly mode when using anonymous volumes")
    driver = options.get("DriverConfig") or {}
    point.update(
        copy=not options.get("NoCopy"), labels=options.get("Labels") or {}, subpath=subpath,
        driver_options=driver.get("Options") or {}, driver=driver.get("Name") or "", idmap=options.get("IdMap") or "",
    )  # fmt: skip


def local_path(path: str) -> bool:
    """Tell whether a path, empty included, is relative and stays where it begins."""
    return not path.startswith("/") and not posixpath.normpath(path or ".").startswith("..")


def _tmpfs(point: Json, mount: Json, options: Json, wrong: str) -> None:
    if mount.get("Source"):
        raise InvalidInputError(wrong + "field Source must not be specified")
    if (options.get("SizeBytes") or 0) < 0:
        raise InvalidInputError(wrong + "size cannot be negative")
    for pair in options.get("Options") or []:
        if not 1 <= len(pair) <= 2:
            raise InvalidInputError(wrong + "invalid option array length")
        if pair[0] not in ("exec", "noexec"):
            raise InvalidInputError(f"{wrong}invalid option: {pair[0]}")
    point["tmpfs"] = tmpfs_of_options(options, read_only=bool(mount.get("ReadOnly")))


def _image(point: Json, mount: Json, options: Json, wrong: str) -> None:
    if not mount.get("Source"):
        raise InvalidInputError(wrong + "field Source must not be empty")
    subpath = options.get("Subpath") or ""
    if not local_path(subpath):
        raise InvalidInputError(wrong + "subpath must be a relative path within the image")
    point.update(Name=mount["Source"], RW=False, Propagation="rprivate", subpath=subpath)


def tmpfs_of_options(options: Json, *, read_only: bool) -> str:
    """Return mount options as --tmpfs takes them."""
    words = ["ro"] if read_only else []
    if options.get("Mode"):
        words.append(f"mode={options['Mode']:o}")
    size = options.get("SizeBytes")
    if size:
        for letter, unit in (("g", 1 << 30), ("m", 1 << 20), ("k", 1 << 10), ("", 1)):
            if size % unit == 0:
                words.append(f"size={size // unit}{letter}")
                break
    words += ["=".join(pair) for pair in options.get("Options") or []]
    return ",".join(words)


def _check_idmap(point: Json) -> None:
    if point.get("idmap"):
        id_maps.maps_of(point["idmap"], (0, 0), (1, 1))


def check_tmpfs(options: str) -> None:
    """Refuse options that a tmpfs has not.

    Raises:
        InvalidInputError: names the first.
    """
    for word in filter(None, options.split(",")):
        key, has_value, _ = word.partition("=")
        if word not in _TMPFS_WORDS and not (has_value and key in _TMPFS_OPTIONS):
            parts = " ".join(f'"{part}"' for part in word.split("=", 1))
            raise InvalidInputError(f"Invalid tmpfs option [{parts}]")


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
        for point in _volumes_from(entry, points_of):
            found[point["Destination"]] = point
    tmpfs = {posixpath.normpath(target) for target in host.get("Tmpfs") or {}}
    for target, options in (host.get("Tmpfs") or {}).items():
        if not target.startswith("/"):
            raise InvalidInputError(f"invalid mount path: '{target}' mount path must be absolute")
        if not posixpath.normpath(target).lstrip("/"):
            raise InvalidInputError("invalid specification: destination can't be '/'")
        check_tmpfs(options or "")
    wanted: dict[str, Json] = {}
    driver = host.get("VolumeDriver") or ""
    binds = [parse_bind(spec, driver) for spec in host.get("Binds") or []]
    for point in [*binds, *map(parse_mount, host.get("Mounts") or [])]:
        _check_idmap(point)
        if point["Destination"] in wanted or point["Destination"] in tmpfs:
            raise InvalidInputError(f"Duplicate mount point: {point['Destination']}")
        wanted[point["Destination"]] = point
    found |= wanted
    for target in config.get("Volumes") or {}:
        # Images may name them without a leading slash.
        clean = _destination(f"invalid volume specification: '{target}'", "volume", f"/{target}")
        if clean not in found and clean not in tmpfs:
            found[clean] = {**_point("volume", "", clean, ""), "driver": driver}
    return [found[key] for key in sorted(found)]


def _volumes_from(entry: str, points_of: Callable[[str], Iterable[Json]]) -> Iterable[Json]:
    if not entry:
        raise InvalidInputError("volumes-from specification cannot be an empty string")
    name, _, mode = entry.partition(":")
    words = [word for word in mode.split(",") if word]
    if not valid_mode(mode) or any(_MODE_KINDS.get(word) in ("propagation", "copy", "idmap") for word in words):
        raise InvalidInputError(f"invalid mode: {mode}")
    try:
        points = points_of(name)
    except NotFoundError as error:
        raise InvalidInputError(str(error)) from error
    for other in points:
        if other["Type"] != "tmpfs":
            yield dict(other, copy=False, RW=other["RW"] and "ro" not in words, Mode="")


def guard_root(point: Json, root: str) -> None:
    """Let a bind that shows the engine's own folder follow the host, so that it holds no mount of ours for ever.

    Raises:
        InvalidInputError: the user asked for a propagation with which it would.
    """
    if point["Type"] != "bind":
        return
    source = point["Source"].rstrip("/") + "/"
    if not source.startswith(root.rstrip("/") + "/") and not root.startswith(source):
        return
    if not point["Propagation"]:
        point["Propagation"] = "rslave"
    elif point["Propagation"] in ("private", "rprivate"):
        raise InvalidInputError(
            'invalid mount config: must use either propagation mode "rslave" or "rshared" when mount source is '
            f'within the daemon root, daemon root: "{root}", bind mount source: "{point["Source"]}", '
            f'propagation: "{point["Propagation"]}"'
        )


def shown(points: Iterable[Json]) -> list[Json]:
    """Return Mounts as inspect and list show them."""
    result = []
    for point in points:
        if point["Type"] in ("volume", "image"):
            keys: tuple[str, ...] = ("Type", "Name", "Source", "Destination", "Driver", "Mode", "RW", "Propagation")
        else:
            keys = ("Type", "Source", "Destination", "Mode", "RW", "Propagation")
        result.append({key: point[key] for key in keys if key != "Driver" or point[key]})
    return result
