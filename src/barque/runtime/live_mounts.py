"""Mounts into a container that runs already, and out of it again.

A thread of its own joins the container's mount namespace; the trees come from the host, where they were made.
"""

import errno
import os
import threading
from collections.abc import Callable

from barque.base.errors import KernelError
from barque.kernel import mount as km, namespaces, process
from barque.kernel.openat2 import RESOLVE_IN_ROOT, RESOLVE_NO_SYMLINKS, open_in_root
from barque.runtime import mount_options
from barque.runtime.mounts import open_bind
from barque.runtime.root import is_folder, open_or_make

_CLONE_FS = 0x200


def bind(pid: int, source: str, target: str, words: list[str]) -> None:
    """Show source, a path on the host, at target in the container of the process pid.

    Args:
        pid: a process in the container's mount namespace.
        source: a file or folder.
        target: made where it is missing.
        words: mount options, such as `rbind`, `ro`, `rro`, `rslave`.

    Raises:
        OSError: the source is gone, the target cannot be made, or the kernel refuses.
    """
    options = mount_options.parse(words)
    tree = open_bind(source, options)
    try:
        folder = is_folder(tree)

        def attach(root: int) -> None:
            place = open_or_make(root, target, folder=folder)
            try:
                km.move_mount(tree, place)
            finally:
                os.close(place)
            for flags in options.propagation:
                attr = km.MountAttr(propagation=flags & ~km.MS_REC)
                km.mount_setattr(tree, attr, recursive=bool(flags & km.MS_REC))

        inside(pid, attach)
    finally:
        os.close(tree)


def tmpfs(pid: int, target: str, words: list[str]) -> None:
    """Mount a new tmpfs at target in the container of the process pid.

    Raises:
        OSError: the target cannot be made, or an option is refused.
    """
    options = mount_options.parse(words)
    tree = km.detached("tmpfs", options.attr.set, tuple(word for word in options.data.split(",") if word))
    try:

        def attach(root: int) -> None:
            place = open_or_make(root, target, folder=True)
            try:
                km.move_mount(tree, place)
            finally:
                os.close(place)

        inside(pid, attach)
    finally:
        os.close(tree)


def detach(pid: int, target: str, expected: tuple[int, int] | None) -> None:
    """Unmount what is at target in the container of the process pid; open files stay usable.

    Args:
        pid: a process in the container's mount namespace.
        target: the place.
        expected: device and inode of what is mounted there, where that is known. It is compared where links
            lie in the path, which the container may have bent to a mount that protects the host.

    Raises:
        OSError: nothing is mounted there, or something else.
    """

    def undo(root: int) -> None:
        folder, name = os.path.split(target.rstrip("/"))
        try:
            parent = open_in_root(root, folder, resolve=RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS)
        except OSError as error:
            if error.errno != errno.ELOOP or expected is None:
                raise
            parent = open_in_root(root, folder)
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if (found.st_dev, found.st_ino) != expected:
                os.close(parent)
                raise
        try:
            # The thread has a working folder of its own.
            os.fchdir(parent)
        finally:
            os.close(parent)
        km.umount(name, km.MNT_DETACH | km.UMOUNT_NOFOLLOW)

    inside(pid, undo)


def inside(pid: int, action: Callable[[int], None]) -> None:
    """Run action in the mount namespace of pid with a descriptor of its root.

    Raises:
        OSError: as the action; ESRCH where the process has ended and its number is one's of the machine itself.
    """
    failed: list[BaseException] = []
    fd = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    if os.path.samestat(os.fstat(fd), os.stat("/proc/self/ns/mnt")):
        os.close(fd)
        raise KernelError(errno.ESRCH, "setns")

    def run() -> None:
        try:
            namespaces.unshare(_CLONE_FS)
            namespaces.setns(fd, process.CLONE_NEWNS)
            root = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                action(root)
            finally:
                os.close(root)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="live-mount", daemon=True)
    thread.start()
    thread.join()
    os.close(fd)
    if failed:
        error = failed[0]
        raise KernelError(error.errno or 0, getattr(error, "call", "open"), str(error.filename or "")) if isinstance(
            error, OSError
        ) else error
