"""Layers on disk: the tar as a blob under its diffID, the files as a snapshot under its chain id."""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from barque.base.errors import NotFoundError
from barque.images.leases import Lease
from barque.oci import digest as digests
from barque.storage import archive, bounds
from barque.storage.content import ContentStore
from barque.storage.snapshots import COMMITTED, EXTRACT, Snapshotter

EMPTY_TAR = bytes(1024)
"""A tar without entries: a layer that changes nothing."""
EMPTY = digests.of(EMPTY_TAR)


class _Turn:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.count = 0


class Layers:
    """Adds and removes layers; safe to use from several threads."""

    def __init__(self, content: ContentStore, snapshots: Snapshotter) -> None:
        self.content = content
        self.snapshots = snapshots
        self._lock = threading.Lock()
        self._busy: dict[str, _Turn] = {}

    def has(self, chain_id: str) -> bool:
        """Tell whether the layer's files are here."""
        try:
            return self.snapshots.stat(chain_id).kind == COMMITTED
        except NotFoundError:
            return False

    def add(
        self, lease: Lease, parent: str, chunks: Iterable[bytes | memoryview], expected: str = ""
    ) -> tuple[str, str]:
        """Store a layer's tar and unpack it on the parent's chain id.

        Args:
            lease: holds the layer until an image has it.
            parent: chain id of the layer below, empty for the lowest.
            chunks: the tar, perhaps compressed.
            expected: the diffID it must have, empty if unknown.

        Returns:
            diffID and chain id.

        Raises:
            InvalidInputError: broken archive or another digest.
            OSError: full or read-only disk; nothing is left behind.
        """
        blob = self.content.ingest(bounds.inflated(chunks, self.content.folder), expected)
        lease.hold_blob(blob.digest)
        return blob.digest, self.unpack(lease, parent, blob.digest)

    def adopt(self, lease: Lease, parent: str, key: str, *, keep_empty: bool = False) -> tuple[str, str]:
        """Make the active snapshot `key`, prepared on the parent's chain id, a layer: nothing is unpacked.

        Its bytes are on disk after the next `snapshots.sync()`.

        Args:
            lease: holds the layer until something else does.
            parent: chain id of the layer below, empty for the lowest.
            key: the snapshot.
            keep_empty: what changes nothing is a layer, too.

        Returns:
            diffID and chain id; an empty diffID and the parent where nothing was changed.

        Raises:
            OSError: full or read-only disk; the snapshot stays active.
        """
        tar = archive.layer_tar(self.snapshots.layer_dir(key), self.snapshots.lower_dirs(key))
        blob = self.content.ingest(tar, durable=False)
        lease.hold_blob(blob.digest)
        if blob.digest == EMPTY and not keep_empty:
            self.snapshots.remove(key)
            return "", parent
        chain = digests.of(f"{parent} {blob.digest}".encode()) if parent else blob.digest
        lease.hold_chain(chain)
        with self._only_one(chain):
            if self.has(chain):
                self.snapshots.remove(key)
            else:
                self.snapshots.commit(chain, key)
        return blob.digest, chain

    def unpack(self, lease: Lease, parent: str, diff_id: str) -> str:
        """Unpack a layer whose tar is here on the parent's chain id, unless it is; return its chain id.

        Raises:
            InvalidInputError: broken archive.
            OSError: full or read-only disk; nothing is left behind.
        """
        chain = digests.of(f"{parent} {diff_id}".encode()) if parent else diff_id
        lease.hold_chain(chain)
        with self._only_one(chain):
            if not self.has(chain):
                self.snapshots.add_layer(chain, parent, self.content.path(diff_id))
        return chain

    @contextmanager
    def _only_one(self, chain: str) -> Iterator[None]:
        """Let one thread at a time unpack a layer; different layers go side by side."""
        with self._lock:
            users = self._busy.setdefault(chain, _Turn())
            users.count += 1
        try:
            with users.lock:
                yield
        finally:
            with self._lock:
                users.count -= 1
                if not users.count:
                    del self._busy[chain]

    def drop_unfinished(self) -> None:
        """Remove what an interrupted unpacking left; only before the first layer is added."""
        for info in list(self.snapshots.walk()):
            if info.name.startswith(EXTRACT):
                self.snapshots.remove(info.name)

    def keep_only(self, chains: set[str], blobs: set[str]) -> None:
        """Remove image layers and blobs that are not named."""
        infos = list(self.snapshots.walk())
        used = {i.parent for i in infos if i.kind != COMMITTED}
        stale = {i.name: i.parent for i in infos if i.kind == COMMITTED and i.name not in chains}
        while leaves := [n for n in stale if n not in stale.values() and n not in used]:
            for name in leaves:
                self.snapshots.remove(name)
                del stale[name]
        self.content.discard([blob.digest for blob in self.content.walk() if blob.digest not in blobs])
