"""Which AppArmor profile a container's processes get, where the kernel has AppArmor. It loads none."""

import os
from typing import Any

from barque.base.errors import InvalidInputError
from barque.engine.checks import parse_security_option

Json = dict[str, Any]
_LOADED = "/sys/kernel/security/apparmor/profiles"
DEFAULT = "docker-default"
UNCONFINED = "unconfined"


def profile_of(host: Json, *, loaded: str = _LOADED) -> str:
    """Return the profile that HostConfig asks for, else the default one where it is loaded; empty for none.

    Args:
        host: HostConfig.
        loaded: the kernel's list of profiles, a line `name (mode)` each.
    """
    if host.get("Privileged"):
        return ""
    wanted = _wanted(host)
    if wanted:
        return "" if wanted == UNCONFINED else wanted
    return DEFAULT if DEFAULT in _names(loaded) else ""


def check(host: Json, *, loaded: str = _LOADED) -> None:
    """Refuse a profile that the kernel does not have: it would be missed only when the container starts.

    Raises:
        InvalidInputError: names the profile.
    """
    wanted = _wanted(host)
    if wanted in ("", UNCONFINED) or host.get("Privileged"):
        return
    if not os.path.exists(loaded):
        raise InvalidInputError(f"apparmor profile {wanted}: AppArmor is not enabled on this machine")
    if wanted not in _names(loaded):
        raise InvalidInputError(f"apparmor profile {wanted} is not loaded: load it with apparmor_parser")


def _wanted(host: Json) -> str:
    found = ""
    for option in host.get("SecurityOpt") or []:
        key, value = parse_security_option(option)
        if key == "apparmor":
            found = value
    return found


def _names(path: str) -> set[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return {line.rpartition(" (")[0] for line in file}
    except OSError:
        return set()
