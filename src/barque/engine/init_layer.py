"""The layer between an image and its containers: what the engine mounts over, so that no container's layer shows it.

Without it each container's own layer would hold the empty files on which /etc/hosts and its like are bound: `diff`
would list them and `commit` would put them into images. There is one for each image, made when it is first needed.
"""

import asyncio
import os
import stat
from typing import TYPE_CHECKING

from barque.base.errors import ConflictError, NotFoundError
from barque.kernel.openat2 import open_in_root
from barque.storage.mounts import mounted
from barque.storage.snapshots import Snapshotter, init_layer_name

if TYPE_CHECKING:
    from barque.engine.engine import Engine

_FOLDERS = ("dev/pts", "dev/shm", "proc", "sys", "etc")
_FILES = (".dockerenv", "etc/resolv.conf", "etc/hosts", "etc/hostname", "dev/console")
_MTAB = "etc/mtab"


async def prepare(engine: "Engine", key: str, top: str) -> None:
    """Make a container's own layer on an image's, with the layer of mount points between them.

    Args:
        engine: whose snapshots they are.
        key: the new snapshot's.
        top: the image's uppermost layer, empty for an image without layers.

    Raises:
        NotFoundError: the image's layer is not there any more.
        OSError: the disk is full or read-only; nothing is left behind.
    """
    name = init_layer_name(top)
    snapshots = engine.snapshots
    for attempt in (1, 2):
        if not _exists(snapshots, name):
            async with engine.init_layer_lock:
                if not _exists(snapshots, name):
                    await asyncio.to_thread(_make, snapshots, name, top)
        try:
            snapshots.prepare(key, name)
        except NotFoundError:
            # Layers that nobody stands on may be swept away at any time.
            if attempt == 2:
                raise
        else:
            return


def _exists(snapshots: Snapshotter, name: str) -> bool:
    try:
        snapshots.stat(name)
    except NotFoundError:
        return False
    return True


def _make(snapshots: Snapshotter, name: str, top: str) -> None:
    key = f"{name}-{os.urandom(4).hex()}"
    mounts = snapshots.prepare(key, top)
    try:
        with mounted(mounts) as root:
            _fill(root)
        snapshots.commit(name, key)
    except ConflictError:
        snapshots.remove(key)
    except BaseException:
        snapshots.remove(key)
        raise


def _fill(root: int) -> None:
    for path in _FOLDERS:
        os.close(_folder(root, path))
    for path in _FILES:
        above, _, name = path.rpartition("/")
        parent = _folder(root, above)
        try:
            # What lies there already stays: it is mounted over anyway.
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o755, dir_fd=parent))
        except FileExistsError:
            pass
        finally:
            os.close(parent)
    _link_mtab(root)


def _folder(root: int, path: str) -> int:
    """Return a descriptor of a folder, made where it is missing; links lead nowhere but inside the root."""
    found = open_in_root(root, "/", os.O_PATH | os.O_DIRECTORY)
    done = ""
    for name in filter(None, path.split("/")):
        done = f"{done}/{name}"
        try:
            os.mkdir(name, 0o755, dir_fd=found)
        except FileExistsError:
            pass
        os.close(found)
        found = open_in_root(root, done, os.O_PATH | os.O_DIRECTORY)
    return found


def _link_mtab(root: int) -> None:
    above, _, name = _MTAB.rpartition("/")
    parent = _folder(root, above)
    try:
        try:
            if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                return
            os.unlink(name, dir_fd=parent)
        except FileNotFoundError:
            pass
        os.symlink("/proc/mounts", name, dir_fd=parent)
    finally:
        os.close(parent)
