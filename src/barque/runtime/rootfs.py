"""Steps that make the container's root a mount of its own, and `/` at the end."""

import os
from typing import Any, NamedTuple

from barque.kernel import caps, libc, mount as km
from barque.runtime.channel import StepError, errno_text
from barque.runtime.root import Context

HELD = "x-barque.held"
"""An option of a root mount that is ours: its writes keep to quotas, whoever makes them."""


class Propagation(NamedTuple):
    """Set how mounts of this namespace and of the host's are seen by each other."""

    flags: int
    root: str

    def describe(self) -> str:
        """Say what the step does."""
        return "set the propagation of /"

    def run(self, context: Context) -> None:
        """Do it."""
        km.mount(None, "/", None, self.flags)
        if self.flags & km.MS_SHARED:
            # Mounting the root below a shared mount would show it to the host.
            km.mount(None, _mount_of(self.root), None, km.MS_PRIVATE)


class RootMounts(NamedTuple):
    """Mount the root (an overlay, say), or make the folder a mount by binding it on itself."""

    path: str
    mounts: tuple[dict[str, Any], ...]

    def describe(self) -> str:
        """Say what the step does."""
        return f"mount the root {self.path}"

    def run(self, context: Context) -> None:
        """Do it, and open the root."""
        path = os.fsencode(self.path)
        context.root_path = path
        if not self.mounts:
            try:
                tree = km.open_tree(km.AT_FDCWD, path, km.OPEN_TREE_CLONE | km.AT_RECURSIVE)
            except OSError as error:
                raise StepError(
                    f"error opening rootfs {self.path!r}: {errno_text(error.errno)}", error.errno or 0
                ) from None
            km.move_mount(tree, path)
            context.root = tree
            return
        for entry in self.mounts:
            mount_root(entry, path)
        context.root = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def mount_root(entry: dict[str, Any], path: bytes) -> None:
    """Mount one root mount on path.

    Raises:
        StepError: the kernel refused it.
    """
    flags = 0
    data = []
    held = False
    for option in entry.get("options") or []:
        if option == HELD:
            held = True
        elif option in ("ro", "bind", "rbind"):
            flags |= {"ro": 1, "bind": km.MS_BIND, "rbind": km.MS_BIND | km.MS_REC}[option]
        elif option != "rw":
            data.append(option)
    cwd = entry.get("cwd") or ""
    if cwd:
        os.chdir(cwd)
    effective, permitted, inheritable = caps.sets() if held else (0, 0, 0)
    if held:
        # Overlay writes with the credentials of whoever mounted it, and quotas do not hold CAP_SYS_RESOURCE.
        caps.set_sets(effective & ~(1 << caps.CAP_SYS_RESOURCE), permitted, inheritable)
    try:
        km.mount(entry["source"], path, entry["type"], flags, ",".join(data) or None)
        if flags & km.MS_BIND and flags & km.MS_RDONLY:
            km.mount(None, path, None, km.MS_BIND | km.MS_REMOUNT | km.MS_RDONLY)
    except OSError as error:
        raise StepError(f"mounting the {entry['type']} root: {errno_text(error.errno)}", error.errno or 0) from None
    finally:
        if held:
            caps.set_sets(effective, permitted, inheritable)
        if cwd:
            os.chdir("/")


class ReadonlyRoot(NamedTuple):
    """Make the root's own mount read-only."""

    def describe(self) -> str:
        """Say what the step does."""
        return "make the root read-only"

    def run(self, context: Context) -> None:
        """Do it."""
        km.mount_setattr(context.root, km.MountAttr(set=km.MOUNT_ATTR_RDONLY))


class Enter(NamedTuple):
    """Make the root `/`, and leave the host's mounts behind."""

    pivot: bool
    propagation: int

    def describe(self) -> str:
        """Say what the step does."""
        return "pivot_root" if self.pivot else "move the root over / and chroot"

    def run(self, context: Context) -> None:
        """Do it."""
        os.fchdir(context.root)
        if self.pivot:
            km.pivot_root(b".", b".")
            # The old root lies on top at ".": it must not pass its unmounting on to the host.
            if self.propagation & km.MS_SHARED:
                km.mount(None, ".", None, km.MS_SLAVE | km.MS_REC)
            if libc.umount2(b".", km.MNT_DETACH):
                raise libc.fail("umount2", "the old root")
        else:
            km.mount(".", "/", None, km.MS_MOVE)
            os.chroot(".")
        os.chdir("/")
        if self.propagation & (km.MS_SHARED | km.MS_UNBINDABLE | km.MS_PRIVATE):
            km.mount(None, "/", None, self.propagation)
        os.close(context.root)
        context.root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


class Chroot(NamedTuple):
    """Enter a root without a mount namespace of one's own."""

    path: str

    def describe(self) -> str:
        """Say what the step does."""
        return f"chroot to {self.path}"

    def run(self, context: Context) -> None:
        """Do it."""
        os.chdir(self.path)
        os.chroot(".")
        context.root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _mount_of(path: str) -> str:
    """Return the mount point that `path` lies on, by the longest match in mountinfo."""
    best = "/"
    real = os.path.realpath(path)
    with open("/proc/self/mountinfo", "rb") as table:
        for line in table:
            raw = line.split(b" ", 5)[4].decode("utf-8", "surrogateescape")
            point = raw.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
            if (real == point or real.startswith(point.rstrip("/") + "/")) and len(point) > len(best):
                best = point
    return best
