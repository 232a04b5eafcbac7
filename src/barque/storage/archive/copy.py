"""`docker cp` inside a container's root: stat, pack and unpack, confined to it."""

import os
import posixpath
import stat
from collections.abc import Iterator
from typing import Any

from barque.base.errors import InvalidInputError, NotFoundError
from barque.base.times import format_ns
from barque.kernel.openat2 import open_in_root
from barque.storage.archive.extract import unpack
from barque.storage.archive.write import END, single, tree

_GO_TYPES = {
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFCHR: 1 << 26 | 1 << 21,
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24,
}
_GO_SETUID, _GO_SETGID, _GO_STICKY = 1 << 23, 1 << 22, 1 << 20


def go_mode(mode: int) -> int:
    """Return st_mode as the bits of Go's io/fs.FileMode."""
    bits = mode & 0o777 | _GO_TYPES.get(stat.S_IFMT(mode), 0)
    bits |= _GO_SETUID if mode & stat.S_ISUID else 0
    bits |= _GO_SETGID if mode & stat.S_ISGID else 0
    return bits | (_GO_STICKY if mode & stat.S_ISVTX else 0)


def path_stat(root: int, path: str, hidden: frozenset[int] = frozenset()) -> dict[str, Any]:
    """Return a path's stat as X-Docker-Container-Path-Stat holds it; a last link is not followed.

    What lies on the file systems `hidden` (numbers of devices) is not there.

    Raises:
        NotFoundError: there is no such file.
    """
    parent, name, _ = _locate(root, path, hidden)
    try:
        found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        target = ""
        if stat.S_ISLNK(found.st_mode):
            target = _link_target(root, parent, name)
    except FileNotFoundError:
        raise _missing(path) from None
    finally:
        os.close(parent)
    return {
        "name": _shown_name(path),
        "size": found.st_size,
        "mode": go_mode(found.st_mode),
        "mtime": format_ns(found.st_mtime_ns),
        "linkTarget": target,
    }


def pack(root: int, path: str, hidden: frozenset[int] = frozenset()) -> Iterator[bytes]:
    """Yield the tar of a path, its entries named after the path's last part, as Docker does.

    A path that ends in `/.` or `/` is followed, and with `/.` its entries are named `.`, as clients take it for the
    folder's content; those of the root have no first part. What lies on the file systems `hidden` (numbers of devices) is left out.

    Raises:
        NotFoundError: there is no such file.
    """
    parent, name, followed = _locate(root, path, hidden)
    try:
        if followed:
            # Opened through itself: the folder's own entry first, then what is in it.
            yield from single(parent, b".", os.fsencode(_shown_name(path).removeprefix("/")), hidden)
        else:
            try:
                os.stat(name, dir_fd=parent, follow_symlinks=False)
            except FileNotFoundError:
                raise _missing(path) from None
            yield from single(parent, name, name, hidden)
        yield END
    finally:
        os.close(parent)


def put(
    root: int,
    path: str,
    buffer: memoryview,
    *,
    keep_kind: bool = False,
    owner: tuple[int, int] | None = None,
    hidden: frozenset[int] = frozenset(),
) -> None:
    """Unpack a tar into the folder at path.

    Args:
        root: descriptor of the container's root.
        path: the folder, links followed inside the root.
        buffer: the archive.
        keep_kind: refuse to replace a folder by another kind of file or the other way round.
        owner: uid and gid for all that is made; None keeps the archive's.
        hidden: file systems (numbers of devices) that are not there.

    Raises:
        NotFoundError: there is no such path.
        InvalidInputError: it is not a folder, or the archive is bad.
    """
    try:
        fd = open_in_root(root, path, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        raise _missing(path) from None
    except NotADirectoryError:
        raise InvalidInputError("extraction point is not a directory") from None
    try:
        if os.fstat(fd).st_dev in hidden:
            raise _missing(path)
        real = _inside(root, fd)
    finally:
        os.close(fd)
    unpack(buffer, root, start=real, keep_kind=keep_kind, owner=owner)


def export(root: int, *, one_file_system: bool = True) -> Iterator[bytes]:
    """Yield the tar of a whole root; contents of other mounts are left out, their folders stay."""
    yield from tree(root, one_file_system=one_file_system)
    yield END


def _shown_name(path: str) -> str:
    """Return the last part of a path, `.` where it ends in one, `/` of the root."""
    if posixpath.basename(path.rstrip("/")) == ".":
        return "."
    return posixpath.basename(posixpath.normpath(posixpath.join("/", path))) or "/"


def _locate(root: int, path: str, hidden: frozenset[int]) -> tuple[int, bytes, bool]:
    """Open the folder that holds path's last part; True: the path itself was opened and followed."""
    whole = posixpath.join("/", path)
    follow = path.endswith(("/", "/.")) or posixpath.normpath(whole) in ("/", "//")
    base = posixpath.basename(whole.rstrip("/"))
    follow = follow or base in ("", ".", "..")
    folder = whole if follow else posixpath.dirname(whole.rstrip("/"))
    try:
        fd = open_in_root(root, folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        raise _missing(path) from None
    except NotADirectoryError:
        raise InvalidInputError(f"not a directory: {path}") from None
    if os.fstat(fd).st_dev in hidden:
        os.close(fd)
        raise _missing(path)
    return fd, b"." if follow else os.fsencode(base), follow


def _link_target(root: int, parent: int, name: bytes) -> str:
    """Return where a link leads, as an absolute path in the root; missing targets stay as written."""
    text = os.readlink(name, dir_fd=parent)
    target = os.fsdecode(text)
    if not target.startswith("/"):
        target = posixpath.normpath(posixpath.join("/", _inside(root, parent), target))
    try:
        fd = open_in_root(root, target)
    except OSError:
        return target
    try:
        return "/" + _inside(root, fd)
    finally:
        os.close(fd)


def _inside(root: int, fd: int) -> str:
    """Return a descriptor's path relative to the root's."""
    top = os.readlink(f"/proc/self/fd/{root}")
    found = os.readlink(f"/proc/self/fd/{fd}")
    return found[len(top) :].strip("/") if top != "/" else found.strip("/")


def _missing(path: str) -> NotFoundError:
    return NotFoundError(f"Could not find the file {path} in container")
