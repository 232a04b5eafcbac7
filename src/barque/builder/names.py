"""The names that a request gives: tags, and the arguments that platforms make."""

from typing import Any

from barque.base.errors import InvalidInputError
from barque.oci import platform as platforms
from barque.oci.reference import parse


def platform_values(target: str) -> dict[str, str]:
    """Return TARGETPLATFORM, BUILDOS and their kin.

    Raises:
        InvalidInputError: target is no platform.
    """
    host = platforms.host()
    wanted = platforms.parse(target) if target else host
    values: dict[str, str] = {}
    for prefix, found in (("TARGET", wanted), ("BUILD", host)):
        values |= {f"{prefix}PLATFORM": str(found), f"{prefix}OS": found.os, f"{prefix}ARCH": found.architecture,
                   f"{prefix}VARIANT": found.variant}  # fmt: skip
    return values


def tags_of(texts: list[str]) -> list[Any]:
    """Return the references that an image is given, each once.

    Raises:
        InvalidInputError: one is no name.
    """
    found: dict[str, Any] = {}
    for text in texts:
        if not text:
            continue
        reference = parse(text).with_default_tag()
        if reference.digest:
            raise InvalidInputError("build tag cannot contain a digest")
        found.setdefault(str(reference), reference)
    return list(found.values())
