"""Names in requests: repositories, tags, digests, and the paths that carry them. Pure."""

import re
from typing import NamedTuple

from barque.base.errors import InvalidInputError
from barque.oci import digest as digests
from barque.registry.errors import RegistryError, digest_invalid, name_invalid

NAME_LENGTH_MAX = 255
_NAME = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_UPLOAD = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class Target(NamedTuple):
    """What a path means.

    `kind` is one of base, catalog, tags, manifest, blob, uploads, upload, referrers; `reference` is
    the tag, digest or upload behind it.
    """

    kind: str
    name: str = ""
    reference: str = ""


def check_name(name: str) -> str:
    """Return name if it can be a repository's.

    Raises:
        RegistryError: NAME_INVALID.
    """
    if len(name) > NAME_LENGTH_MAX or not _NAME.fullmatch(name):
        raise name_invalid(name)
    return name


def check_digest(text: str) -> str:
    """Return text if it is a digest of an algorithm that is supported here.

    Raises:
        RegistryError: DIGEST_INVALID.
    """
    try:
        digests.split(text)
    except InvalidInputError:
        raise digest_invalid(text, "invalid or unsupported digest") from None
    return text


def is_digest(reference: str) -> bool:
    """Tell whether a manifest's reference is meant as a digest: no tag has a colon."""
    return ":" in reference


def is_tag(text: str) -> bool:
    """Tell whether text can be a tag."""
    return _TAG.fullmatch(text) is not None


def is_upload(text: str) -> bool:
    """Tell whether text can be an upload's identifier."""
    return _UPLOAD.fullmatch(text) is not None


def parse_path(path: str) -> Target | None:
    """Return what a path means, None if it is none of the registry's.

    Raises:
        RegistryError: the repository's name is invalid.
    """
    if path in ("/v2/", "/v2"):
        return Target("base")
    if path == "/v2/_catalog":
        return Target("catalog")
    if not path.startswith("/v2/"):
        return None
    parts = path[len("/v2/") :].split("/")
    if len(parts) >= 3 and parts[-2:] == ["tags", "list"]:
        return Target("tags", check_name("/".join(parts[:-2])))
    if len(parts) >= 4 and parts[-3:-1] == ["blobs", "uploads"]:
        name = check_name("/".join(parts[:-3]))
        return Target("upload", name, parts[-1]) if parts[-1] else Target("uploads", name)
    if len(parts) >= 3 and parts[-2:] == ["blobs", "uploads"]:
        return Target("uploads", check_name("/".join(parts[:-2])))
    if len(parts) >= 3 and parts[-2] in ("manifests", "blobs", "referrers"):
        kind = {"manifests": "manifest", "blobs": "blob", "referrers": "referrers"}[parts[-2]]
        return Target(kind, check_name("/".join(parts[:-2])), parts[-1])
    return None


def page(query_n: str | None, *, most: int) -> int:
    """Return how many entries a listing's `n` asks for, at most `most`.

    Raises:
        RegistryError: it is no number.
    """
    if query_n is None:
        return most
    if not query_n.isascii() or not query_n.isdigit():
        raise RegistryError(
            400, "PAGINATION_NUMBER_INVALID", "invalid number of results requested", detail={"n": query_n[:50]}
        )
    return min(int(query_n[:18]), most)
