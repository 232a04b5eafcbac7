"""Checks and readings of single values of run's, create's and exec's flags, done as the line is parsed."""

from __future__ import annotations

import os

from barque.cli.addresses import is_ip
from barque.cli.run_mounts import csv_fields, parse_mount
from barque.cli.units import parse_bytes

TYPE_CHECKING = False  # the module typing costs every start of the command milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_ULIMITS = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
]


def _env(text: str) -> str:
    name, equals, _ = text.partition("=")
    if not name:
        raise ValueError(f"invalid environment variable: {text}")
    if equals:
        return text
    return f"{text}={os.environ[text]}" if text in os.environ else text


def _label(text: str) -> str:
    if not text.partition("=")[0].strip():
        raise ValueError(f"invalid label '{text}': empty name")
    return text


def _attach(text: str) -> str:
    if text.lower() not in ("stdin", "stdout", "stderr"):
        raise ValueError("valid streams are STDIN, STDOUT and STDERR")
    return text.lower()


def _link(text: str) -> str:
    if not text:
        raise ValueError("empty string specified for links")
    parts = text.split(":")
    if len(parts) > 2:
        raise ValueError(f"bad format for links: {text}")
    return text


def _ulimit(text: str) -> dict[str, Any]:
    name, equals, limits = text.partition("=")
    if not equals:
        raise ValueError(f"invalid ulimit argument: {text}")
    if name not in _ULIMITS:
        raise ValueError(f"invalid ulimit type: {name}")
    values = []
    parts = limits.split(":")
    if len(parts) > 2:
        raise ValueError(f"too many limit value arguments - {limits}, can only have up to two, `soft[:hard]`")
    for part in parts:
        try:
            values.append(int(part))
        except ValueError:
            raise ValueError(f'strconv.ParseInt: parsing "{part}": invalid syntax') from None
    soft, hard = values[0], values[-1]
    if hard != -1 and (soft == -1 or soft > hard):
        shown = "unlimited" if soft == -1 else str(soft)
        if soft == -1:
            raise ValueError(
                f"ulimit soft limit must be less than or equal to hard limit: soft: -1 (unlimited), hard: {hard}"
            )
        raise ValueError(f"ulimit soft limit must be less than or equal to hard limit: {shown} > {hard}")
    return {"Name": name, "Hard": hard, "Soft": soft}


def _sysctl(text: str) -> str:
    known = (
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    )
    name, equals, _ = text.partition("=")
    if not equals or not (name in known or name.startswith(("net.", "fs.mqueue."))):
        raise ValueError(f"sysctl '{text}' is not allowed")
    return text


def _weight_device(text: str) -> dict[str, Any]:
    path, colon, weight = text.partition(":")
    if not colon:
        raise ValueError(f"bad format: {text}")
    if not path.startswith("/dev/"):
        raise ValueError(f"bad format for device path: {text}")
    if not weight.isdigit() or (int(weight) > 0 and not 10 <= int(weight) <= 1000):
        raise ValueError(f"invalid weight for device: {text}")
    return {"Path": path, "Weight": int(weight)}


def _rate(unit_allowed: bool) -> Callable[[str], dict[str, Any]]:
    def read(text: str) -> dict[str, Any]:
        path, colon, rate = text.partition(":")
        if not colon:
            raise ValueError(f"bad format: {text}")
        if not path.startswith("/dev/"):
            raise ValueError(f"bad format for device path: {text}")
        try:
            if unit_allowed:
                return {"Path": path, "Rate": parse_bytes(rate)}
            if not rate.isdigit():
                raise ValueError
            return {"Path": path, "Rate": int(rate)}
        except ValueError:
            form = "<number>[<unit>]" if unit_allowed else "<number>"
            tail = ". Unit is optional and can be kb, mb, or gb" if unit_allowed else ""
            raise ValueError(
                f"invalid rate for device: {text}. The correct format is <device-path>:{form}. "
                f"Number must be a positive integer{tail}"
            ) from None

    return read


def _add_host(text: str) -> str:
    host, found, address = text.partition("=")
    if not found:
        host, found, address = text.partition(":")
    if not found or not host:
        raise ValueError(f'bad format for add-host: "{text}"')
    if len(address) > 2 and address[0] == "[" and address[-1] == "]":
        address = address[1:-1]
    if address != "host-gateway" and not is_ip(address):
        raise ValueError(f'invalid IP address in add-host: "{address}"')
    return f"{host}:{address}"


def _dns(text: str) -> str:
    if not is_ip(text.strip()):
        raise ValueError(f"IP address is not correctly formatted: {text}")
    return text.strip()


def _dns_search(text: str) -> str:
    text = text.strip()
    if text == ".":
        return text
    labels = text.rstrip(".").split(".")
    valid = all(part and len(part) < 64 and part.replace("-", "").replace("_", "").isalnum() for part in labels)
    if not valid or len(text) > 255:
        raise ValueError(f"{text} is not a valid domain")
    return text


def _device_rule(text: str) -> str:
    import re

    if not re.fullmatch(r"[acb] ([0-9]+|\*):([0-9]+|\*) [rwm]{1,3}", text):
        raise ValueError(f"invalid device cgroup format '{text}'")
    return text


def _gpus(text: str) -> dict[str, Any]:
    request: dict[str, Any] = {"Driver": "", "Count": 0, "DeviceIDs": None, "Capabilities": None, "Options": {}}
    capabilities = ["gpu"]
    seen: set[str] = set()
    for field in csv_fields(text):
        key, equals, value = field.partition("=")
        if key in seen:
            raise ValueError(f"gpu request key '{key}' can be specified only once")
        seen.add(key)
        if not equals:
            seen.add("count")
            request["Count"] = _gpu_count(key)
        elif key == "driver":
            request["Driver"] = value
        elif key == "count":
            request["Count"] = _gpu_count(value)
        elif key == "device":
            request["DeviceIDs"] = value.split(",")
        elif key == "capabilities":
            capabilities = [*value.split(","), "gpu"]
        elif key == "options":
            request["Options"] = dict(_pair(item) for item in csv_fields(value))
        else:
            raise ValueError(f"unexpected key '{key}' in '{field}'")
    if "count" not in seen and request["DeviceIDs"] is None:
        request["Count"] = 1
    request["Capabilities"] = [capabilities]
    return request


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value


def _gpu_count(text: str) -> int:
    if text == "all":
        return -1
    try:
        return int(text)
    except ValueError:
        raise ValueError(
            f'invalid count ({text}): value must be either "all" or an integer: '
            f'strconv.Atoi: parsing "{text}": invalid syntax'
        ) from None


def _network(text: str) -> dict[str, Any]:
    network: dict[str, Any] = {"target": text, "aliases": [], "options": {}, "link-local": []}
    if "=" not in text:
        return network
    import re

    if not re.search(r"\w=\w", text, re.ASCII):
        return network
    network["target"] = ""
    for field in csv_fields(text):
        key, equals, value = field.partition("=")
        key, value = key.strip().lower(), value.strip()
        if not equals or not key:
            raise ValueError(f"invalid field {field}")
        if key == "name":
            network["target"] = value
        elif key == "alias":
            network["aliases"].append(value)
        elif key in ("ip", "ip6", "mac-address"):
            network[key] = value
        elif key == "link-local-ip":
            network["link-local"].append(value)
        elif key == "gw-priority":
            try:
                network[key] = int(value)
            except ValueError:
                raise ValueError(f"invalid gw-priority ({value}): invalid syntax") from None
        elif key == "driver-opt":
            name, found, content = value.partition("=")
            if not found:
                raise ValueError(f"invalid key value pair format in driver options: {value}")
            network["options"][name] = content
        else:
            raise ValueError(f"invalid field key {key}")
    if not network["target"]:
        raise ValueError("network name/id is not specified")
    return network


VALIDATORS: dict[str, Callable[[str], Any]] = {
    "env": _env,
    "label": _label,
    "attach": _attach,
    "link": _link,
    "ulimit": _ulimit,
    "sysctl": _sysctl,
    "blkio-weight-device": _weight_device,
    "device-read-bps": _rate(True),
    "device-write-bps": _rate(True),
    "device-read-iops": _rate(False),
    "device-write-iops": _rate(False),
    "add-host": _add_host,
    "dns": _dns,
    "dns-search": _dns_search,
    "device-cgroup-rule": _device_rule,
    "mount": parse_mount,
    "gpus": _gpus,
    "network": _network,
    "net": _network,
}
