"""Seccomp profiles as Docker's users write them, resolved for one container.

Such a profile has conditions (capabilities, architectures, a least kernel version) on its rules and an
`archMap`; a runtime's `linux.seccomp` has neither. Who calls it: the engine when it makes a spec.
"""

import json
import os
import re
from collections.abc import Collection
from typing import Any

from barque.base.errors import InvalidInputError

Json = dict[str, Any]

_DOCKER_ARCH = {"x86_64": "amd64", "aarch64": "arm64", "riscv64": "riscv64", "i686": "x86", "armv7l": "arm",
                "ppc64le": "ppc64le", "s390x": "s390x"}  # fmt: skip
_SCMP_ARCH = {"amd64": "SCMP_ARCH_X86_64", "arm64": "SCMP_ARCH_AARCH64", "riscv64": "SCMP_ARCH_RISCV64",
              "x86": "SCMP_ARCH_X86", "arm": "SCMP_ARCH_ARM", "ppc64le": "SCMP_ARCH_PPC64LE",
              "s390x": "SCMP_ARCH_S390X"}  # fmt: skip


def default_profile() -> Json:
    """Return Docker's default profile."""
    with open(os.path.join(os.path.dirname(__file__), "seccomp_default.json"), encoding="utf-8") as file:
        profile: Json = json.load(file)
    return profile


def parse_profile(text: str) -> Json:
    """Return a profile given by a user.

    Raises:
        InvalidInputError: it is not JSON, or not a profile.
    """
    try:
        profile = json.loads(text)
    except ValueError as error:
        raise InvalidInputError(f"Decoding seccomp profile failed: {error}") from error
    if not isinstance(profile, dict) or not isinstance(profile.get("defaultAction"), str):
        raise InvalidInputError("Decoding seccomp profile failed: it has no defaultAction")
    if not isinstance(profile.get("syscalls") or [], list):
        raise InvalidInputError("Decoding seccomp profile failed: syscalls is not a list")
    if profile.get("architectures") and profile.get("archMap"):
        raise InvalidInputError("use either 'architectures' or 'archMap'")
    return profile


def machine_arch() -> str:
    """Return this machine's architecture in Docker's words."""
    machine = os.uname().machine
    return _DOCKER_ARCH.get(machine, machine)


def _version(text: str) -> tuple[int, int]:
    match = re.match(r"(\d+)\.(\d+)", text)
    if match is None:
        raise InvalidInputError(f"seccomp profile: invalid kernel version {text!r}")
    return int(match[1]), int(match[2])


def _applies(rule: Json, caps: Collection[str], arch: str, kernel: str) -> bool:
    includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
    if excludes.get("arches") and arch in excludes["arches"]:
        return False
    if any(cap in caps for cap in excludes.get("caps") or []):
        return False
    if excludes.get("minKernel") and _version(kernel) >= _version(excludes["minKernel"]):
        return False
    if includes.get("arches") and arch not in includes["arches"]:
        return False
    if any(cap not in caps for cap in includes.get("caps") or []):
        return False
    return not includes.get("minKernel") or _version(kernel) >= _version(includes["minKernel"])


def _architectures(profile: Json, arch: str) -> list[str]:
    native = _SCMP_ARCH.get(arch)
    for entry in profile.get("archMap") or []:
        if entry.get("architecture") == native:
            return [entry["architecture"], *(entry.get("subArchitectures") or [])]
    return list(profile.get("architectures") or [])


def resolve(profile: Json, caps: Collection[str], arch: str = "", kernel: str = "") -> Json:
    """Return the OCI `linux.seccomp` object for a container with these bounding capabilities.

    Args:
        profile: with conditions, as `default_profile` or `parse_profile` return it.
        caps: names with the CAP_ prefix.
        arch: in Docker's words (amd64, arm64); this machine's where empty.
        kernel: release of the kernel; this machine's where empty.

    Raises:
        InvalidInputError: a rule is malformed.
    """
    arch = arch or machine_arch()
    kernel = kernel or os.uname().release
    rules: list[Json] = []
    for rule in profile.get("syscalls") or []:
        if not isinstance(rule, dict):
            raise InvalidInputError("seccomp profile: a rule is not an object")
        names = rule.get("names") or ([rule["name"]] if rule.get("name") else [])
        if rule.get("name") and rule.get("names"):
            raise InvalidInputError("use either 'name' or 'names' in a seccomp rule, not both")
        if not names or not _applies(rule, caps, arch, kernel):
            continue
        kept: Json = {"names": names, "action": rule.get("action", "")}
        kept.update({key: rule[key] for key in ("args", "errnoRet") if rule.get(key)})
        rules.append(kept)
    resolved: Json = {"defaultAction": profile["defaultAction"], "syscalls": rules}
    if profile.get("defaultErrnoRet") is not None:
        resolved["defaultErrnoRet"] = profile["defaultErrnoRet"]
    architectures = _architectures(profile, arch)
    if architectures:
        resolved["architectures"] = architectures
    if profile.get("flags"):
        resolved["flags"] = profile["flags"]
    return resolved
