"""HostConfig.StorageOpt: how much a container may write over its image."""

from typing import TYPE_CHECKING, Any

from barque.base.errors import InvalidInputError
from barque.engine.checks import parse_size
from barque.kernel import quota
from barque.storage import disks

if TYPE_CHECKING:
    from barque.engine.engine import Engine

Json = dict[str, Any]


def size_of(host: Json) -> int:
    """Return the bytes that a container may write, 0 for any number.

    Raises:
        InvalidInputError: an unknown option, or a bad size.
    """
    options = host.get("StorageOpt") or {}
    for key in options:
        if key != "size":
            raise InvalidInputError(f"unknown option {key}")
    return parse_size(options["size"]) if options else 0


def check(engine: "Engine", host: Json) -> None:
    """Refuse a size that cannot be held.

    Raises:
        InvalidInputError: neither project quotas nor loop devices are at hand, or the option is malformed.
    """
    size = size_of(host)
    if size and not _has_quotas(engine):
        disks.check(size, "a container")


def _has_quotas(engine: "Engine") -> bool:
    return quota.supported(f"{engine.config.data_root}/snapshots")


def hold(engine: "Engine", container_id: str, size: int) -> None:
    """Limit a container's own layer, which is empty yet.

    Raises:
        BarqueError: a file system for it cannot be made.
        OSError: the kernel refuses.
    """
    if not _has_quotas(engine):
        engine.snapshots.limit(container_id, size)
        return
    layer = engine.snapshots.layer_dir(container_id)
    # What overlay copies up comes by its work folder, and is renamed: both are of one project.
    quota.limit([layer, engine.snapshots.work_dir(container_id)], quota.new_project(layer), size)


def release(engine: "Engine", container_id: str, host: Json) -> None:
    """Forget the limit of a layer that is about to go."""
    if size_of(host) and not engine.snapshots.is_limited(container_id):
        quota.release(engine.snapshots.layer_dir(container_id))
