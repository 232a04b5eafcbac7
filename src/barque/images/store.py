"""The image store: configs, names and which layers belong to them, in SQLite."""

import json
import os
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from barque.base.errors import BarqueError, ConflictError, InvalidInputError, NotFoundError
from barque.base.ids import short
from barque.base.times import format_ns
from barque.images.changes import apply_changes
from barque.images.layers import Layers
from barque.images.model import Image, Json, check_config
from barque.oci import digest as digests, platform
from barque.oci.reference import Reference, parse
from barque.storage.archive import layer_tar
from barque.storage.content import ContentStore
from barque.storage.snapshots import Snapshotter, init_layer_name, tree_usage

_HEX = re.compile(r"(?:sha256:)?([0-9a-f]{1,64})")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS image (
    id TEXT PRIMARY KEY, parent TEXT NOT NULL, size INTEGER NOT NULL, tagged_ns INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS name (ref TEXT PRIMARY KEY, image TEXT NOT NULL REFERENCES image(id));
"""

Publish = Callable[[str, str, str], None]
"""Told (action, image id, name) of every change."""


class ImageStore:
    """Images of one data root; blocking, safe to use from several threads."""

    def __init__(self, data_root: str, content: ContentStore, snapshots: Snapshotter) -> None:
        self.layers = Layers(content, snapshots)
        self.content = content
        self.snapshots = snapshots
        self.publish: Publish = lambda action, image, name: None
        # `changing` is held long, by those who add or remove content: between a layer's arrival and
        # the image's row nobody may sweep it away. `lock` guards the maps, is held for moments only
        # and taken after `changing`, so that looking an image up never waits for an import.
        self.changing = threading.RLock()
        self.lock = threading.RLock()
        self._images: dict[str, Image] = {}
        self._names: dict[str, str] = {}
        if os.statvfs(data_root).f_flag & os.ST_RDONLY:
            raise BarqueError(f"data root {data_root} is on a read-only file system")
        self._database = sqlite3.connect(f"{data_root}/images.db", check_same_thread=False, isolation_level=None)
        try:
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            self._database.executescript(_SCHEMA)
        except sqlite3.Error as error:
            self._database.close()
            raise BarqueError(f"image database in {data_root}: {error}") from None
        self._read()

    def close(self) -> None:
        """Close the database."""
        with self.lock:
            self._database.close()

    def resolve(self, ref: str) -> Image:
        """Return the image that a name, `name:tag`, `name@digest`, id or id prefix means.

        Raises:
            InvalidInputError: ref is malformed, or a prefix of several ids.
            NotFoundError: there is none.
        """
        with self.lock:
            named = self._by_name(ref)
            if named:
                return self._images[named]
            match = _HEX.fullmatch(ref)
            if match:
                found = [i for i in self._images if i.startswith(f"sha256:{match[1]}")]
                if len(found) == 1:
                    return self._images[found[0]]
                if found:
                    raise InvalidInputError(f"multiple IDs found with provided prefix: {ref}")
            if re.fullmatch(r"sha256:[0-9a-f]{64}|[0-9a-f]{64}", ref):
                raise NotFoundError(f"No such image: {ref}")
            raise NotFoundError(f"No such image: {parse(ref).with_default_tag().familiar}")

    def images(self) -> list[Image]:
        """Return all images, newest first."""
        with self.lock:
            return sorted(self._images.values(), key=lambda i: i.created_ns, reverse=True)

    def name_of(self, ref: str) -> str:
        """Return the full name by which ref finds an image, empty where it is an id."""
        with self.lock:
            return self._full_name(ref)

    def children(self, image_id: str) -> list[str]:
        """Return the ids of the images made from this one."""
        with self.lock:
            return [i.id for i in self._images.values() if i.parent == image_id]

    def layer_size(self, chain_id: str) -> int:
        """Return the bytes of a layer's own files."""
        return self.snapshots.usage(chain_id).size

    def tag(self, image_id: str, repo: str, tag: str) -> str:
        """Name the image; a name that another image had moves. Returns the familiar name.

        Raises:
            InvalidInputError: not a name.
            NotFoundError: no such image.
        """
        reference = parse(f"{repo}:{tag}" if tag else repo).with_default_tag()
        if reference.digest:
            raise InvalidInputError("refusing to create a tag with a digest reference")
        self.set_name(reference, image_id)
        self.publish("tag", image_id, reference.familiar)
        return reference.familiar

    def set_name(self, reference: Reference, image_id: str) -> None:
        """Let a whole reference (tag or digest) mean the image, durably."""
        now = time.time_ns()
        with self.lock:
            if image_id not in self._images:
                raise NotFoundError(f"No such image: {image_id}")
            ref = str(reference)
            with self._transaction() as database:
                database.execute("INSERT OR REPLACE INTO name VALUES (?, ?)", (ref, image_id))
                database.execute("UPDATE image SET tagged_ns = ? WHERE id = ?", (now, image_id))
            before = self._names.get(ref)
            self._names[ref] = image_id
            self._images[image_id] = self._images[image_id]._replace(tagged_ns=now)
            self._refresh(image_id, before)

    def untag(self, full_name: str) -> None:
        """Take a full name away from its image; the image stays."""
        with self.lock:
            image_id = self._names[full_name]
            with self._transaction() as database:
                database.execute("DELETE FROM name WHERE ref = ?", (full_name,))
            del self._names[full_name]
            self._refresh(image_id)
        self.publish("untag", image_id, image_id)

    def delete(self, image_id: str) -> list[str]:
        """Delete an image without names and children; return the chain ids of layers that went too."""
        with self.changing, self.lock:
            image = self._images[image_id]
            if image.names or image.digests or self.children(image_id):
                raise ConflictError(f"image {short(image_id)} has names or children")
            with self._transaction() as database:
                database.execute("DELETE FROM image WHERE id = ?", (image_id,))
            del self._images[image_id]
            gone = self._delete_layers(image)
            if not any(image_id in i.diff_ids for i in self._images.values()):
                self.content.remove(image_id)
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
        with self.changing:
            with self.lock:
                if image_id in self._images:
                    return self._images[image_id]
            chain = tuple(digests.chain_ids(config["rootfs"]["diff_ids"]))
            for layer in chain:
                if not self.layers.has(layer):
                    raise ConflictError(f"layer {layer} is missing")
            size = sum(self.layer_size(layer) for layer in chain)
            self.content.put(raw)
            # The row promises that all files are there, so they go to disk before it.
            self.snapshots.sync()
            with self.lock:
                with self._transaction() as database:
                    row = (image_id, parent, size, 0)
                    database.execute("INSERT INTO image VALUES (?, ?, ?, ?)", row)
                self._images[image_id] = Image(image_id, config, raw, chain, parent, size, 0)
                return self._images[image_id]

    def add_layer(self, parent: str, chunks: Iterable[bytes | memoryview], expected: str = "") -> tuple[str, str]:
        """Store and unpack a layer (see Layers.add); call it inside `collecting()`."""
        return self.layers.add(parent, chunks, expected)

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
        run_config = apply_changes({}, changes)
        target = platform.parse(wanted) if wanted else platform.host()
        now = format_ns(time.time_ns())
        comment = message or "Imported from -"
        with self.collecting():
            diff_id, _ = self.add_layer("", chunks)
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
        """Make an image of a container's snapshot: the parent's layers and one more.

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
        run_config = apply_changes(config, changes)
        now = format_ns(time.time_ns())
        upper, lowers = self.snapshots.layer_dir(key), self.snapshots.lower_dirs(key)
        with self.collecting():
            diff_id, _ = self.add_layer(parent.top if parent else "", layer_tar(upper, lowers))
            made: Json = dict(parent.config) if parent else {}
            entry = {"created": now, "author": author, "created_by": created_by, "comment": comment}
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
                    "diff_ids": [*(parent.diff_ids if parent else []), diff_id],
                },
            }
            made = {k: v for k, v in made.items() if v != ""}
            image = self.register(json.dumps(made).encode(), parent=parent.id if parent else "")
        if reference:
            self.tag(image.id, reference.name, reference.tag)
        return self.resolve(image.id)

    def collecting(self) -> "_Collecting":
        """Hold off removal while layers arrive; what did not become an image's is removed at the end."""
        return _Collecting(self)

    def sweep(self) -> None:
        """Remove layers and blobs that belong to no image."""
        with self.changing, self.lock:
            chains = {c for i in self._images.values() for c in i.chain}
            blobs = {d for i in self._images.values() for d in (i.id, *i.diff_ids)}
            self.layers.keep_only(chains, blobs)

    def layers_size(self) -> int:
        """Return the bytes that all images' layers take together, shared ones once."""
        with self.lock:
            chains = {c for i in self._images.values() for c in i.chain}
        return sum(self.layer_size(c) for c in chains)

    def _by_name(self, ref: str) -> str:
        return self._names.get(self._full_name(ref), "")

    def _full_name(self, ref: str) -> str:
        try:
            reference = parse(ref).with_default_tag()
        except InvalidInputError:
            # A whole id is no name, but it is a way to say which image.
            if _HEX.fullmatch(ref):
                return ""
            raise
        if reference.digest:
            text = str(reference._replace(tag=""))
            if text in self._names:
                return text
            # Local images have no manifest digest of a registry; their config's will do.
            for name, image_id in self._names.items():
                if image_id == reference.digest and name.startswith(reference.name + ":"):
                    return name
            return ""
        return str(reference) if str(reference) in self._names else ""

    def _transaction(self) -> "_Transaction":
        return _Transaction(self._database)

    def _refresh(self, *image_ids: str | None) -> None:
        for image_id in image_ids:
            if image_id is None or image_id not in self._images:
                continue
            refs = sorted(r for r, i in self._names.items() if i == image_id)
            self._images[image_id] = self._images[image_id]._replace(
                names=tuple(r for r in refs if "@" not in r),
                digests=tuple(r for r in refs if "@" in r),
            )

    def _delete_layers(self, image: Image) -> list[str]:
        kept = {c for i in self._images.values() for c in i.chain}
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
            gone.append(chain)
        blobs = {d for i in self._images.values() for d in i.diff_ids}
        for diff_id in set(image.diff_ids) - blobs:
            self.content.remove(diff_id)
        return gone

    def _remove_init_layer(self, chain: str) -> None:
        try:
            self.snapshots.remove(init_layer_name(chain))
        except NotFoundError:
            return

    def _read(self) -> None:
        rows = self._database.execute("SELECT id, parent, size, tagged_ns FROM image").fetchall()
        for image_id, parent, size, tagged in rows:
            raw = self.content.read(image_id)
            config = check_config(raw)
            chain = tuple(digests.chain_ids(config["rootfs"]["diff_ids"]))
            self._images[image_id] = Image(image_id, config, raw, chain, parent, size, tagged)
        for ref, image_id in self._database.execute("SELECT ref, image FROM name"):
            self._names[ref] = image_id
        self._refresh(*self._images)
        self.sweep()


class _Transaction:
    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def __enter__(self) -> sqlite3.Connection:
        try:
            self._database.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            raise BarqueError(f"image database: {error}") from None
        return self._database

    def __exit__(self, kind: Any, error: BaseException | None, *rest: Any) -> None:
        if kind is None:
            try:
                self._database.execute("COMMIT")
                return
            except sqlite3.Error as refused:
                error = refused
        if self._database.in_transaction:
            self._database.execute("ROLLBACK")
        if isinstance(error, sqlite3.Error):
            # A full disk speaks through the database too.
            raise BarqueError(f"image database: {error}") from None


class _Collecting:
    def __init__(self, store: ImageStore) -> None:
        self._store = store

    def __enter__(self) -> None:
        self._store.changing.acquire()

    def __exit__(self, kind: Any, *rest: Any) -> None:
        try:
            if kind is not None:
                self._store.sweep()
        finally:
            self._store.changing.release()


def container_size(snapshots: Snapshotter, key: str) -> int:
    """Return the bytes that a container wrote."""
    return tree_usage(snapshots.layer_dir(key)).size


def open_store(data_root: str, snapshots: Snapshotter) -> ImageStore:
    """Open the store of a data root with its content beside it."""
    os.makedirs(data_root, mode=0o711, exist_ok=True)
    return ImageStore(data_root, ContentStore(f"{data_root}/content"), snapshots)
