"""The files of an indexed layer.

<folder>/i     the index, an EROFS image
<folder>/t     the tar: another name of the blob, so that the layer is whole by itself
<folder>/u     a symbolic link whose target is [bytes, inodes, the index's digest] as JSON
"""

import json
import os
import stat
from collections.abc import Sequence

from barque.base.errors import ConflictError
from barque.base.files import write_all
from barque.oci import digest as digests
from barque.storage.erofs import image, tree
from barque.storage.erofs.mounts import INDEX, TAR
from barque.storage.mapping import mapped


def index_of(tar: str, lowers: Sequence[str]) -> image.Image:
    """Return the index of a layer's tar.

    Raises:
        UnindexableError: it has something that an index cannot express, or is broken.
        OSError: it cannot be read.
    """
    with open(tar, "rb") as file, mapped(file) as buffer:
        return image.write(tree.build(buffer, lowers), len(buffer))


def put_index(folder: str, made: image.Image) -> None:
    """Write an index and what it takes, in place of those that are there."""
    with open(f"{folder}/{INDEX}.new", "wb", buffering=0) as file:
        write_all(file.fileno(), made.data)
    os.rename(f"{folder}/{INDEX}.new", f"{folder}/{INDEX}")
    if os.path.lexists(f"{folder}/u.new"):
        os.unlink(f"{folder}/u.new")
    os.symlink(json.dumps([made.size, made.inodes, digests.of(bytes(made.data))]), f"{folder}/u.new")
    os.rename(f"{folder}/u.new", f"{folder}/u")


def write_index(folder: str, lowers: Sequence[str]) -> None:
    """Make the index of a layer anew from its tar.

    Raises:
        ConflictError: the tar is lost or damaged.
    """
    try:
        put_index(folder, index_of(f"{folder}/{TAR}", lowers))
    except (tree.UnindexableError, FileNotFoundError) as error:
        raise ConflictError(f"the layer's tar is of no use: {error}") from None


def verify_folder(folder: str, *, indexed: bool, active: bool) -> str:
    """Return what is wrong with a snapshot's folder, empty if nothing is."""
    if not indexed:
        for name in ("f", "w") if active else ("f",):
            if not _is_folder(f"{folder}/{name}"):
                return f"its folder {name} is missing"
        return ""
    if not os.path.exists(f"{folder}/{TAR}"):
        return "its tar is missing"
    try:
        with open(f"{folder}/{INDEX}", "rb") as file:
            found = digests.of(file.read())
        _, _, wanted = json.loads(os.readlink(f"{folder}/u"))
    except (OSError, ValueError) as error:
        return f"its index cannot be read: {error}"
    return "" if found == wanted else "its index has another digest"


def _is_folder(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False
