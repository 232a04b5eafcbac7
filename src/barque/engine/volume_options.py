"""Names and options of local volumes. Pure."""

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, urlsplit

from barque.base.errors import InvalidInputError
from barque.engine.checks import parse_size

Json = dict[str, Any]
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_KNOWN = {"type", "device", "o", "size"}
_NEEDS = {"device": ("type",), "type": ("device",), "o": ("device", "type")}


class LocalMount:
    """What a local volume's options ask the kernel to mount: type, device, words of `o`."""

    __slots__ = ("device", "kind", "words")

    def __init__(self, kind: str, device: str, words: list[str]) -> None:
        self.kind, self.device, self.words = kind, device, words


def without_password(data: str) -> str:
    """Return a file system's own mount options without a password, for messages."""
    return ",".join("password=********" if word.startswith("password=") else word for word in data.split(","))


def check_name(name: str) -> None:
    """Refuse a name that no local volume can have.

    Raises:
        InvalidInputError: says which names can be.
    """
    if len(name) == 1:
        raise InvalidInputError(
            f"create {name}: volume name is too short, names should be at least two alphanumeric characters"
        )
    if not _NAME.fullmatch(name) or len(name) > 255:
        raise InvalidInputError(
            f'create {name}: "{name}" includes invalid characters for a local volume name, only '
            '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, '
            "use absolute path"
        )


def check_options(options: Json) -> None:
    """Refuse options that the local driver has not, or that lack others.

    Raises:
        InvalidInputError: names the option.
    """
    for key in options:
        if key not in _KNOWN:
            raise InvalidInputError(f'invalid option: "{key}"')
    if options.get("type") == "cifs" and options.get("device") and urlsplit(_slashed(options["device"])).port:
        raise InvalidInputError("port not allowed in CIFS device URL, include 'port' in 'o='")
    if "size" in options:
        parse_size(options["size"])
    for key, needed in _NEEDS.items():
        for other in needed if key in options else ():
            if other not in options:
                raise InvalidInputError(f'missing required option: "{other}"')


def _slashed(device: str) -> str:
    return device.replace("\\", "/")


def size_limit(options: Json) -> int:
    """Return the bytes that a volume may take, 0 for any number."""
    return parse_size(options["size"]) if options.get("size") else 0


def local_mount(options: Json, resolve: Callable[[str], str]) -> LocalMount | None:
    """Return what to mount for these options, None where the volume is a folder.

    Args:
        options: type, device and o as the user gave them.
        resolve: gives the address of a host's name, which the kernel needs for network file systems.

    Raises:
        InvalidInputError: type is given without a device.
    """
    kind, device = options.get("type") or "", options.get("device") or ""
    if not kind and not device:
        return None
    if not device:
        raise InvalidInputError("missing device in volume options")
    words = [word for word in (options.get("o") or "").split(",") if word]
    if kind in ("nfs", "nfs4", "cifs"):
        given = [word for word in words if word.startswith("addr=")]
        if given:
            words = ["addr=" + resolve(word[5:]) if word.startswith("addr=") else word for word in words]
        elif kind == "cifs":
            device = _with_address(device, resolve)
    return LocalMount(kind, device, words)


def _with_address(device: str, resolve: Callable[[str], str]) -> str:
    parts = urlsplit(device)
    if not parts.hostname:
        return device
    return unquote(device.replace(parts.netloc, parts.netloc.replace(parts.hostname, resolve(parts.hostname)), 1))
