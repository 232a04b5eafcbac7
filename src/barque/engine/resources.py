"""Limits and devices of a container as OCI resources. Looks at device nodes, touches nothing."""

import os
import re
import stat
from typing import Any

from barque.base.errors import InvalidInputError

Json = dict[str, Any]
_DEVICE_RULES: list[Json] = [
    {"allow": False, "access": "rwm"},
    {"allow": True, "type": "c", "access": "m"},
    {"allow": True, "type": "b", "access": "m"},
    *({"allow": True, "type": "c", "major": major, "minor": minor, "access": "rwm"}
      for major, minor in ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (136, None))),
]  # fmt: skip
_MOST_ENTRIES = 10_000
_RLIMITS = {"core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss",
            "rtprio", "rttime", "sigpending", "stack"}  # fmt: skip


def rlimits(host: Json, defaults: tuple[Json, ...] = ()) -> list[Json]:
    """Return the OCI rlimits of HostConfig.Ulimits over the daemon's defaults.

    Raises:
        InvalidInputError: an unknown name, or soft above hard.
    """
    wanted: dict[str, Json] = {}
    for item in [*defaults, *(host.get("Ulimits") or [])]:
        name, soft, hard = item.get("Name"), item.get("Soft"), item.get("Hard")
        if name not in _RLIMITS:
            raise InvalidInputError(f"invalid ulimit type: {name}")
        if not isinstance(soft, int) or not isinstance(hard, int):
            raise InvalidInputError(f"invalid ulimit {name}: Soft and Hard must be numbers")
        if hard != -1 and (soft == -1 or soft > hard):
            raise InvalidInputError(f"ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}")
        wanted[str(name)] = {"type": f"RLIMIT_{str(name).upper()}", "soft": soft % (1 << 64), "hard": hard % (1 << 64)}
    return list(wanted.values())


def devices_of(host: Json) -> tuple[list[Json], list[Json]]:
    """Return the device nodes to make and the device rules.

    Raises:
        InvalidInputError: a device that is none, or a malformed rule.
    """
    if host.get("Privileged"):
        return _host_devices(), [{"allow": True, "access": "rwm"}]
    nodes: list[Json] = []
    rules = list(_DEVICE_RULES)
    for item in host.get("Devices") or []:
        source = str(item.get("PathOnHost") or "")
        target = str(item.get("PathInContainer") or source)
        access = str(item.get("CgroupPermissions") or "rwm")
        if not set(access) <= set("rwm"):
            raise InvalidInputError(f"invalid device permissions: {access}")
        made = _devices_at(source, target)
        if not made:
            raise InvalidInputError(f'error gathering device information while adding custom device "{source}": '
                                    "no such file or directory")  # fmt: skip
        nodes += made
        rules += [{"allow": True, "type": n["type"], "major": n["major"], "minor": n["minor"], "access": access}
                  for n in made]  # fmt: skip
    return nodes, rules + [_device_rule(text) for text in host.get("DeviceCgroupRules") or []]


def _device_rule(text: str) -> Json:
    match = re.fullmatch(r"([acb]) ([0-9]{1,9}|\*):([0-9]{1,9}|\*) ([rwm]{1,3})", text)
    if match is None:
        raise InvalidInputError(f"invalid device cgroup rule format: '{text}'")
    rule: Json = {"allow": True, "type": match[1], "access": match[4]}
    for key, value in (("major", match[2]), ("minor", match[3])):
        if value != "*":
            rule[key] = int(value)
    return rule


def _devices_at(source: str, target: str) -> list[Json]:
    try:
        found = os.stat(source)
    except OSError:
        return []
    if stat.S_ISDIR(found.st_mode):
        return _devices_below(source, target, found.st_dev)
    return [_device(target, found)] if stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode) else []


def _devices_below(source: str, target: str, file_system: int) -> list[Json]:
    """Return the devices in a folder and those below it; links and other file systems are let be.

    Raises:
        InvalidInputError: there is far more in it than devices.
    """
    nodes: list[Json] = []
    waiting = [""]
    looked_at = 0
    while waiting:
        inner = waiting.pop()
        try:
            entries = sorted(os.scandir(f"{source}{inner}"), key=lambda entry: entry.name)
        except OSError:
            continue
        looked_at += len(entries)
        if looked_at > _MOST_ENTRIES:
            raise InvalidInputError(f'error gathering device information while adding custom device "{source}": '
                                    "too many files: name a folder of devices")  # fmt: skip
        for entry in entries:
            found = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode) and found.st_dev == file_system:
                waiting.append(f"{inner}/{entry.name}")
            elif stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode):
                nodes.append(_device(f"{target.rstrip('/')}{inner}/{entry.name}", found))
    return nodes


def _device(target: str, found: os.stat_result) -> Json:
    return {
        "path": target, "type": "c" if stat.S_ISCHR(found.st_mode) else "b",
        "major": os.major(found.st_rdev), "minor": os.minor(found.st_rdev),
        "fileMode": stat.S_IMODE(found.st_mode), "uid": found.st_uid, "gid": found.st_gid,
    }  # fmt: skip


def _host_devices() -> list[Json]:
    skipped = {"pts", "shm", "fd", "mqueue", "console", ".lxc", ".lxd-mounts", ".udev"}
    nodes: list[Json] = []
    for name in sorted(os.listdir("/dev")):
        if name not in skipped and not os.path.islink(f"/dev/{name}"):
            nodes += _devices_at(f"/dev/{name}", f"/dev/{name}")
    return nodes


def resources(host: Json) -> Json:
    """Return linux.resources of the limits and device rules.

    Raises:
        InvalidInputError: a device that is none.
    """
    _, rules = devices_of(host)
    return {"devices": rules, **limits(host)}


def limits(host: Json) -> Json:
    """Return linux.resources of the limits alone."""
    found: Json = {}
    memory: Json = {}
    limit, swap = host.get("Memory") or 0, host.get("MemorySwap") or 0
    if limit:
        memory["limit"] = limit
        memory["swap"] = swap or limit * 2
    if host.get("MemoryReservation"):
        memory["reservation"] = host["MemoryReservation"]
    if host.get("MemorySwappiness") not in (None, -1):
        memory["swappiness"] = host["MemorySwappiness"]
    if host.get("OomKillDisable"):
        memory["disableOOMKiller"] = True
    if host.get("KernelMemoryTCP"):
        memory["kernelTCP"] = host["KernelMemoryTCP"]
    if memory:
        found["memory"] = memory
    cpu = _cpu(host)
    if cpu:
        found["cpu"] = cpu
    if host.get("PidsLimit"):
        found["pids"] = {"limit": host["PidsLimit"]}
    block = _block_io(host)
    if block:
        found["blockIO"] = block
    return found


def _cpu(host: Json) -> Json:
    cpu: Json = {}
    for key, name in (("CpuShares", "shares"), ("CpuQuota", "quota"), ("CpuPeriod", "period"),
                      ("CpusetCpus", "cpus"), ("CpusetMems", "mems"), ("CpuRealtimePeriod", "realtimePeriod"),
                      ("CpuRealtimeRuntime", "realtimeRuntime")):  # fmt: skip
        if host.get(key):
            cpu[name] = host[key]
    if host.get("NanoCpus"):
        cpu["period"] = 100_000
        cpu["quota"] = host["NanoCpus"] * 100_000 // 1_000_000_000
    return cpu


def _block_io(host: Json) -> Json:
    block: Json = {}
    if host.get("BlkioWeight"):
        block["weight"] = host["BlkioWeight"]
    names = {"BlkioWeightDevice": "weightDevice", "BlkioDeviceReadBps": "throttleReadBpsDevice",
             "BlkioDeviceWriteBps": "throttleWriteBpsDevice", "BlkioDeviceReadIOps": "throttleReadIOPSDevice",
             "BlkioDeviceWriteIOps": "throttleWriteIOPSDevice"}  # fmt: skip
    for key, name in names.items():
        for item in host.get(key) or []:
            try:
                number = os.stat(str(item.get("Path"))).st_rdev
            except OSError:
                raise InvalidInputError(f"stat {item.get('Path')}: no such file or directory") from None
            value = {"weight": item.get("Weight")} if key == "BlkioWeightDevice" else {"rate": item.get("Rate")}
            block.setdefault(name, []).append({"major": os.major(number), "minor": os.minor(number), **value})
    return block
