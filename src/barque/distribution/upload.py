"""One layer to a registry: found there, mounted from a neighbour, or sent: as it was pulled, else compressed on the way."""

import os
from collections.abc import Callable, Iterator
from typing import BinaryIO

from barque.base.errors import BarqueError, NotFoundError
from barque.base.ids import short
from barque.distribution.errors import RegistryError, TransportError
from barque.distribution.progress import Progress
from barque.distribution.registry import Repository, Upload
from barque.distribution.settings import Settings
from barque.images.model import PackedLayer
from barque.images.store import ImageStore
from barque.oci import media
from barque.oci.manifest import Descriptor
from barque.storage.compression import Form
from barque.storage.content import CHUNK
from barque.storage.hashing import Hasher

_LOOKED_FOR_MAX = 5
_CHUNK_BYTES = 16 << 20
_STREAMS_REFUSED = (400, 405, 411, 413, 416, 501)


class _DamagedError(Exception):
    """What was kept of a layer is not what its digest says."""


class LayerUpload:
    """Brings one layer into a repository; made and used in one thread.

    Args:
        store: has the layer, and knows where it has been.
        repository: where to.
        diff_id: which layer.
        preferred: the compressed form in which it was pulled, empty if none: the one that keeps the image's digest.
        settings: tries and waits.
        progress: is told.
        form: how it is compressed where no compressed form is known.
    """

    def __init__(
        self, store: ImageStore, repository: Repository, diff_id: str, *,
        preferred: str, settings: Settings, progress: Progress, form: Form,
    ) -> None:  # fmt: skip
        self._store = store
        self._repository = repository
        self._diff_id = diff_id
        self._preferred = preferred
        self._settings = settings
        self._progress = progress
        self._form = form
        self._shown = short(diff_id)
        self._calls = repository.registry.transport.calls

    def run(self) -> Descriptor:
        """Return what the manifest says of the layer once the repository has it.

        Raises:
            BarqueError: the registry refuses, or breaks off too often.
        """
        known = self._known()
        best = [form for form in known if form.digest == self._preferred]
        # The preferred form is sent where it is kept, even to a repository that has the layer in another one.
        for forms in (best, [form for form in known if form not in best]):
            if done := self._found(forms) or self._mounted(forms) or self._kept_sent(forms):
                return done
        return self._sent(None)

    def _known(self) -> list[PackedLayer]:
        """Return the known compressed forms that will do, the latest first."""
        known = self._store.packed(self._diff_id)
        if self._form.force:
            # Which level a known form was compressed with is not known.
            known = [f for f in known if self._form.level is None and media.layer_kind(f.media_type) == self._form.kind]
        return known

    def _found(self, forms: list[PackedLayer]) -> Descriptor | None:
        """Find the layer in the repository; forms that are known to have been there are looked for first."""
        looked: set[str] = set()
        for form in sorted(forms, key=lambda one: one.repository != self._repository.name):
            if form.digest in looked or len(looked) >= _LOOKED_FOR_MAX:
                continue
            looked.add(form.digest)
            if self._repository.has_blob(form.digest):
                self._progress.step(self._shown, "Layer already exists")
                return self._remember(form)
            self._store.forget_packed(form.digest, self._repository.name)
        return None

    def _mounted(self, forms: list[PackedLayer]) -> Descriptor | None:
        """Take the layer over from a neighbour: another repository of the registry."""
        name, domain = self._repository.name, self._repository.name.partition("/")[0]
        near = [f for f in forms if f.repository != name and f.repository.partition("/")[0] == domain]
        for form in near[:_LOOKED_FOR_MAX]:
            source = form.repository.partition("/")[2]
            try:
                upload = self._repository.mount(form.digest, source)
            except RegistryError:
                # The neighbour may have become private, or have lost the blob: it is sent.
                continue
            if upload is None:
                self._progress.step(self._shown, f"Mounted from {source}")
                return self._remember(form)
            upload.cancel()
        return None

    def _remember(self, form: PackedLayer) -> Descriptor:
        kept = form._replace(repository=self._repository.name, media_type=form.media_type or media.DOCKER_LAYER_GZIP)
        self._store.add_packed(self._diff_id, [kept])
        return Descriptor(kept.media_type, kept.digest, kept.size)

    def _kept_sent(self, forms: list[PackedLayer]) -> Descriptor | None:
        """Send the layer in the very form in which it was pulled, where that is kept and whole."""
        for kept in (form for form in forms if not form.repository):
            try:
                return self._sent(kept)
            except _DamagedError:
                self._store.forget_packed(kept.digest)
        return None

    def _sent(self, kept: PackedLayer | None) -> Descriptor:
        attempt, streamed = 0, True
        while True:
            attempt += 1
            try:
                digest, size = self._send(kept, streamed=streamed)
                break
            except RegistryError as error:
                if streamed and error.status in _STREAMS_REFUSED and error.code not in ("UNAUTHORIZED", "DENIED"):
                    # Some registries and proxies want to know each request's length.
                    streamed, attempt = False, 0
                    continue
                if error.is_final or attempt >= self._settings.attempts:
                    raise
            except TransportError:
                if attempt >= self._settings.attempts:
                    raise
            self._wait(self._settings.retry_delay_s * 2 ** (attempt - 1))
        self._progress.step(self._shown, "Pushed")
        made = PackedLayer(digest, size, media.layer_type(self._form.kind, oci=False), self._repository.name)
        return self._remember(kept or made)

    def _wait(self, seconds: float) -> None:
        shown = max(1, round(seconds))
        self._progress.step(self._shown, f"Retrying in {shown} second{'s' if shown != 1 else ''}")
        self._calls.wait(seconds)

    def _send(self, kept: PackedLayer | None, *, streamed: bool) -> tuple[str, int]:
        if kept and not self._is_kept(kept):
            raise _DamagedError
        # It is closed here: an error keeps what reads it.
        with self._store.content.open(kept.digest if kept else self._diff_id) as file:
            return self._send_file(file, kept, streamed=streamed)

    def _send_file(self, file: BinaryIO, kept: PackedLayer | None, *, streamed: bool) -> tuple[str, int]:
        upload = self._repository.start_upload()
        hasher = Hasher()
        sizes: list[int] = []

        def hashed() -> Iterator[bytes]:
            for data in self._blob(file) if kept else self._form.packed(self._blob(file)):
                hasher.update(data)
                sizes.append(len(data))
                yield bytes(data)

        try:
            if streamed:
                upload.send(hashed())
            else:
                _send_chunks(upload, hashed())
            digest = "sha256:" + hasher.finish()
            if kept and kept.digest != digest:
                raise _DamagedError
            upload.finish(digest)
        except BaseException:
            _cancel(upload, self._calls.check)
            raise
        finally:
            hasher.stop()
        return digest, sum(sizes)

    def _is_kept(self, form: PackedLayer) -> bool:
        try:
            return self._store.content.size(form.digest) == form.size
        except NotFoundError:
            return False

    def _blob(self, file: BinaryIO) -> Iterator[bytes]:
        total, done = os.fstat(file.fileno()).st_size, 0
        while data := file.read(CHUNK):
            self._calls.check()
            done += len(data)
            self._progress.bar(self._shown, "Pushing", done, total)
            yield data


def _send_chunks(upload: Upload, chunks: Iterator[bytes]) -> None:
    start = 0
    gathered = bytearray()
    for chunk in chunks:
        gathered += chunk
        if len(gathered) >= _CHUNK_BYTES:
            upload.send_chunk(bytes(gathered), start)
            start += len(gathered)
            gathered.clear()
    if gathered:
        upload.send_chunk(bytes(gathered), start)


def _cancel(upload: Upload, check: Callable[[], None]) -> None:
    try:
        check()
    except BarqueError:
        return
    upload.cancel()
