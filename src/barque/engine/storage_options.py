"""HostConfig.StorageOpt: how much a container may write over its image."""

from typing import TYPE_CHECKING, Any

from barque.base.errors import InvalidInputError
from barque.engine.checks import parse_size
from barque.kernel import quota

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
        InvalidInputError: the data root's file system keeps no project quotas, or the option is malformed.
    """
    if size_of(host) and not quota.supported(f"{engine.config.data_root}/snapshots"):
        raise InvalidInputError(
            "--storage-opt is supported only where the data root keeps project quotas "
            "(ext4 mounted with prjquota, XFS with pquota)"
        )


def hold(engine: "Engine", container_id: str, size: int) -> None:
    """Limit a container's own layer, which is empty yet.

    Raises:
        OSError: the kernel refuses.
    """
    layer = engine.snapshots.layer_dir(container_id)
    # What overlay copies up comes by its work folder, and is renamed: both are of one project.
    quota.limit([layer, engine.snapshots.work_dir(container_id)], quota.new_project(layer), size)


def release(engine: "Engine", container_id: str, host: Json) -> None:
    """Forget the limit of a layer that is about to go."""
    if size_of(host):
        quota.release(engine.snapshots.layer_dir(container_id))
