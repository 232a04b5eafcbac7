"""Snapshots whose layers of archives are indexes into the kept tar instead of unpacked files.

Writable layers, and layers that an index cannot express, are folders as in DirectorySnapshotter, which
also reads these.
"""

from __future__ import annotations

import json
import os
import shutil

from barque.base.errors import ConflictError
from barque.storage.erofs import image, layer, tree
from barque.storage.erofs.mounts import TAR
from barque.storage.snapshots import COMMITTED, DirectorySnapshotter, Info


class ErofsSnapshotter(DirectorySnapshotter):
    """DirectorySnapshotter, but archives are indexed where that is possible."""

    driver = "erofs"

    def add_layer(self, name: str, parent: str, tar: str) -> None:
        """Make a committed snapshot of a layer's tar (see Snapshotter)."""
        with self._lock:
            if name in self._entries:
                raise ConflictError(f"snapshot {name} already exists")
            lowers = self._lowers_of(parent)
        try:
            made = layer.index_of(tar, lowers)
        except tree.UnindexableError:
            super().add_layer(name, parent, tar)
            return
        self._install(Info(name, COMMITTED, parent), made, tar)

    def _install(self, info: Info, made: image.Image, tar: str) -> None:
        folder = self._reserve(info, indexed=True)
        path = f"{self._root}/{folder}"
        try:
            os.mkdir(path, 0o711)
            os.link(tar, f"{path}/{TAR}")
            layer.put_index(path, made)
            os.symlink(json.dumps(info), f"{path}/m")
        except OSError:
            self._forget(info)
            shutil.rmtree(path, ignore_errors=True)
            raise
