"""Is the store what its rows say? Verifies blobs, images, names, manifests and layers, and repairs what can be.

Runs beside everything else: what looks wrong is looked at again while nothing may change, since an
image may have been removed meanwhile. A repair restores from what is here (a layer from its tar, a
tar from its layer), else removes the rows that promise what is not here, so that a pull brings it anew.
"""

import hashlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from barque.base.errors import BarqueError, ConflictError, NotFoundError
from barque.base.ids import short
from barque.images.model import Image
from barque.images.store import ImageStore
from barque.oci import digest as digests
from barque.storage.content import CHUNK
from barque.storage.snapshots import COMMITTED


class Problem(NamedTuple):
    """Something that is not as it should be."""

    kind: str
    """blob, image, name, manifest, layer, container, snapshot, volume or database."""
    subject: str
    text: str
    repaired: bool = False


class Checker:
    """One check of a store.

    Args:
        store: the store.
        read: read every blob and compare its digest.
        repair: repair what can be repaired.
    """

    def __init__(self, store: ImageStore, *, read: bool = True, repair: bool = False) -> None:
        self._store = store
        self._read = read
        self._repair = repair
        self.counts: dict[str, int] = {"Blobs": 0, "BytesRead": 0, "Images": 0, "Names": 0, "Layers": 0}

    def run(self) -> Iterator[Problem]:
        """Yield the problems."""
        yield from self._database()
        yield from self._blobs()
        yield from self._damaged()
        yield from self._layers()
        for image in self._store.images():
            self.counts["Images"] += 1
            yield from self._image(image)
        yield from self._names()
        if self._repair:
            self._store.sweep()

    def _database(self) -> Iterator[Problem]:
        for text in self._store.integrity():
            yield Problem("database", "images.db", text)

    def _blobs(self) -> Iterator[Problem]:
        for blob in list(self._store.content.walk()):
            self.counts["Blobs"] += 1
            if not self._read or self._whole(blob.digest):
                continue
            with self._store.changing:
                # Nobody reads it as what it claims to be again; what needs it is found missing below.
                if self._repair:
                    self._store.content.remove(blob.digest)
            yield Problem("blob", blob.digest, "its bytes have another digest", self._repair)

    def _whole(self, digest: str) -> bool:
        algorithm, digits = digests.split(digest)
        hasher = hashlib.new(algorithm)
        try:
            with self._store.content.open(digest) as file:
                while data := file.read(CHUNK):
                    hasher.update(data)
                    self.counts["BytesRead"] += len(data)
        except NotFoundError:
            return True
        return hasher.hexdigest() == digits

    def _damaged(self) -> Iterator[Problem]:
        """Rows of images that could not be read when the store opened."""
        for image_id, text in sorted(self._store.damaged.items()):
            if self._repair:
                self._store.forget_damaged(image_id)
            yield Problem("image", image_id, text, self._repair)

    def _layers(self) -> Iterator[Problem]:
        snapshots = self._store.snapshots
        names = {i.name for i in snapshots.walk()}
        for info in list(snapshots.walk()):
            if info.kind == COMMITTED:
                self.counts["Layers"] += 1
            if info.parent and info.parent not in names and self._still(partial(snapshots.stat, info.name)):
                yield Problem("snapshot", info.name, f"its parent {info.parent} is missing")
            text = self._about(partial(snapshots.verify, info.name))
            if text:
                repaired = self._repair and self._done(partial(snapshots.rebuild, info.name))
                yield Problem("layer" if info.kind == COMMITTED else "snapshot", info.name, text, repaired)

    def _about(self, look: Callable[[], str]) -> str:
        try:
            return look()
        except NotFoundError:
            return ""

    def _still(self, look: Callable[[], object]) -> bool:
        try:
            look()
        except NotFoundError:
            return False
        return True

    def _done(self, repair: Callable[[], object]) -> bool:
        try:
            repair()
        except (BarqueError, OSError):
            return False
        return True

    def _image(self, image: Image) -> Iterator[Problem]:
        for look in (self._config_of, self._tars_of, self._layers_of, self._size_of):
            for text, mend in look(image):
                with self._store.changing, self._store.lock:
                    if image.id not in {i.id for i in self._store.images()}:
                        return
                    repaired = self._repair and (self._done(mend) or self._done(partial(self._store.discard, image.id)))
                yield Problem("image", image.id, text, repaired)
                if repaired and image.id not in {i.id for i in self._store.images()}:
                    return

    def _config_of(self, image: Image) -> Iterator[tuple[str, Callable[[], object]]]:
        if not self._store.content.has(image.id):
            yield "its config is missing", partial(self._store.content.put, image.raw)

    def _tars_of(self, image: Image) -> Iterator[tuple[str, Callable[[], object]]]:
        for chain, diff_id in zip(image.chain, image.diff_ids, strict=True):
            if not self._store.content.has(diff_id):
                yield f"the tar {diff_id} of a layer is missing", partial(self._restore_tar, chain, diff_id)

    def _restore_tar(self, chain: str, diff_id: str) -> None:
        tar = self._store.snapshots.kept_tar(chain)
        if not tar:
            raise ConflictError(f"the layer {chain} has no tar of its own")
        with open(tar, "rb") as file:
            self._store.content.ingest(iter(lambda: file.read(CHUNK), b""), diff_id)

    def _layers_of(self, image: Image) -> Iterator[tuple[str, Callable[[], object]]]:
        parent = ""
        for chain, diff_id in zip(image.chain, image.diff_ids, strict=True):
            if not self._store.layers.has(chain):
                yield f"the layer {chain} is missing", partial(self._store.unpack_again, parent, diff_id)
            elif self._store.snapshots.stat(chain).parent != parent:
                yield f"the layer {chain} lies on another than {parent or 'nothing'}", self._cannot
            parent = chain

    def _size_of(self, image: Image) -> Iterator[tuple[str, Callable[[], object]]]:
        try:
            size = sum(self._store.snapshots.usage(chain).size for chain in image.chain)
        except NotFoundError:
            return
        if size != image.size:
            yield f"its layers take {size} bytes, not {image.size}", partial(self._store.set_size, image.id, size)

    def _cannot(self) -> None:
        raise ConflictError("this cannot be repaired in place")

    def _names(self) -> Iterator[Problem]:
        known = {i.id for i in self._store.images()}
        for name, image_id in self._store.names().items():
            self.counts["Names"] += 1
            if image_id not in known and self._store.names().get(name) == image_id:
                if self._repair:
                    self._store.untag(name)
                yield Problem("name", name, f"the image {short(image_id)} is missing", self._repair)
            target = self._store.target(name)
            if target and not self._store.content.has(target) and self._store.target(name) == target:
                yield Problem("manifest", target, f"{name} was pulled by it, but it is missing")
