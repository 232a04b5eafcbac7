"""Control groups: one object a container, the same for both versions of the interface.

    cgroup = open_manager("/barque/<id>")
    warnings = cgroup.create(spec["linux"]["resources"])
    ...                                  # the child: cgroup.join_self(), or born into cgroup.dir_fd()
    cgroup.delete()

A machine with controllers on version 1 hierarchies uses those, whatever its version 2 tree holds.
The keeper imports this room: it imports little.
"""

from barque.runtime.cgroups import v1, v2
from barque.runtime.cgroups.files import Cgroup, CgroupError

__all__ = ["Cgroup", "CgroupError", "is_v2", "open_manager"]


def is_v2() -> bool:
    """Tell whether the machine's controllers are on the version 2 tree."""
    return not v1.hierarchies()


def open_manager(path: str) -> Cgroup:
    """Return the cgroup of that path below the root of each hierarchy; it need not exist.

    Raises:
        CgroupError: the path leaves the hierarchy, or the machine has no cgroup file system.
    """
    parts = [part for part in path.split("/") if part]
    if not parts or ".." in parts or "." in parts or "\0" in path:
        raise CgroupError(f"cgroup path {path!r}: must name a cgroup below the root")
    clean = "/" + "/".join(parts)
    mounts = v1.hierarchies()
    if mounts:
        return v1.CgroupV1(clean, mounts)
    root = v2.mount_point()
    if root is None:
        raise CgroupError("no cgroup file system is mounted: mount one on /sys/fs/cgroup")
    return v2.CgroupV2(clean, root)
