"""`cp`, `export` and `diff` of containers, over a root that is mounted for it or a live process's."""

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from barque.base.errors import BarqueError, ForbiddenError
from barque.base.files import write_all
from barque.kernel.openat2 import open_in_root
from barque.kernel.private_mounts import Bind
from barque.storage import archive
from barque.storage.compression import plain
from barque.storage.content import ContentStore
from barque.storage.mapping import mapped
from barque.storage.mounts import mounted, root_of_process
from barque.storage.snapshots import Mount, Snapshotter

Json = dict[str, Any]
_KERNELS = ("/proc", "/sys", "/sys/fs/cgroup", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue")


class Root(NamedTuple):
    """How to reach a container's files: its process while it runs, else its mounts."""

    pid: int
    """0: not running."""
    mounts: Sequence[Mount] = ()
    binds: Sequence[Bind] = ()

    def opened(self) -> AbstractContextManager[int]:
        """Return a context that gives a descriptor of the root."""
        return root_of_process(self.pid) if self.pid else mounted(self.mounts, self.binds)


def _hidden(root: Root, fd: int) -> frozenset[int]:
    """Return the devices of the kernel's own file systems in a running container, which no copy reaches.

    Reading some of their files waits for ever, and they tell of the machine.
    """
    if not root.pid:
        return frozenset()
    found = set()
    for path in _KERNELS:
        try:
            inner = open_in_root(fd, path, os.O_PATH)
        except OSError:
            continue
        found.add(os.fstat(inner).st_dev)
        os.close(inner)
    kept = {os.fstat(fd).st_dev}
    for bind in root.binds:
        try:
            inner = open_in_root(fd, bind.target, os.O_PATH)
        except OSError:
            continue
        kept.add(os.fstat(inner).st_dev)
        os.close(inner)
    return frozenset(found - kept)


def changes(snapshots: Snapshotter, key: str) -> list[Json]:
    """Return what a container changed in its image, as the API lists it."""
    found = archive.changes(snapshots.layer_dir(key), snapshots.lower_dirs(key))
    return [{"Path": change.path, "Kind": change.kind} for change in found]


def stat(root: Root, path: str) -> Json:
    """Return a path's stat as X-Docker-Container-Path-Stat holds it.

    Raises:
        NotFoundError: there is no such file.
    """
    with root.opened() as fd:
        return archive.path_stat(fd, path, _hidden(root, fd))


def get(root: Root, path: str) -> Iterator[bytes]:
    """Yield the tar of a path.

    Raises:
        NotFoundError: there is no such file.
    """
    with root.opened() as fd:
        yield from archive.pack(fd, path, _hidden(root, fd))


def put(
    root: Root,
    path: str,
    chunks: Iterable[bytes],
    *,
    content: ContentStore,
    keep_kind: bool = False,
    owner: tuple[int, int] | None = None,
) -> None:
    """Unpack a tar, perhaps compressed, into the folder at path.

    Args:
        root: the container's files.
        path: the folder.
        chunks: the archive, kept in a nameless file on the content store's disk meanwhile.
        content: gives that file.
        keep_kind: refuse to replace a folder by another kind of file or the other way round.
        owner: uid and gid for all that is made.

    Raises:
        NotFoundError: there is no such folder.
        InvalidInputError: the archive is bad.
        ForbiddenError: the place is read-only.
    """
    with content.temporary() as file:
        for chunk in plain(chunks):
            write_all(file.fileno(), chunk)
        try:
            with root.opened() as fd, mapped(file) as buffer:
                archive.put(fd, path, buffer, keep_kind=keep_kind, owner=owner, hidden=_hidden(root, fd))
        except OSError as error:
            if error.errno == errno.EROFS:
                raise ForbiddenError("mounted volume is marked read-only") from None
            raise BarqueError(f"extract to {path}: {error}") from None


def export(mounts: Sequence[Mount]) -> Iterator[bytes]:
    """Yield the tar of a container's own file system: its layers, without volumes."""
    with mounted(mounts) as fd:
        yield from archive.export(fd)
