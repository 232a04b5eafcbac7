"""Snapshots: layers stacked on each other, and the mounts that show them.

A snapshot is active (writable, has a key) or committed (read-only, has a name, may be a parent).
`Snapshotter` is the contract; its suite in tests/kernel runs against every implementation.
"""

import json
import logging
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from barque.base.errors import ConflictError, NotFoundError
from barque.kernel.openat2 import sync_file_system
from barque.storage.trees import Usage, remove_tree, tree_usage

log = logging.getLogger(__name__)

ACTIVE = "active"
VIEW = "view"
COMMITTED = "committed"


def init_layer_name(top: str) -> str:
    """Return the name of the committed snapshot that lies between an image's uppermost layer and its containers."""
    return f"init-{top}"


class Mount(NamedTuple):
    """One mount(2): relative paths in source and options start at cwd."""

    type: str
    source: str
    options: tuple[str, ...]
    cwd: str = ""


class Info(NamedTuple):
    """What a snapshot is: its name or key, kind and parent's name (empty: none)."""

    name: str
    kind: str
    parent: str


class Snapshotter(Protocol):
    """Keeps layers and says how to mount them. Safe to use from several threads."""

    def prepare(self, key: str, parent: str = "") -> list[Mount]:
        """Make an active snapshot on a committed parent; ConflictError if key is taken."""
        ...

    def view(self, key: str, parent: str) -> list[Mount]:
        """Make a read-only snapshot of a committed one, removed like any other."""
        ...

    def mounts(self, key: str) -> list[Mount]:
        """Return the mounts of an active snapshot or a view; NotFoundError without it."""
        ...

    def commit(self, name: str, key: str) -> None:
        """Make the active snapshot a committed one under a new name."""
        ...

    def remove(self, key: str) -> None:
        """Remove a snapshot; ConflictError while it is some other's parent."""
        ...

    def stat(self, key: str) -> Info:
        """Return what the snapshot is; NotFoundError without it."""
        ...

    def usage(self, key: str) -> Usage:
        """Return what the snapshot's own layer takes."""
        ...

    def walk(self) -> Iterator[Info]:
        """Yield all snapshots."""
        ...

    def layer_dir(self, key: str) -> str:
        """Return the folder that holds the snapshot's own layer, whiteouts in overlay's form."""
        ...

    def lower_dirs(self, key: str) -> list[str]:
        """Return the folders of the parents' layers, nearest first."""
        ...

    def sync(self) -> None:
        """Return when all that was written to snapshots is on disk."""
        ...


class _Entry(NamedTuple):
    folder: str
    info: Info


class DirectorySnapshotter:
    """Snapshots as folders, mounted by overlayfs.

        <root>/<n>/f     the layer (n: a short number in base 36)
        <root>/<n>/w     overlay's work folder
        <root>/<n>/m     a symbolic link whose target is [name, kind, parent] as JSON
        <root>/empty     the lowest lower folder of everything
        <root>/trash     what is being deleted

    The facts lie in a link's target because a link is made or renamed as one journalled step:
    it is never half written, and needs no fsync of its own. Lower folders are named relative to
    the root, so that 127 layers fit the page that mount(2) takes for options.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._lock = threading.RLock()
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
            lowers = [f"{e.folder}/f" for e in self._parents(entry)]
        if entry.info.kind == COMMITTED:
            lowers.insert(0, f"{entry.folder}/f")
        lower = ":".join([*lowers, "empty"])
        if entry.info.kind != ACTIVE:
            return [Mount("overlay", "overlay", ("ro", f"lowerdir={lower}"), self._root)]
        own = (f"lowerdir={lower}", f"upperdir={entry.folder}/f", f"workdir={entry.folder}/w")
        return [Mount("overlay", "overlay", own, self._root)]

    def commit(self, name: str, key: str) -> None:
        """Make the active snapshot a committed one (see Snapshotter)."""
        with self._lock:
            entry = self._entry(key)
            if entry.info.kind != ACTIVE:
                raise ConflictError(f"snapshot {key} is not active")
            if name in self._entries and name != key:
                raise ConflictError(f"snapshot {name} already exists")
            info = Info(name, COMMITTED, entry.info.parent)
            folder = f"{self._root}/{entry.folder}"
            os.symlink(json.dumps(info), f"{folder}/m2")
            os.rename(f"{folder}/m2", f"{folder}/m")
            del self._entries[key]
            self._entries[name] = _Entry(entry.folder, info)

    def remove(self, key: str) -> None:
        """Remove a snapshot: a rename here, the deletion in the background (see Snapshotter)."""
        with self._lock:
            entry = self._entry(key)
            if self._children.get(key):
                raise ConflictError(f"snapshot {key} has children")
            os.rename(
                f"{self._root}/{entry.folder}",
                f"{self._root}/trash/{entry.folder}.{os.urandom(4).hex()}",
            )
            del self._entries[key]
            if entry.info.parent:
                self._children[entry.info.parent] -= 1
        self._empty_trash()

    def stat(self, key: str) -> Info:
        """Return what the snapshot is (see Snapshotter)."""
        with self._lock:
            return self._entry(key).info

    def usage(self, key: str) -> Usage:
        """Return what the snapshot's own layer takes (see Snapshotter)."""
        return tree_usage(self.layer_dir(key))

    def walk(self) -> Iterator[Info]:
        """Yield all snapshots (see Snapshotter)."""
        with self._lock:
            infos = [e.info for e in self._entries.values()]
        yield from infos

    def layer_dir(self, key: str) -> str:
        """Return the folder of the snapshot's own layer (see Snapshotter)."""
        with self._lock:
            return f"{self._root}/{self._entry(key).folder}/f"

    def lower_dirs(self, key: str) -> list[str]:
        """Return the folders of the parents' layers (see Snapshotter)."""
        with self._lock:
            return [f"{self._root}/{e.folder}/f" for e in self._parents(self._entry(key))]

    def sync(self) -> None:
        """Return when all that was written is on disk (see Snapshotter)."""
        fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            sync_file_system(fd)
        finally:
            os.close(fd)

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
        with self._lock:
            if key in self._entries:
                raise ConflictError(f"snapshot {key} already exists")
            if parent and self._entry(parent).info.kind != COMMITTED:
                raise ConflictError(f"parent snapshot {parent} is not committed")
            folder = _base36(self._next)
            self._next += 1
            info = Info(key, kind, parent)
            # Reserved before the disk is touched, so that slow disks do not hold the lock.
            self._entries[key] = _Entry(folder, info)
            if parent:
                self._children[parent] = self._children.get(parent, 0) + 1
        path = f"{self._root}/{folder}"
        try:
            os.mkdir(path, 0o711)
            os.mkdir(f"{path}/f", 0o755)
            os.chmod(f"{path}/f", 0o755)
            self._inherit_root(path, parent)
            os.mkdir(f"{path}/w", 0o711)
            os.symlink(json.dumps(info), f"{path}/m")
        except OSError:
            with self._lock:
                del self._entries[key]
                if parent:
                    self._children[parent] -= 1
            shutil.rmtree(path, ignore_errors=True)
            raise

    def _inherit_root(self, path: str, parent: str) -> None:
        """Give the new layer's root the owner and mode of its parent's: overlay shows the upper's."""
        if not parent:
            return
        found = os.stat(f"{self._root}/{self._entry(parent).folder}/f")
        os.chown(f"{path}/f", found.st_uid, found.st_gid)
        os.chmod(f"{path}/f", found.st_mode & 0o7777)
        os.utime(f"{path}/f", ns=(found.st_atime_ns, found.st_mtime_ns))

    def _read(self) -> None:
        for folder in os.listdir(self._root):
            if folder in ("empty", "trash"):
                continue
            self._next = max(self._next, int(folder, 36) + 1)
            try:
                info = Info(*json.loads(os.readlink(f"{self._root}/{folder}/m")))
            except (OSError, ValueError, TypeError):
                # Cut short while it was made: nobody has its key.
                os.rename(f"{self._root}/{folder}", f"{self._root}/trash/{folder}")
                continue
            self._entries[info.name] = _Entry(folder, info)
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
            for name in os.listdir(f"{self._root}/trash"):
                try:
                    remove_tree(f"{self._root}/trash/{name}")
                except OSError as error:
                    log.warning("a removed layer cannot be deleted, it is tried again later: %s", error)
            with self._lock:
                if not self._wake.is_set():
                    self._thread = None
                    return


def _base36(number: int) -> str:
    digits = ""
    while number:
        number, rest = divmod(number, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[rest] + digits
    return digits
