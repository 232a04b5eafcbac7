"""Steps that fill /dev: nodes, links, and the console."""

import errno
import os
import stat
from typing import Any, NamedTuple

from barque.kernel import mount as km, tty
from barque.runtime.channel import CONSOLE, StepError, errno_text
from barque.runtime.root import Context, bind, components, open_or_make

_KINDS = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}


class Device(NamedTuple):
    """A node to make."""

    path: str
    mode: int
    number: int
    uid: int
    gid: int


DEFAULT_DEVICES: tuple[Device, ...] = tuple(
    Device(f"/dev/{name}", stat.S_IFCHR | 0o666, os.makedev(major, minor), 0, 0)
    for name, major, minor in (
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
    )
)
LINKS: tuple[tuple[str, str], ...] = (
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
)


_BOUND = km.MountAttr(set=km.MOUNT_ATTR_NOSUID | km.MOUNT_ATTR_NOEXEC)


def node_trees(devices: list[Device]) -> list[tuple[str, int]]:
    """Make nodes outside a user namespace, with host ids; return (path, detached mount) of each.

    Raises:
        OSError: EINVAL where the kernel cannot copy from what is mounted nowhere (before 6.15).
    """
    store = km.detached("tmpfs", km.MOUNT_ATTR_NOSUID | km.MOUNT_ATTR_NOEXEC)
    trees: list[tuple[str, int]] = []
    before = os.umask(0)
    try:
        for number, device in enumerate(devices):
            name = str(number)
            os.mknod(name, device.mode, device.number, dir_fd=store)
            os.chown(name, device.uid, device.gid, dir_fd=store)
            trees.append((device.path, km.open_tree(store, name)))
    except OSError:
        for _, tree in trees:
            os.close(tree)
        raise
    finally:
        os.umask(before)
        os.close(store)
    return trees


def parse_device(entry: dict[str, Any]) -> Device:
    """Turn one of linux.devices into a node."""
    mode = entry.get("fileMode")
    kind = _KINDS[entry["type"]]
    return Device(
        entry["path"],
        kind | (0o666 if mode is None else stat.S_IMODE(mode)),
        0 if entry["type"] == "p" else os.makedev(entry.get("major", 0), entry.get("minor", 0)),
        entry.get("uid") or 0,
        entry.get("gid") or 0,
    )


class MakeDevices(NamedTuple):
    """Make the nodes and the links; in a user namespace the host's nodes are bound instead."""

    devices: tuple[Device, ...]
    trees: tuple[tuple[str, int], ...] = ()

    def describe(self) -> str:
        """Say what the step does."""
        return f"make {len(self.devices)} devices"

    def run(self, context: Context) -> None:
        """Do it."""
        if os.path.islink(km.fd_path(context.root) + b"/dev"):
            raise StepError("/dev of the root is a symbolic link", errno.ELOOP)
        os.umask(0)
        dev = open_or_make(context.root, "/dev", folder=True)
        try:
            for device in self.devices:
                try:
                    self._create(context, dev, device)
                except OSError as error:
                    raise StepError(
                        f"creating device node {device.path!r}: {errno_text(error.errno)}",
                        error.errno or 0,
                    ) from None
            self._link(dev)
        finally:
            os.close(dev)
            os.umask(0o022)

    def _create(self, context: Context, dev: int, device: Device) -> None:
        names = components(device.path)
        if len(names) == 2 and names[0] == "dev":
            self._node(context, dev, names[1], device)
            return
        parent = open_or_make(context.root, "/" + "/".join(names[:-1]), folder=True)
        try:
            self._node(context, parent, names[-1], device)
        finally:
            os.close(parent)

    def _node(self, context: Context, folder: int, name: str, device: Device) -> None:
        trees = dict(self.trees)
        if not context.userns:
            try:
                os.mknod(name, device.mode, device.number, dir_fd=folder)
            except FileExistsError:
                return
            except PermissionError:
                pass
            else:
                if device.uid or device.gid:
                    os.chown(name, device.uid, device.gid, dir_fd=folder, follow_symlinks=False)
                return
        # Where nodes may not be made, one from outside is bound.
        try:
            flags = os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            os.close(os.open(name, flags, 0o644, dir_fd=folder))
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENXIO, errno.EISDIR, errno.EACCES):
                raise
        target = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            if device.path in trees:
                km.move_mount(trees[device.path], target)
            else:
                bind(device.path, target, _BOUND, recursive=False)
        finally:
            os.close(target)

    def _link(self, dev: int) -> None:
        for target, name in LINKS:
            try:
                os.symlink(target, name, dir_fd=dev)
            except FileExistsError:
                if name != "ptmx":
                    continue
                # The image's own ptmx would open the host's devpts.
                try:
                    os.unlink(name, dir_fd=dev)
                    os.symlink(target, name, dir_fd=dev)
                except OSError:
                    continue
        try:
            os.stat("/proc/kcore")
            os.symlink("/proc/kcore", "core", dir_fd=dev)
        except OSError:
            pass


class Console(NamedTuple):
    """Open a pty in the container's devpts, show it as /dev/console, send its master."""

    rows: int
    columns: int
    mount_console: bool

    def describe(self) -> str:
        """Say what the step does."""
        return "open the console"

    def run(self, context: Context) -> None:
        """Do it."""
        try:
            master, slave = tty.open_pty(context.root)
        except OSError as error:
            raise StepError(f"open console: {errno_text(error.errno)}", error.errno or 0) from None
        if self.rows or self.columns:
            tty.set_size(slave, self.rows, self.columns)
        if self.mount_console:
            self._show(context.root, slave)
        context.channel.send_fd(CONSOLE, master)
        os.close(master)
        tty.make_controlling(slave)
        for fd in (0, 1, 2):
            os.dup2(slave, fd)
        os.close(slave)

    def _show(self, root: int, slave: int) -> None:
        target = open_or_make(root, "/dev/console", folder=False, mode=0o620)
        try:
            km.mount(km.fd_path(slave), target, None, km.MS_BIND)
        except OSError as error:
            raise StepError(f"mount console: {errno_text(error.errno)}", error.errno or 0) from None
        finally:
            os.close(target)
