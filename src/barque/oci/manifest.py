"""Manifests and indexes: reading them from what a registry or an archive says, and writing them."""

import json
from typing import Any, NamedTuple

from barque.base.errors import InvalidInputError
from barque.oci import digest as digests, media, platform as platforms

Json = dict[str, Any]
BYTES_MAX = 4 << 20
LAYERS_MAX = 125
"""What overlay can stack with room for a container's own; Docker's limit too."""
_SIZE_MAX = 1 << 50


class Descriptor(NamedTuple):
    """What a manifest says of a blob: media type, digest and size in bytes."""

    media_type: str
    digest: str
    size: int
    platform: platforms.Platform | None = None
    annotations: dict[str, str] = {}  # noqa: RUF012  # never changed
    urls: tuple[str, ...] = ()

    def as_json(self) -> Json:
        """Return it in a manifest's form."""
        return {"mediaType": self.media_type, "size": self.size, "digest": self.digest}


class Manifest(NamedTuple):
    """One image on one platform."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: dict[str, str]


class Index(NamedTuple):
    """An image's manifests by platform."""

    media_type: str
    manifests: tuple[Descriptor, ...]
    annotations: dict[str, str]


def parse(raw: bytes, media_type: str = "") -> Manifest | Index:
    """Return what raw describes.

    Args:
        raw: the bytes of a manifest or an index.
        media_type: what the sender says it is; what it says itself counts more.

    Raises:
        InvalidInputError: it is neither, too big, or of the schema that ended with Docker 1.10.
    """
    value = _object(raw)
    kind = value.get("mediaType") or media_type.partition(";")[0].strip()
    if not isinstance(kind, str):
        raise InvalidInputError("invalid manifest: mediaType")
    if kind in media.SCHEMA_1 or value.get("schemaVersion") == 1:
        raise InvalidInputError(
            "Docker Image Format v1 and Docker Image manifest version 2, schema 1 support has been removed"
        )
    if value.get("schemaVersion") != 2:
        raise InvalidInputError("unsupported manifest format")
    annotations = _texts(value.get("annotations"))
    if isinstance(value.get("manifests"), list) and "config" not in value and "layers" not in value:
        entries = tuple(_descriptor(entry, "manifests") for entry in value["manifests"])
        return Index(kind if kind in media.INDEXES else media.OCI_INDEX, entries, annotations)
    if "manifests" in value:
        raise InvalidInputError("invalid manifest: it is an index and a manifest at once")
    layers = value.get("layers") or []
    if not isinstance(layers, list) or "config" not in value:
        raise InvalidInputError("unsupported manifest format")
    if len(layers) > LAYERS_MAX:
        raise InvalidInputError(f"max depth exceeded: the image has {len(layers)} layers, at most {LAYERS_MAX} fit")
    config = _descriptor(value["config"], "config")
    parts = tuple(_descriptor(layer, "layers") for layer in layers)
    return Manifest(kind if kind in media.MANIFESTS else media.OCI_MANIFEST, config, parts, annotations)


def docker_manifest(config: Descriptor, layers: list[Descriptor]) -> bytes:
    """Return a manifest of Docker's schema 2, in the very bytes that Docker writes."""
    value = {
        "schemaVersion": 2,
        "mediaType": media.DOCKER_MANIFEST,
        "config": config.as_json(),
        "layers": [layer.as_json() for layer in layers],
    }
    return json.dumps(value, indent=3, ensure_ascii=False).encode()


def oci_manifest(config: Descriptor, layers: list[Descriptor], annotations: dict[str, str]) -> bytes:
    """Return an OCI image manifest; without annotations it has none."""
    value: Json = {
        "schemaVersion": 2, "mediaType": media.OCI_MANIFEST, "config": config.as_json(),
        "layers": [layer.as_json() for layer in layers],
    }  # fmt: skip
    if annotations:
        value["annotations"] = annotations
    return json.dumps(value, separators=(",", ":")).encode()


def oci_index(entries: list[dict[str, object]], annotations: dict[str, str]) -> bytes:
    """Return an OCI index with these entries; without annotations it has none."""
    value: Json = {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": entries}
    if annotations:
        value["annotations"] = annotations
    return json.dumps(value, separators=(",", ":")).encode()


def docker_list(entries: list[dict[str, object]]) -> bytes:
    """Return a manifest list with these entries, in the form that Docker writes."""
    value = {"schemaVersion": 2, "mediaType": media.DOCKER_LIST, "manifests": entries}
    return json.dumps(value, indent=3, ensure_ascii=False).encode()


def choose(index: Index, wanted: platforms.Platform) -> Descriptor | None:
    """Return the manifest of an index that serves a platform best, None where none does."""
    fitting = [m for m in index.manifests if m.platform and platforms.fits(m.platform, wanted)]
    exact = [m for m in fitting if m.platform == wanted]
    return (exact or fitting or [None])[0]  # type: ignore[list-item]


def is_attestation(entry: Descriptor) -> bool:
    """Tell whether an index's entry says something about another one instead of being an image."""
    return "vnd.docker.reference.type" in entry.annotations


def _object(raw: bytes) -> Json:
    if len(raw) > BYTES_MAX:
        raise InvalidInputError(f"invalid manifest: larger than {BYTES_MAX} bytes")
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"invalid manifest: {error}") from None
    if not isinstance(value, dict):
        raise InvalidInputError("invalid manifest: not an object")
    return value


def _descriptor(value: object, where: str) -> Descriptor:
    if not isinstance(value, dict):
        raise InvalidInputError(f"invalid manifest: {where}: not an object")
    kind, size = value.get("mediaType", ""), value.get("size")
    if not isinstance(kind, str):
        raise InvalidInputError(f"invalid manifest: {where}: mediaType")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= _SIZE_MAX:
        raise InvalidInputError(f"invalid manifest: {where}: size")
    urls = value.get("urls") or []
    if not isinstance(urls, list) or not all(isinstance(u, str) for u in urls):
        raise InvalidInputError(f"invalid manifest: {where}: urls")
    found = value.get("platform")
    return Descriptor(
        kind,
        digests.check(value.get("digest")),
        size,
        _platform(found) if isinstance(found, dict) else None,
        _texts(value.get("annotations")),
        tuple(urls),
    )


def _platform(value: Json) -> platforms.Platform:
    parts = [value.get(key) or "" for key in ("os", "architecture", "variant")]
    if not all(isinstance(part, str) for part in parts):
        raise InvalidInputError("invalid manifest: platform")
    return platforms.Platform(*parts)


def _texts(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        return {}
    return {k: v for k, v in value.items() if isinstance(v, str)}
