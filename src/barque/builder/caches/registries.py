"""Caches in registries, and in images: of a registry, or of the engine itself."""

import base64
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from barque.base.errors import BarqueError, InvalidInputError, NotFoundError
from barque.builder.caches import format as forms
from barque.builder.caches.format import DIFF_ID, Known
from barque.distribution.push import upload_blob
from barque.distribution.registry import Repository
from barque.images.model import Image, check_config
from barque.oci import digest as digests, manifest as manifests, media
from barque.oci.manifest import Descriptor
from barque.oci.reference import Reference, parse
from barque.storage.compression import Form

if TYPE_CHECKING:
    from barque.engine.engine import Engine

Authorize = Callable[[str], Awaitable[str]]
"""Returns the header with the credentials for a domain."""
_IMAGES_MAX = 64
T = TypeVar("T")


class RegistryCache:
    """A cache in a registry (see imports.Reader, exports.Target).

    Args:
        engine: reaches it.
        ref: its name.
        authorize: gives the credentials.
        insecure: needs no certificate, nor TLS.
    """

    def __init__(self, engine: "Engine", ref: str, authorize: Authorize, *, insecure: bool) -> None:
        self._engine = engine
        self._reference = parse(ref).with_default_tag()
        self._authorize = authorize
        self._insecure = insecure

    async def load(self) -> Known:
        """Return what the cache knows."""
        return await self._reach(lambda repository: _load(repository, self._reference), push=False)

    async def bring(self, layer: Descriptor, diff_id: str) -> None:
        """Bring a layer's tar into the content store."""
        registries = self._engine.registries
        await self._reach(lambda repository: registries.download_layer(repository, layer, diff_id), push=False)

    async def layers(self, diff_ids: list[str], form: Form) -> dict[str, Descriptor]:
        """Take layers."""
        registries = self._engine.registries
        found = await self._reach(lambda one: registries.upload_layers(one, diff_ids, form), push=True)
        return dict(zip(diff_ids, found, strict=True))

    async def finish(self, config: tuple[bytes, Descriptor], manifest: tuple[bytes, str]) -> None:
        """Take the config and the manifest."""
        raw, blob = config

        def work(repository: Repository) -> None:
            upload_blob(repository, blob.digest, raw)
            repository.put_manifest(self._reference.digest or self._reference.tag, *manifest)

        await self._reach(work, push=True)

    async def _reach(self, work: Callable[[Repository], T], *, push: bool) -> T:
        auth = await self._authorize(self._reference.domain)
        return await self._engine.registries.reach(
            self._reference, auth, work, push=push, insecure=self._insecure
        )


class ImageCache:
    """The records in an image of the engine itself (see imports.Reader)."""

    def __init__(self, image: Image) -> None:
        self._image = image

    async def load(self) -> Known:
        """Return what the image knows."""
        layers = [Descriptor(media.OCI_LAYER, diff, 0, annotations={DIFF_ID: diff}) for diff in self._image.diff_ids]
        return inline_of(self._image.config, layers)

    async def bring(self, layer: Descriptor, diff_id: str) -> None:
        """Bring nothing: all layers of an image are here."""
        raise NotFoundError(f"layer {diff_id} of image {self._image.id} is gone")


def has_inline(image: Image) -> bool:
    """Tell whether an image holds records of a cache."""
    return isinstance(image.config.get(forms.INLINE_KEY), str)


def inline_of(config: forms.Json, layers: list[Descriptor]) -> Known:
    """Return what the records in an image's config know; nothing where there are none.

    Raises:
        InvalidInputError: they are broken.
    """
    text = config.get(forms.INLINE_KEY)
    if not isinstance(text, str):
        return {}
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:
        raise InvalidInputError("the cache in the image's config is no base64") from None
    return forms.inline_results(raw, layers)


def _load(repository: Repository, reference: Reference) -> Known:
    fetched = repository.manifest(reference.digest or reference.tag)
    value = forms.parsed(fetched.raw)
    if "manifests" not in value and "layers" not in value:
        raise InvalidInputError(f"{reference} is neither a cache nor an image")
    config, layers = forms.split(value)
    if config is not None:
        return forms.results(forms.parsed(_blob(repository, config)), layers)
    found: Known = {}
    for raw in _images(repository, fetched.raw):
        found |= _of_image(repository, raw)
    return found


def _images(repository: Repository, raw: bytes) -> list[bytes]:
    """Return the manifests of an image for all its platforms."""
    parsed = manifests.parse(raw)
    if isinstance(parsed, manifests.Manifest):
        return [raw]
    entries = [one for one in parsed.manifests if not manifests.is_attestation(one)][:_IMAGES_MAX]
    listed = [repository.manifest(one.digest).raw for one in entries]
    return [one for one in listed if isinstance(manifests.parse(one), manifests.Manifest)]


def _of_image(repository: Repository, raw: bytes) -> Known:
    manifest = manifests.parse(raw)
    assert isinstance(manifest, manifests.Manifest)
    try:
        config = check_config(_blob(repository, manifest.config))
    except InvalidInputError:
        return {}
    diff_ids = config["rootfs"]["diff_ids"]
    if len(diff_ids) != len(manifest.layers):
        return {}
    layers = [
        layer._replace(annotations={**layer.annotations, DIFF_ID: diff})
        for layer, diff in zip(manifest.layers, diff_ids, strict=True)
    ]
    return inline_of(config, layers)


def _blob(repository: Repository, blob: Descriptor) -> bytes:
    if blob.size > forms.CONFIG_BYTES_MAX:
        raise BarqueError(f"the config {blob.digest} is larger than {forms.CONFIG_BYTES_MAX >> 20} MiB")
    data = repository.blob(blob.digest).text(blob.size)
    if len(data) != blob.size or digests.of(data) != blob.digest:
        raise BarqueError(f"the config {blob.digest} came as something else")
    return data
