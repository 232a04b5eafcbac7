"""Device nodes made in a container that runs already, and taken out of it again."""

import errno
import os
import stat

from barque.kernel.openat2 import open_in_root
from barque.runtime.devices import Device
from barque.runtime.live_mounts import inside
from barque.runtime.root import components, open_or_make


def make(pid: int, devices: list[Device]) -> None:
    """Make nodes in the container of the process pid; folders that miss on the way are made.

    Args:
        pid: a process in the container's mount namespace.
        devices: what to make.

    Raises:
        OSError: something is there already (EEXIST), or the kernel refuses; none of the nodes is left then.
    """

    def act(root: int) -> None:
        done: list[Device] = []
        before = os.umask(0)
        try:
            for device in devices:
                folder, name = _place(root, device.path, make_it=True)
                try:
                    os.mknod(name, device.mode, device.number, dir_fd=folder)
                    done.append(device)
                    os.chown(name, device.uid, device.gid, dir_fd=folder, follow_symlinks=False)
                finally:
                    os.close(folder)
        except OSError:
            for device in done:
                _unlink(root, device)
            raise
        finally:
            os.umask(before)

    inside(pid, act)


def remove(pid: int, devices: list[Device]) -> None:
    """Remove nodes from the container of the process pid; what is no such node any more stays.

    Raises:
        OSError: the kernel refuses.
    """

    def act(root: int) -> None:
        for device in devices:
            _unlink(root, device)

    inside(pid, act)


def _place(root: int, path: str, *, make_it: bool) -> tuple[int, str]:
    names = components(path)
    if not names:
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    folder = "/" + "/".join(names[:-1])
    if make_it:
        return open_or_make(root, folder, folder=True), names[-1]
    return open_in_root(root, folder, os.O_PATH | os.O_DIRECTORY), names[-1]


def _unlink(root: int, device: Device) -> None:
    try:
        folder, name = _place(root, device.path, make_it=False)
    except OSError:
        return
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_IFMT(found.st_mode) == stat.S_IFMT(device.mode) and found.st_rdev == device.number:
            os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return
    finally:
        os.close(folder)
