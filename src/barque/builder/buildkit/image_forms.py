"""Images in the form that a client asks for: their manifests, and where they go with their layers."""

import base64
import json
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from barque.base.errors import InvalidInputError
from barque.builder.buildkit import attestations, image_options as options_of
from barque.builder.buildkit.content_store import ClientStore, packed, send_layer
from barque.builder.buildkit.image_options import ImageOptions
from barque.distribution.push import upload_blob
from barque.distribution.registry import Repository
from barque.engine.pumps import stream_of
from barque.images.model import Image
from barque.oci import digest as digests, manifest as manifests, media, platform as platforms
from barque.oci.manifest import Descriptor
from barque.oci.reference import Reference
from barque.storage.archive.tar import BLOCK, FOLDER
from barque.storage.archive.write import END, file, header
from barque.storage.compression import UNCOMPRESSED
from barque.storage.content import CHUNK, ContentStore

if TYPE_CHECKING:
    from barque.engine.engine import Engine

Json = dict[str, Any]


class Formed(NamedTuple):
    """A manifest or an index: its bytes, its media type, what else its descriptor says."""

    raw: bytes
    media_type: str
    said: Json

    @property
    def digest(self) -> str:
        """Return its digest."""
        return digests.of(self.raw)

    @property
    def descriptor(self) -> Json:
        """Return its descriptor."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.raw), **self.said}

    def response(self, image: Image, names: Sequence[Reference]) -> dict[str, str]:
        """Return what a client is told of it."""
        found = {
            "containerimage.digest": self.digest, "containerimage.config.digest": image.id,
            "containerimage.descriptor": base64.b64encode(json.dumps(self.descriptor).encode()).decode(),
        }  # fmt: skip
        if names:
            found["image.name"] = ",".join(str(name) for name in names)
        return found


def manifest(image: Image, layers: Sequence[Descriptor], options: ImageOptions) -> Formed:
    """Return an image's manifest over layers in the form that they have somewhere."""
    platform = platforms.of_config(image.config)
    kinds = [layer._replace(media_type=media.layer_as(layer.media_type, oci=options.oci)) for layer in layers]
    config = Descriptor(media.OCI_CONFIG if options.oci else media.DOCKER_CONFIG, image.id, len(image.raw))
    said: Json = {"platform": _platform(platform)}
    if about := options.annotated(options_of.MANIFEST_DESCRIPTOR, platform):
        said["annotations"] = about
    if not options.oci:
        return Formed(manifests.docker_manifest(config, kinds), media.DOCKER_MANIFEST, said)
    annotations = options.annotated(options_of.MANIFEST, platform)
    return Formed(manifests.oci_manifest(config, kinds, annotations), media.OCI_MANIFEST, said)


def top(made: Sequence[Formed], options: ImageOptions) -> Formed:
    """Return what a name means: the one image's manifest, or an index of several.

    Raises:
        InvalidInputError: an index's annotations are given, and there is none.
    """
    about = options.annotated(options_of.INDEX_DESCRIPTOR)
    if len(made) == 1:
        if about or options.annotated(options_of.INDEX):
            raise InvalidInputError("index annotations not supported for single platform export")
        return made[0]
    entries = [one.descriptor for one in made]
    said: Json = {"annotations": about} if about else {}
    if not options.oci:
        return Formed(manifests.docker_list(entries), media.DOCKER_LIST, said)
    return Formed(manifests.oci_index(entries, options.annotated(options_of.INDEX)), media.OCI_INDEX, said)


def attested(images: Sequence[Image], made: Sequence[Formed], options: ImageOptions) -> tuple[list[Formed], list[bytes]]:
    """Return the manifests of what is said of images, and the blobs that those need."""
    forms: list[Formed] = []
    blobs: list[bytes] = []
    for image, one in zip(images, made, strict=True):
        if predicates := options.predicates.get(image.id):
            about = attestations.subjects(options.names, platforms.of_config(image.config), one.digest)
            found = attestations.manifest(predicates, about, one.digest)
            forms.append(Formed(found.raw, media.OCI_MANIFEST, found.said))
            blobs += found.blobs
    return forms, blobs


def plain_layers(content: ContentStore, image: Image, *, oci: bool) -> list[Descriptor]:
    """Return an image's layers as they lie here."""
    kind = media.layer_type(UNCOMPRESSED, oci=oci)
    return [Descriptor(kind, diff, content.size(diff)) for diff in image.diff_ids]


def kept(engine: "Engine", images: Sequence[Image], options: ImageOptions) -> Formed:
    """Keep the manifests of images as they lie here, and the index of several; return what a name means; blocking."""
    store = engine.image_store
    made = [manifest(image, plain_layers(store.content, image, oci=options.oci), options) for image in images]
    found = top(made, options)
    _keep(engine, images, made, found)
    return found


def _keep(engine: "Engine", images: Sequence[Image], made: Sequence[Formed], found: Formed) -> None:
    store = engine.image_store
    for image, one in zip(images, made, strict=True):
        store.keep_manifest(one.raw, image.id)
    if found not in made:
        store.keep_manifest(found.raw, "")


async def pushed(
    engine: "Engine", images: Sequence[Image], name: Reference, options: ImageOptions, auth: str
) -> Formed:
    """Push images under a name, or by their digest alone; return what the name means there.

    Raises:
        BarqueError: the registry refuses.
    """

    def work(repository: Repository) -> tuple[list[Formed], Formed]:
        made = []
        for image in images:
            layers = engine.registries.upload_layers(repository, image.diff_ids, options.form)
            upload_blob(repository, image.id, image.raw)
            made.append(manifest(image, layers, options))
        beside, blobs = attested(images, made, options)
        for blob in blobs:
            upload_blob(repository, digests.of(blob), blob)
        found = top([*made, *beside], options)
        if found not in made:
            for one in (*made, *beside):
                repository.put_manifest(one.digest, one.raw, one.media_type)
        repository.put_manifest(found.digest if options.by_digest else name.tag, found.raw, found.media_type)
        return made, found

    made, found = await engine.registries.reach(name, auth, work, push=True, insecure=options.insecure)
    if options.store:
        _keep(engine, images, made, found)
    return found


def archive(
    content: ContentStore, images: Sequence[Image], options: ImageOptions, *, docker: bool, told: Callable[[Formed], None]
) -> AsyncGenerator[bytes, None]:
    """Return an archive of images, as an OCI layout.

    Args:
        content: has the layers.
        images: which.
        options: their form and names.
        docker: `docker load` of old is to read it, too.
        told: is given what was made at the end.
    """
    return stream_of(lambda: _archive(content, images, options, docker, told))


def _archive(
    content: ContentStore, images: Sequence[Image], options: ImageOptions, docker: bool, told: Callable[[Formed], None]
) -> Iterator[bytes]:
    written: set[str] = set()
    for folder in (b"blobs/", b"blobs/sha256/"):
        yield header(folder, kind=FOLDER, mode=0o755)
    made: list[Formed] = []
    listed: list[Json] = []
    known: dict[str, Descriptor] = {}
    for image in images:
        for diff in image.diff_ids:
            if diff not in known:
                with content.temporary() as place:
                    known[diff] = packed(content, diff, options.form, place)
                    if known[diff].digest in written:
                        continue
                    written.add(known[diff].digest)
                    source = content.open(diff) if options.form.kind == UNCOMPRESSED else place
                    with source:
                        source.seek(0)
                        yield header(_path(known[diff].digest), size=known[diff].size)
                        yield from iter(lambda: source.read(CHUNK), b"")  # noqa: B023 - read to its end at once
                        yield bytes(-known[diff].size % BLOCK)
        layers = [known[diff] for diff in image.diff_ids]
        made.append(manifest(image, layers, options))
        listed.append({
            "Config": _path(image.id).decode(), "RepoTags": [name.familiar for name in options.names] or None,
            "Layers": [_path(layer.digest).decode() for layer in layers],
        })  # fmt: skip
    beside, said = attested(images, made, options)
    found = top([*made, *beside], options)
    blobs = [*(image.raw for image in images), *said, *(one.raw for one in (*made, *beside, found))]
    for data in blobs:
        if digests.of(data) not in written:
            written.add(digests.of(data))
            yield file(_path(digests.of(data)), data)
    yield file(b"index.json", _bytes({"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": _named(found, options)}))
    yield file(b"oci-layout", _bytes({"imageLayoutVersion": "1.0.0"}))
    if docker:
        yield file(b"manifest.json", _bytes(listed))
    yield END
    told(found)


def _named(found: Formed, options: ImageOptions) -> list[Json]:
    names = [{"io.containerd.image.name": str(name), "org.opencontainers.image.ref.name": name.tag} for name in options.names]
    return [
        {**found.descriptor, **({"annotations": {**found.said.get("annotations", {}), **one}} if one else {})}
        for one in names or [{}]
    ]


async def into_folder(store: ClientStore, content: ContentStore, images: Sequence[Image], options: ImageOptions) -> Formed:
    """Write images into a folder of the client as an OCI layout, of which the client makes the index.

    Raises:
        BarqueError: the client refused.
    """
    known: dict[str, Descriptor] = {}
    made = []
    for image in images:
        for diff in image.diff_ids:
            if diff not in known:
                known[diff] = await send_layer(store, content, diff, options.form)
        made.append(manifest(image, [known[diff] for diff in image.diff_ids], options))
    beside, said = attested(images, made, options)
    found = top([*made, *beside], options)
    for data in dict.fromkeys((*(image.raw for image in images), *said, *(one.raw for one in (*made, *beside, found)))):
        await store.write_bytes(Descriptor("", digests.of(data), len(data)), data)
    return found


def _platform(found: platforms.Platform) -> Json:
    return {key: value for key, value in zip(("architecture", "os", "variant"), (found.architecture, found.os, found.variant), strict=True) if value}


def _path(digest: str) -> bytes:
    return f"blobs/sha256/{digest[7:]}".encode()


def _bytes(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
