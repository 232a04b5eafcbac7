"""The body of a create request out of run's flags: Config, HostConfig and NetworkingConfig."""

from __future__ import annotations

import os

from barque.base.errors import InvalidInputError
from barque.cli.flags import Options
from barque.cli.run_networks import endpoints

TYPE_CHECKING = False  # the module typing costs every start of the command milliseconds
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]


def create_body(options: Options, words: list[str]) -> Json:
    """Return the JSON body of POST /containers/create.

    Args:
        options: the parsed flags of run or create.
        words: the image, then the command.

    Raises:
        InvalidInputError: values contradict each other or are not valid.
    """
    exposed, bindings = _ports(options)
    binds, volumes = _volumes(options)
    host = _host_config(options, binds, bindings)
    mode, networks = endpoints(options)
    host["NetworkMode"] = mode
    body = _config(options, words, exposed, volumes)
    body["HostConfig"] = host
    body["NetworkingConfig"] = {"EndpointsConfig": networks}
    return body


# What reads a flag's values is imported where there are any: each module costs every start of the command time.


def _ports(options: Options) -> tuple[Json, Json]:
    if not options["publish"] and not options["expose"]:
        return {}, {}
    from barque.cli.run_ports import port_maps

    return port_maps(options["publish"], options["expose"])


def _volumes(options: Options) -> tuple[list[str], Json]:
    if not options["volume"]:
        return [], {}
    from barque.cli.run_mounts import split_volumes

    return split_volumes(options["volume"])


def _pairs(items: list[str]) -> dict[str, str]:
    if not items:
        return {}
    from barque.cli.env_files import pairs

    return pairs(items)


def _lines(paths: list[str], *, from_environment: bool) -> list[str]:
    if not paths:
        return []
    from barque.cli.env_files import read_file

    return [line for path in paths for line in read_file(path, from_environment=from_environment)]


def _config(options: Options, words: list[str], exposed: Json, volumes: Json) -> Json:
    attached = options["attach"]
    attach_input = options["interactive"] if not attached else "stdin" in attached
    detached = bool(options.values.get("detach"))
    body: Json = {
        "Hostname": options["hostname"],
        "Domainname": options["domainname"],
        "User": options["user"],
        "AttachStdin": attach_input and not detached,
        "AttachStdout": (not attached or "stdout" in attached) and not detached,
        "AttachStderr": (not attached or "stderr" in attached) and not detached,
        "Tty": options["tty"],
        "OpenStdin": options["interactive"],
        "StdinOnce": options["interactive"] and attach_input and not detached,
        "Env": _environment(options) or None,
        "Cmd": words[1:] or None,
        "Image": words[0],
        "Volumes": volumes,
        "WorkingDir": options["workdir"],
        "Entrypoint": [options["entrypoint"]] if options.given("entrypoint") else None,
        "OnBuild": None,
        "Labels": _labels(options),
    }
    if exposed:
        body["ExposedPorts"] = exposed
    if options.given("stop-signal"):
        body["StopSignal"] = options["stop-signal"]
    if options.given("stop-timeout"):
        body["StopTimeout"] = options["stop-timeout"]
    health = _health(options)
    if health:
        body["Healthcheck"] = health
    if options["mac-address"]:
        from barque.cli.addresses import is_hardware_address

        if not is_hardware_address(options["mac-address"].strip()):
            raise InvalidInputError(f"{options['mac-address']} is not a valid mac address")
    return body


def _environment(options: Options) -> list[str]:
    return _lines(options["env-file"], from_environment=True) + list(options["env"])


def _labels(options: Options) -> Json:
    lines = _lines(options["label-file"], from_environment=False)
    return _pairs([line for line in lines if "=" in line] + list(options["label"]))


def _given_values(options: Options) -> Json:
    """Return the secrets and configs that the container is given."""
    found: Json = {}
    if not (options["secret"] or options["config"]):
        return found
    from barque.cli.secrets import parse_wish

    for flag, field in (("secret", "Secrets"), ("config", "Configs")):
        for text in options[flag]:
            try:
                found.setdefault(field, []).append(parse_wish(text))
            except ValueError as error:
                raise InvalidInputError(f'invalid argument "{text}" for "--{flag}" flag: {error}') from error
    return found


def _health(options: Options) -> Json | None:
    periods = ("health-interval", "health-timeout", "health-start-period", "health-start-interval")
    used = options["health-cmd"] or options["health-retries"] or options["health-on-failure"] or any(options[name] for name in periods)
    if options["no-healthcheck"]:
        if used:
            raise InvalidInputError("--no-healthcheck conflicts with --health-* options")
        return {"Test": ["NONE"]}
    if not used:
        return None
    for name in (*periods[:2], "health-retries", *periods[2:]):
        if options[name] < 0:
            raise InvalidInputError(f"--{name} cannot be negative")
    health: Json = {
        "Test": ["CMD-SHELL", options["health-cmd"]] if options["health-cmd"] else None,
        "Interval": options["health-interval"],
        "Timeout": options["health-timeout"],
        "StartPeriod": options["health-start-period"],
        "StartInterval": options["health-start-interval"],
        "Retries": options["health-retries"],
        "OnFailure": options["health-on-failure"],
    }
    return {key: value for key, value in health.items() if value}


def _host_config(options: Options, binds: list[str], bindings: Json) -> Json:
    _check_modes(options)
    security, masked, readonly = security_options(options["security-opt"])
    devices, device_requests = devices_of(options["device"])
    requests = device_requests + list(options["gpus"])
    host: Json = {
        "Binds": binds or None,
        "ContainerIDFile": options["cidfile"],
        "LogConfig": {"Type": options["log-driver"], "Config": _log_options(options)},
        "PortBindings": bindings,
        "RestartPolicy": restart_policy(options["restart"]),
        "AutoRemove": bool(options["rm"]),
        "VolumeDriver": options["volume-driver"],
        **_given_values(options),
        **_time_limit(options),
        "VolumesFrom": options["volumes-from"] or None,
        "ConsoleSize": _console_size(options),
        "CapAdd": _capabilities(options["cap-add"]),
        "CapDrop": _capabilities(options["cap-drop"]),
        "CgroupnsMode": options["cgroupns"],
        "Dns": options["dns"],
        "DnsOptions": options["dns-option"] + options["dns-opt"],
        "DnsSearch": options["dns-search"],
        "ExtraHosts": options["add-host"] or None,
        "GroupAdd": options["group-add"] or None,
        "IpcMode": options["ipc"],
        "Cgroup": "",
        "Links": options["link"] or None,
        "OomScoreAdj": options["oom-score-adj"],
        "PidMode": options["pid"],
        "Privileged": options["privileged"],
        "PublishAllPorts": options["publish-all"],
        "ReadonlyRootfs": options["read-only"],
        "SecurityOpt": security or None,
        "UTSMode": options["uts"],
        "UsernsMode": options["userns"],
        "ShmSize": options["shm-size"],
        "Isolation": options["isolation"],
        "MaskedPaths": masked,
        "ReadonlyPaths": readonly,
        "Devices": devices,
        "DeviceRequests": requests or None,
        **_resources(options),
    }
    _optional(host, options)
    if host["AutoRemove"] and host["RestartPolicy"]["Name"] not in ("", "no"):
        raise InvalidInputError("conflicting options: cannot specify both --restart and --rm")
    return host


def _resources(options: Options) -> Json:
    swappiness = options["memory-swappiness"]
    if swappiness != -1 and not 0 <= swappiness <= 100:
        raise InvalidInputError(f"invalid value: {swappiness}. Valid memory swappiness range is 0-100")
    return {
        "CpuShares": options["cpu-shares"],
        "Memory": options["memory"],
        "NanoCpus": options["cpus"],
        "CgroupParent": options["cgroup-parent"],
        "BlkioWeight": options["blkio-weight"],
        "BlkioWeightDevice": options["blkio-weight-device"],
        "BlkioDeviceReadBps": options["device-read-bps"],
        "BlkioDeviceWriteBps": options["device-write-bps"],
        "BlkioDeviceReadIOps": options["device-read-iops"],
        "BlkioDeviceWriteIOps": options["device-write-iops"],
        "CpuPeriod": options["cpu-period"],
        "CpuQuota": options["cpu-quota"],
        "CpuRealtimePeriod": options["cpu-rt-period"],
        "CpuRealtimeRuntime": options["cpu-rt-runtime"],
        "CpusetCpus": options["cpuset-cpus"],
        "CpusetMems": options["cpuset-mems"],
        "DeviceCgroupRules": options["device-cgroup-rule"] or None,
        "MemoryReservation": options["memory-reservation"],
        "MemorySwap": options["memory-swap"],
        "MemorySwappiness": swappiness,
        "OomKillDisable": options["oom-kill-disable"],
        "PidsLimit": options["pids-limit"],
        "Ulimits": sorted(options["ulimit"], key=lambda limit: str(limit["Name"])),
        "CpuCount": options["cpu-count"],
        "CpuPercent": options["cpu-percent"],
        "IOMaximumIOps": options["io-maxiops"],
        "IOMaximumBandwidth": options["io-maxbandwidth"],
    }


def _optional(host: Json, options: Options) -> None:
    if options["annotation"]:
        host["Annotations"] = _pairs(options["annotation"])
    if options["storage-opt"]:
        if not all("=" in text for text in options["storage-opt"]):
            raise InvalidInputError("invalid storage option")
        host["StorageOpt"] = _pairs(options["storage-opt"])
    if options["tmpfs"]:
        host["Tmpfs"] = {path: rest for path, _, rest in (text.partition(":") for text in options["tmpfs"])}
    if options["sysctl"]:
        host["Sysctls"] = _pairs(options["sysctl"])
    if options["runtime"]:
        host["Runtime"] = options["runtime"]
    if options["kernel-memory"]:
        host["KernelMemory"] = options["kernel-memory"]
    if options["mount"]:
        host["Mounts"] = options["mount"]
    if options["use-api-socket"]:
        raise InvalidInputError("--use-api-socket is not supported: mount the engine's socket with -v instead")
    if options.given("init"):
        host["Init"] = options["init"]


def _check_modes(options: Options) -> None:
    def named(mode: str, words: tuple[str, ...]) -> bool:
        kind, colon, name = mode.partition(":")
        return mode in words or (kind == "container" and bool(colon) and bool(name) and "container" in words)

    if not named(options["pid"], ("", "host", "container")):
        raise InvalidInputError("--pid: invalid PID mode")
    if options["uts"] not in ("", "host"):
        raise InvalidInputError("--uts: invalid UTS mode")
    if options["userns"] not in ("", "host"):
        raise InvalidInputError("--userns: invalid USER mode")
    if options["cgroupns"] not in ("", "host", "private"):
        raise InvalidInputError("--cgroupns: invalid CGROUP mode")


def _capabilities(names: list[str]) -> list[str] | None:
    full = {name.upper() for name in names}
    full = {name if name in ("ALL", "RESET") or name.startswith("CAP_") else f"CAP_{name}" for name in full}
    return ["ALL"] if "ALL" in full else sorted(full) or None


def _console_size(options: Options) -> list[int]:
    if not options["tty"] or options.values.get("detach"):
        return [0, 0]
    try:
        size = os.get_terminal_size(1)
    except OSError:
        return [0, 0]
    return [size.lines, size.columns]


def _log_options(options: Options) -> Json:
    if options["log-driver"] == "none" and options["log-opt"]:
        raise InvalidInputError("invalid logging opts for driver none")
    return _pairs(options["log-opt"])


def restart_policy(text: str) -> Json:
    """Parse a restart policy such as on-failure:3.

    Raises:
        InvalidInputError: the count is no number, or the name is missing.
    """
    name, colon, count = text.partition(":")
    if colon and not name:
        raise InvalidInputError("invalid restart policy format: no policy provided before colon")
    if colon and count and not count.lstrip("-").isdigit():
        raise InvalidInputError("invalid restart policy format: maximum retry count must be an integer")
    return {"Name": name, "MaximumRetryCount": int(count or 0)}


def security_options(values: list[str]) -> tuple[list[str], list[str] | None, list[str] | None]:
    """Return the security options to send, and the masked and read-only paths (None: the defaults).

    Raises:
        InvalidInputError: an option is malformed or its seccomp profile cannot be read.
    """
    result: list[str] = []
    masked: list[str] | None = None
    readonly: list[str] | None = None
    for value in values:
        if value == "systempaths=unconfined":
            masked, readonly = [], []
            continue
        name, equals, content = value.partition("=")
        if not equals and value != "no-new-privileges":
            name, colon, content = value.partition(":")
            if not colon:
                raise InvalidInputError(f'Invalid --security-opt: "{value}"')
        if name == "seccomp" and content not in ("unconfined", "builtin"):
            value = "seccomp=" + _seccomp_profile(content)
        result.append(value)
    return result, masked, readonly


def _seccomp_profile(path: str) -> str:
    import json

    try:
        with open(path, encoding="utf-8") as file:
            return json.dumps(json.load(file), separators=(",", ":"))
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise InvalidInputError(f"opening seccomp profile ({path}) failed: open {path}: {reason}") from error
    except ValueError as error:
        raise InvalidInputError(f"compacting json for seccomp profile ({path}) failed: {error}") from error


def _time_limit(options: Options) -> Json:
    """Return what --ttl, or --timeout as Podman names it, says."""
    if options["ttl"] and options["timeout"]:
        raise InvalidInputError("--ttl and --timeout mean the same: use one of them")
    limit_ns = options["ttl"] or options["timeout"] * 1_000_000_000
    if limit_ns < 0:
        raise InvalidInputError("--timeout cannot be negative")
    return {"TimeLimit": limit_ns} if limit_ns else {}


def devices_of(values: list[str]) -> tuple[list[Json], list[Json]]:
    """Return HostConfig.Devices and DeviceRequests of --device's values."""
    devices: list[Json] = []
    qualified: list[str] = []
    for value in values:
        if "=" in value and "/" in value.partition("=")[0] and not value.startswith("/"):
            qualified.append(value)
        else:
            devices.append(_device(value))
    requests: list[Json] = []
    if qualified:
        requests = [{"Driver": "cdi", "Count": 0, "DeviceIDs": qualified, "Capabilities": None, "Options": None}]
    return devices, requests


def _device(text: str) -> Json:
    parts = text.split(":")
    if not parts[0] or len(parts) > 3:
        raise InvalidInputError(f"bad format for path: {text}")
    source = target = parts[0]
    permissions = "rwm"
    if len(parts) == 3:
        target, permissions = parts[1] or source, parts[2]
        if not _is_mode(permissions):
            raise InvalidInputError(f"bad mode specified: {permissions}")
    elif len(parts) == 2 and _is_mode(parts[1]):
        permissions = parts[1]
    elif len(parts) == 2:
        target = parts[1]
    if not target.startswith("/"):
        raise InvalidInputError(f"{target} is not an absolute path")
    return {"PathOnHost": source, "PathInContainer": target, "CgroupPermissions": permissions}


def _is_mode(text: str) -> bool:
    return bool(text) and all(letter in "rwm" for letter in text) and len(set(text)) == len(text)
