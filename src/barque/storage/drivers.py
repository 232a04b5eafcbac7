"""Which snapshotter a data root gets: what the user asks for, or the best that this kernel can do."""

import logging
import os

from barque.base.errors import UnsupportedError
from barque.kernel import ext4
from barque.storage.erofs import mounts
from barque.storage.erofs.snapshotter import ErofsSnapshotter
from barque.storage.snapshots import DirectorySnapshotter

log = logging.getLogger(__name__)

NAMES = ("erofs", "overlay2")


def open_snapshots(root: str, driver: str = "") -> DirectorySnapshotter:
    """Open the snapshots below a folder; layers that the other driver made are shown, too.

    Args:
        root: the folder.
        driver: one of NAMES, empty for the best that this kernel can do.

    Raises:
        UnsupportedError: this kernel cannot do what the driver needs.
        OSError: the folder cannot be made or read.
    """
    os.makedirs(root, mode=0o711, exist_ok=True)
    ext4.spread(root)
    try:
        mounts.probe(root)
    except UnsupportedError as error:
        if driver == "erofs":
            raise UnsupportedError(f"storage driver erofs: {error}; leave the driver to the engine") from None
        log.info("layers are unpacked into folders: %s", error)
        return DirectorySnapshotter(root, mountable=False)
    return DirectorySnapshotter(root) if driver == "overlay2" else ErofsSnapshotter(root)


def file_system(path: str) -> str:
    """Return the kind of the file system that a folder lies on, named as Docker does; "unknown" if it is not told."""
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            words = line.split()
            if words[2] == wanted:
                kind = words[words.index("-") + 1]
                return {"ext2": "extfs", "ext3": "extfs", "ext4": "extfs", "overlay": "overlayfs"}.get(kind, kind)
    return "unknown"
