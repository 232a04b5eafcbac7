"""Snapshots as plain folders, shown by overlayfs; the contract is in `snapshot_contract`."""

import json
import logging
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from barque.base.errors import ConflictError, NotFoundError
from barque.kernel import mount as km, openat2
from barque.storage import archive, disks
from barque.storage.erofs import layer as layer_index
from barque.storage.erofs.mounts import INDEX, TAR, Mounted
from barque.storage.mapping import mapped
from barque.storage.snapshot_contract import (
    ACTIVE,
    COMMITTED,
    EXTRACT,
    VIEW,
    Info,
    Mount,
    Snapshotter,
    init_layer_name,
)
from barque.storage.trees import Usage, remove_tree, tree_usage

__all__ = [
    "ACTIVE",
    "COMMITTED",
    "EXTRACT",
    "VIEW",
    "DirectorySnapshotter",
    "Info",
    "Mount",
    "Snapshotter",
    "Usage",
    "init_layer_name",
    "tree_usage",
]

log = logging.getLogger(__name__)


class _Entry(NamedTuple):
    folder: str
    info: Info
    indexed: bool = False
    limited: bool = False


class DirectorySnapshotter:
    """Snapshots as folders, mounted by overlayfs.

        <root>/<n>/f     the layer (n: a short number in base 36)
        <root>/<n>/w     overlay's work folder
        <root>/<n>/disk  a file system for f and w, where their size is limited; mounted on <root>/<n>/r
        <root>/<n>/m     a symbolic link whose target is [name, kind, parent] as JSON
        <root>/empty     the lowest lower folder of everything
        <root>/trash     what is being deleted

    The facts lie in a link's target because a link is made or renamed as one journalled step:
    it is never half written, and needs no fsync of its own. Lower folders are named relative to
    the root, so that 127 layers fit the page that mount(2) takes for options.

    Layers that ErofsSnapshotter made are read, too: mounted, or unpacked where the kernel cannot.

    Args:
        root: the folder.
        mountable: the kernel mounts indexed layers.
    """

    driver = "overlay2"

    def __init__(self, root: str, *, mountable: bool = True) -> None:
        self._root = root
        self._mounted = Mounted(root) if mountable else None
        self._lock, self._disk_lock = threading.RLock(), threading.Lock()
        self._entries: dict[str, _Entry] = {}
        self._children: dict[str, int] = {}
        self._next = 1
        os.makedirs(f"{root}/empty", mode=0o755, exist_ok=True)
        os.makedirs(f"{root}/trash", mode=0o700, exist_ok=True)
        self._read()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        if os.listdir(f"{root}/trash"):
            self._empty_trash()

    def prepare(self, key: str, parent: str = "") -> list[Mount]:
        """Make an active snapshot on a committed parent (see Snapshotter)."""
        self._make(key, ACTIVE, parent)
        return self.mounts(key)

    def view(self, key: str, parent: str) -> list[Mount]:
        """Make a read-only snapshot of a committed one (see Snapshotter)."""
        self._make(key, VIEW, parent)
        return self.mounts(key)

    def mounts(self, key: str) -> list[Mount]:
        """Return the mounts of an active snapshot or a view (see Snapshotter)."""
        with self._lock:
            entry = self._entry(key)
            lowers = [self._shown(e) for e in self._parents(entry)]
        if entry.info.kind == COMMITTED:
            lowers.insert(0, self._shown(entry))
        lower = ":".join([*lowers, "empty"])
        if entry.info.kind != ACTIVE:
            return [Mount("overlay", "overlay", ("ro", f"lowerdir={lower}"), self._root)]
        place = self._place(entry)
        own = (f"lowerdir={lower}", f"upperdir={place}/f", f"workdir={place}/w")
        return [Mount("overlay", "overlay", own, self._root)]

    def commit(self, name: str, key: str) -> None:
        """Make the active snapshot a committed one (see Snapshotter)."""
        with self._lock:
            entry = self._entry(key)
            if entry.info.kind != ACTIVE:
                raise ConflictError(f"snapshot {key} is not active")
            if entry.limited:
                raise ConflictError(f"snapshot {key} lies in a file system of its own")
            if name in self._entries and name != key:
                raise ConflictError(f"snapshot {name} already exists")
            info = Info(name, COMMITTED, entry.info.parent)
            folder = f"{self._root}/{entry.folder}"
            os.symlink(json.dumps(info), f"{folder}/m2")
            os.rename(f"{folder}/m2", f"{folder}/m")
            del self._entries[key]
            self._entries[name] = _Entry(entry.folder, info)

    def add_layer(self, name: str, parent: str, tar: str) -> None:
        """Make a committed snapshot of a layer's tar (see Snapshotter)."""
        key = EXTRACT + os.urandom(8).hex()
        self.prepare(key, parent)
        try:
            _unpack(tar, self.layer_dir(key), self.lower_dirs(key))
            self.commit(name, key)
        except BaseException:
            self.remove(key)
            raise

    def remove(self, key: str) -> None:
        """Remove a snapshot: a rename here, the deletion in the background (see Snapshotter)."""
        with self._lock:
            entry = self._entry(key)
            if self._children.get(key):
                raise ConflictError(f"snapshot {key} has children")
            if entry.limited:
                km.unmount_below(f"{self._root}/{entry.folder}")
            os.rename(
                f"{self._root}/{entry.folder}",
                f"{self._root}/trash/{entry.folder}.{os.urandom(4).hex()}",
            )
            self._forget(entry.info)
            if entry.indexed and self._mounted is not None:
                self._mounted.forget(entry.folder)
        self._empty_trash()

    def stat(self, key: str) -> Info:
        """Return what the snapshot is (see Snapshotter)."""
        with self._lock:
            return self._entry(key).info

    def usage(self, key: str) -> Usage:
        """Return what the snapshot's own layer takes (see Snapshotter)."""
        with self._lock:
            entry = self._entry(key)
        if entry.indexed:
            size, inodes, _ = json.loads(os.readlink(f"{self._root}/{entry.folder}/u"))
            return Usage(size, inodes)
        return tree_usage(self.layer_dir(key))

    def walk(self) -> Iterator[Info]:
        """Yield all snapshots (see Snapshotter)."""
        with self._lock:
            infos = [e.info for e in self._entries.values()]
        yield from infos

    def layer_dir(self, key: str) -> str:
        """Return the folder that shows the snapshot's own layer (see Snapshotter)."""
        with self._lock:
            entry = self._entry(key)
            if not entry.limited:
                return os.path.join(self._root, self._shown(entry))
        return f"{self._root}/{self._place(entry)}/f"

    def work_dir(self, key: str) -> str:
        """Return the folder that overlay works in beside an active snapshot's layer (see Snapshotter)."""
        with self._lock:
            entry = self._entry(key)
        return f"{self._root}/{self._place(entry)}/w"

    def limit(self, key: str, size: int) -> None:
        """Give an active snapshot a file system of that size for its own layer (see Snapshotter)."""
        with self._lock:
            entry = self._entry(key)
        path = f"{self._root}/{entry.folder}"
        os.mkdir(f"{path}/r", 0o711)
        disks.make(f"{path}/disk", size, f"{path}/r")
        with self._lock:
            self._entries[key] = entry = entry._replace(limited=True)
        place = f"{self._root}/{self._place(entry)}"
        for name in ("f", "w"):
            os.mkdir(f"{place}/{name}", 0o711)
            _copy_status(os.stat(f"{path}/{name}"), f"{place}/{name}")

    def is_limited(self, key: str) -> bool:
        """Tell whether the snapshot's layer has a file system of its own (see Snapshotter)."""
        with self._lock:
            return self._entry(key).limited

    def close(self) -> None:
        """Unmount the file systems of limited layers; containers that run keep theirs (see Snapshotter)."""
        with self._lock:
            limited = [e for e in self._entries.values() if e.limited]
        for entry in limited:
            km.unmount_below(f"{self._root}/{entry.folder}/r")

    def _place(self, entry: _Entry) -> str:
        """Return the folder, relative to the root, in which the own layer of an active snapshot lies."""
        if not entry.limited:
            return entry.folder
        place = f"{self._root}/{entry.folder}/r"
        with self._disk_lock:
            if not os.path.ismount(place):
                disks.mount(f"{self._root}/{entry.folder}/disk", place)
        return f"{entry.folder}/r"

    def lower_dirs(self, key: str) -> list[str]:
        """Return the folders that show the parents' layers (see Snapshotter)."""
        with self._lock:
            return self._lowers_of(self._entry(key).info.parent)

    def _lowers_of(self, parent: str) -> list[str]:
        if not parent:
            return []
        entry = self._entry(parent)
        return [os.path.join(self._root, self._shown(e)) for e in (entry, *self._parents(entry))]

    def places(self, key: str) -> list[str]:
        """Return where the layers lie on disk (see Snapshotter)."""
        with self._lock:
            entry = self._entry(key)
            found = (entry, *self._parents(entry))
            return [f"{self._root}/{e.folder}/{INDEX if e.indexed else 'r/f' if e.limited else 'f'}" for e in found]

    def _shown(self, entry: _Entry) -> str:
        """Return the folder that shows a layer, relative to the root or whole."""
        if not entry.indexed:
            return f"{entry.folder}/f"
        if self._mounted is not None:
            return self._mounted.path(entry.folder)
        self._unpack_indexed(entry)
        return f"{entry.folder}/f"

    def _unpack_indexed(self, entry: _Entry) -> None:
        """Unpack a layer that another kernel could mount; it stays an indexed one."""
        path = f"{self._root}/{entry.folder}"
        if os.path.isdir(f"{path}/f"):
            return
        shutil.rmtree(f"{path}/f.new", ignore_errors=True)
        os.mkdir(f"{path}/f.new", 0o755)
        self._inherit_root(f"{path}/f.new", entry.info.parent)
        _unpack(f"{path}/{TAR}", f"{path}/f.new", self._lowers_of(entry.info.parent))
        os.rename(f"{path}/f.new", f"{path}/f")

    def sync(self) -> None:
        """Return when all that was written is on disk (see Snapshotter)."""
        fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            openat2.sync_file_system(fd)
        finally:
            os.close(fd)

    def verify(self, key: str) -> str:
        """Return what is wrong with the snapshot's own layer (see Snapshotter)."""
        with self._lock:
            entry = self._entry(key)
        return layer_index.verify_folder(f"{self._root}/{entry.folder}", indexed=entry.indexed, active=entry.info.kind == ACTIVE)

    def rebuild(self, key: str) -> None:
        """Make what `verify` found wrong anew (see Snapshotter)."""
        with self._lock:
            entry = self._entry(key)
            lowers = self._lowers_of(entry.info.parent)
        if not entry.indexed:
            raise ConflictError(f"snapshot {key} is a folder that nothing else tells of")
        layer_index.write_index(f"{self._root}/{entry.folder}", lowers)
        if self._mounted is not None:
            self._mounted.forget(entry.folder)
            self._empty_trash()

    def kept_tar(self, name: str) -> str:
        """Return the tar that the layer keeps itself (see Snapshotter)."""
        with self._lock:
            entry = self._entry(name)
        return f"{self._root}/{entry.folder}/{TAR}" if entry.indexed else ""

    def wait_deleted(self) -> None:
        """Return when the background has deleted all that was removed before."""
        thread = self._thread
        if thread is not None:
            thread.join()

    def _entry(self, key: str) -> _Entry:
        entry = self._entries.get(key)
        if entry is None:
            raise NotFoundError(f"snapshot {key} does not exist")
        return entry

    def _parents(self, entry: _Entry) -> Sequence[_Entry]:
        found = []
        while entry.info.parent:
            entry = self._entry(entry.info.parent)
            found.append(entry)
        return found

    def _make(self, key: str, kind: str, parent: str) -> None:
        info = Info(key, kind, parent)
        folder = self._reserve(info)
        path = f"{self._root}/{folder}"
        try:
            os.mkdir(path, 0o711)
            os.mkdir(f"{path}/f", 0o755)
            os.chmod(f"{path}/f", 0o755)
            self._inherit_root(f"{path}/f", parent)
            os.mkdir(f"{path}/w", 0o711)
            os.symlink(json.dumps(info), f"{path}/m")
        except OSError:
            self._forget(info)
            shutil.rmtree(path, ignore_errors=True)
            raise

    def _reserve(self, info: Info, *, indexed: bool = False) -> str:
        """Take the key before the disk is touched, so that slow disks do not hold the lock; return the folder."""
        with self._lock:
            if info.name in self._entries:
                raise ConflictError(f"snapshot {info.name} already exists")
            if info.parent and self._entry(info.parent).info.kind != COMMITTED:
                raise ConflictError(f"parent snapshot {info.parent} is not committed")
            folder = _base36(self._next)
            self._next += 1
            self._entries[info.name] = _Entry(folder, info, indexed)
            if info.parent:
                self._children[info.parent] = self._children.get(info.parent, 0) + 1
            return folder

    def _forget(self, info: Info) -> None:
        with self._lock:
            del self._entries[info.name]
            if info.parent:
                self._children[info.parent] -= 1

    def _inherit_root(self, layer: str, parent: str) -> None:
        """Give the new layer's root the owner and mode of its parent's: overlay shows the upper's."""
        if not parent:
            return
        _copy_status(os.stat(self.layer_dir(parent)), layer)

    def _read(self) -> None:
        for folder in os.listdir(self._root):
            if folder in ("empty", "trash") or folder.startswith("."):
                continue
            self._next = max(self._next, int(folder, 36) + 1)
            try:
                info = Info(*json.loads(os.readlink(f"{self._root}/{folder}/m")))
            except (OSError, ValueError, TypeError):
                # Cut short while it was made: nobody has its key.
                os.rename(f"{self._root}/{folder}", f"{self._root}/trash/{folder}")
                continue
            indexed = os.path.exists(f"{self._root}/{folder}/{INDEX}")
            limited = info.kind == ACTIVE and os.path.exists(f"{self._root}/{folder}/disk")
            self._entries[info.name] = _Entry(folder, info, indexed, limited)
            if info.parent:
                self._children[info.parent] = self._children.get(info.parent, 0) + 1

    def _empty_trash(self) -> None:
        with self._lock:
            self._wake.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._sweep, name="snapshot-trash", daemon=True)
                self._thread.start()

    def _sweep(self) -> None:
        while True:
            self._wake.clear()
            if self._mounted is not None:
                self._mounted.close_forgotten()
            for name in os.listdir(f"{self._root}/trash"):
                try:
                    remove_tree(f"{self._root}/trash/{name}")
                except OSError as error:
                    log.warning("a removed layer cannot be deleted, it is tried again later: %s", error)
            with self._lock:
                if not self._wake.is_set():
                    self._thread = None
                    return


def _copy_status(found: os.stat_result, folder: str) -> None:
    os.chown(folder, found.st_uid, found.st_gid)
    os.chmod(folder, found.st_mode & 0o7777)
    os.utime(folder, ns=(found.st_atime_ns, found.st_mtime_ns))


def _unpack(tar: str, folder: str, lowers: Sequence[str]) -> None:
    root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with open(tar, "rb") as file, mapped(file) as buffer:
            archive.unpack(buffer, root, layer=True, lowers=lowers)
    finally:
        os.close(root)


def _base36(number: int) -> str:
    digits = ""
    while number:
        number, rest = divmod(number, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[rest] + digits
    return digits
