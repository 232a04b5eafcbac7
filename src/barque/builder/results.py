"""What a solved step is to the steps that need it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from barque.builder.folder_tree import FolderTree
from barque.builder.tar_tree import TarTree
from barque.builder.trees import Tree
from barque.storage.mounts import mounted
from barque.storage.snapshots import Snapshotter

Layer = tuple[str, str]
"""Chain id and diffID."""


@dataclass(frozen=True, slots=True)
class Result:
    """Layers, lowest first, or a tree that lies in no layers.

    `created_ns` is when its last layer was made; `identity` tells trees apart whose content is not looked at.
    Trees of one `state` are equal; without one nothing is known.
    """

    layers: tuple[Layer, ...] = ()
    created_ns: int = 0
    cached: bool = False
    tree: Tree | None = None
    identity: str = ""
    state: str = ""

    @property
    def top(self) -> str:
        """Return the chain id that a snapshot is prepared on, empty for nothing."""
        return self.layers[-1][0] if self.layers else ""


@contextmanager
def opened(snapshots: Snapshotter, result: Result) -> Iterator[Tree]:
    """Yield the files of a result; blocking.

    Raises:
        OSError: the layers cannot be mounted.
    """
    if result.tree is not None:
        yield result.tree
    elif not result.layers:
        yield TarTree(memoryview(b""))
    else:
        with mounted(snapshots.mounts(result.top)) as root:
            tree = FolderTree(root)
            try:
                yield tree
            finally:
                tree.close()
