"""What a writable layer changed, as `docker diff` lists it, and the layer's tar."""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from barque.base.errors import InvalidInputError
from barque.kernel.openat2 import RESOLVE_IN_ROOT, RESOLVE_NO_SYMLINKS, open_in_root
from barque.storage.archive.write import END, OPAQUE, tree

MODIFIED, ADDED, DELETED = 0, 1, 2
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


class Change(NamedTuple):
    """One path, absolute in the container, and what happened to it."""

    path: str
    kind: int


def changes(upper: str, lowers: Sequence[str]) -> list[Change]:
    """Return the changes that the layer `upper` makes to the layers below (nearest first), sorted."""
    below = _Lower(lowers)
    found: dict[str, int] = {}
    _walk(upper, below, found)
    for path in list(found):
        parent = path.rpartition("/")[0]
        while parent:
            found.setdefault(parent, MODIFIED)
            parent = parent.rpartition("/")[0]
    return [Change(path, found[path]) for path in sorted(found)]


def layer_tar(upper: str, lowers: Sequence[str]) -> Iterator[bytes]:
    """Yield the tar of the layer `upper`, deletions as `.wh.` files."""
    below = _Lower(lowers)
    fd = os.open(upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield from tree(fd, overlay=True, hides=lambda path: below.stat("/" + os.fsdecode(path)) is not None)
        yield END
    finally:
        os.close(fd)


def holders(layers: Sequence[str], path: str) -> list[str]:
    """Return the folders of layers (nearest first) that make up the folder at path, or the one file there."""
    below = _Lower(layers)
    path = f"/{path.strip('/')}" if path.strip("/") else ""
    found = below._holding(path)
    if found or not path:
        return found
    parent, _, name = path.rpartition("/")
    return [f"{folder}/{name}" for folder in below._holding(parent) if os.path.lexists(f"{folder}/{name}")][:1]


def _walk(upper: str, below: "_Lower", found: dict[str, int]) -> None:
    """Compare folder by folder, each opened beneath the top: a container may put links in their places meanwhile."""
    top = os.open(upper, _FOLDER)
    waiting = [""]
    try:
        while waiting:
            path = waiting.pop()
            try:
                fd = open_in_root(top, path or ".", _FOLDER, resolve=RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS)
            except OSError as error:
                if error.errno == errno.ENAMETOOLONG:
                    raise InvalidInputError("folders are nested too deep to be compared") from None
                if error.errno not in _GONE:
                    raise
                continue
            try:
                waiting += _compare_folder(fd, path, below, found)
            finally:
                os.close(fd)
    finally:
        os.close(top)


def _compare_folder(fd: int, path: str, below: "_Lower", found: dict[str, int]) -> list[str]:
    """Add what is another one in a folder; return the paths of the folders in it."""
    names, folders = set[str](), []
    with os.scandir(fd) as entries:
        for entry in entries:
            names.add(entry.name)
            inner = f"{path}/{entry.name}"
            try:
                now = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                # A running container removed it since the folder was read.
                continue
            _compare(now, inner, below, found)
            if stat.S_ISDIR(now.st_mode):
                folders.append(inner)
    if path and _opaque(fd):
        # It hides what it does not have itself.
        found.update((f"{path}/{name}", DELETED) for name in below.names(path) - names)
    return folders


def _compare(now: os.stat_result, inner: str, below: "_Lower", found: dict[str, int]) -> None:
    before = below.stat(inner)
    if stat.S_ISCHR(now.st_mode) and now.st_rdev == 0:
        if before is not None:
            found[inner] = DELETED
    elif before is None:
        found[inner] = ADDED
    elif not _same_folder(now, before):
        found[inner] = MODIFIED


def _same_folder(now: os.stat_result, before: os.stat_result) -> bool:
    return (
        stat.S_ISDIR(now.st_mode)
        and now.st_mode == before.st_mode
        and (now.st_uid, now.st_gid) == (before.st_uid, before.st_gid)
        and now.st_mtime_ns == before.st_mtime_ns
    )


def _opaque(folder: str | int) -> bool:
    try:
        return os.getxattr(folder, OPAQUE) == b"y"
    except OSError:
        return False


class _Lower:
    """The merged view of layers, looked up name by name."""

    def __init__(self, folders: Sequence[str]) -> None:
        self._folders = folders
        self._holders: dict[str, list[str]] = {"": list(folders)}

    def stat(self, path: str) -> os.stat_result | None:
        """Return the file's stat, None where the merged view has none."""
        parent, _, name = path.rpartition("/")
        for folder in self._holding(parent):
            try:
                found = os.lstat(f"{folder}/{name}")
            except OSError:
                continue
            if stat.S_ISCHR(found.st_mode) and found.st_rdev == 0:
                return None
            return found
        return None

    def names(self, path: str) -> set[str]:
        """Return the names in a folder of the merged view."""
        found = {name for folder in self._holding(path) for name in os.listdir(folder)}
        return {name for name in found if self.stat(f"{path}/{name}") is not None}

    def _holding(self, path: str) -> list[str]:
        """Return the layers' folders that make up the folder at path, nearest first."""
        known = self._holders.get(path)
        if known is not None:
            return known
        parent, _, name = path.rpartition("/")
        held = []
        for folder in self._holding(parent):
            inner = f"{folder}/{name}"
            try:
                found = os.lstat(inner)
            except OSError:
                continue
            if not stat.S_ISDIR(found.st_mode):
                break
            held.append(inner)
            if _opaque(inner):
                break
        self._holders[path] = held
        return held
