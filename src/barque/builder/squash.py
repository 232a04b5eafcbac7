"""`--squash`: all layers above the base image's as one; blocking."""

import os
from typing import Any

from barque.base.ids import new_id
from barque.base.times import format_ns
from barque.builder.stages import config_bytes
from barque.images.model import Image
from barque.images.store import ImageStore
from barque.kernel.openat2 import open_in_root
from barque.storage.archive import tar, unpack
from barque.storage.archive.extract import clean
from barque.storage.mapping import mapped
from barque.storage.mounts import mounted
from barque.storage.trees import remove_below

Json = dict[str, Any]


def squash(store: ImageStore, image: Image, base_id: str) -> str:
    """Return the id of an image with the same files whose own layers are one.

    Args:
        store: the images.
        image: what was built.
        base_id: the image that the last stage starts from, empty for scratch.

    Raises:
        OSError: the disk is full.
    """
    base = store.resolve(base_id) if base_id else None
    below = len(base.diff_ids) if base else 0
    if len(image.diff_ids) - below < 2:
        return image.id
    top = base.top if base else ""
    key = new_id()
    store.snapshots.prepare(key, top)
    try:
        with mounted(store.snapshots.mounts(key)) as root:
            for diff in image.diff_ids[below:]:
                with store.content.open(diff) as file, mapped(file) as buffer:
                    _hide(buffer, root)
                    _apply(buffer, root)
        diff_id, chain = store.adopt_layer(top, key)
    except BaseException:
        store.snapshots.remove(key)
        raise
    kept = len((base.config.get("history") or []) if base else [])
    history = [{**entry, "empty_layer": True} for entry in (image.config.get("history") or [])]
    history[:kept] = ((base.config.get("history") or []) if base else [])
    names = f"from {base.id}" if base else "from scratch"
    history.append({"created": format_ns(image.created_ns), "comment": f"merge {image.id} to {names}"})
    config: Json = {**image.config, "history": history}
    config["rootfs"] = {"type": "layers", "diff_ids": [*(base.diff_ids if base else []), *([diff_id] if diff_id else [])]}
    made = store.register_all([(config_bytes(config), base.id if base else "")])[0]
    store.let_go([chain])
    return made.id


def _hide(buffer: memoryview, root: int) -> None:
    """Remove what a layer's whiteouts name."""
    for entry in tar.entries(buffer):
        name = clean(entry.name)
        folder, _, base = name.rpartition(b"/")
        if not base.startswith(b".wh."):
            continue
        try:
            parent = open_in_root(root, folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            continue
        try:
            names = [base[4:]] if base != b".wh..wh..opq" else [os.fsencode(n) for n in os.listdir(parent)]
            for gone in names:
                remove_below(parent, gone)
        finally:
            os.close(parent)


def _apply(buffer: memoryview, root: int) -> None:
    """Unpack a layer's files; its whiteouts, which were followed, are removed again."""
    unpack(buffer, root)
    for entry in tar.entries(buffer):
        name = clean(entry.name)
        folder, _, base = name.rpartition(b"/")
        if base.startswith(b".wh."):
            parent = open_in_root(root, folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.unlink(base, dir_fd=parent)
            except FileNotFoundError:
                pass
            finally:
                os.close(parent)
