"""Snapshots: layers stacked on each other, and the mounts that show them.

A snapshot is active (writable, has a key) or committed (read-only, has a name, may be a parent).
`Snapshotter` is the contract; its suites in tests/kernel run against every implementation.
"""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from barque.storage.trees import Usage

EXTRACT = "extract-"
"""What the keys of layers begin with that are being unpacked."""
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

    driver: str
    """How users call it."""

    def add_layer(self, name: str, parent: str, tar: str) -> None:
        """Make a committed snapshot of a layer's tar, a file that stays; InvalidInputError if it is broken."""
        ...

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
        """Return the folder that shows the snapshot's own layer to this process, whiteouts in overlay's form."""
        ...

    def work_dir(self, key: str) -> str:
        """Return the folder that overlay works in beside an active snapshot's own layer."""
        ...

    def limit(self, key: str, size: int) -> None:
        """Let an active snapshot, which is empty yet, take so many bytes: it gets a file system of its own."""
        ...

    def is_limited(self, key: str) -> bool:
        """Tell whether `limit` gave the snapshot a file system of its own."""
        ...

    def close(self) -> None:
        """Unmount what is mounted only to be at hand."""
        ...

    def lower_dirs(self, key: str) -> list[str]:
        """Return the folders that show the parents' layers to this process, nearest first."""
        ...

    def places(self, key: str) -> list[str]:
        """Return where the snapshot's own layer and its parents' lie on disk, nearest first."""
        ...

    def sync(self) -> None:
        """Return when all that was written to snapshots is on disk."""
        ...

    def verify(self, key: str) -> str:
        """Return what is wrong with the snapshot's own layer, empty if nothing is."""
        ...

    def rebuild(self, key: str) -> None:
        """Make what `verify` found wrong anew; ConflictError where there is nothing to make it of."""
        ...

    def kept_tar(self, name: str) -> str:
        """Return the path of the tar that the layer keeps itself, empty where it keeps none."""
        ...
