"""What lies behind an image's name: its manifests by platform, with what of them is here."""

import json
from collections.abc import Mapping, Sequence

from barque.images.model import Image, Json
from barque.images.store import ImageStore
from barque.oci import digest as digests, manifest as manifests, media, platform as platforms

Containers = Mapping[str, Sequence[str]]
"""Ids of the containers of an image, by the image's id."""


def manifest_of(store: ImageStore, image: Image) -> bytes:
    """Return the manifest that describes an image as it lies here: with its plain layers."""
    layers = [{"mediaType": media.OCI_LAYER, "digest": d, "size": store.content.size(d)} for d in image.diff_ids]
    config = {"mediaType": media.OCI_CONFIG, "digest": image.id, "size": len(image.raw)}
    value = {"schemaVersion": 2, "mediaType": media.OCI_MANIFEST, "config": config, "layers": layers}
    return json.dumps(value, separators=(",", ":")).encode()


def descriptor(store: ImageStore, image: Image) -> Json:
    """Return the descriptor of what the image was pulled by, or of the manifest that describes it here."""
    raw = _target(store, image)
    parsed = manifests.parse(raw)
    return {"mediaType": parsed.media_type, "digest": digests.of(raw), "size": len(raw)}


def summaries(store: ImageStore, image: Image, containers: Containers) -> list[Json]:
    """Return a row for every manifest of what the image was pulled by."""
    raw = _target(store, image)
    parsed = manifests.parse(raw)
    if isinstance(parsed, manifests.Manifest):
        shown = {"mediaType": parsed.media_type, "digest": digests.of(raw), "size": len(raw)}
        return [_row(store, image, shown, containers)]
    known = {i.id: i for i in store.images()}
    rows = []
    for entry, value in zip(parsed.manifests, json.loads(raw)["manifests"], strict=True):
        here = known.get(store.image_of_manifest(entry.digest))
        if manifests.is_attestation(entry):
            about = entry.annotations.get("vnd.docker.reference.digest", "")
            rows.append({**_absent(value, entry), "Kind": "attestation", "AttestationData": {"For": about}})
        elif here is None:
            data: Json = {"Platform": value.get("platform") or {}, "Containers": [], "Size": {"Unpacked": 0}}
            rows.append({**_absent(value, entry), "Kind": "image", "ImageData": data})
        else:
            rows.append(_row(store, here, value, containers))
    return rows


def _target(store: ImageStore, image: Image) -> bytes:
    for name in (*image.names, *image.digests):
        target = store.target(name)
        if target and store.content.has(target):
            return store.content.read(target)
    for digest in store.manifests_of(image.id):
        if store.content.has(digest):
            return store.content.read(digest)
    return manifest_of(store, image)


def _absent(value: Json, entry: manifests.Descriptor) -> Json:
    return {
        "ID": entry.digest,
        "Descriptor": value,
        "Available": False,
        "Size": {"Content": 0, "Total": 0},
    }


def _row(store: ImageStore, image: Image, value: Json, containers: Containers) -> Json:
    content = value["size"] + len(image.raw) + sum(store.content.size(d) for d in set(image.diff_ids))
    platform = platforms.of_config(image.config)
    shown = {"architecture": platform.architecture, "os": platform.os}
    if platform.variant:
        shown["variant"] = platform.variant
    return {
        "ID": value["digest"],
        "Descriptor": value,
        "Available": True,
        "Size": {"Content": content, "Total": content + image.size},
        "Kind": "image",
        "ImageData": {
            "Platform": shown,
            "Containers": list(containers.get(image.id, [])),
            "Size": {"Unpacked": image.size},
        },
    }
