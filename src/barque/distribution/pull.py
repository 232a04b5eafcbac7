"""Pulling: a manifest is chosen, its layers come side by side, are unpacked in order, and then named."""

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

from barque.base.errors import BarqueError, InvalidInputError, NotFoundError
from barque.base.ids import short
from barque.distribution.credentials import Credentials
from barque.distribution.download import Download
from barque.distribution.errors import CancelledError, RegistryError, TransportError, of_pull
from barque.distribution.progress import Emit, Progress
from barque.distribution.registry import Fetched, Registry, Repository, connect
from barque.distribution.settings import Settings
from barque.distribution.transport import Calls
from barque.images.leases import Lease
from barque.images.model import Image, PackedLayer, check_config
from barque.images.store import ImageStore
from barque.oci import digest as digests, manifest as manifests, media, platform as platforms
from barque.oci.manifest import Descriptor
from barque.oci.reference import Reference
from barque.storage.bounds import bounded
from barque.storage.compression import plain
from barque.storage.content import CHUNK
from barque.storage.hashing import verify

_NESTING_MAX = 3
T = TypeVar("T")
K = TypeVar("K")
_IMAGE_CONFIGS = media.CONFIGS | {"application/octet-stream", "application/json", "text/html", ""}


class Turns:
    """Lets one transfer at a time have a blob: whoever wants the same one waits and finds it done."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, tuple[threading.Lock, int]] = {}

    @contextmanager
    def of(self, digest: str, calls: Calls) -> Iterator[None]:
        """Hold a blob's turn; CancelledError if the waiting is called off."""
        with self._lock:
            turn, users = self._held.get(digest, (threading.Lock(), 0))
            self._held[digest] = (turn, users + 1)
        try:
            while not turn.acquire(timeout=0.2):
                calls.check()
            try:
                yield
            finally:
                turn.release()
        finally:
            with self._lock:
                turn, users = self._held.pop(digest)
                if users > 1:
                    self._held[digest] = (turn, users - 1)


class Chosen(NamedTuple):
    """A manifest that was chosen, and the index it was chosen from (None where there was none)."""

    manifest: manifests.Manifest
    fetched: Fetched
    listed_in: Fetched | None


class Puller:
    """One pull of one name.

    Args:
        store: takes the images.
        settings: mirrors, tries, how many side by side.
        turns: shared by all pulls of the engine.
        emit: takes the progress messages, from several threads.
        calls: to call the pull off.
    """

    def __init__(self, store: ImageStore, settings: Settings, turns: Turns, emit: Emit, calls: Calls) -> None:
        self._store = store
        self._settings = settings
        self._turns = turns
        self._progress = Progress(emit)
        self._calls = calls

    def pull(
        self, reference: Reference, credentials: Credentials, *, wanted: platforms.Platform | None, all_tags: bool
    ) -> None:
        """Pull a tag, a digest or all tags of a repository.

        Raises:
            BarqueError: no endpoint has it, or what came is broken; the message is Docker's.
            CancelledError: it was called off.
        """
        last: BarqueError | None = None
        try:
            for registry in connect(self._settings, reference.domain, credentials, self._calls, push=False):
                try:
                    self._from(registry, reference, wanted, all_tags=all_tags)
                    return
                except (RegistryError, TransportError) as error:
                    last = error
                    if not registry.endpoint.mirror:
                        break
                except (InvalidInputError, NotFoundError) as error:
                    last = error
                    if not registry.endpoint.mirror:
                        raise
        except TransportError as error:
            last = last or error
        if isinstance(last, RegistryError):
            raise of_pull(last, reference.familiar_name, reference.familiar)
        raise last or NotFoundError(f"no endpoints for {reference.familiar}")

    def _from(
        self, registry: Registry, reference: Reference, wanted: platforms.Platform | None, *, all_tags: bool
    ) -> None:
        repository = registry.repository(reference.path, domain=reference.domain)
        references = [reference]
        if all_tags:
            references = [reference._replace(tag=tag) for tag in repository.tags()]
        newer = False
        for one in references:
            newer = self._one(repository, one, wanted) or newer
        for warning in dict.fromkeys(registry.warnings):
            self._progress.message(f"WARNING: {warning}")
        word = "Downloaded newer image for" if newer else "Image is up to date for"
        self._progress.message(f"Status: {word} {reference.familiar}")

    def _one(self, repository: Repository, reference: Reference, wanted: platforms.Platform | None) -> bool:
        """Pull one tag or digest; tell whether its name means another image now."""
        asked = reference.digest or reference.tag
        top = repository.manifest(asked)
        parsed = manifests.parse(top.raw, top.media_type)
        _check_config_type(parsed)
        self._progress.message(f"Pulling from {reference.path}", asked)
        chosen = self._choose(repository, top, parsed, wanted)
        image, layers_came = self._image(repository, chosen)
        name = reference._replace(tag="") if reference.digest else reference
        moved = self._name(name, image, top, chosen)
        self._progress.message(f"Digest: {top.digest}")
        found = platforms.of_config(image.config)
        if wanted and not platforms.fits(found, wanted):
            self._progress.message(
                f"WARNING: image with reference {reference.familiar} was found but its platform ({found}) "
                f"does not match the specified platform ({wanted})"
            )
        self._store.publish("pull", name.familiar, name.familiar_name)
        return moved or layers_came

    def _choose(
        self,
        repository: Repository,
        top: Fetched,
        parsed: manifests.Manifest | manifests.Index,
        wanted: platforms.Platform | None,
    ) -> Chosen:
        fetched, index = top, None
        target = wanted or platforms.host()
        for _ in range(_NESTING_MAX):
            if isinstance(parsed, manifests.Manifest):
                return Chosen(parsed, fetched, index)
            entry = manifests.choose(parsed, target)
            if entry is None:
                raise NotFoundError(f"no matching manifest for {target} in the manifest list entries")
            index = top
            fetched = repository.manifest(entry.digest)
            if len(fetched.raw) != entry.size:
                raise InvalidInputError(f"manifest {entry.digest} has another size than its index says")
            parsed = manifests.parse(fetched.raw, entry.media_type or fetched.media_type)
            _check_config_type(parsed)
        raise InvalidInputError("invalid manifest: indexes are nested too deep")

    def _name(self, name: Reference, image: Image, top: Fetched, chosen: Chosen) -> bool:
        """Keep the manifests and let the name mean the image; tell whether it meant another before."""
        store = self._store
        full = str(name)
        before = store.names().get(full)
        with store.changing, store.lease() as lease:
            lease.hold_blob(image.id)
            store.keep_manifest(chosen.fetched.raw, image.id)
            if chosen.listed_in is not None:
                store.keep_manifest(chosen.listed_in.raw, "")
            pinned = name._replace(tag="", digest=top.digest)
            for one in dict.fromkeys((name, pinned)):
                if store.names().get(str(one)) != image.id or store.target(str(one)) != top.digest:
                    store.set_name(one, image.id, top.digest)
        return before != image.id

    def _image(self, repository: Repository, chosen: Chosen) -> tuple[Image, bool]:
        manifest = chosen.manifest
        raw = self._config(repository, manifest.config)
        config = check_config(raw)
        diff_ids: list[str] = config["rootfs"]["diff_ids"]
        if config.get("os") not in (None, "", "linux"):
            raise InvalidInputError(
                f"image operating system {config['os']!r} cannot be used on this platform: "
                "operating system is not supported"
            )
        if len(diff_ids) != len(manifest.layers):
            raise InvalidInputError("layers from manifest don't match image configuration")
        with self._store.lease() as lease:
            lease.hold_blob(digests.of(raw))
            for held in diff_ids:
                lease.hold_blob(held)
            for layer in manifest.layers:
                lease.hold_blob(layer.digest)
            for chain in digests.chain_ids(diff_ids):
                lease.hold_chain(chain)
            layers = _Layers(self, lease, repository, list(zip(manifest.layers, diff_ids, strict=True)))
            came = layers.fetch()
            # Registering writes out all that came before it says that it is here.
            image = self._store.register(raw)
            layers.remember()
            return image, came

    def _config(self, repository: Repository, descriptor: Descriptor) -> bytes:
        if self._store.content.has(descriptor.digest):
            return self._store.content.read(descriptor.digest)
        return repository.small_blob(descriptor)

    def download(self, repository: Repository, layer: Descriptor, diff_id: str, *, keep: bool = False) -> None:
        """Bring one layer's tar into the store, unless it is there.

        Args:
            repository: where the layer is.
            layer: its compressed form.
            diff_id: the digest of its tar.
            keep: bring the compressed form, too, and keep it with the layer, so that a push gives these very bytes.

        Raises:
            BarqueError: what comes is not what its digests say, or does not come.
        """
        content, shown = self._store.content, short(layer.digest)
        calls = repository.registry.transport.calls
        with self._turns.of(layer.digest, calls):
            if content.has(diff_id) and (not keep or self.knows(layer, diff_id)):
                self._progress.step(shown, "Download complete")
                return
            if not (content.has(layer.digest) and self._from_kept(layer, diff_id)):
                self._fetched(repository, layer, diff_id)
            if keep and layer.digest != diff_id:
                self._store.add_packed(diff_id, [PackedLayer(layer.digest, layer.size, layer.media_type, "")])

    def knows(self, layer: Descriptor, diff_id: str) -> bool:
        """Tell whether a compressed form is known to be the layer's, and is here if it was kept."""
        if layer.digest == diff_id:
            return True
        forms = [form for form in self._store.packed(diff_id) if form.digest == layer.digest]
        if any(not form.repository for form in forms):
            return self._store.content.has(layer.digest)
        return bool(forms)

    def _fetched(self, repository: Repository, layer: Descriptor, diff_id: str) -> None:
        content = self._store.content
        for again in (False, True):
            shown = short(layer.digest)
            download = Download(repository, content, layer, self._settings, self._progress, shown=shown)
            try:
                self._stored(download.chunks(), layer, diff_id)
                break
            except InvalidInputError:
                content.drop_partial(layer.digest)
                # What was kept of an earlier pull may have been broken; what comes now is the registry's own.
                if again or not download.was_continued:
                    raise
        if layer.digest == diff_id:
            content.drop_partial(layer.digest)
        else:
            content.keep_partial(layer.digest)

    def _stored(self, packed: Iterator[bytes], layer: Descriptor, diff_id: str) -> None:
        """Store the tar of a compressed layer; where it is here, find out whether it is that tar."""
        tar = bounded(
            plain(packed), layer.size, self._store.content.folder,
            ratio_max=self._settings.plain_ratio_max, free_min=self._settings.plain_free_min,
        )  # fmt: skip
        if self._store.content.has(diff_id):
            verify(tar, diff_id)
        else:
            self._store.content.ingest(tar, diff_id, durable=False)

    def _from_kept(self, layer: Descriptor, diff_id: str) -> bool:
        """Make a layer's tar of the compressed layer that is here; False if that is damaged."""
        with self._store.content.open(layer.digest) as file:
            try:
                self._stored(iter(lambda: file.read(CHUNK), b""), layer, diff_id)
            except InvalidInputError:
                return False
        self._progress.step(short(layer.digest), "Download complete")
        return True

    def unpack(self, lease: Lease, parent: str, layer: Descriptor, diff_id: str) -> None:
        """Unpack one layer on its parent."""
        shown = short(layer.digest)
        self._progress.bar(shown, "Extracting", 0, layer.size)
        self._store.layers.unpack(lease, parent, diff_id)
        self._progress.bar(shown, "Extracting", layer.size, layer.size)
        self._progress.step(shown, "Pull complete")

    def told(self, layer: Descriptor, text: str) -> None:
        """Tell a layer's step."""
        self._progress.step(short(layer.digest), text)

    @property
    def store(self) -> ImageStore:
        """Return where the images go."""
        return self._store

    @property
    def side_by_side(self) -> int:
        """Return how many layers come at a time."""
        return max(1, self._settings.downloads)


class _Layers:
    """The layers of one image: those that are missing are fetched side by side and unpacked in order."""

    def __init__(
        self, puller: Puller, lease: Lease, repository: Repository, layers: list[tuple[Descriptor, str]]
    ) -> None:
        self._puller = puller
        self._lease = lease
        self._repository = repository
        self._layers = layers

    def fetch(self) -> bool:
        """Fetch what is missing, of a layer that is here perhaps its compressed form; tell whether anything was."""
        store = self._puller.store
        chain = digests.chain_ids(diff_id for _, diff_id in self._layers)
        missing = []
        for (layer, diff_id), chain_id in zip(self._layers, chain, strict=True):
            known = store.layers.has(chain_id) and store.content.has(diff_id) and self._puller.knows(layer, diff_id)
            self._puller.told(layer, "Already exists" if known else "Pulling fs layer")
            missing.append(not known)
        if any(missing):
            with ThreadPoolExecutor(self._puller.side_by_side, "layer") as pool:
                self._run(pool, chain, missing)
        return any(missing)

    def remember(self) -> None:
        """Remember where the layers' compressed forms are: there, and those that are kept here."""
        store = self._puller.store
        for layer, diff_id in self._layers:
            there = PackedLayer(layer.digest, layer.size, layer.media_type, self._repository.name)
            is_kept = layer.digest != diff_id and store.content.has(layer.digest)
            store.add_packed(diff_id, [there._replace(repository=""), there] if is_kept else [there])

    def _run(self, pool: ThreadPoolExecutor, chain: list[str], missing: list[bool]) -> None:
        calls = self._repository.registry.transport.calls
        started: dict[tuple[str, str], Future[None]] = {}
        for number, (pair, wanted) in enumerate(zip(self._layers, missing, strict=True)):
            layer, diff_id = pair
            key = layer.digest, diff_id
            if wanted and key not in started:
                if number >= self._puller.side_by_side:
                    self._puller.told(layer, "Waiting")
                started[key] = pool.submit(self._puller.download, self._repository, layer, diff_id, keep=True)
        try:
            parent = ""
            for (layer, diff_id), chain_id, wanted in zip(self._layers, chain, missing, strict=True):
                if wanted:
                    started[layer.digest, diff_id].result()
                    calls.check()
                    self._puller.unpack(self._lease, parent, layer, diff_id)
                parent = chain_id
        except BaseException as error:
            # Whoever failed first is told about; the others end because of it.
            calls.cancel()
            for future in started.values():
                future.cancel()
            raise first_cause(error, started) from None


def first_cause(error: BaseException, started: "Mapping[K, Future[T]]") -> BaseException:
    """Return why the first of several transfers failed: the others were called off because of it."""
    if not isinstance(error, CancelledError):
        return error
    for future in started.values():
        if future.done() and not future.cancelled():
            found = future.exception()
            if found is not None and not isinstance(found, CancelledError):
                return found
    return error


def _check_config_type(parsed: manifests.Manifest | manifests.Index) -> None:
    if isinstance(parsed, manifests.Index):
        return
    kind = parsed.config.media_type
    if kind == media.PLUGIN_CONFIG:
        raise InvalidInputError(f'Encountered remote "{kind}"(plugin) when fetching')
    if kind not in _IMAGE_CONFIGS:
        raise InvalidInputError(f'Encountered remote "{kind}"(unknown) when fetching')
