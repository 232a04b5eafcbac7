"""Devices of the Container Device Interface: the specs in folders, and what a device changes in a container.

The form is that of the CDI specification, version 1.1.0 and older; files end in .json, .yaml or .yml. A device that
two files of one folder have means nothing, one of a later folder hides those of earlier ones.
"""

import json
import logging
import os
import re
import stat
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from barque.base.errors import BarqueError

Json = dict[str, Any]
log = logging.getLogger(__name__)
_LARGEST = 4 << 20
_VENDOR = re.compile(r"[A-Za-z]([A-Za-z0-9_.-]*[A-Za-z0-9])?")
_CLASS = re.compile(r"[A-Za-z]([A-Za-z0-9_.-]*[A-Za-z0-9])?")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.:-]*[A-Za-z0-9])?")
_VERSION = re.compile(r"v?[01]\.\d+\.\d+")
_HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
_EDITS: dict[str, tuple[type, str]] = {
    "env": (list, "a list"), "deviceNodes": (list, "a list"), "mounts": (list, "a list"), "hooks": (list, "a list"),
    "netDevices": (list, "a list"), "additionalGids": (list, "a list"), "intelRdt": (dict, "an object"),
}  # fmt: skip


class CdiError(BarqueError):
    """A device cannot be given; str() says why."""


class CdiDevices:
    """The devices that the specs of some folders name, read again when a file changes.

    Args:
        folders: gives the folders, those that win last.
    """

    def __init__(self, folders: Callable[[], Sequence[str]]) -> None:
        self._folders = folders
        self._seen: tuple[object, ...] | None = None
        self._edits: dict[str, tuple[Json, Json]] = {}

    def names(self) -> list[str]:
        """Return the devices as `vendor/class=name`, sorted."""
        self._refresh()
        return sorted(self._edits)

    def edits(self, names: Iterable[str]) -> list[Json]:
        """Return the containerEdits of devices: those of each spec once, then those of its devices.

        Raises:
            CdiError: some are not known.
        """
        self._refresh()
        wanted = list(dict.fromkeys(names))
        missing = [name for name in wanted if name not in self._edits]
        if missing:
            raise CdiError(f"CDI device injection failed: unresolvable CDI devices {', '.join(missing)}")
        found: list[Json] = []
        for name in wanted:
            of_spec, of_device = self._edits[name]
            if not any(edits is of_spec for edits in found):
                found.append(of_spec)
            found.append(of_device)
        return found

    def _refresh(self) -> None:
        files = [found for folder in self._folders() for found in _files(folder)]
        seen = tuple((path, info.st_mtime_ns, info.st_ino, info.st_size) for _, path, info in files)
        if seen == self._seen:
            return
        self._seen, self._edits = seen, {}
        of_folder: dict[str, dict[str, list[tuple[Json, Json]]]] = {}
        for folder, path, _ in files:
            try:
                spec = read(path)
            except CdiError as error:
                log.warning("%s: no devices are taken from it", error)
                continue
            for device in spec["devices"]:
                name = f"{spec['kind']}={device['name']}"
                of_folder.setdefault(folder, {}).setdefault(name, []).append(
                    (spec["containerEdits"], device["containerEdits"])
                )
        for folder, devices in of_folder.items():
            for name, edits in devices.items():
                self._edits.pop(name, None)
                if len(edits) == 1:
                    self._edits[name] = edits[0]
                else:
                    log.warning("CDI device %s: %d files of %s have it: it is left out", name, len(edits), folder)


def _files(folder: str) -> list[tuple[str, str, os.stat_result]]:
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    found = []
    for name in names:
        if name.endswith((".json", ".yaml", ".yml")):
            try:
                info = os.stat(f"{folder}/{name}")
            except OSError:
                continue
            if stat.S_ISREG(info.st_mode):
                found.append((folder, f"{folder}/{name}", info))
    return found


def read(path: str) -> Json:
    """Return a spec whose form is right; missing edits are empty.

    Raises:
        CdiError: it cannot be read, or has another form.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(_LARGEST + 1)
        if len(data) > _LARGEST:
            raise CdiError(f"CDI spec {path}: it is larger than {_LARGEST} bytes")
        return checked(_parsed(path, data), path)
    except (OSError, ValueError, RecursionError) as error:
        raise CdiError(f"CDI spec {path}: {error}") from None


def _parsed(path: str, data: bytes) -> Any:
    if path.endswith(".json"):
        return json.loads(data)
    import yaml

    try:
        return yaml.safe_load(data)
    except yaml.YAMLError as error:
        raise ValueError(f"invalid YAML: {' '.join(str(error).split())}") from None


def checked(spec: Any, where: str) -> Json:
    """Return a spec with the parts that this engine reads.

    Raises:
        CdiError: it has another form.
    """
    _demand(isinstance(spec, dict), where, "it is no object")
    version, kind = str(spec.get("cdiVersion") or ""), str(spec.get("kind") or "")
    _demand(_VERSION.fullmatch(version), where, f"unknown cdiVersion {version!r}")
    vendor, _, group = kind.partition("/")
    _demand(_VENDOR.fullmatch(vendor) and _CLASS.fullmatch(group), where, f"kind {kind!r}: wants vendor/class")
    devices = spec.get("devices")
    _demand(isinstance(devices, list) and devices, where, "it has no devices")
    found: list[Json] = []
    for device in devices:
        _demand(isinstance(device, dict), where, "a device is no object")
        name = str(device.get("name") or "")
        _demand(_NAME.fullmatch(name), where, f"invalid device name {name!r}")
        _demand(name not in [other["name"] for other in found], where, f"device {name!r} is there twice")
        edits = _checked_edits(device.get("containerEdits"), f"{where}: device {name!r}")
        _demand(edits, where, f"device {name!r} changes nothing")
        found.append({"name": name, "containerEdits": edits})
    return {"kind": kind, "devices": found, "containerEdits": _checked_edits(spec.get("containerEdits"), where)}


def _demand(condition: object, where: str, what: str) -> None:
    if not condition:
        raise CdiError(what if where.startswith("CDI") else f"CDI spec {where}: {what}")


def _checked_edits(edits: Any, where: str) -> Json:
    edits = {} if edits is None else edits
    _demand(isinstance(edits, dict), where, "containerEdits is no object")
    unknown = set(edits) - set(_EDITS)
    _demand(not unknown, where, f"unknown edits: {', '.join(sorted(map(str, unknown)))}")
    for key, value in edits.items():
        _demand(isinstance(value, _EDITS[key][0]), where, f"{key} is not {_EDITS[key][1]}")
    for entry in edits.get("env") or []:
        _demand(isinstance(entry, str) and "=" in entry[1:], where, f"env {entry!r}: wants NAME=VALUE")
    for node in edits.get("deviceNodes") or []:
        _check_node(node, where)
    for mount in edits.get("mounts") or []:
        _demand(_paths(mount, "hostPath", "containerPath"), where, "a mount wants hostPath and containerPath")
        _demand(_strings(mount.get("options")), where, "options of a mount are no strings")
    for hook in edits.get("hooks") or []:
        _demand(_paths(hook, "path"), where, "a hook wants a path")
        _demand(hook.get("hookName") in _HOOKS, where, f"invalid hookName {hook.get('hookName')!r}")
        _demand(_strings(hook.get("args")) and _strings(hook.get("env")), where, "args or env of a hook are no strings")
        _demand(isinstance(hook.get("timeout") or 0, int), where, "timeout of a hook is no number")
    for device in edits.get("netDevices") or []:
        _demand(_paths(device, "hostInterfaceName", "name"), where, "a netDevice wants hostInterfaceName and name")
    for group in edits.get("additionalGids") or []:
        _demand(isinstance(group, int) and 0 <= group < 1 << 32, where, f"invalid group {group!r}")
    return {key: value for key, value in edits.items() if value}


def _check_node(node: Any, where: str) -> None:
    _demand(_paths(node, "path"), where, "a device node wants a path")
    _demand(node.get("type") in (None, "", "b", "c", "u", "p"), where, f"invalid device type {node.get('type')!r}")
    _demand(set(str(node.get("permissions") or "")) <= set("rwm"), where, f"invalid permissions {node.get('permissions')!r}")
    for key in ("major", "minor", "uid", "gid", "fileMode"):
        _demand(isinstance(node.get(key) or 0, int), where, f"{key} of a device node is no number")


def _paths(value: Any, *keys: str) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(key), str) and value[key] for key in keys)


def _strings(value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(isinstance(item, str) for item in value))


def apply(spec: Json, rules: list[Json], edits: Iterable[Json]) -> None:
    """Change config.json and its device rules as edits say.

    Args:
        spec: config.json, changed in place.
        rules: linux.resources.devices, added to.
        edits: containerEdits, in order.

    Raises:
        CdiError: a device node is not there.
    """
    for edit in edits:
        process = spec["process"]
        for entry in edit.get("env") or []:
            key = entry.partition("=")[0] + "="
            process["env"] = [*(old for old in process.get("env") or [] if not old.startswith(key)), entry]
        for node in edit.get("deviceNodes") or []:
            _add_node(spec, rules, node)
        for device in edit.get("netDevices") or []:
            spec["linux"].setdefault("netDevices", {})[device["hostInterfaceName"]] = {"name": device["name"]}
        for mount in edit.get("mounts") or []:
            _add_mount(spec, mount)
        for hook in edit.get("hooks") or []:
            kept = {key: hook[key] for key in ("path", "args", "env", "timeout") if hook.get(key)}
            spec.setdefault("hooks", {}).setdefault(hook["hookName"], []).append(kept)
        if edit.get("intelRdt"):
            spec["linux"]["intelRdt"] = dict(edit["intelRdt"])
        groups = process["user"].setdefault("additionalGids", [])
        groups += [g for g in edit.get("additionalGids") or [] if g and g not in groups]


def _add_node(spec: Json, rules: list[Json], node: Json) -> None:
    made: Json = {"path": node["path"]}
    kind, number = node.get("type") or "", (node.get("major") or 0, node.get("minor") or 0)
    if not kind or (kind != "p" and not node.get("major")):
        source = node.get("hostPath") or node["path"]
        try:
            found = os.stat(source)
        except OSError as error:
            raise CdiError(
                f"CDI device injection failed: failed to stat CDI host device {source!r}: {(error.strerror or '').lower()}"
            ) from None
        real = "c" if stat.S_ISCHR(found.st_mode) else "b" if stat.S_ISBLK(found.st_mode) else "p" if stat.S_ISFIFO(found.st_mode) else ""
        if not real or (kind and kind.replace("u", "c") != real):
            raise CdiError(f"CDI device injection failed: {source!r} is not a device of type {kind or 'b, c or p'!r}")
        kind, number = real, (os.major(found.st_rdev), os.minor(found.st_rdev))
        made["fileMode"] = stat.S_IMODE(found.st_mode)
    made |= {"type": kind} if kind == "p" else {"type": kind, "major": number[0], "minor": number[1]}
    if node.get("fileMode") is not None:
        made["fileMode"] = node["fileMode"]
    user = spec["process"]["user"]
    for key in ("uid", "gid"):
        owner = node[key] if node.get(key) is not None else user.get(key)
        if owner:
            made[key] = owner
    linux = spec["linux"]
    linux["devices"] = [*(old for old in linux.get("devices") or [] if old["path"] != node["path"]), made]
    if kind != "p":
        rules.append({"allow": True, "type": kind.replace("u", "c"), "major": number[0], "minor": number[1],
                      "access": node.get("permissions") or "rwm"})  # fmt: skip


def _add_mount(spec: Json, mount: Json) -> None:
    target = mount["containerPath"]
    options, kind = list(mount.get("options") or []), mount.get("type") or "bind"
    if kind == "bind" and not {"bind", "rbind"} & set(options):
        options.append("rbind")
    made = {"destination": target, "type": kind, "source": mount["hostPath"], "options": options}
    mounts = [old for old in spec["mounts"] if old["destination"] != target]
    # A mount inside another comes after it; those of the system come first, as they are.
    mounts.append(made)
    depth = target.rstrip("/").count("/")
    inner = [old for old in mounts[:-1] if old["destination"].startswith(target.rstrip("/") + "/") and
             old["destination"].rstrip("/").count("/") > depth]  # fmt: skip
    spec["mounts"] = [*(old for old in mounts if old not in inner), *inner]
