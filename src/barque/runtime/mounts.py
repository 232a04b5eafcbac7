"""Steps that mount what config.json lists, each onto a descriptor inside the root."""

import errno
import os
import stat
from typing import NamedTuple

from barque.base.errors import KernelError
from barque.kernel import mount as km
from barque.kernel.openat2 import RESOLVE_IN_ROOT, RESOLVE_NO_SYMLINKS, open_in_root
from barque.runtime.channel import StepError, errno_text
from barque.runtime.copy_up import copy_tree
from barque.runtime.mount_options import MountOptions
from barque.runtime.root import Context, bind, components, is_folder, open_existing, open_or_make

# mount(2) takes these for a new file system; the rest says how, not what.
_UNIFIED_OPTIONS = frozenset(
    ("nsdelegate", "favordynmods", "memory_localevents", "memory_recursiveprot", "memory_hugetlb_accounting",
     "pids_localevents")
)  # fmt: skip
_NOT_FOR_NEW = km.MS_BIND | km.MS_REC | km.MS_REMOUNT


def _failed(source: str, destination: str, error: OSError) -> StepError:
    call = getattr(error, "call", "mount")
    return StepError(
        f'error mounting "{source}" to rootfs at "{destination}": {call}: {errno_text(error.errno)}',
        error.errno or 0,
    )


class BindMount(NamedTuple):
    """Bind a file or folder of the host, or a tree that the parent has opened."""

    source: str
    destination: str
    options: MountOptions
    tree: int = -1

    def describe(self) -> str:
        """Say what the step does."""
        return f"bind {self.source} at {self.destination}"

    def run(self, context: Context) -> None:
        """Do it."""
        if self.options.copy_symlink and os.path.islink(self.source):
            self._copy_link(context)
            return
        try:
            tree = self.tree if self.tree >= 0 else open_bind(self.source, self.options)
            self._attach(context, tree)
            os.close(tree)
        except OSError as error:
            raise _failed(self.source, self.destination, error) from None
        context.refresh(self.destination)

    def _copy_link(self, context: Context) -> None:
        names = components(self.destination)
        folder = open_or_make(context.root, "/" + "/".join(names[:-1]), folder=True)
        try:
            os.symlink(os.readlink(self.source), names[-1], dir_fd=folder)
        except FileExistsError:
            if os.readlink(names[-1], dir_fd=folder) != os.readlink(self.source):
                raise
        finally:
            os.close(folder)

    def _attach(self, context: Context, tree: int) -> None:
        if components(self.destination):
            target = open_or_make(context.root, self.destination, folder=is_folder(tree))
        else:
            target = os.open(context.root_path, os.O_PATH | os.O_CLOEXEC)
        try:
            if is_folder(tree) != is_folder(target):
                # move_mount(2) would only call it an invalid argument.
                raise StepError(
                    f'error mounting "{self.source}" to rootfs at "{self.destination}": mount: not a directory: Are you trying '
                    "to mount a directory onto a file (or vice-versa)? "
                    "Check if the specified host path exists and is the expected type",
                    errno.ENOTDIR,
                )
            km.move_mount(tree, target)
        finally:
            os.close(target)
        for flags in self.options.propagation:
            km.mount_setattr(
                tree,
                km.MountAttr(propagation=flags & ~km.MS_REC),
                recursive=bool(flags & km.MS_REC),
            )


def open_bind(source: str, options: MountOptions) -> int:
    """Return a detached copy of the mount (tree) at `source` with the attributes of `options`.

    Raises:
        OSError: nothing is there, or the kernel refuses an attribute.
    """
    recursive = km.AT_RECURSIVE if options.flags & km.MS_REC else 0
    tree = km.open_tree(km.AT_FDCWD, source, km.OPEN_TREE_CLONE | recursive)
    try:
        if options.attr.set or options.attr.clear:
            _set_unlocked(tree, options.attr)
        if options.recursive_attr.set or options.recursive_attr.clear:
            km.mount_setattr(tree, options.recursive_attr, recursive=True)
    except OSError:
        os.close(tree)
        raise
    return tree


def _set_unlocked(tree: int, attr: km.MountAttr) -> None:
    """Set attributes; flags that a more privileged namespace locked stay as they are."""
    try:
        km.mount_setattr(tree, attr)
    except OSError as error:
        if error.errno != errno.EPERM or not attr.clear:
            raise
        km.mount_setattr(tree, attr._replace(clear=attr.clear & attr.set))


class FileSystemMount(NamedTuple):
    """Mount a new file system (proc, tmpfs, devpts, ...)."""

    fstype: str
    source: str
    destination: str
    options: MountOptions

    def describe(self) -> str:
        """Say what the step does."""
        return f"mount {self.fstype} at {self.destination}"

    def run(self, context: Context) -> None:
        """Do it."""
        try:
            target = self._place(context.root)
            made = target < 0
            if made:
                os.close(open_or_make(context.root, self.destination, folder=True))
                target = self._place(context.root)
            try:
                self._mount(context, target, made=made)
            finally:
                os.close(target)
            self._finish(context)
            context.refresh(self.destination)
        except OSError as error:
            raise _failed(self.source or self.fstype, self.destination, error) from None

    def _place(self, root: int) -> int:
        """Return a descriptor of where it goes, -1 when nothing is there.

        No link may lead to a place of the kernel's own files: a neighbour who owns where it leads could take the mount
        away again before parts of it are hidden.

        Raises:
            StepError: a link does.
        """
        own = self.fstype in ("proc", "sysfs")
        try:
            return open_existing(root, self.destination, resolve=RESOLVE_IN_ROOT | (RESOLVE_NO_SYMLINKS if own else 0))
        except OSError as error:
            if not own or error.errno != errno.ELOOP:
                raise
            raise StepError(
                f'filesystem "{self.fstype}" must be mounted on an ordinary folder: a symbolic link leads to '
                f'"{self.destination}"', errno.ELOOP,
            ) from None  # fmt: skip

    def _mount(self, context: Context, target: int, *, made: bool) -> None:
        data = self.options.data
        flags = self.options.flags & ~_NOT_FOR_NEW
        if self.fstype in ("proc", "sysfs") and not is_folder(target):
            raise KernelError(errno.ENOTDIR, "mount", self.destination)
        copied = -1
        if self.fstype == "tmpfs":
            # In a place that was there already it has that folder's mode, else its own: 1777.
            if "mode=" not in data and not made:
                mode = stat.S_IMODE(os.fstat(target).st_mode)
                data = f"{data},mode={mode:o}" if data else f"mode={mode:o}"
            if self.options.copy_up and not components(self.destination):
                raise KernelError(errno.EINVAL, "tmpcopyup", "/")
            if self.options.copy_up:
                copied = os.open(km.fd_path(target), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        # A read-only tmpfs has to be filled first.
        early = flags & ~km.MS_RDONLY if copied >= 0 else flags
        try:
            km.mount(self.source or self.fstype, target, self.fstype, early, data or None)
        except OSError as error:
            if not self._fall_back(context, target, error):
                raise
        if copied >= 0:
            self._copy_up(context, copied)

    def _fall_back(self, context: Context, target: int, error: OSError) -> bool:
        """Make do with what a user namespace may mount; say whether that worked out."""
        if not context.userns:
            return False
        if self.fstype == "sysfs" and error.errno == errno.EPERM:
            # Without a network namespace of its own it may only bind the host's.
            bind("/sys", target, self.options.attr, everywhere=True)
            return True
        words = self.options.data.split(",")
        kept = [word for word in words if not word.startswith("gid=")]
        if self.fstype == "devpts" and error.errno == errno.EINVAL and kept != words:
            # The group of terminals is not among the mapped ones.
            flags = self.options.flags & ~_NOT_FOR_NEW
            km.mount(self.source or "devpts", target, "devpts", flags, ",".join(kept) or None)
            return True
        return False

    def _copy_up(self, context: Context, source: int) -> None:
        new = open_in_root(context.root, self.destination, os.O_RDONLY | os.O_DIRECTORY)
        try:
            copy_tree(source, new)
            if self.options.flags & km.MS_RDONLY:
                km.mount_setattr(new, km.MountAttr(set=km.MOUNT_ATTR_RDONLY))
        finally:
            os.close(source)
            os.close(new)

    def _finish(self, context: Context) -> None:
        recursive = self.options.recursive_attr
        if not self.options.propagation and not recursive.set and not recursive.clear:
            return
        fd = open_in_root(context.root, self.destination, os.O_PATH)
        try:
            if recursive.set or recursive.clear:
                km.mount_setattr(fd, recursive, recursive=True)
            for flags in self.options.propagation:
                km.mount(None, fd, None, flags)
        finally:
            os.close(fd)


class Remount(NamedTuple):
    """Change the flags of what is mounted already."""

    destination: str
    options: MountOptions

    def describe(self) -> str:
        """Say what the step does."""
        return f"remount {self.destination}"

    def run(self, context: Context) -> None:
        """Do it."""
        try:
            fd = open_in_root(context.root, self.destination, os.O_PATH)
            try:
                if self.options.flags & km.MS_BIND or not self.options.data:
                    _set_unlocked(fd, self.options.attr)
                else:
                    km.mount(None, fd, None, self.options.flags, self.options.data)
                for flags in self.options.propagation:
                    km.mount(None, fd, None, flags)
            finally:
                os.close(fd)
        except OSError as error:
            raise _failed("", self.destination, error) from None


class CgroupHierarchy(NamedTuple):
    """One mounted v1 hierarchy of the host."""

    name: str
    data: str
    controllers: tuple[str, ...]
    host_path: str


class CgroupV1Mount(NamedTuple):
    """Show the container its own part of every v1 hierarchy."""

    destination: str
    options: MountOptions
    hierarchies: tuple[CgroupHierarchy, ...]
    namespaced: bool

    def describe(self) -> str:
        """Say what the step does."""
        return f"mount the cgroup hierarchies at {self.destination}"

    def run(self, context: Context) -> None:
        """Do it."""
        own = {} if self.namespaced else _own_paths()
        attr = self.options.attr
        flags = self.options.flags & ~_NOT_FOR_NEW
        try:
            target = open_or_make(context.root, self.destination, folder=True)
            km.mount("tmpfs", target, "tmpfs", flags & ~km.MS_RDONLY, "mode=755")
            os.close(target)
            top = open_in_root(context.root, self.destination, os.O_RDONLY | os.O_DIRECTORY)
            for hierarchy in self.hierarchies:
                self._mount_one(top, hierarchy, own.get(hierarchy.data, "/"))
            if attr.set & km.MOUNT_ATTR_RDONLY:
                km.mount_setattr(top, km.MountAttr(set=km.MOUNT_ATTR_RDONLY))
            os.close(top)
        except OSError as error:
            raise _failed("cgroup", self.destination, error) from None

    def _mount_one(self, top: int, hierarchy: CgroupHierarchy, own: str) -> None:
        os.mkdir(hierarchy.name, 0o755, dir_fd=top)
        fd = os.open(hierarchy.name, os.O_PATH | os.O_CLOEXEC, dir_fd=top)
        try:
            if self.namespaced:
                flags = self.options.flags & ~_NOT_FOR_NEW
                km.mount("cgroup", fd, "cgroup", flags, hierarchy.data)
            else:
                bind(hierarchy.host_path + own, fd, self.options.attr)
        finally:
            os.close(fd)
        for controller in hierarchy.controllers:
            if controller != hierarchy.name:
                os.symlink(hierarchy.name, controller, dir_fd=top)


def _own_paths() -> dict[str, str]:
    """Return this process's path in each hierarchy, by the hierarchy's controllers."""
    paths = {}
    with open("/proc/self/cgroup", encoding="utf-8") as table:
        for line in table:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            paths[controllers] = path
    return paths


class CgroupV2Mount(NamedTuple):
    """Mount the unified hierarchy, or bind the container's part of it."""

    destination: str
    options: MountOptions
    namespaced: bool

    def describe(self) -> str:
        """Say what the step does."""
        return f"mount cgroup2 at {self.destination}"

    def run(self, context: Context) -> None:
        """Do it."""
        try:
            target = open_or_make(context.root, self.destination, folder=True)
            try:
                if self.namespaced:
                    flags = self.options.flags & ~_NOT_FOR_NEW
                    km.mount("cgroup", target, "cgroup2", flags, self.options.data or None)
                else:
                    _check_unified_options(self.options.data)
                    bind("/sys/fs/cgroup" + _own_paths().get("", "/"), target, self.options.attr)
            finally:
                os.close(target)
        except OSError as error:
            raise _failed("cgroup", self.destination, error) from None


def _check_unified_options(data: str) -> None:
    """Refuse what the kernel would refuse of a mount: a part that is bound gets no options of its own.

    Raises:
        OSError: EINVAL, the kernel's tree has no such option (Documentation/admin-guide/cgroup-v2).
    """
    for word in filter(None, data.split(",")):
        if word not in _UNIFIED_OPTIONS:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


class WorkingFolder(NamedTuple):
    """Make the working folder where the image has none."""

    path: str

    def describe(self) -> str:
        """Say what the step does."""
        return f"make the working folder {self.path}"

    def run(self, context: Context) -> None:
        """Do it."""
        fd = open_existing(context.root, self.path)
        if fd < 0:
            try:
                fd = open_or_make(context.root, self.path, folder=True)
            except OSError as error:
                raise StepError(f"mkdir {self.path}: {errno_text(error.errno)}", error.errno or 0) from None
        os.close(fd)
