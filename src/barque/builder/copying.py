"""Copying files of a tree into a mounted snapshot, confined to its root."""

import os
import stat
from typing import NamedTuple

from barque.base import calling_off
from barque.base.errors import BarqueError, InvalidInputError
from barque.base.files import write_all
from barque.builder.checksum import selected
from barque.builder.modes import ModeChange
from barque.builder.trees import BLOCK, CHAR, FIFO, FILE, FOLDER, LINK, Node, Tree, followed
from barque.dockerfile.patterns import Matcher
from barque.kernel.openat2 import RESOLVE_IN_ROOT, RESOLVE_NO_SYMLINKS, open_in_root

_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_KEPT = 64


class CopyOptions(NamedTuple):
    """How files are copied.

    `owner` is uid and gid for everything, None keeps the sources'. `mode` changes permission bits.
    `time_ns` is given to everything, None keeps the sources' times. `replace` lets a source replace what
    stands in its way, whatever its kind. `contents` copies what is in a source folder, else the folder.
    """

    owner: tuple[int, int] | None = (0, 0)
    mode: ModeChange | None = None
    time_ns: int | None = None
    excludes: Matcher | None = None
    includes: Matcher | None = None
    replace: bool = False
    contents: bool = True
    devices: bool = True


class Copier:
    """Copies into the folder whose descriptor is `root`; close it at the end."""

    def __init__(self, root: int, options: CopyOptions) -> None:
        self._root = root
        self._options = options
        self._folders: dict[str, int] = {}
        self._inodes: dict[object, str] = {}
        self._times: list[tuple[str, int]] = []

    def close(self) -> None:
        """Close the descriptors of folders."""
        for fd in self._folders.values():
            os.close(fd)
        self._folders.clear()

    def copy(self, tree: Tree, source: str, named: str, target: str) -> None:
        """Copy one source.

        Args:
            tree: where it is.
            source: its real path.
            named: the path as written, whose last part names it inside a target folder.
            target: absolute path; a slash at its end means a folder.

        Raises:
            InvalidInputError: a file would replace a folder or the other way round.
            OSError: the kernel refused something.
        """
        node = tree.lstat(source)
        if node is None:
            raise InvalidInputError(f"{named}: not found")
        place = self._place(node, named, target)
        for path, inner, found in selected(tree, source, excludes=self._options.excludes,
                                           includes=self._options.includes):  # fmt: skip
            where = f"{place}/{inner}".strip("/") if inner else place
            self._put(tree, path, where, found)
        self._set_times()

    def make_folder(self, path: str, mode: int, *, parents: bool) -> None:
        """Make a folder; one that is there stays as it is.

        Raises:
            OSError: the kernel refused it.
        """
        real = self._real(path)
        if parents:
            self._make_parents(real, mode)
            return
        try:
            self._mkdir(real, mode)
        except FileExistsError:
            return

    def make_file(self, path: str, data: bytes, mode: int) -> None:
        """Write a whole file; a link at its place is followed inside the root."""
        options = self._options
        real = self._real(path)
        found = self._stat(real)
        if found is not None and not stat.S_ISREG(found.st_mode):
            # A device of an image is the machine's to whoever writes to it here.
            raise InvalidInputError(f"cannot write to /{real}, which is no regular file")
        parent, _, name = real.rpartition("/")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(name, flags, 0o600, dir_fd=self._folder(parent))
        try:
            write_all(fd, data)
            os.fchown(fd, *(options.owner or (0, 0)))
            os.fchmod(fd, mode)
            if options.time_ns is not None:
                os.utime(fd, ns=(options.time_ns, options.time_ns))
        finally:
            os.close(fd)

    def _place(self, node: Node, named: str, target: str) -> str:
        """Return where the source goes, its parents made."""
        mode = self._options.mode
        made = mode.fixed if mode is not None and mode.fixed is not None else 0o755
        as_folder = target.endswith(("/", "/."))
        real = self._real(target)
        if as_folder:
            self._make_parents(real, made)
        there = self._stat(real)
        is_folder = there is not None and stat.S_ISDIR(there.st_mode)
        inside = is_folder if node.kind != FOLDER else there is not None and not self._options.contents
        if inside:
            return f"{real}/{os.path.basename(named.rstrip('/'))}".strip("/")
        if there is None:
            parent = real if node.kind == FOLDER and self._options.contents else real.rpartition("/")[0]
            self._make_parents(parent, made)
        return real

    def _real(self, path: str) -> str:
        """Return path with its links followed inside the root; what is missing stays as written."""

        def link_of(here: str) -> str | None:
            found = self._stat(here)
            if found is None or not stat.S_ISLNK(found.st_mode):
                return None
            parent, _, name = here.rpartition("/")
            return os.readlink(name, dir_fd=self._folder(parent))

        return followed(path, link_of)

    def _stat(self, path: str) -> os.stat_result | None:
        parent, _, name = path.rpartition("/")
        try:
            return os.stat(name or ".", dir_fd=self._folder(parent), follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _folder(self, path: str) -> int:
        fd = self._folders.pop(path, None)
        if fd is not None:
            # The last used are kept: two descriptors asked for one after the other both live.
            self._folders[path] = fd
            return fd
        if not path:
            fd = os.open(".", _FOLDER_FLAGS, dir_fd=self._root)
        else:
            fd = open_in_root(self._root, path, os.O_RDONLY | os.O_DIRECTORY,
                              resolve=RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS)  # fmt: skip
        if len(self._folders) >= _KEPT:
            os.close(self._folders.pop(next(iter(self._folders))))
        self._folders[path] = fd
        return fd

    def _make_parents(self, path: str, mode: int) -> None:
        parts = [part for part in path.split("/") if part]
        for end in range(1, len(parts) + 1):
            here = "/".join(parts[:end])
            found = self._stat(here)
            if found is None:
                self._mkdir(here, mode)
            elif not stat.S_ISDIR(found.st_mode):
                raise InvalidInputError(f"mkdir /{here}: not a directory")

    def _mkdir(self, path: str, mode: int) -> None:
        parent, _, name = path.rpartition("/")
        folder = self._folder(parent)
        os.mkdir(name, 0o700, dir_fd=folder)
        os.chown(name, *(self._options.owner or (0, 0)), dir_fd=folder, follow_symlinks=False)
        os.chmod(name, mode, dir_fd=folder)
        if self._options.time_ns is not None:
            self._times.append((path, self._options.time_ns))

    def _put(self, tree: Tree, source: str, where: str, node: Node) -> None:
        parent, _, name = where.rpartition("/")
        if node.kind == FOLDER:
            self._put_folder(tree, source, where, node)
            return
        folder = self._folder(parent)
        if node.inode is not None:
            first = self._inodes.setdefault(node.inode, where)
            if first != where and self._link(first, folder, name, where):
                return
        if node.kind == FILE:
            self._put_file(tree, source, folder, name, where, node)
        else:
            self._clear(folder, name, where)
            self._put_special(folder, name, where, node)

    def _put_folder(self, tree: Tree, source: str, where: str, node: Node) -> None:
        found = self._stat(where)
        if found is not None and not stat.S_ISDIR(found.st_mode):
            if not self._options.replace:
                raise InvalidInputError(f"cannot copy to non-directory: /{where}")
            parent, _, name = where.rpartition("/")
            os.unlink(name, dir_fd=self._folder(parent))
            found = None
        if found is not None:
            # A folder that is there keeps its owner and mode.
            return
        parent, _, name = where.rpartition("/")
        folder = self._folder(parent)
        os.mkdir(name, 0o700, dir_fd=folder)
        self._dress(folder, name, node)
        attributes = tree.xattrs(source)
        if attributes:
            for key, value in attributes.items():
                os.setxattr(self._folder(where), key, value)
        self._times.append((where, self._time(node)))

    def _put_file(self, tree: Tree, source: str, folder: int, name: str, where: str, node: Node) -> None:
        mode = self._mode(node)
        try:
            fd = os.open(name, _CREATE, mode, dir_fd=folder)
        except FileExistsError:
            self._clear(folder, name, where)
            fd = os.open(name, _CREATE, mode, dir_fd=self._folder(where.rpartition("/")[0]))
        try:
            for chunk in tree.read(source):
                calling_off.check()
                write_all(fd, chunk)
            give(fd, self._options.owner or (node.uid, node.gid), mode)
            for key, value in tree.xattrs(source).items():
                _set_xattr(fd, key, value)
            time_ns = self._time(node)
            os.utime(fd, ns=(time_ns, time_ns))
        finally:
            os.close(fd)

    def _put_special(self, folder: int, name: str, where: str, node: Node) -> None:
        folder = self._folder(where.rpartition("/")[0])
        owner = self._options.owner or (node.uid, node.gid)
        if node.kind == LINK:
            os.symlink(node.link, name, dir_fd=folder)
            os.chown(name, *owner, dir_fd=folder, follow_symlinks=False)
        elif node.kind in (CHAR, BLOCK) and not self._options.devices:
            raise InvalidInputError(f"device nodes cannot be copied out of a build context: {where}")
        else:
            bits = {CHAR: stat.S_IFCHR, BLOCK: stat.S_IFBLK, FIFO: stat.S_IFIFO}[node.kind]
            os.mknod(name, bits | 0o600, os.makedev(*node.device), dir_fd=folder)
            self._dress(folder, name, node)
        time_ns = self._time(node)
        os.utime(name, ns=(time_ns, time_ns), dir_fd=folder, follow_symlinks=False)

    def _dress(self, folder: int, name: str, node: Node) -> None:
        os.chown(name, *(self._options.owner or (node.uid, node.gid)), dir_fd=folder, follow_symlinks=False)
        os.chmod(name, self._mode(node), dir_fd=folder)

    def _mode(self, node: Node) -> int:
        change = self._options.mode
        return node.mode if change is None else change.apply(node.mode, folder=node.kind == FOLDER)

    def _time(self, node: Node) -> int:
        return node.mtime_ns if self._options.time_ns is None else self._options.time_ns

    def _link(self, first: str, folder: int, name: str, where: str) -> bool:
        parent, _, source = first.rpartition("/")
        self._clear(folder, name, where)
        try:
            os.link(source, name, src_dir_fd=self._folder(parent), dst_dir_fd=self._folder(where.rpartition("/")[0]),
                    follow_symlinks=False)  # fmt: skip
        except OSError:
            return False
        return True

    def _clear(self, folder: int, name: str, where: str) -> None:
        """Remove what stands where a file goes."""
        try:
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return
        if not stat.S_ISDIR(found.st_mode):
            os.unlink(name, dir_fd=folder)
        elif self._options.replace:
            from barque.storage.trees import remove_below

            self.close()
            remove_below(self._folder(where.rpartition("/")[0]), os.fsencode(name))
        else:
            raise InvalidInputError(f"cannot replace to directory /{where} with file")

    def _set_times(self) -> None:
        """Give folders their times now that nothing is put into them any more, innermost first."""
        for path, time_ns in reversed(self._times):
            parent, _, name = path.rpartition("/")
            os.utime(name, ns=(time_ns, time_ns), dir_fd=self._folder(parent), follow_symlinks=False)
        self._times.clear()


def give(fd: int, owner: tuple[int, int], mode: int) -> None:
    """Give a new file its owner and its mode where it was not made with them: most files are."""
    made = os.fstat(fd)
    if (made.st_uid, made.st_gid) != owner:
        os.fchown(fd, *owner)
    elif stat.S_IMODE(made.st_mode) == mode:
        return
    os.fchmod(fd, mode)


def _set_xattr(fd: int, name: bytes, value: bytes) -> None:
    try:
        os.setxattr(fd, name, value)
    except OSError as error:
        raise BarqueError(f"cannot keep the attribute {os.fsdecode(name)}: {error.strerror}") from None
