"""The image store: configs, names and the layers that belong to them, made, imported, committed, removed."""

import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence

from barque.base.errors import ConflictError, InvalidInputError, NotFoundError
from barque.base.ids import short
from barque.base.times import format_ns
from barque.images.held import LeasedCatalogue
from barque.images.layers import EMPTY, EMPTY_TAR
from barque.images.leases import Lease
from barque.images.model import Image, Json, check_config
from barque.oci import digest as digests, platform
from barque.oci.reference import Reference, parse
from barque.storage import archive
from barque.storage.content import ContentStore
from barque.storage.snapshots import Snapshotter
from barque.storage.trees import tree_usage

log = logging.getLogger(__name__)

_PARTIAL_KEPT_S = 7 * 24 * 3600.0

Publish = Callable[[str, str, str], None]
"""Told (action, image id, name) of every change."""


class ImageStore(LeasedCatalogue):
    """Images of one data root; blocking, safe to use from several threads."""

    def __init__(self, data_root: str, content: ContentStore, snapshots: Snapshotter) -> None:
        super().__init__(data_root, content, snapshots)
        self.publish: Publish = lambda action, image, name: None
        self.damaged: dict[str, str] = {}
        """Ids of images whose rows are here, but not their configs, and why."""
        self._read()

    def tag(self, image_id: str, repo: str, tag: str, target: str = "") -> str:
        """Name the image; a name that another image had moves. Returns the familiar name.

        Args:
            image_id: the image.
            repo: the name's repository.
            tag: the name's tag, latest if empty.
            target: digest of the manifest or index that the image's other name was pulled by.

        Raises:
            InvalidInputError: not a name.
            NotFoundError: no such image.
        """
        reference = parse(f"{repo}:{tag}" if tag else repo).with_default_tag()
        if reference.digest:
            raise InvalidInputError("refusing to create a tag with a digest reference")
        self.set_name(reference, image_id, target)
        self.publish("tag", image_id, reference.familiar)
        return reference.familiar

    def untag(self, full_name: str) -> None:
        """Take a full name away from its image; the image stays."""
        with self.changing, self.lock:
            meant = self.manifests_meant(full_name)
            image_id = self._remove_name(full_name)
            self._drop_unmeant(meant)
        self.publish("untag", image_id, image_id)

    def delete(self, image_id: str) -> list[str]:
        """Delete an image without names and children; return the chain ids of layers that went too."""
        with self.changing, self.lock:
            image = self._images[image_id]
            if image.names or image.digests or self.children(image_id):
                raise ConflictError(f"image {short(image_id)} has names or children")
            named = self.manifests_of(image_id)
            blobs = {image_id, *image.diff_ids, *self._forget(image), *self._drop_forms(image, named)}
            gone = self._delete_layers(image)
            unused = [d for d, i in self._manifests.items() if not i and d not in self._targets.values()]
            self._forget_manifests(unused)
            self.content.discard(blobs.union(unused) - self.used_blobs())
        self.publish("delete", image_id, image_id)
        return gone

    def register(self, raw: bytes, *, parent: str = "") -> Image:
        """Add an image whose layers are all here; an image that exists is returned as it is.

        Raises:
            InvalidInputError: raw is no config.
            ConflictError: a layer is missing.
        """
        config = check_config(raw)
        image_id = digests.of(raw)
        chain = tuple(digests.chain_ids(config["rootfs"]["diff_ids"]))
        with self.lock:
            if image_id in self._images:
                return self._images[image_id]
        for layer in chain:
            if not self.layers.has(layer):
                raise ConflictError(f"layer {layer} is missing")
        size = sum(self.layer_size(layer) for layer in chain)
        with self.lease() as lease:
            lease.hold_blob(image_id)
            self.content.put(raw)
            # The row promises that all files are there, so they go to disk before it.
            self.snapshots.sync()
            with self.changing, self.lock:
                if image_id in self._images:
                    return self._images[image_id]
                return self._insert(Image(image_id, config, raw, chain, parent, size, 0))

    def register_all(self, made: Sequence[tuple[bytes, str]], layers: Iterable[tuple[str, str]] = ()) -> list[Image]:
        """Add images whose layers are all here, and hold layers that no image has, in one step.

        Args:
            made: configs and parent images' ids, parents first.
            layers: chain id and diffID of layers to hold until `let_go`.

        Raises:
            InvalidInputError: no config.
            ConflictError: a layer is missing.
            OSError: the disk is full.
        """
        rows = list(layers)
        with self.lease():
            fresh: dict[str, Image] = {}
            for raw, parent in made:
                image_id = digests.of(raw)
                if image_id not in fresh and image_id not in self._images:
                    fresh[image_id] = self._unregistered(raw, image_id, parent)
            if fresh or rows:
                self.snapshots.sync()
                with self.changing:
                    self.insert_all(fresh.values(), rows)
        with self.lock:
            return [self._images[digests.of(raw)] for raw, _ in made]

    def _unregistered(self, raw: bytes, image_id: str, parent: str) -> Image:
        config = check_config(raw)
        chain = tuple(digests.chain_ids(config["rootfs"]["diff_ids"]))
        for layer in chain:
            if not self.layers.has(layer):
                raise ConflictError(f"layer {layer} is missing")
        self.content.ingest([raw], durable=False)
        size = sum(self.layer_size(layer) for layer in chain)
        return Image(image_id, config, raw, chain, parent, size, 0)

    def adopt_layer(self, parent: str, key: str, *, keep_empty: bool = False) -> tuple[str, str]:
        """Make an active snapshot a layer that is held though no image has it (see Layers.adopt)."""
        with self.lease() as lease:
            diff_id, chain = self.layers.adopt(lease, parent, key, keep_empty=keep_empty)
            if diff_id:
                self.hold([(chain, diff_id)])
            return diff_id, chain

    def unpack_layer(self, parent: str, diff_id: str) -> str:
        """Unpack a layer that is here on another parent, and hold it (see Layers.unpack)."""
        with self.lease() as lease:
            chain = self.layers.unpack(lease, parent, diff_id)
            self.hold([(chain, diff_id)])
            return chain

    def add_empty_layer(self, parent: str) -> tuple[str, str]:
        """Add a layer that changes nothing, and hold it; return its diffID and chain id."""
        with self.lease() as lease:
            diff_id, chain = self.layers.add(lease, parent, [EMPTY_TAR])
            self.hold([(chain, diff_id)])
            return diff_id, chain

    def keep_manifest(self, raw: bytes, image_id: str) -> str:
        """Keep a manifest as it was pulled, of an image that is here, or an index (""); return its digest."""
        with self.lease() as lease:
            digest = digests.of(raw)
            lease.hold_blob(digest)
            self.content.put(raw)
            self.add_manifest(digest, image_id)
            return digest

    def add_layer(
        self, lease: Lease, parent: str, chunks: Iterable[bytes | memoryview], expected: str = ""
    ) -> tuple[str, str]:
        """Store and unpack a layer (see Layers.add)."""
        return self.layers.add(lease, parent, chunks, expected)

    def import_tar(
        self,
        chunks: Iterable[bytes | memoryview],
        *,
        reference: Reference | None = None,
        message: str = "",
        changes: Iterable[str] = (),
        wanted: str = "",
    ) -> Image:
        """Make an image of one layer from a tar of a root file system.

        Args:
            chunks: the tar, perhaps compressed.
            reference: the name to give, with a tag.
            message: the history's comment.
            changes: instructions such as `CMD ["sh"]`.
            wanted: platform, empty for this machine's.

        Raises:
            InvalidInputError: broken tar or instruction.
            OSError: the disk is full or read-only.
        """
        run_config = _changed({}, changes)
        target = platform.parse(wanted) if wanted else platform.host()
        now = format_ns(time.time_ns())
        comment = message or "Imported from -"
        with self.lease() as lease:
            diff_id, _ = self.add_layer(lease, "", chunks)
            config: Json = {
                "architecture": target.architecture,
                "comment": comment,
                "config": run_config,
                "created": now,
                "history": [{"created": now, "comment": comment}],
                "os": target.os,
                "rootfs": {"type": "layers", "diff_ids": [diff_id]},
            }
            if target.variant:
                config["variant"] = target.variant
            image = self.register(json.dumps(config).encode())
        self.publish("import", image.id, reference.familiar if reference else image.id)
        if reference:
            self.tag(image.id, reference.name, reference.tag)
        return self.resolve(image.id)

    def commit(
        self,
        parent: Image | None,
        key: str,
        *,
        config: Json,
        changes: Iterable[str] = (),
        author: str = "",
        comment: str = "",
        created_by: str = "",
        reference: Reference | None = None,
    ) -> Image:
        """Make an image of a container's snapshot: the parent's layers, and one more of what was changed.

        Args:
            parent: the image the container was made from.
            key: the container's snapshot.
            config: how containers of the new image run, before `changes`.
            changes: instructions such as `CMD ["sh"]`.
            author: who made it.
            comment: the history's comment.
            created_by: the container's command line, for the history.
            reference: the name to give.

        Raises:
            InvalidInputError: a broken instruction.
            OSError: the disk is full or read-only.
        """
        run_config = _changed(config, changes)
        now = format_ns(time.time_ns())
        upper, lowers = self.snapshots.layer_dir(key), self.snapshots.lower_dirs(key)
        with self.lease() as lease:
            lease.hold_chain(parent.top if parent else "")
            diff_id, _ = self.add_layer(lease, parent.top if parent else "", archive.layer_tar(upper, lowers))
            made: Json = dict(parent.config) if parent else {}
            # A container that changed nothing adds no layer.
            added = [] if diff_id == EMPTY else [diff_id]
            entry = {"created": now, "author": author, "created_by": created_by, "comment": comment, "empty_layer": not added}
            host = platform.host()
            made |= {
                "architecture": made.get("architecture") or host.architecture,
                "os": made.get("os") or host.os,
                "created": now,
                "author": author,
                "comment": comment,
                "config": run_config,
                "history": [*(made.get("history") or []), {k: v for k, v in entry.items() if v}],
                "rootfs": {
                    "type": "layers",
                    "diff_ids": [*(parent.diff_ids if parent else []), *added],
                },
            }
            made = {k: v for k, v in made.items() if v != ""}
            image = self.register(json.dumps(made).encode(), parent=parent.id if parent else "")
        if reference:
            self.tag(image.id, reference.name, reference.tag)
        return self.resolve(image.id)

    def layers_size(self) -> int:
        """Return the bytes that all images' layers take together, shared ones once."""
        with self.lock:
            chains = {c for i in self._images.values() for c in i.chain}
        return sum(self.layer_size(c) for c in chains)

    def discard(self, image_id: str) -> None:
        """Remove an image of which something is lost, its names and the images made from it, but no layers."""
        with self.changing, self.lock:
            for child in self.children(image_id):
                self.discard(child)
            image = self._images[image_id]
            for name in (*image.names, *image.digests):
                self.untag(name)
            self._forget(image)
        self.publish("delete", image_id, image_id)

    def forget_damaged(self, image_id: str) -> None:
        """Remove the rows of an image whose config is lost."""
        with self.changing, self.lock:
            with self._transaction() as database:
                for table in ("name", "manifest"):
                    database.execute(f"DELETE FROM {table} WHERE image = ?", (image_id,))
                database.execute("DELETE FROM image WHERE id = ?", (image_id,))
            del self.damaged[image_id]

    def unpack_again(self, parent: str, diff_id: str) -> None:
        """Make a layer anew from its tar.

        Raises:
            OSError: the tar is missing; the disk is full.
        """
        with self.lease() as lease:
            self.layers.unpack(lease, parent, diff_id)
            self.snapshots.sync()

    def _read(self) -> None:
        for image_id, parent, size, tagged in self._rows():
            try:
                raw = self.content.read(image_id)
                config = check_config(raw)
            except (NotFoundError, InvalidInputError) as error:
                # The rest of the store is of use without it, and `system check` tells of it.
                log.error("image %s cannot be read: %s", image_id, error)
                self.damaged[image_id] = f"its config cannot be read: {error}"
                continue
            chain = tuple(digests.chain_ids(config["rootfs"]["diff_ids"]))
            self._images[image_id] = Image(image_id, config, raw, chain, parent, size, tagged)
        self._names = {name: i for name, i in self._names.items() if i not in self.damaged}
        self._refresh(*self._images)
        self.layers.drop_unfinished()
        if not self.damaged:
            self.sweep()


def container_size(snapshots: Snapshotter, key: str) -> int:
    """Return the bytes that a container wrote."""
    return tree_usage(snapshots.layer_dir(key)).size


def open_store(data_root: str, snapshots: Snapshotter) -> ImageStore:
    """Open the store of a data root with its content beside it."""
    os.makedirs(data_root, mode=0o710, exist_ok=True)
    content = ContentStore(f"{data_root}/content")
    content.drop_old_partials(_PARTIAL_KEPT_S)
    return ImageStore(data_root, content, snapshots)


def _changed(config: Json, changes: Iterable[str]) -> Json:
    """Return a run configuration after instructions, whose language comes with the first who needs it."""
    from barque.images.changes import apply_changes

    return apply_changes(config, changes)
