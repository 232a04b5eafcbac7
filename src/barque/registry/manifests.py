"""Manifests as the registry sees them: their type, what they refer to, their subject. Pure."""

import json
from typing import Any, NamedTuple

from barque.base.errors import InvalidInputError
from barque.oci import digest as digests, media
from barque.registry.errors import RegistryError, manifest_invalid

SIZE_MAX = 4 << 20
"""Bytes; the specification asks for at least this much."""
REFERENCES_MAX = 10_000
_NOT_DISTRIBUTED = (
    "application/vnd.oci.image.layer.nondistributable.v1.",
    "application/vnd.docker.image.rootfs.foreign.diff.",
)
_SCHEMA_1 = (
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
)

Json = dict[str, Any]


class Manifest(NamedTuple):
    """What a manifest says."""

    media_type: str
    blobs: tuple[str, ...]
    """Digests that must be in the repository: config and layers."""
    manifests: tuple[str, ...]
    """Digests of an index's entries."""
    subject: str
    """The digest of what it is about, empty without."""
    artifact_type: str
    annotations: Json

    def descriptor(self, digest: str, size: int) -> Json:
        """Return how a list of referrers names this manifest."""
        found: Json = {"mediaType": self.media_type, "digest": digest, "size": size}
        if self.artifact_type:
            found["artifactType"] = self.artifact_type
        if self.annotations:
            found["annotations"] = self.annotations
        return found


def parse(raw: bytes, content_type: str) -> Manifest:
    """Return what the manifest says.

    Args:
        raw: its bytes.
        content_type: of the request, empty if it had none; parameters are ignored.

    Raises:
        RegistryError: MANIFEST_INVALID.
    """
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError):
        raise manifest_invalid("not JSON") from None
    if not isinstance(content, dict):
        raise manifest_invalid("not an object")
    media_type = _media_type(content, content_type.partition(";")[0].strip())
    try:
        if media_type in media.INDEXES:
            return _index(content, media_type)
        return _image(content, media_type)
    except InvalidInputError as error:
        raise manifest_invalid(str(error)) from None


def _media_type(content: Json, header: str) -> str:
    if content.get("schemaVersion") != 2:
        raise manifest_invalid("unsupported schema version")
    own = content.get("mediaType", "")
    if not isinstance(own, str):
        raise manifest_invalid("mediaType is no text")
    if own and header and own != header:
        raise manifest_invalid(f"mediaType in manifest should be '{header}' not '{own[:100]}'")
    found = own or header
    if not found:
        found = media.OCI_INDEX if "manifests" in content else media.OCI_MANIFEST
    if found in _SCHEMA_1 or found not in media.INDEXES | media.MANIFESTS:
        raise manifest_invalid(f"unsupported media type '{found[:100]}'")
    if (found in media.INDEXES and ("layers" in content or "config" in content)) or (
        found in media.MANIFESTS and "manifests" in content
    ):
        raise manifest_invalid("it has the fields of both an image and an index")
    return found


def _image(content: Json, media_type: str) -> Manifest:
    config = _descriptor(content.get("config"), "config")
    blobs = [config["digest"]]
    for layer in _list(content, "layers"):
        checked = _descriptor(layer, "layers")
        if not checked["mediaType"].startswith(_NOT_DISTRIBUTED):
            blobs.append(checked["digest"])
    artifact_type = _text(content, "artifactType") or config["mediaType"]
    return _manifest(content, media_type, blobs, [], artifact_type)


def _index(content: Json, media_type: str) -> Manifest:
    entries = [_descriptor(entry, "manifests")["digest"] for entry in _list(content, "manifests")]
    return _manifest(content, media_type, [], entries, _text(content, "artifactType"))


def _manifest(content: Json, media_type: str, blobs: list[str], manifests: list[str], artifact_type: str) -> Manifest:
    subject = content.get("subject")
    annotations = content.get("annotations")
    annotations = {} if annotations is None else annotations
    if not isinstance(annotations, dict):
        raise manifest_invalid("annotations are no object")
    about = _descriptor(subject, "subject")["digest"] if subject is not None else ""
    return Manifest(
        media_type,
        tuple(dict.fromkeys(blobs)),
        tuple(dict.fromkeys(manifests)),
        about,
        artifact_type,
        annotations,
    )


def _list(content: Json, key: str) -> list[Any]:
    found = content.get(key)
    if found is None and key == "layers":
        return []
    if not isinstance(found, list):
        raise manifest_invalid(f"{key} is no list")
    if len(found) > REFERENCES_MAX:
        raise manifest_invalid(f"more than {REFERENCES_MAX} entries in {key}")
    return found


def _text(content: Json, key: str) -> str:
    found = content.get(key, "")
    if not isinstance(found, str):
        raise manifest_invalid(f"{key} is no text")
    return found


def _descriptor(value: Any, where: str) -> Json:
    if not isinstance(value, dict):
        raise manifest_invalid(f"{where} holds no descriptor")
    digests.split(value.get("digest", ""))
    size = value.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise manifest_invalid(f"{where} has an invalid size")
    return {"mediaType": _text(value, "mediaType"), "digest": value["digest"], "size": size}


def blobs_unknown(missing: list[str]) -> RegistryError:
    """Return the refusal of a manifest that refers to what the repository does not have."""
    return RegistryError(
        404,
        "MANIFEST_BLOB_UNKNOWN",
        "manifest references a manifest or blob unknown to registry",
        detail=[{"digest": digest} for digest in missing[:100]],
    )
