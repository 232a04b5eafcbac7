"""Pushing: layers side by side, the configuration, then the manifest that makes all of it visible."""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from barque.base.errors import BarqueError, InvalidInputError, NotFoundError
from barque.base.ids import short
from barque.distribution.credentials import Credentials
from barque.distribution.errors import RegistryError, TransportError
from barque.distribution.progress import Emit, Progress
from barque.distribution.pull import first_cause
from barque.distribution.registry import Repository, connect
from barque.distribution.settings import Settings
from barque.distribution.transport import Calls
from barque.distribution.upload import LayerUpload
from barque.images.model import Image
from barque.images.store import ImageStore
from barque.oci import digest as digests, manifest as manifests, media, platform as platforms
from barque.oci.manifest import Descriptor
from barque.oci.reference import Reference, parse
from barque.storage.compression import Form


class Pusher:
    """One push of one name.

    Args:
        store: has the images.
        settings: tries, how many side by side.
        emit: takes the progress messages, from several threads.
        calls: to call the push off.
    """

    def __init__(self, store: ImageStore, settings: Settings, emit: Emit, calls: Calls) -> None:
        self._store = store
        self._settings = settings
        self._progress = Progress(emit)
        self._calls = calls

    def push(self, reference: Reference, credentials: Credentials, *, wanted: platforms.Platform | None) -> None:
        """Push a tag, or all tags of the repository where the reference has none.

        Raises:
            BarqueError: the image is not here, or the registry refuses; the message is Docker's.
            CancelledError: it was called off.
        """
        self._progress.message(f"The push refers to repository [{reference.name}]")
        tagged = self._tagged(reference)
        last: BarqueError | None = None
        try:
            for registry in connect(self._settings, reference.domain, credentials, self._calls, push=True):
                repository = registry.repository(reference.path, domain=reference.domain, push=True)
                for one in tagged:
                    self._one(repository, one, wanted)
                return
        except TransportError as error:
            last = error
        raise last or NotFoundError(f"no endpoints for {reference.familiar}")

    def _tagged(self, reference: Reference) -> list[Reference]:
        known = [parse(name) for name in self._store.names()]
        own = sorted((k for k in known if k.name == reference.name), key=str)
        if not own:
            raise NotFoundError(f"An image does not exist locally with the tag: {reference.familiar_name}")
        if reference.digest:
            raise InvalidInputError("cannot push a digest reference")
        if reference.tag:
            if reference not in own:
                raise NotFoundError(f"tag does not exist: {reference.familiar}")
            return [reference]
        tagged = [k for k in own if k.tag]
        if not tagged:
            raise NotFoundError(f"no tags to push for {reference.familiar_name}")
        return tagged

    def _one(self, repository: Repository, reference: Reference, wanted: platforms.Platform | None) -> None:
        full = str(reference)
        with self._store.lease() as lease:
            image = self._store.resolve_platform(full, wanted) if wanted else self._store.resolve(full)
            siblings = [] if wanted else self._store.siblings(full)
            for held in (image, *siblings):
                kept = (*self._store.kept_forms(held.diff_ids), *self._store.manifests_of(held.id))
                for digest in (held.id, *held.diff_ids, *kept):
                    lease.hold_blob(digest)
            if siblings:
                raw, media_type = self._index(repository, full, [image, *siblings])
            else:
                raw, media_type = self._with_attestations(repository, full, *self._image(repository, image, full))
            digest = repository.put_manifest(reference.tag, raw, media_type)
        self._progress.message(f"{reference.tag}: digest: {digest} size: {len(raw)}")
        pinned = reference._replace(tag="", digest=digest)
        if self._store.names().get(str(pinned)) != image.id:
            self._store.keep_manifest(raw, "" if siblings else image.id)
            self._store.set_name(pinned, image.id, digest)
        self._progress.aux({"Tag": reference.tag, "Digest": digest, "Size": len(raw)})
        self._store.publish("push", reference.familiar, reference.familiar_name)

    def _with_attestations(self, repository: Repository, full: str, raw: bytes, media_type: str) -> tuple[bytes, str]:
        """Return the index that the image came with where the registry has what lies beside the image, else the image.

        The engine keeps no attestations: they are at the registry that the image was built for or pulled from.
        """
        target = self._store.target(full)
        if not target or not self._store.content.has(target):
            return raw, media_type
        old = self._store.content.read(target)
        parsed = manifests.parse(old)
        if not isinstance(parsed, manifests.Index) or not repository.has_manifest(target):
            return raw, media_type
        images = [entry.digest for entry in parsed.manifests if not manifests.is_attestation(entry)]
        return (old, parsed.media_type) if images == [digests.of(raw)] else (raw, media_type)

    def _index(self, repository: Repository, full: str, images: list[Image]) -> tuple[bytes, str]:
        """Push the images of an index and return the index: the one they came with if all of it is there."""
        old = self._store.content.read(self._store.target(full))
        parsed = manifests.parse(old)
        assert isinstance(parsed, manifests.Index)
        pushed: dict[str, tuple[bytes, str]] = {i.id: self._image(repository, i, full) for i in images}
        for raw, media_type in pushed.values():
            repository.put_manifest(digests.of(raw), raw, media_type)
        found = {digests.of(raw) for raw, _ in pushed.values()}
        if all(entry.digest in found for entry in parsed.manifests):
            return old, parsed.media_type
        entries = []
        for entry in parsed.manifests:
            image_id = self._store.image_of_manifest(entry.digest)
            if image_id in pushed:
                raw, media_type = pushed[image_id]
                entries.append(_entry(raw, media_type, entry))
        if parsed.media_type == media.OCI_INDEX and all(kind == media.OCI_MANIFEST for _, kind in pushed.values()):
            return manifests.oci_index(entries, parsed.annotations), media.OCI_INDEX
        return manifests.docker_list(entries), media.DOCKER_LIST

    def _image(self, repository: Repository, image: Image, full: str) -> tuple[bytes, str]:
        """Push an image's layers and configuration and return its manifest, in the form it was pulled if it fits."""
        known = [(raw, m) for raw, m in self._known(image, full) if len(m.layers) == len(image.diff_ids)]
        preferred = {d: layer.digest for _, m in known[:1] for d, layer in zip(image.diff_ids, m.layers, strict=True)}
        layers = upload_layers(
            self._store, repository, image.diff_ids, settings=self._settings, progress=self._progress, preferred=preferred
        )
        upload_blob(repository, image.id, image.raw)
        for raw, manifest in known:
            if [layer.digest for layer in manifest.layers] == [layer.digest for layer in layers]:
                return raw, manifest.media_type
        annotations = next((m.annotations for _, m in known if m.annotations and _is_plain(m, image)), None)
        if annotations:
            # It was built here with annotations, which Docker's manifests do not have.
            kinds = [layer._replace(media_type=media.layer_as(layer.media_type, oci=True)) for layer in layers]
            made = Descriptor(media.OCI_CONFIG, image.id, len(image.raw))
            return manifests.oci_manifest(made, kinds, annotations), media.OCI_MANIFEST
        config = Descriptor(media.DOCKER_CONFIG, image.id, len(image.raw))
        return manifests.docker_manifest(config, [_docker(layer) for layer in layers]), media.DOCKER_MANIFEST

    def _known(self, image: Image, full: str) -> list[tuple[bytes, manifests.Manifest]]:
        """Return the manifests that the image came with, the one that its name means first."""
        found = []
        meant = self._store.manifests_meant(full)
        for digest in sorted(self._store.manifests_of(image.id), key=lambda one: one not in meant):
            raw = self._store.content.read(digest)
            parsed = manifests.parse(raw)
            if isinstance(parsed, manifests.Manifest):
                found.append((raw, parsed))
        return found


def _docker(layer: Descriptor) -> Descriptor:
    """Return a layer's descriptor as a manifest of Docker's schema 2 may have it."""
    known = {media.OCI_LAYER_GZIP: media.DOCKER_LAYER_GZIP, media.OCI_LAYER: media.DOCKER_LAYER}
    return Descriptor(known.get(layer.media_type, layer.media_type), layer.digest, layer.size)


def _is_plain(manifest: manifests.Manifest, image: Image) -> bool:
    """Tell whether a manifest describes an image as it lies here, with plain layers."""
    return [layer.digest for layer in manifest.layers] == image.diff_ids


def _entry(raw: bytes, media_type: str, old: Descriptor) -> dict[str, object]:
    value: dict[str, object] = {"mediaType": media_type, "size": len(raw), "digest": digests.of(raw)}
    if old.platform is not None:
        keys = ("os", "architecture", "variant")
        value["platform"] = {k: v for k, v in zip(keys, old.platform, strict=True) if v}
    if old.annotations and media_type == media.OCI_MANIFEST:
        value["annotations"] = old.annotations
    return value


def upload_layers(
    store: ImageStore, repository: Repository, diff_ids: list[str], *, settings: Settings, progress: Progress,
    preferred: Mapping[str, str] | None = None, form: Form | None = None,
) -> list[Descriptor]:  # fmt: skip
    """Bring layers into a repository side by side, the last one first; return what a manifest says of each.

    Args:
        store: has the layers.
        repository: where to.
        diff_ids: which, lowest first.
        settings: tries, how many side by side.
        progress: is told.
        preferred: the compressed form of each layer that is to be taken where it is here or there.
        form: how those are compressed of which no compressed form is known.

    Raises:
        BarqueError: the registry refuses.
        CancelledError: it was called off.
    """
    wanted = list(dict.fromkeys(reversed(diff_ids)))
    for number, diff_id in enumerate(wanted):
        progress.step(short(diff_id), "Preparing")
        if number >= settings.uploads:
            progress.step(short(diff_id), "Waiting")
    calls = repository.registry.transport.calls
    futures: dict[str, Future[Descriptor]] = {}
    with ThreadPoolExecutor(max(1, settings.uploads), "upload") as pool:
        for diff_id in wanted:
            upload = LayerUpload(
                store, repository, diff_id,
                preferred=(preferred or {}).get(diff_id, ""), settings=settings, progress=progress, form=form or Form(),
            )  # fmt: skip
            futures[diff_id] = pool.submit(upload.run)
        try:
            done = {diff_id: future.result() for diff_id, future in futures.items()}
        except BaseException as error:
            calls.cancel()
            for future in futures.values():
                future.cancel()
            raise first_cause(error, futures) from None
    return [done[diff_id] for diff_id in diff_ids]


def upload_blob(repository: Repository, digest: str, data: bytes) -> None:
    """Bring a small blob into a repository that does not have it, trying as often as layers are tried.

    Raises:
        BarqueError: the registry refuses.
    """
    transport = repository.registry.transport
    attempt = 0
    while True:
        attempt += 1
        try:
            if not repository.has_blob(digest):
                repository.start_upload().finish(digest, data)
            return
        except (TransportError, RegistryError) as error:
            final = isinstance(error, RegistryError) and error.is_final
            if final or attempt >= transport.settings.attempts:
                raise
            transport.calls.wait(transport.settings.retry_delay_s * 2 ** (attempt - 1))
