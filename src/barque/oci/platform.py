"""Platforms: `os/arch[/variant]`, this machine's, and choosing among an index's entries."""

import os
import re
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
_OSES = frozenset(
    ["aix", "android", "darwin", "dragonfly", "freebsd", "hurd", "illumos", "ios", "js", "linux", "nacl", "netbsd", "openbsd", "plan9", "solaris", "windows", "zos"]
)
# Those with other names, and those that go by their own.
_KNOWN_ARCHITECTURES = _ARCHITECTURES.keys() | frozenset(
    ["386", "arm", "armbe", "arm64be", "armel", "armhf", "loong64", "mips", "mipsle", "mips64", "mips64le", "ppc", "ppc64", "riscv", "s390", "sparc", "sparc64", "wasm"]
)
_OS_PART, _PART = "^([A-Za-z0-9_-]+)$", "^[A-Za-z0-9_.-]+$"


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
        InvalidInputError: it has empty, unknown or too many parts.
    """
    parts = text.lower().split("/")
    if len(parts) > 3:
        raise InvalidInputError(f'"{text}": cannot parse platform specifier: invalid argument')
    for number, part in enumerate(parts):
        kind, form = ("OS component", _OS_PART) if number == 0 else ("component", _PART)
        if re.fullmatch(form[1:-1], part) is None:
            raise InvalidInputError(
                f'"{part}" is an invalid {kind} of "{text}": platform specifier component must match "{form}": invalid argument'
            )
    if len(parts) == 1:
        if parts[0] in _OSES:
            return host()._replace(os=parts[0])
        if parts[0] not in _KNOWN_ARCHITECTURES:
            raise InvalidInputError(f'"{text}": unknown operating system or architecture: invalid argument')
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
