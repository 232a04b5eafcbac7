"""`rewrite-timestamp`: layers whose files are no younger than a moment, so that equal builds are equal to the byte."""

import time
from collections.abc import Iterator
from typing import Any

from barque.base.errors import InvalidInputError
from barque.builder import keys
from barque.builder.cache import BuildCache, Record
from barque.images.store import ImageStore
from barque.oci import digest as digests
from barque.storage.archive import tar
from barque.storage.archive.write import END, header
from barque.storage.mapping import mapped, pieces

Json = dict[str, Any]


def rewritten(store: ImageStore, cache: BuildCache, config: Json, base: int, epoch_ns: int) -> Json:
    """Return an image's config over layers whose times are cut off at a moment; blocking.

    Args:
        store: has the layers, and takes the new ones.
        cache: holds the new ones.
        config: of the image.
        base: how many of its layers are the base image's, which stay.
        epoch_ns: the moment.

    Raises:
        OSError: the disk is full.
    """
    diff_ids = list(config["rootfs"]["diff_ids"])
    chain = digests.chain_ids(diff_ids[:base])
    parent = chain[-1] if chain else ""
    made = diff_ids[:base]
    for diff in diff_ids[base:]:
        with store.lease() as lease:
            fresh, top = store.add_layer(lease, parent, _clamped(store, diff, epoch_ns))
            store.hold([(top, fresh)])
        facts = {"kind": "rewrite", "parent": parent, "diff": diff, "epoch": epoch_ns}
        cache.add(Record(keys.key_of(facts), top, fresh, parent, "rewrite", "rewriting layers with source-date-epoch",
                         time.time_ns(), size=store.layer_size(top), facts=facts))  # fmt: skip
        parent = top
        made.append(fresh)
    return {**config, "rootfs": {"type": "layers", "diff_ids": made}}


def _clamped(store: ImageStore, diff_id: str, epoch_ns: int) -> Iterator[bytes | memoryview]:
    with store.content.open(diff_id) as file, mapped(file) as buffer:
        for entry in tar.entries(buffer):
            if entry.holes is not None:
                raise InvalidInputError(f"layer {diff_id} has sparse files: their times cannot be rewritten")
            name = entry.name.rstrip(b"/") + b"/" if entry.kind == tar.FOLDER else entry.name
            yield header(
                name, kind=entry.kind, mode=entry.mode, uid=entry.uid, gid=entry.gid, size=entry.size,
                mtime_ns=min(entry.mtime_ns, epoch_ns), link=entry.link, device=entry.device, xattrs=entry.xattrs,
            )  # fmt: skip
            if entry.size:
                yield from (bytes(piece) for piece in pieces(buffer[entry.data : entry.data + entry.size]))
                yield bytes(-entry.size % tar.BLOCK)
        yield END
