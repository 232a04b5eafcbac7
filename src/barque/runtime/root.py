"""The container's root while it is being built: a descriptor that every path starts from.

Nothing in the root is trusted: paths are resolved by openat2(RESOLVE_IN_ROOT), mounts go onto
descriptors, and mount points are made one component at a time.
"""

import errno
import os
import stat

from barque.base.errors import KernelError
from barque.kernel import mount as km
from barque.kernel.openat2 import RESOLVE_IN_ROOT, open_in_root
from barque.runtime.channel import Channel, StepError

_MAX_LINKS = 40


class Context:
    """What steps share while they run in the child."""

    __slots__ = ("attributes", "channel", "console", "root", "root_path", "userns")

    def __init__(self, channel: Channel, userns: bool) -> None:
        self.channel = channel
        self.userns = userns
        self.root = -1
        self.root_path = b"/"
        self.console = -1
        self.attributes = -1

    def refresh(self, destination: str) -> None:
        """Open the root anew after something was mounted over it."""
        if not components(destination):
            os.close(self.root)
            self.root = os.open(self.root_path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def components(path: str) -> list[str]:
    """Split a path into names; `..` takes back a name and never leaves the root."""
    names: list[str] = []
    for name in path.split("/"):
        if name == "..":
            del names[-1:]
        elif name not in ("", "."):
            names.append(name)
    return names


def open_or_make(root: int, path: str, *, folder: bool, mode: int = 0o755) -> int:
    """Return an O_PATH descriptor of `path` inside `root`, made with its parents when missing.

    Raises:
        KernelError: as open(2) and mkdir(2).
    """
    try:
        return open_in_root(root, path, os.O_PATH)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
    return _make(root, components(path), folder, mode)


def _make(root: int, names: list[str], folder: bool, mode: int) -> int:
    done: list[str] = []
    links = 0
    while names:
        name = names.pop(0)
        parent = open_in_root(root, "/" + "/".join(done), os.O_PATH | os.O_DIRECTORY)
        try:
            links += 1
            target = _make_one(parent, name, folder or bool(names), mode)
        finally:
            os.close(parent)
        if target is None:
            done.append(name)
            continue
        if links > _MAX_LINKS:
            raise KernelError(errno.ELOOP, "openat2", "/".join(done))
        # A link to what does not exist yet: go on with where it points, inside the root.
        base = [] if target.startswith("/") else done
        names = components("/".join([*base, target])) + names
        done = []
    return open_in_root(root, "/" + "/".join(done), os.O_PATH)


def _make_one(parent: int, name: str, folder: bool, mode: int) -> str | None:
    """Make `name`; return a link's target when a link lies there, None when it exists."""
    try:
        if folder:
            os.mkdir(name, mode, dir_fd=parent)
        else:
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode & 0o666, dir_fd=parent))
    except FileExistsError:
        if stat.S_ISLNK(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            return os.readlink(name, dir_fd=parent)
    return None


def is_folder(fd: int) -> bool:
    """Say whether the descriptor is of a folder."""
    return stat.S_ISDIR(os.fstat(fd).st_mode)


def bind(
    source: str | bytes,
    target: int,
    attr: km.MountAttr,
    *,
    recursive: bool = True,
    everywhere: bool = False,
) -> None:
    """Bind `source` onto the descriptor `target`, attributes set before it can be seen.

    Args:
        source: what to bind.
        target: descriptor of the mount point.
        attr: attributes of its own mount, and with `everywhere` of those below it.
        recursive: take along the mounts below.
        everywhere: see attr.

    Raises:
        KernelError: with the kernel's errno.
    """
    flags = km.OPEN_TREE_CLONE | (km.AT_RECURSIVE if recursive else 0)
    tree = km.open_tree(km.AT_FDCWD, source, flags)
    try:
        if attr.set or attr.clear:
            km.mount_setattr(tree, attr, recursive=everywhere)
        km.move_mount(tree, target)
    finally:
        os.close(tree)


def mask(context: Context, path: str) -> None:
    """Hide `path`: a read-only empty tmpfs over a folder, the null device over a file.

    The device is the container's own: through the host's, mounted to be written, root of the container could
    change the mode and the owner of the host's /dev/null.

    Raises:
        StepError: the kernel refuses.
    """
    fd = open_existing(context.root, path)
    if fd < 0:
        return
    try:
        if is_folder(fd):
            km.mount("tmpfs", fd, "tmpfs", km.MS_RDONLY, "nr_blocks=1,nr_inodes=1")
        else:
            _cover_file(context.root, fd)
    except OSError as error:
        raise StepError(f"can't mask path {path!r}: {error}", error.errno or 0) from None
    finally:
        os.close(fd)


def _cover_file(root: int, target: int) -> None:
    null = open_existing(root, "/dev/null")
    try:
        if null >= 0 and is_null(null):
            km.mount(km.fd_path(null), target, None, km.MS_BIND)
        else:
            bind("/dev/null", target, km.MountAttr(set=km.MOUNT_ATTR_RDONLY), recursive=False)
    finally:
        if null >= 0:
            os.close(null)


def is_null(fd: int) -> bool:
    """Say whether the descriptor is of the null device."""
    status = os.fstat(fd)
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == os.makedev(1, 3)


def make_readonly(context: Context, path: str) -> None:
    """Make the tree at `path` read-only.

    Raises:
        StepError: the kernel refuses.
    """
    fd = open_existing(context.root, path)
    if fd < 0:
        return
    try:
        bind(km.fd_path(fd), fd, km.MountAttr(set=km.MOUNT_ATTR_RDONLY))
    except OSError as error:
        raise StepError(f"can't make {path!r} read-only: {error}", error.errno or 0) from None
    finally:
        os.close(fd)


def open_existing(root: int, path: str, *, resolve: int = RESOLVE_IN_ROOT) -> int:
    """Return an O_PATH descriptor, -1 when nothing is there.

    Raises:
        KernelError: other than ENOENT and ENOTDIR.
    """
    try:
        return open_in_root(root, path, os.O_PATH, resolve=resolve)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return -1
        raise
