"""Layers on disk: the tar as a blob under its diffID, the files as a snapshot under its chain id."""

import os
import threading
from collections.abc import Iterable

from barque.oci import digest as digests
from barque.storage.archive import unpack
from barque.storage.compression import plain
from barque.storage.content import ContentStore
from barque.storage.mapping import mapped
from barque.storage.snapshots import COMMITTED, Snapshotter

_EXTRACT = "extract-"


class Layers:
    """Adds and removes layers; safe to use from several threads."""

    def __init__(self, content: ContentStore, snapshots: Snapshotter) -> None:
        self.content = content
        self.snapshots = snapshots
        self._lock = threading.Lock()

    def has(self, chain_id: str) -> bool:
        """Tell whether the layer's files are here."""
        return any(i.name == chain_id and i.kind == COMMITTED for i in self.snapshots.walk())

    def add(self, parent: str, chunks: Iterable[bytes | memoryview], expected: str = "") -> tuple[str, str]:
        """Store a layer's tar and unpack it on the parent's chain id.

        Args:
            parent: chain id of the layer below, empty for the lowest.
            chunks: the tar, perhaps compressed.
            expected: the diffID it must have, empty if unknown.

        Returns:
            diffID and chain id.

        Raises:
            InvalidInputError: broken archive or another digest.
            OSError: full or read-only disk; nothing is left behind.
        """
        blob = self.content.ingest(plain(chunks), expected)
        chain = digests.of(f"{parent} {blob.digest}".encode()) if parent else blob.digest
        with self._lock:
            if not self.has(chain):
                self._unpack(parent, chain, blob.digest)
        return blob.digest, chain

    def _unpack(self, parent: str, chain: str, diff_id: str) -> None:
        key = _EXTRACT + os.urandom(8).hex()
        self.snapshots.prepare(key, parent)
        try:
            root = os.open(self.snapshots.layer_dir(key), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                with self.content.open(diff_id) as file, mapped(file) as buffer:
                    unpack(buffer, root, layer=True, lowers=self.snapshots.lower_dirs(key))
            finally:
                os.close(root)
            self.snapshots.commit(chain, key)
        except BaseException:
            self.snapshots.remove(key)
            raise

    def keep_only(self, chains: set[str], blobs: set[str]) -> None:
        """Remove image layers and blobs that are not named: what an interrupted action left."""
        with self._lock:
            infos = list(self.snapshots.walk())
            for info in infos:
                if info.name.startswith(_EXTRACT):
                    self.snapshots.remove(info.name)
            used = {i.parent for i in infos if i.kind != COMMITTED}
            stale = {i.name: i.parent for i in infos if i.kind == COMMITTED and i.name not in chains}
            while leaves := [n for n in stale if n not in stale.values() and n not in used]:
                for name in leaves:
                    self.snapshots.remove(name)
                    del stale[name]
        for blob in list(self.content.walk()):
            if blob.digest not in blobs:
                self.content.remove(blob.digest)
