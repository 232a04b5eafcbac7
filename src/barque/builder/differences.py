"""What one step's files have that another's have not: a diff of two roots of which neither was made from the other."""

import os

from barque.builder.copying import Copier, CopyOptions
from barque.builder.results import Result, opened
from barque.builder.trees import FILE, FOLDER, Node, Tree
from barque.kernel.openat2 import open_in_root
from barque.storage.mounts import mounted
from barque.storage.snapshots import Snapshotter
from barque.storage.trees import remove_below


def turn_into(snapshots: Snapshotter, key: str, lower: Result, upper: Result) -> None:
    """Change the active snapshot `key`, which stands on the lower root, so that it shows the upper one; blocking.

    Files of equal attributes, sizes and times count as equal.

    Raises:
        OSError: the disk is full, or the kernel refused something.
    """
    mounts = [mount._replace(options=(*mount.options, "volatile")) for mount in snapshots.mounts(key)]
    with mounted(mounts) as root, opened(snapshots, lower) as before, opened(snapshots, upper) as after:
        missing, changed, folders = _compared(before, after)
        for path in (*missing, *changed):
            _remove(root, path)
        copier = Copier(root, CopyOptions(owner=None))
        try:
            for path in changed:
                copier.copy(after, path, path, f"/{path}")
        finally:
            copier.close()
        for path, node in folders:
            fd = open_in_root(root, path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fchown(fd, node.uid, node.gid)
                os.fchmod(fd, node.mode)
                os.utime(fd, ns=(node.mtime_ns, node.mtime_ns))
            finally:
                os.close(fd)


def _remove(root: int, path: str) -> None:
    parent, _, name = path.rpartition("/")
    fd = open_in_root(root, parent or "/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        remove_below(fd, os.fsencode(name))
    finally:
        os.close(fd)


def _compared(before: Tree, after: Tree) -> tuple[list[str], list[str], list[tuple[str, Node]]]:
    """Return the paths that are gone, those to be copied whole, and folders that only have other attributes."""
    missing: list[str] = []
    changed: list[str] = []
    folders: list[tuple[str, Node]] = []
    stack = [""]
    while stack:
        folder = stack.pop()
        names = sorted({*before.names(folder), *after.names(folder)})
        for path in (f"{folder}/{name}".lstrip("/") for name in names):
            old, new = before.lstat(path), after.lstat(path)
            if new is None:
                missing.append(path)
            elif old is None or (old.kind == FOLDER) != (new.kind == FOLDER):
                changed.append(path)
            elif new.kind == FOLDER:
                stack.append(path)
                if not _alike(before, after, path, old, new):
                    folders.append((path, new))
            elif not _alike(before, after, path, old, new):
                changed.append(path)
    return missing, changed, folders


def _alike(before: Tree, after: Tree, path: str, old: Node, new: Node) -> bool:
    if new.kind == FOLDER:
        old, new = old._replace(size=0, mtime_ns=0), new._replace(size=0, mtime_ns=0)
    if old._replace(inode=None) != new._replace(inode=None):
        return False
    return new.kind not in (FILE, FOLDER) or before.xattrs(path) == after.xattrs(path)
