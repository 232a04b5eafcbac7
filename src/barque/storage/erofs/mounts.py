"""Mounting indexed layers: each once, on no folder, shared by all who show it.

A mounted layer is reached as /proc/<this process>/fd/<n>, a path that overlay takes as a lower folder
in any mount namespace while this process lives. Mounts share pages, so a layer stays mounted until it
is removed, or until too many others are wanted and it was idle for long.
"""

import os
import resource
import threading
import time
from contextlib import suppress

from barque.base.errors import KernelError, UnsupportedError
from barque.kernel import mount
from barque.kernel.private_mounts import private_root
from barque.storage.erofs import image, tree

INDEX, TAR = "i", "t"
_IDLE_S = 300
_MOUNTED_MAX = 2048


class Mounted:
    """The mounts of one root's indexed layers; safe to use from several threads."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._open: dict[str, tuple[int, float]] = {}
        self._forgotten: list[int] = []
        self._most = min(_MOUNTED_MAX, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)

    def path(self, folder: str) -> str:
        """Return the path at which a layer's files are, mounted if it was not.

        Raises:
            KernelError: the kernel refused it.
        """
        with self._lock:
            found = self._open.pop(folder, None)
            fd = found[0] if found else mount_layer(f"{self._root}/{folder}")
            # The last used one is the last of the dictionary.
            self._open[folder] = (fd, time.monotonic())
            if len(self._open) > self._most:
                self._close_idle()
        return f"/proc/{os.getpid()}/fd/{fd}"

    def _close_idle(self) -> None:
        folder, (fd, used) = next(iter(self._open.items()))
        if time.monotonic() - used > _IDLE_S:
            del self._open[folder]
            os.close(fd)

    def forget(self, folder: str) -> None:
        """Let a layer go that is removed; `close_forgotten` unmounts it, containers that still show it keep it alive."""
        with self._lock:
            found = self._open.pop(folder, None)
            if found:
                self._forgotten.append(found[0])

    def close_forgotten(self) -> None:
        """Unmount what was forgotten: the kernel lets go of all its pages, which takes time."""
        with self._lock:
            fds, self._forgotten = self._forgotten, []
        for fd in fds:
            os.close(fd)

    def close(self) -> None:
        """Unmount all."""
        self.close_forgotten()
        with self._lock:
            for fd, _ in self._open.values():
                os.close(fd)
            self._open.clear()


def mount_layer(folder: str) -> int:
    """Return a descriptor of an indexed layer's files.

    Raises:
        KernelError: the kernel refused it.
    """
    options = (f"source={folder}/{INDEX}", f"device={folder}/{TAR}", "ro")
    return mount.detached("erofs", mount.MOUNT_ATTR_RDONLY, options)


def probe(root: str) -> None:
    """Return if this kernel mounts an index from a file and overlay takes it as a lower folder.

    Args:
        root: a folder on the file system that layers will lie on.

    Raises:
        UnsupportedError: it does not; str() says what was refused.
    """
    folder = f"{root}/.probe-{os.getpid()}-{os.urandom(4).hex()}"
    os.makedirs(f"{folder}/f")
    os.makedirs(f"{folder}/w")
    try:
        top = tree.build(memoryview(b""))
        (top.children or {})[b"gone"] = tree.whiteout()
        for name, data in ((INDEX, bytes(image.write(top, 512).data)), (TAR, bytes(512))):
            with open(f"{folder}/{name}", "wb") as file:
                file.write(data)
        fd = mount_layer(folder)
        try:
            lower = f"lowerdir=/proc/{os.getpid()}/fd/{fd}"
            step = ("overlay", "overlay", (lower, "upperdir=f", "workdir=w"), folder)
            with private_root([step]) as shown:
                if os.listdir(shown):
                    raise UnsupportedError("overlay does not take an EROFS image's whiteouts")
        finally:
            os.close(fd)
    except KernelError as error:
        raise UnsupportedError(f"this kernel does not mount EROFS images from files below overlay: {error}") from None
    finally:
        _remove(folder)


def _remove(folder: str) -> None:
    for name in (INDEX, TAR):
        with suppress(FileNotFoundError):
            os.unlink(f"{folder}/{name}")
    with suppress(OSError):
        os.rmdir(f"{folder}/w/work")
    for name in ("f", "w", ""):
        with suppress(OSError):
            os.rmdir(f"{folder}/{name}")
