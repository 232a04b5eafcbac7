"""Saving images: one tar that is an OCI layout and Docker's archive at once."""

import json
from collections.abc import Iterator, Sequence

from barque.base.errors import InvalidInputError
from barque.images.model import Image, Json
from barque.images.store import ImageStore
from barque.images.summaries import manifest_of
from barque.oci import digest as digests, media
from barque.oci.platform import Platform
from barque.oci.reference import Reference, parse
from barque.storage.archive.tar import BLOCK, FOLDER
from barque.storage.archive.write import END, file, header
from barque.storage.content import CHUNK


class Selected:
    """The images to save with the names to save them under."""

    def __init__(self) -> None:
        self.images: dict[str, Image] = {}
        self.names: dict[str, list[Reference]] = {}

    def add(self, image: Image, names: Sequence[Reference]) -> None:
        """Add an image once, its names once each."""
        self.images[image.id] = image
        known = self.names.setdefault(image.id, [])
        known += [name for name in names if name not in known]


def select(store: ImageStore, refs: Sequence[str], wanted: Sequence[Platform] = ()) -> Selected:
    """Return what the refs mean: an id has no name, a name without a tag means all its tags.

    Args:
        store: where they are.
        refs: what the user typed.
        wanted: for these platforms; empty: for the one that the name means.

    Raises:
        NotFoundError: an image is unknown, or not here for a platform.
    """
    chosen = Selected()

    def images(ref: str) -> list[Image]:
        return [store.resolve_platform(ref, p) for p in wanted] or [store.resolve(ref)]

    for ref in refs:
        full = store.name_of(ref)
        if not full:
            bare = _all_tags(store, ref)
            if not bare:
                for image in images(ref):
                    chosen.add(image, [])
            for name in bare:
                for image in images(str(name)):
                    chosen.add(image, [name])
            continue
        typed = parse(ref)
        names = [parse(full)] if typed.tag or typed.digest else _all_tags(store, ref)
        for name in names:
            for image in images(str(name)):
                chosen.add(image, [] if name.digest else [name])
    return chosen


def save(store: ImageStore, chosen: Selected) -> Iterator[bytes]:
    """Yield the archive; layers that images share are in it once.

    Raises:
        NotFoundError: an image's content vanished meanwhile.
        OSError: reading failed.
    """
    with store.lease() as lease:
        for image in chosen.images.values():
            for digest in (image.id, *image.diff_ids):
                lease.hold_blob(digest)
        yield from _save(store, chosen)


def _save(store: ImageStore, chosen: Selected) -> Iterator[bytes]:
    written: set[str] = set()
    index: list[Json] = []
    manifests: list[Json] = []
    repositories: dict[str, dict[str, str]] = {}
    for folder in (b"blobs/", b"blobs/sha256/"):
        yield header(folder, kind=FOLDER, mode=0o755)
    for image in chosen.images.values():
        manifest = manifest_of(store, image)
        for digest in image.diff_ids:
            yield from _blob(store, digest, written)
        for data in (image.raw, manifest):
            digest = digests.of(data)
            if digest not in written:
                written.add(digest)
                yield file(_path(digest).encode(), data)
        names = chosen.names[image.id]
        index += _descriptors(image, manifest, names)
        manifests.append(_docker_item(store, image, names))
        for name in names:
            top = image.diff_ids[-1][7:] if image.diff_ids else image.id[7:]
            repositories.setdefault(name.familiar_name, {})[name.tag] = top
        store.publish("save", image.id, image.id)
    tops: dict[str, object] = {
        "index.json": {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": index},
        "manifest.json": manifests,
        "oci-layout": {"imageLayoutVersion": "1.0.0"},
    }
    if repositories:
        tops["repositories"] = repositories
    for key, value in tops.items():
        yield file(key.encode(), json.dumps(value, separators=(",", ":")).encode())
    yield END


def _all_tags(store: ImageStore, ref: str) -> list[Reference]:
    try:
        wanted = parse(ref)
    except InvalidInputError:
        return []
    if wanted.tag or wanted.digest:
        return []
    names = [parse(n) for image in store.images() for n in image.names]
    return [name for name in names if name.name == wanted.name]


def _descriptors(image: Image, manifest: bytes, names: Sequence[Reference]) -> list[Json]:
    plain: Json = {
        "mediaType": media.OCI_MANIFEST,
        "digest": digests.of(manifest),
        "size": len(manifest),
        "platform": {
            "architecture": image.config.get("architecture", ""),
            "os": image.config.get("os", ""),
        },
    }
    if not names:
        return [plain]
    return [
        {
            **plain,
            "annotations": {
                "io.containerd.image.name": str(name),
                "org.opencontainers.image.ref.name": name.tag,
            },
        }
        for name in names
    ]


def _docker_item(store: ImageStore, image: Image, names: Sequence[Reference]) -> Json:
    sources = {d: {"mediaType": media.OCI_LAYER, "size": store.content.size(d), "digest": d} for d in image.diff_ids}
    return {
        "Config": _path(image.id),
        "RepoTags": [name.familiar for name in names] or None,
        "Layers": [_path(d) for d in image.diff_ids],
        "LayerSources": sources,
    }


def _blob(store: ImageStore, digest: str, written: set[str]) -> Iterator[bytes]:
    if digest in written:
        return
    written.add(digest)
    with store.content.open(digest) as source:
        size = store.content.size(digest)
        yield header(_path(digest).encode(), size=size)
        while data := source.read(CHUNK):
            yield data
        if size % BLOCK:
            yield bytes(-size % BLOCK)


def _path(digest: str) -> str:
    return f"blobs/sha256/{digest[7:]}"
