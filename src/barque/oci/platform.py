"""Platforms: `os/arch[/variant]`, this machine's, and choosing among an index's entries."""

import os
from typing import Any, NamedTuple

from barque.base.errors import InvalidInputError

_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "amd64": ("amd64", ""),
    "aarch64": ("arm64", "v8"),
    "arm64": ("arm64", "v8"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i686": ("386", ""),
    "i386": ("386", ""),
    "ppc64le": ("ppc64le", ""),
    "s390x": ("s390x", ""),
    "riscv64": ("riscv64", ""),
}


class Platform(NamedTuple):
    """An operating system, an architecture and perhaps its variant."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        text = f"{self.os}/{self.architecture}"
        return f"{text}/{self.variant}" if self.variant else text


def host() -> Platform:
    """Return this machine's platform."""
    machine = os.uname().machine
    architecture, variant = _ARCHITECTURES.get(machine, (machine, ""))
    return Platform("linux", architecture, variant)


def usual(platform: Platform) -> Platform:
    """Return a platform as clients name it: the one variant that arm64 has is left out."""
    return platform._replace(variant="") if platform[1:] == ("arm64", "v8") else platform


def parse(text: str) -> Platform:
    """Return the platform a user wrote: `linux/arm64/v8`, `arm64` or `linux`.

    Raises:
        InvalidInputError: it has empty or too many parts.
    """
    parts = text.lower().split("/")
    if not 1 <= len(parts) <= 3 or not all(p.replace("_", "").isalnum() for p in parts):
        raise InvalidInputError(f'"{text}" is an invalid platform specifier')
    if len(parts) == 1:
        if parts[0] == "linux":
            return host()
        parts.insert(0, "linux")
    architecture, variant = _ARCHITECTURES.get(parts[1], (parts[1], ""))
    return Platform(parts[0], architecture, parts[2] if len(parts) == 3 else variant)


def of_config(config: dict[str, Any]) -> Platform:
    """Return the platform that an image config or an index entry names; missing parts are the host's."""
    here = host()
    return Platform(
        str(config.get("os") or here.os),
        str(config.get("architecture") or here.architecture),
        str(config.get("variant") or ""),
    )


def fits(offered: Platform, wanted: Platform) -> bool:
    """Tell whether an image of the offered platform serves the wanted one."""
    if offered[:2] != wanted[:2]:
        return False
    default = "v8" if wanted.architecture == "arm64" else ""
    return not wanted.variant or (offered.variant or default) == (wanted.variant or default)
