"""What images and actions under way need of the store, and the removal of what nobody needs."""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from barque.base.errors import ConflictError, InvalidInputError, NotFoundError
from barque.images.indexes import IndexedCatalogue
from barque.images.layers import Layers
from barque.images.leases import Lease
from barque.images.model import Image
from barque.oci import manifest as manifests
from barque.storage.content import ContentStore
from barque.storage.snapshots import Snapshotter, init_layer_name


class LeasedCatalogue(IndexedCatalogue):
    """A catalogue with its layers, whose content goes when neither an image nor a lease needs it."""

    def __init__(self, data_root: str, content: ContentStore, snapshots: Snapshotter) -> None:
        super().__init__(data_root, content)
        self.layers = Layers(content, snapshots)
        self.snapshots = snapshots
        # `changing` orders those who add or remove images; it is taken before `lock`. What an action
        # brings in before it has an image to belong to is kept by a lease.
        self.changing = threading.RLock()
        self._leases: list[Lease] = []
        self._sizes: dict[str, int] = {}

    def layer_size(self, chain_id: str) -> int:
        """Return the bytes of a layer's own files."""
        size = self._sizes.get(chain_id)
        if size is None:
            size = self._sizes[chain_id] = self.snapshots.usage(chain_id).size
        return size

    @contextmanager
    def lease(self) -> Iterator[Lease]:
        """Hold what arrives; what did not become an image's is removed at the end."""
        with self.content.lease() as inner:
            lease = Lease(self.lock, inner)
            with self.lock:
                self._leases.append(lease)
            try:
                yield lease
            finally:
                with self.changing, self.lock:
                    self._leases.remove(lease)
                    self._drop_unused(lease)

    def _drop_unused(self, lease: Lease) -> None:
        used = self.used_chains()
        for chain in self._deepest_first(lease.chains - used):
            try:
                self.snapshots.remove(chain)
                self._sizes.pop(chain, None)
            except (ConflictError, NotFoundError):
                continue
        lease.discard(lease.blobs - self.used_blobs())

    def _deepest_first(self, chains: set[str]) -> list[str]:
        depths: dict[str, int] = {}
        for chain in chains:
            depth, at = 0, chain
            while at:
                try:
                    at = self.snapshots.stat(at).parent
                except NotFoundError:
                    break
                depth += 1
            depths[chain] = depth
        return sorted(chains, key=lambda c: -depths[c])

    def used_chains(self) -> set[str]:
        """Return the chain ids of all layers that images and actions under way need."""
        used = {c for i in self._images.values() for c in i.chain}.union(self._held)
        return used.union(*(lease.chains for lease in self._leases))

    def used_blobs(self) -> set[str]:
        """Return the digests of all blobs that images and actions under way need."""
        used = {d for i in self._images.values() for d in (i.id, *i.diff_ids)}.union(self._held.values())
        return used.union(self.kept_forms(used), self._manifests, *(lease.blobs for lease in self._leases))

    def sweep(self) -> None:
        """Remove layers and blobs that belong to no image and no lease."""
        with self.changing, self.lock:
            self.layers.keep_only(self.used_chains(), self.used_blobs())

    def _drop_forms(self, image: Image, gone: Iterable[str]) -> set[str]:
        """Forget compressed forms that only manifests which go name, of layers that stay in another form.

        Args:
            image: whose layers they are.
            gone: digests of its manifests that are forgotten, whose blobs are still here.

        Returns:
            Digests of the forms.
        """
        shared = {d: forms for d in image.diff_ids if len(forms := self._kept.get(d, set())) > 1}
        if not shared:
            return set()
        own = self._layers_named(gone)
        users = (i for i in self._images.values() if not shared.keys().isdisjoint(i.diff_ids))
        dropped = own - self._layers_named(m for i in users for m in self.manifests_of(i.id))
        found: set[str] = set()
        for forms in shared.values():
            unused = forms & dropped
            # One form stays in any case: a push of the layer need not compress it.
            found |= set(sorted(unused)[1:]) if unused == forms else unused
        for digest in found:
            self.forget_packed(digest)
        return found

    def _drop_unmeant(self, before: Iterable[str]) -> None:
        """Forget manifests that no name means any more, of images of which another one is meant, and the forms in them.

        Args:
            before: digests of those that a removed name meant.
        """
        meant = {m for name in self._targets for m in self.manifests_meant(name)}
        for image_id in self._images.keys() & {self._manifests.get(m, "") for m in before}:
            own = set(self.manifests_of(image_id))
            gone = own.intersection(before) - meant
            if not gone or not own & meant:
                continue
            self._forget_manifests(gone)
            gone |= self._drop_forms(self._images[image_id], gone)
            self.content.discard(gone - self.used_blobs())

    def _layers_named(self, digests: Iterable[str]) -> set[str]:
        """Return the digests of the compressed layers that manifests name."""
        found: set[str] = set()
        for digest in digests:
            try:
                parsed = manifests.parse(self.content.read(digest))
            except (NotFoundError, InvalidInputError):
                continue
            if isinstance(parsed, manifests.Manifest):
                found.update(layer.digest for layer in parsed.layers)
        return found

    def _delete_layers(self, image: Image) -> list[str]:
        kept = self.used_chains()
        gone = []
        for chain in reversed(image.chain):
            if chain in kept:
                break
            try:
                self._remove_init_layer(chain)
                self.snapshots.remove(chain)
            except ConflictError:
                # A container still stands on it: it goes when the store opens next.
                break
            except NotFoundError:
                continue
            self._sizes.pop(chain, None)
            gone.append(chain)
        return gone

    def _remove_init_layer(self, chain: str) -> None:
        try:
            self.snapshots.remove(init_layer_name(chain))
        except NotFoundError:
            return
