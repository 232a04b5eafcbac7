"""Snapshots whose layers of archives are indexes into the kept tar instead of unpacked files.

    <root>/<n>/i     the index, an EROFS image
    <root>/<n>/t     the tar: another name of the blob, so that the layer is whole by itself
    <root>/<n>/u     a symbolic link whose target is [bytes, inodes, the index's digest] as JSON

Writable layers, and layers that an index cannot express, are folders as in DirectorySnapshotter, which
also reads these.
"""

import json
import os
import shutil

from barque.base.errors import ConflictError
from barque.oci import digest as digests
from barque.storage.erofs import image, mounts, tree
from barque.storage.erofs.mounts import INDEX, TAR
from barque.storage.mapping import mapped
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
            with open(tar, "rb") as file, mapped(file) as buffer:
                made = image.write(tree.build(buffer, lowers), len(buffer))
        except tree.UnindexableError:
            super().add_layer(name, parent, tar)
            return
        self._install(Info(name, COMMITTED, parent), made, tar)

    def _install(self, info: Info, made: image.Image, tar: str) -> None:
        folder = self._reserve(info, indexed=True)
        path = f"{self._root}/{folder}"
        try:
            os.mkdir(path, 0o711)
            with open(f"{path}/{INDEX}", "xb", buffering=0) as file:
                file.write(made.data)
            os.link(tar, f"{path}/{TAR}")
            os.symlink(json.dumps([made.size, made.inodes, digests.of(bytes(made.data))]), f"{path}/u")
            os.symlink(json.dumps(info), f"{path}/m")
        except OSError:
            self._forget(info)
            shutil.rmtree(path, ignore_errors=True)
            raise


__all__ = ["ErofsSnapshotter", "mounts"]
