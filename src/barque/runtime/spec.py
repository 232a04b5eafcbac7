"""config.json: validated whole before anything is made, and the default one that `spec` writes.

`validate` checks types by a table of shapes and then what the fields mean together. Fields that
the table does not know are left alone, as the OCI specification asks.
"""

import json
import os
from typing import Any

from barque.base.errors import InvalidInputError
from barque.kernel import caps
from barque.kernel.interfaces import is_name as is_interface_name
from barque.kernel.limits import IO_CLASSES, POLICIES, RLIMITS, SCHEDULER_FLAGS

OCI_VERSION = "1.2.0"
NAMESPACES = ("mount", "pid", "uts", "ipc", "network", "cgroup", "user", "time")
PROPAGATIONS = frozenset(
    f"{recursive}{kind}" for recursive in ("", "r") for kind in ("private", "shared", "slave", "unbindable")
)
HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
_ID_MAX = 2**32 - 1
_STRINGS: Any = [str]
_STRING_MAP = ("map", str)
_MAPPING = {"containerID": int, "hostID": int, "size": int}
_HOOK = {"path": str, "args": _STRINGS, "env": _STRINGS, "timeout": int}
_IO_RATE = {"major": int, "minor": int, "rate": int}
_RESOURCES = {
    "devices": [{"allow": bool, "type": str, "major": int, "minor": int, "access": str}],
    "memory": {
        "limit": int, "reservation": int, "swap": int, "kernel": int, "kernelTCP": int,
        "swappiness": int, "disableOOMKiller": bool, "useHierarchy": bool, "checkBeforeUpdate": bool,
    },
    "cpu": {
        "shares": int, "quota": int, "burst": int, "period": int, "realtimeRuntime": int,
        "realtimePeriod": int, "cpus": str, "mems": str, "idle": int,
    },
    "pids": {"limit": int},
    "blockIO": {
        "weight": int, "leafWeight": int,
        "weightDevice": [{"major": int, "minor": int, "weight": int, "leafWeight": int}],
        "throttleReadBpsDevice": [_IO_RATE], "throttleWriteBpsDevice": [_IO_RATE],
        "throttleReadIOPSDevice": [_IO_RATE], "throttleWriteIOPSDevice": [_IO_RATE],
    },
    "hugepageLimits": [{"pageSize": str, "limit": int}],
    "network": {"classID": int, "priorities": [{"name": str, "priority": int}]},
    "rdma": ("map", {"hcaHandles": int, "hcaObjects": int}),
    "unified": _STRING_MAP,
}  # fmt: skip
_CONSOLE = {"height": int, "width": int}
_USER = {"uid": int, "gid": int, "umask": int, "additionalGids": [int], "username": str}
_PROCESS = {
    "terminal": bool, "consoleSize": _CONSOLE, "user": _USER, "args": _STRINGS, "env": _STRINGS,
    "commandLine": str, "cwd": str,
    "capabilities": dict.fromkeys(
        ("bounding", "effective", "inheritable", "permitted", "ambient"), _STRINGS
    ),
    "rlimits": [{"type": str, "soft": int, "hard": int}],
    "noNewPrivileges": bool, "apparmorProfile": str, "oomScoreAdj": int, "selinuxLabel": str,
    "scheduler": {
        "policy": str, "nice": int, "priority": int, "flags": _STRINGS, "runtime": int,
        "deadline": int, "period": int,
    },
    "ioPriority": {"class": str, "priority": int},
    "execCPUAffinity": {"initial": str, "final": str},
}  # fmt: skip
_SECCOMP = {
    "defaultAction": str, "defaultErrnoRet": int, "architectures": _STRINGS, "flags": _STRINGS,
    "listenerPath": str, "listenerMetadata": str,
    "syscalls": [{
        "names": _STRINGS, "action": str, "errnoRet": int,
        "args": [{"index": int, "value": int, "valueTwo": int, "op": str}],
    }],
}  # fmt: skip
_LINUX = {
    "uidMappings": [_MAPPING], "gidMappings": [_MAPPING], "sysctl": _STRING_MAP,
    "resources": _RESOURCES, "cgroupsPath": str, "namespaces": [{"type": str, "path": str}],
    "devices": [{
        "path": str, "type": str, "major": int, "minor": int, "fileMode": int, "uid": int, "gid": int,
    }],
    "seccomp": _SECCOMP, "rootfsPropagation": str, "maskedPaths": _STRINGS, "readonlyPaths": _STRINGS,
    "mountLabel": str, "personality": {"domain": str, "flags": _STRINGS},
    "timeOffsets": ("map", {"secs": int, "nanosecs": int}),
    "intelRdt": {
        "closID": str, "l3CacheSchema": str, "memBwSchema": str, "schemata": _STRINGS, "enableMonitoring": bool,
    },
    "netDevices": ("map", {"name": str}),
}  # fmt: skip
_CONFIG = {
    "ociVersion": str, "root": {"path": str, "readonly": bool}, "process": _PROCESS, "hostname": str,
    "domainname": str, "hooks": {kind: [_HOOK] for kind in HOOKS}, "annotations": _STRING_MAP,
    "mounts": [{
        "destination": str, "source": str, "type": str, "options": _STRINGS,
        "uidMappings": [_MAPPING], "gidMappings": [_MAPPING],
    }],
    "linux": _LINUX,
}  # fmt: skip
_NAMES = {str: "a string", int: "a whole number", bool: "true or false"}


def _check(value: Any, shape: Any, where: str) -> None:
    """Compare a value with its shape; null counts as absent."""
    if value is None:
        return
    if shape in (str, int, bool):
        if not isinstance(value, shape) or (shape is int and isinstance(value, bool)):
            raise InvalidInputError(f"{where}: must be {_NAMES[shape]}, not {json.dumps(value)[:60]}")
        if shape is str and "\0" in value:
            raise InvalidInputError(f"{where}: must not hold a NUL character")
        return
    if isinstance(shape, list):
        if not isinstance(value, list):
            raise InvalidInputError(f"{where}: must be a list")
        for index, item in enumerate(value):
            if item is None:
                raise InvalidInputError(f"{where}[{index}]: must not be null")
            _check(item, shape[0], f"{where}[{index}]")
        return
    if not isinstance(value, dict):
        raise InvalidInputError(f"{where}: must be an object")
    if isinstance(shape, tuple):
        for key, item in value.items():
            _check(item, shape[1], f"{where}.{key}")
        return
    for key, item in value.items():
        if key in shape:
            _check(item, shape[key], f"{where}.{key}" if where else key)


def parse(raw: bytes, name: str = "config.json") -> dict[str, Any]:
    """Return the validated configuration in `raw`.

    Raises:
        InvalidInputError: it is not JSON, or a field is wrong; the text names the field.
    """
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{name}: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidInputError(f"{name}: must be an object")
    validate(value)
    return value


def validate(config: dict[str, Any]) -> None:
    """Check a whole configuration.

    Raises:
        InvalidInputError: naming the first wrong field.
    """
    _check(config, _CONFIG, "")
    version = config.get("ociVersion")
    if not version:
        raise InvalidInputError("ociVersion: is missing")
    if not version.startswith("1."):
        raise InvalidInputError(f"ociVersion: {version} is not supported, 1.x is")
    root = config.get("root")
    if not root or not root.get("path"):
        raise InvalidInputError("root.path: is missing")
    if config.get("process") is not None:
        validate_process(config["process"])
    linux = config.get("linux") or {}
    kinds = _namespaces(linux)
    _needs(config, linux, kinds)
    _mounts(config.get("mounts") or [])
    for kind, hooks in (config.get("hooks") or {}).items():
        for index, hook in enumerate(hooks or []):
            _hook(hook, f"hooks.{kind}[{index}]")


def validate_resources(resources: Any) -> dict[str, Any]:
    """Check linux.resources by itself, as `update` gets it, and return it.

    Raises:
        InvalidInputError: naming the first wrong field.
    """
    if not isinstance(resources, dict):
        raise InvalidInputError("resources: must be an object")
    _check(resources, _RESOURCES, "resources")
    return resources


def validate_process(process: Any, where: str = "process") -> None:
    """Check an OCI process, the container's first one or that of `exec`.

    Raises:
        InvalidInputError: naming the first wrong field.
    """
    if not isinstance(process, dict):
        raise InvalidInputError(f"{where}: must be an object")
    _check(process, _PROCESS, where)
    if not process.get("args"):
        raise InvalidInputError(f"{where}.args: must not be empty")
    cwd = process.get("cwd")
    if cwd and not cwd.startswith("/"):
        raise InvalidInputError(f"{where}.cwd: {cwd!r} must be an absolute path")
    user = process.get("user") or {}
    for key in ("uid", "gid"):
        _range(user.get(key), 0, _ID_MAX, f"{where}.user.{key}")
    for gid in user.get("additionalGids") or []:
        _range(gid, 0, _ID_MAX, f"{where}.user.additionalGids")
    _range(user.get("umask"), 0, 0o777, f"{where}.user.umask")
    _range(process.get("oomScoreAdj"), -1000, 1000, f"{where}.oomScoreAdj")
    for kind, names in (process.get("capabilities") or {}).items():
        for name in names or []:
            if name.upper() not in caps.NUMBERS:
                raise InvalidInputError(f"{where}.capabilities.{kind}: unknown capability {name!r}")
    _rlimits(process.get("rlimits") or [], where)
    _scheduling(process, where)


def _rlimits(rlimits: list[dict[str, Any]], where: str) -> None:
    seen = set()
    for limit in rlimits:
        name = limit.get("type")
        if name not in RLIMITS:
            raise InvalidInputError(f"{where}.rlimits: unknown rlimit {name!r}")
        if name in seen:
            raise InvalidInputError(f"{where}.rlimits: {name} is given twice")
        seen.add(name)
        soft, hard = limit.get("soft"), limit.get("hard")
        if soft is None or hard is None:
            raise InvalidInputError(f"{where}.rlimits: {name} needs soft and hard")
        for number in (soft, hard):
            _range(number, -1, 2**64 - 1, f"{where}.rlimits.{name}")


def _scheduling(process: dict[str, Any], where: str) -> None:
    scheduler = process.get("scheduler")
    if scheduler:
        if scheduler.get("policy") not in POLICIES:
            raise InvalidInputError(f"{where}.scheduler.policy: invalid scheduler policy {scheduler.get('policy')!r}")
        for flag in scheduler.get("flags") or []:
            if flag not in SCHEDULER_FLAGS:
                raise InvalidInputError(f"{where}.scheduler.flags: invalid scheduler flag {flag!r}")
    priority = process.get("ioPriority")
    if priority:
        if priority.get("class") not in IO_CLASSES:
            raise InvalidInputError(f"{where}.ioPriority.class: invalid class {priority.get('class')!r}")
        _range(priority.get("priority"), 0, 7, f"{where}.ioPriority.priority")


def _range(value: int | None, low: int, high: int, where: str) -> None:
    if value is not None and not low <= value <= high:
        raise InvalidInputError(f"{where}: {value} must be from {low} to {high}")


def _namespaces(linux: dict[str, Any]) -> set[str]:
    kinds: set[str] = set()
    for entry in linux.get("namespaces") or []:
        kind = entry.get("type")
        if kind not in NAMESPACES:
            raise InvalidInputError(f"linux.namespaces: unknown namespace type {kind!r}")
        if kind in kinds:
            raise InvalidInputError(f"linux.namespaces: {kind} is given twice")
        if entry.get("path") and not entry["path"].startswith("/"):
            raise InvalidInputError(f"linux.namespaces: path {entry['path']!r} must be absolute")
        kinds.add(kind)
    return kinds


def _needs(config: dict[str, Any], linux: dict[str, Any], kinds: set[str]) -> None:
    for name in ("hostname", "domainname"):
        if config.get(name) and "uts" not in kinds:
            raise InvalidInputError(f"{name}: unable to set it without a private UTS namespace")
    for name in ("maskedPaths", "readonlyPaths"):
        if linux.get(name) and "mount" not in kinds:
            raise InvalidInputError(f"linux.{name}: unable to restrict paths without a private mount namespace")
    if linux.get("timeOffsets") and "time" not in kinds:
        raise InvalidInputError("linux.timeOffsets: needs a time namespace")
    for clock in linux.get("timeOffsets") or {}:
        if clock not in ("monotonic", "boottime"):
            raise InvalidInputError(f"linux.timeOffsets: unknown clock {clock!r}")
    _net_devices(linux.get("netDevices") or {}, kinds)
    if (linux.get("intelRdt") or {}).get("enableMonitoring"):
        raise InvalidInputError("linux.intelRdt.enableMonitoring: monitoring groups are not supported: leave it out")
    propagation = linux.get("rootfsPropagation")
    if propagation and propagation not in PROPAGATIONS:
        raise InvalidInputError(f"linux.rootfsPropagation: unknown propagation {propagation!r}")
    for name in ("uidMappings", "gidMappings"):
        for entry in linux.get(name) or []:
            for key in _MAPPING:
                if entry.get(key) is None:
                    raise InvalidInputError(f"linux.{name}: {key} is missing")
                _range(entry[key], 0, _ID_MAX, f"linux.{name}.{key}")


def _net_devices(devices: dict[str, Any], kinds: set[str]) -> None:
    if devices and "network" not in kinds:
        raise InvalidInputError("linux.netDevices: unable to move network devices without a network namespace")
    names = [entry.get("name") or name for name, entry in devices.items()]
    for name in [*devices, *names]:
        if not is_interface_name(name):
            raise InvalidInputError(f"linux.netDevices: invalid network device name {name!r}")
    if len(set(names)) < len(names):
        raise InvalidInputError("linux.netDevices: two devices of the same name")


def _mounts(mounts: list[dict[str, Any]]) -> None:
    for index, entry in enumerate(mounts):
        if not entry.get("destination"):
            raise InvalidInputError(f"mounts[{index}].destination: is missing")


def _hook(hook: dict[str, Any], where: str) -> None:
    if not os.path.isabs(hook.get("path") or ""):
        raise InvalidInputError(f"{where}.path: must be an absolute path")
    timeout = hook.get("timeout")
    if timeout is not None and timeout <= 0:
        raise InvalidInputError(f"{where}.timeout: must be above 0")


def default_config(*, rootless: bool = False) -> dict[str, Any]:
    """Return the configuration that `spec` writes: a shell in all namespaces but user and time."""
    capabilities = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
    kinds = ["pid", "network", "ipc", "uts", "mount", "cgroup"]
    linux: dict[str, Any] = {
        "resources": {"devices": [{"allow": False, "access": "rwm"}]},
        "namespaces": [{"type": kind} for kind in kinds],
        "maskedPaths": [
            "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
            "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi",
        ],
        "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
    }  # fmt: skip
    if rootless:
        linux["namespaces"] = [entry for entry in linux["namespaces"] if entry["type"] != "network"]
        linux["namespaces"].append({"type": "user"})
        linux["uidMappings"] = [{"containerID": 0, "hostID": os.geteuid(), "size": 1}]
        linux["gidMappings"] = [{"containerID": 0, "hostID": os.getegid(), "size": 1}]
        del linux["resources"]
    return {
        "ociVersion": OCI_VERSION,
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), capabilities),
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "barque",
        "mounts": _default_mounts(rootless),
        "linux": linux,
    }


def _default_mounts(rootless: bool) -> list[dict[str, Any]]:
    safe = ["nosuid", "noexec", "nodev"]
    tty = [] if rootless else ["gid=5"]
    mounts = [
        ("/proc", "proc", "proc", []),
        ("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        ("/dev/pts", "devpts", "devpts",
         ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", *tty]),
        ("/dev/shm", "tmpfs", "shm", [*safe, "mode=1777", "size=65536k"]),
        ("/dev/mqueue", "mqueue", "mqueue", safe),
        ("/sys", "sysfs", "sysfs", [*safe, "ro"]),
        ("/sys/fs/cgroup", "cgroup", "cgroup", [*safe, "relatime", "ro"]),
    ]  # fmt: skip
    if rootless:
        mounts[5] = ("/sys", "none", "/sys", ["rbind", *safe, "ro"])
        mounts.pop()
    return [
        {"destination": to, "type": kind, "source": source, **({"options": options} if options else {})}
        for to, kind, source, options in mounts
    ]
