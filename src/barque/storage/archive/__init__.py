"""Archives: reading, writing and confined unpacking of tar."""

from barque.storage.archive.copy import export, go_mode, pack, path_stat, put
from barque.storage.archive.differences import ADDED, DELETED, MODIFIED, Change, changes, layer_tar
from barque.storage.archive.extract import unpack

__all__ = [
    "ADDED",
    "DELETED",
    "MODIFIED",
    "Change",
    "changes",
    "export",
    "go_mode",
    "layer_tar",
    "pack",
    "path_stat",
    "put",
    "unpack",
]
