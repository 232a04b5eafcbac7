"""What a create request may hold; refusals with Docker's words. Pure but for looking at bind sources."""

import os
import re
from typing import Any

from barque.base.errors import InvalidInputError
from barque.base.signals import parse_signal
from barque.engine.config import EngineConfig
from barque.kernel.caps import NUMBERS

Json = dict[str, Any]
_MIN_MEMORY = 6 << 20
_PORT = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?(?:/(\w+))?")
_POLICIES = ("", "no", "always", "on-failure", "unless-stopped")
_SIZE = re.compile(r"([0-9]{1,19}(?:\.[0-9]{1,19})?)\s*([kmgtp]?)i?b?", re.IGNORECASE)
_WINDOWS_ONLY = ("CpuCount", "CpuPercent", "IOMaximumIOps", "IOMaximumBandwidth")
_STRINGS = ("Hostname", "Domainname", "User", "Image", "WorkingDir", "StopSignal", "MacAddress")
_LISTS = ("Env", "Cmd", "Entrypoint", "OnBuild", "Shell")
_MAPS = ("ExposedPorts", "Volumes", "Labels")
_HOST_LISTS = ("Binds", "VolumesFrom", "CapAdd", "CapDrop", "Dns", "DnsOptions", "DnsSearch", "ExtraHosts",
               "GroupAdd", "Links", "SecurityOpt", "MaskedPaths", "ReadonlyPaths", "DeviceCgroupRules")  # fmt: skip
_HOST_NUMBERS = ("Memory", "MemorySwap", "MemoryReservation", "KernelMemoryTCP", "NanoCpus", "CpuShares",
                 "CpuPeriod", "CpuQuota", "CpuRealtimePeriod", "CpuRealtimeRuntime", "PidsLimit", "ShmSize",
                 "OomScoreAdj", "BlkioWeight", "MemorySwappiness")  # fmt: skip


def parse_size(text: str) -> int:
    """Return the bytes of `10m`, `1g`, `512`.

    Raises:
        InvalidInputError: not a size.
    """
    match = _SIZE.fullmatch(text.strip())
    size = int(float(match[1]) * 1024 ** " kmgtp".index(match[2].lower() or " ")) if match else 1 << 63
    if size >= 1 << 63:
        raise InvalidInputError(f"invalid size: '{text}'")
    return size


def check_types(config: Json) -> None:
    """Refuse values of a wrong JSON type, so that all code after it may trust them.

    Raises:
        InvalidInputError: names the field.
    """
    _each(config, _STRINGS, str, "string")
    for key in _LISTS:
        if isinstance(config.get(key), str):
            config[key] = [config[key]]
    _lists(config, _LISTS)
    _each(config, _MAPS, dict, "object")
    host = config.get("HostConfig")
    if host is None:
        host = config["HostConfig"] = {}
    if not isinstance(host, dict):
        raise InvalidInputError("invalid JSON: HostConfig must be an object")
    _lists(host, _HOST_LISTS)
    _each(host, _HOST_NUMBERS, int, "number")
    for key in ("PortBindings", "RestartPolicy", "LogConfig", "Tmpfs", "Sysctls", "StorageOpt", "Annotations"):
        _each(host, (key,), dict, "object")
    for key in ("Mounts", "Devices", "Ulimits", "DeviceRequests", "BlkioWeightDevice"):
        value = host.get(key)
        if value is not None and (not isinstance(value, list) or not all(isinstance(v, dict) for v in value)):
            raise InvalidInputError(f"invalid JSON: HostConfig.{key} must be a list of objects")
    _each(host, ("NetworkMode", "PidMode", "IpcMode", "UTSMode", "UsernsMode", "CgroupnsMode", "CgroupParent",
                 "Runtime", "CpusetCpus", "CpusetMems", "VolumeDriver", "Isolation"), str, "string")  # fmt: skip
    networking = config.get("NetworkingConfig")
    if networking is not None and not isinstance(networking, dict):
        raise InvalidInputError("invalid JSON: NetworkingConfig must be an object")
    endpoints = (networking or {}).get("EndpointsConfig") or {}
    if not isinstance(endpoints, dict) or not all(v is None or isinstance(v, dict) for v in endpoints.values()):
        raise InvalidInputError("invalid JSON: NetworkingConfig.EndpointsConfig must hold objects")


def _each(config: Json, keys: tuple[str, ...], kind: type, word: str) -> None:
    for key in keys:
        value = config.get(key)
        if value is not None and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
            raise InvalidInputError(f"invalid JSON: {key} must be a {word}")


def _lists(config: Json, keys: tuple[str, ...]) -> None:
    for key in keys:
        value = config.get(key)
        if value is not None and (not isinstance(value, list) or not all(isinstance(v, str) for v in value)):
            raise InvalidInputError(f"invalid JSON: {key} must be a list of strings")
        if value and any("\0" in item for item in value):
            raise InvalidInputError(f"invalid {key}: a value holds a NUL byte")


def check_config(config: Json, options: EngineConfig) -> list[str]:
    """Check a whole request whose types are right; return warnings.

    Raises:
        InvalidInputError: a value or a combination that cannot be.
    """
    host = config["HostConfig"]
    _check_own(config)
    _check_foreign(host)
    check_policy(host)
    _check_modes(config, host)
    _check_ports(config, host)
    _check_logs(host)
    if (host.get("TimeLimit") or 0) < 0:
        raise InvalidInputError("TimeLimit cannot be negative")
    parent = host.get("CgroupParent") or ""
    if {".", ".."} & set(parent.split("/")):
        raise InvalidInputError(f"invalid cgroup parent {parent}: name a control group without . and ..")
    _check_runtime(host, options)
    return [*_check_security(host), *check_resources(host)]


def _check_foreign(host: Json) -> None:
    """Refuse what has no meaning on Linux; all clients send the fields, without a value."""
    for key in _WINDOWS_ONLY:
        if host.get(key):
            raise InvalidInputError(f"HostConfig.{key} is for containers of Windows: leave it at 0")
    if host.get("Cgroup"):
        raise InvalidInputError("HostConfig.Cgroup is not supported: use CgroupParent or CgroupnsMode")


def _check_own(config: Json) -> None:
    for entry in config.get("Env") or []:
        if not entry or entry.startswith("="):
            raise InvalidInputError(f"invalid environment variable: {entry}")
    workdir = config.get("WorkingDir")
    if workdir and not workdir.startswith("/"):
        raise InvalidInputError(f"the working directory '{workdir}' is invalid, it needs to be an absolute path")
    if config.get("StopSignal"):
        parse_signal(config["StopSignal"])
    timeout = config.get("StopTimeout")
    if timeout is not None and (not isinstance(timeout, int) or isinstance(timeout, bool)):
        raise InvalidInputError("invalid JSON: StopTimeout must be a number")
    health = config.get("Healthcheck")
    if health is None:
        return
    if not isinstance(health, dict):
        raise InvalidInputError("invalid JSON: Healthcheck must be an object")
    for key in ("Interval", "Timeout", "StartPeriod", "StartInterval"):
        value = health.get(key) or 0
        if not isinstance(value, int) or value < 0 or 0 < value < 1_000_000:
            raise InvalidInputError(f"{key} in Healthcheck cannot be less than 1ms")
    if (health.get("OnFailure") or "none") not in ("none", "kill", "restart", "stop"):
        raise InvalidInputError(f"invalid OnFailure in Healthcheck: {health['OnFailure']}: use none, kill, restart or stop")
    if not isinstance(health.get("Retries") or 0, int) or (health.get("Retries") or 0) < 0:
        raise InvalidInputError("Retries in Healthcheck cannot be negative")


def check_policy(host: Json) -> None:
    """Check HostConfig.RestartPolicy.

    Raises:
        InvalidInputError: an unknown policy, or a count that cannot be.
    """
    policy = host.get("RestartPolicy") or {}
    name, count = policy.get("Name") or "", policy.get("MaximumRetryCount") or 0
    if name not in _POLICIES:
        raise InvalidInputError(f"invalid restart policy: unknown policy '{name}'; use one of 'no', 'always', "
                                "'on-failure', or 'unless-stopped'")  # fmt: skip
    if not isinstance(count, int):
        raise InvalidInputError("invalid JSON: MaximumRetryCount must be a number")
    if count and name != "on-failure":
        text = "invalid restart policy: maximum retry count can only be used with 'on-failure'"
        raise InvalidInputError(text + (" and cannot be negative" if count < 0 else ""))
    if count < 0:
        raise InvalidInputError("invalid restart policy: maximum retry count cannot be negative")
    if host.get("AutoRemove") and name not in ("", "no"):
        raise InvalidInputError("can't create 'AutoRemove' container with restart policy")


def _check_modes(config: Json, host: Json) -> None:
    network = host.get("NetworkMode") or ""
    if network.startswith("container:"):
        for value, words in (
            (config.get("Hostname"), "hostname and the network mode"),
            (host.get("Links"),
             "container type network can't be used with links. This would result in undefined behavior"),
            (host.get("Dns"), "dns and the network mode"),
            (host.get("ExtraHosts"), "custom host-to-IP mapping and the network mode"),
            (host.get("PortBindings") or host.get("PublishAllPorts"),
             "port publishing and the container type network mode"),
        ):  # fmt: skip
            if value:
                raise InvalidInputError(f"conflicting options: {words}")
        if config.get("MacAddress"):
            raise InvalidInputError("conflicting options: mac-address and the network mode")
        if config.get("ExposedPorts") and not network.partition(":")[2]:
            raise InvalidInputError("conflicting options: port exposing and the container type network mode")
    if network.startswith("ns:") and (host.get("PortBindings") or host.get("PublishAllPorts")):
        raise InvalidInputError("conflicting options: port publishing and the ns type network mode")
    if network in ("container", "container:"):
        raise InvalidInputError("invalid container format container:<name|id>")
    if network == "host" and host.get("Links"):
        raise InvalidInputError("conflicting options: host type networking can't be used with links. "
                                "This would result in undefined behavior")  # fmt: skip
    if (host.get("UTSMode") or "") == "host" and config.get("Hostname"):
        raise InvalidInputError("conflicting options: hostname and the UTS mode")
    for key, allowed in (("UTSMode", ("", "host")), ("UsernsMode", ("", "host")),
                         ("CgroupnsMode", ("", "host", "private"))):  # fmt: skip
        if (host.get(key) or "") not in allowed:
            raise InvalidInputError(f"invalid {key}: {host[key]}")
    if not re.fullmatch(r"|host|container:.+", host.get("PidMode") or ""):
        raise InvalidInputError(f"invalid PID mode: {host['PidMode']}")
    if not re.fullmatch(r"|none|private|host|shareable|container:.+", host.get("IpcMode") or ""):
        raise InvalidInputError(f"invalid IPC mode: {host['IpcMode']}")
    if (host.get("Isolation") or "") not in ("", "default"):
        raise InvalidInputError(f'invalid isolation "{host["Isolation"]}" on linux')


def _check_ports(config: Json, host: Json) -> None:
    for spec in [*(config.get("ExposedPorts") or {}), *(host.get("PortBindings") or {})]:
        match = _PORT.fullmatch(spec)
        if match is None or not 1 <= int(match[1]) <= int(match[2] or match[1]) <= 65535:
            raise InvalidInputError(f'invalid port specification: "{spec}"')
        if match[3] and match[3].lower() not in ("tcp", "udp", "sctp"):
            raise InvalidInputError(f"invalid proto: {match[3]}")
    for listed in (host.get("PortBindings") or {}).values():
        if listed is not None and not isinstance(listed, list):
            raise InvalidInputError("invalid JSON: PortBindings must hold lists")
        for item in listed or []:
            if item is not None and not isinstance(item, dict):
                raise InvalidInputError("invalid JSON: PortBindings must hold lists of objects")
            text = str((item or {}).get("HostPort") or "")
            if not re.fullmatch(r"|[0-9]{1,5}(-[0-9]{1,5})?", text) or any(int(p) > 65535 for p in text.split("-") if p):
                raise InvalidInputError(f'invalid port specification: "{text}"')


def _check_logs(host: Json) -> None:
    log = host.get("LogConfig") or {}
    values = log.get("Config") or {}
    if not isinstance(values, dict) or not all(isinstance(v, str) for v in values.values()):
        raise InvalidInputError("invalid JSON: LogConfig.Config must hold strings")
    if not isinstance(log.get("Type") or "", str):
        raise InvalidInputError("invalid JSON: LogConfig.Type must be a string")


def _check_runtime(host: Json, options: EngineConfig) -> None:
    name = host.get("Runtime") or ""
    if name not in ("", "barque", "io.containerd.runc.v2") and name not in options.runtimes:
        raise InvalidInputError(f"unknown or invalid runtime name: {name}")


def _check_security(host: Json) -> list[str]:
    for key in ("CapAdd", "CapDrop"):
        for name in host.get(key) or []:
            normal_capability(name)
    keys = {parse_security_option(option) for option in host.get("SecurityOpt") or []}
    if any(key == "label" and value != "disable" for key, value in keys):
        return ["Security options of SELinux (label=…) have no effect: this engine sets no labels."]
    return []


def normal_capability(name: str) -> str:
    """Return `CAP_X` for `x` or `ALL`.

    Raises:
        InvalidInputError: no such capability.
    """
    upper = name.upper()
    if upper == "ALL":
        return upper
    full = upper if upper.startswith("CAP_") else f"CAP_{upper}"
    if full not in NUMBERS:
        raise InvalidInputError(f'invalid capability: "{name}"')
    return full


def parse_security_option(option: str) -> tuple[str, str]:
    """Return the key and value of a --security-opt.

    Raises:
        InvalidInputError: unknown key, or a value that is missing.
    """
    if option in ("no-new-privileges", "writable-cgroups"):
        return option, "true"
    match = re.fullmatch(r"([a-z-]+)[=:](.*)", option, re.DOTALL)
    if match is None:
        raise InvalidInputError(f'invalid --security-opt 1: "{option}"')
    key, value = match[1], match[2]
    if key not in ("seccomp", "apparmor", "label", "no-new-privileges", "systempaths", "writable-cgroups"):
        raise InvalidInputError(f'invalid --security-opt 2: "{option}"')
    if key in ("no-new-privileges", "writable-cgroups") and value not in ("true", "false"):
        raise InvalidInputError(f'invalid --security-opt 2: "{option}"')
    return key, value


def check_resources(host: Json) -> list[str]:
    """Check limits, those that an update leaves too. Returns warnings.

    Raises:
        InvalidInputError: a limit that cannot be.
    """
    memory, swap = host.get("Memory") or 0, host.get("MemorySwap") or 0
    reservation = host.get("MemoryReservation") or 0
    if 0 < memory < _MIN_MEMORY:
        raise InvalidInputError("Minimum memory limit allowed is 6MB")
    if memory > 0 and 0 < swap < memory:
        raise InvalidInputError("Minimum memoryswap limit should be larger than memory limit, see usage")
    if memory == 0 and swap > 0:
        raise InvalidInputError("You should always set the Memory limit when using Memoryswap limit, see usage")
    swappiness = host.get("MemorySwappiness")
    if swappiness is not None and not -1 <= swappiness <= 100:
        raise InvalidInputError(f"Invalid value: {swappiness}, valid memory swappiness range is 0-100")
    if 0 < reservation < _MIN_MEMORY:
        raise InvalidInputError("Minimum memory reservation allowed is 6MB")
    if memory and reservation > memory:
        raise InvalidInputError("Minimum memory limit can not be less than memory reservation limit, see usage")
    _check_cpu(host, os.cpu_count() or 1)
    weight = host.get("BlkioWeight") or 0
    if weight and not 10 <= weight <= 1000:
        raise InvalidInputError("Range of blkio weight is from 10 to 1000")
    score = host.get("OomScoreAdj") or 0
    if not -1000 <= score <= 1000:
        raise InvalidInputError(f"Invalid value {score}, range for oom score adj is [-1000, 1000]")
    if (host.get("ShmSize") or 0) < 0:
        raise InvalidInputError("SHM size can not be less than 0")
    warnings = []
    if host.get("OomKillDisable") and memory == 0:
        warnings.append("OOM killer is disabled for the container, but no memory limit is set, "
                        "this can result in the system running out of resources.")  # fmt: skip
    if host.get("KernelMemory"):
        warnings.append("Specifying a kernel memory limit is deprecated and ignored by the kernel.")
    return warnings


def _check_cpu(host: Json, count: int) -> None:
    nano, period, quota = host.get("NanoCpus") or 0, host.get("CpuPeriod") or 0, host.get("CpuQuota") or 0
    if nano and (period or quota):
        which = "CPU Period" if period else "CPU Quota"
        raise InvalidInputError(f"Conflicting options: Nano CPUs and {which} cannot both be set")
    # The kernel takes no quota below 1 ms in its period of 100 ms.
    if nano and not 10_000_000 <= nano <= count * 1_000_000_000:
        raise InvalidInputError(f"range of CPUs is from 0.01 to {count}.00, as there are only {count} CPUs available")
    if period and not 1000 <= period <= 1_000_000:
        raise InvalidInputError("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
    if 0 < quota < 1000:
        raise InvalidInputError("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    if (host.get("CpuShares") or 0) < 0:
        raise InvalidInputError("invalid CPU shares: must be positive")
    if 0 < (host.get("CpuRealtimePeriod") or 0) < (host.get("CpuRealtimeRuntime") or 0):
        raise InvalidInputError("cpu real-time runtime cannot be higher than cpu real-time period")
    sets = (("CpusetCpus", "cpus", "CPUs", f"0-{count - 1}"), ("CpusetMems", "mems", "memory nodes", _memory_nodes()))
    for key, word, things, available in sets:
        text = host.get(key) or ""
        if text and not re.fullmatch(r"[0-9]{1,9}(-[0-9]{1,9})?(,[0-9]{1,9}(-[0-9]{1,9})?)*", text):
            raise InvalidInputError(f"Invalid value {text} for cpuset {word}: invalid format: {text}")
        if text and _greatest(text) > _greatest(available):
            raise InvalidInputError(f"Requested {things} are not available - requested {text}, available: {available}")


def _memory_nodes() -> str:
    try:
        with open("/sys/devices/system/node/online", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        # A kernel without NUMA has one.
        return "0"


def _greatest(numbers: str) -> int:
    return max(map(int, re.findall(r"[0-9]+", numbers)))
