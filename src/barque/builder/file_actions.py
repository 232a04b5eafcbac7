"""Carrying out the actions of a Files step on a mounted snapshot; blocking."""

import os

from barque.base import calling_off
from barque.base.errors import BarqueError, InvalidInputError, NotFoundError
from barque.base.files import write_all
from barque.builder.copying import Copier, CopyOptions
from barque.builder.graph import CopyFiles, Files, MakeFile, MakeFolder, MakeLink, RemovePath
from barque.builder.keys import sources
from barque.builder.modes import ModeChange
from barque.builder.results import Result, opened
from barque.builder.trees import FILE, Tree, matching, resolve
from barque.dockerfile.patterns import Matcher
from barque.engine.rootfiles import text_of
from barque.kernel.openat2 import open_in_root
from barque.runtime.users import parse_group, parse_passwd
from barque.storage.archive import unpack
from barque.storage.compression import plain
from barque.storage.content import ContentStore
from barque.storage.mapping import mapped
from barque.storage.mounts import mounted
from barque.storage.snapshots import Snapshotter
from barque.storage.trees import remove_below

_HEAD = 1 << 20
"""Of a file as many bytes are looked at as the records before the first entry of an archive may take."""


def carry_out(snapshots: Snapshotter, content: ContentStore, key: str, step: Files, inputs: list[Result]) -> None:
    """Change the active snapshot `key` as the step says.

    Raises:
        BarqueError: an action is impossible.
        OSError: the disk is full, or the kernel refused something.
    """
    mounts = [mount._replace(options=(*mount.options, "volatile")) for mount in snapshots.mounts(key)]
    with mounted(mounts) as root:
        worker = _Worker(root, snapshots, content)
        for action in step.actions:
            if isinstance(action, CopyFiles):
                worker.copy(action, inputs[action.input])
            elif isinstance(action, MakeFile):
                worker.make_file(action)
            elif isinstance(action, MakeFolder):
                worker.make_folder(action)
            elif isinstance(action, MakeLink):
                worker.make_link(action)
            else:
                worker.remove(action)


class _Worker:
    def __init__(self, root: int, snapshots: Snapshotter, content: ContentStore) -> None:
        self._root = root
        self._snapshots = snapshots
        self._content = content

    def copy(self, action: CopyFiles, source: Result) -> None:
        options = CopyOptions(
            owner=None if action.owner == "=" else self._owner(action.owner),
            mode=ModeChange(action.mode) if action.mode else None,
            time_ns=action.time_ns, excludes=Matcher(action.excludes) if action.excludes else None,
            includes=Matcher(action.includes) if action.includes else None, replace=action.replace,
            contents=action.contents, devices=source.tree is None,
        )  # fmt: skip
        with opened(self._snapshots, source) as tree:
            copier = Copier(self._root, options)
            try:
                for path in sources(tree, action):
                    real = resolve(tree, path, last=action.follow)
                    if action.unpack and self._unpacked(tree, real, action, options):
                        copier.close()
                        continue
                    copier.copy(tree, real, path or "/", action.target)
            finally:
                copier.close()

    def _unpacked(self, tree: Tree, path: str, action: CopyFiles, options: CopyOptions) -> bool:
        """Unpack an archive at its target; return False where the file is none."""
        node = tree.lstat(path)
        if node is None or node.kind != FILE or not _is_archive(tree, path):
            return False
        start = action.target.rstrip("/") or "/"
        maker = Copier(self._root, options)
        try:
            maker.make_folder(start, 0o755, parents=True)
        finally:
            maker.close()
        with self._content.temporary() as file:
            for chunk in plain(tree.read(path)):
                calling_off.check()
                write_all(file.fileno(), chunk)
            fd = open_in_root(self._root, start, os.O_RDONLY | os.O_DIRECTORY)
            try:
                with mapped(file) as buffer:
                    # Links inside the archive are resolved below the target, which is a root to it.
                    unpack(buffer, fd, owner=options.owner if action.owner not in ("", "=") else None)
            finally:
                os.close(fd)
        return True

    def make_file(self, action: MakeFile) -> None:
        copier = Copier(self._root, CopyOptions(owner=self._owner(action.owner), time_ns=action.time_ns))
        try:
            copier.make_file(action.path, action.data, action.mode)
        finally:
            copier.close()

    def make_folder(self, action: MakeFolder) -> None:
        copier = Copier(self._root, CopyOptions(owner=self._owner(action.owner), time_ns=action.time_ns))
        try:
            copier.make_folder(action.path, action.mode, parents=action.parents)
        finally:
            copier.close()

    def make_link(self, action: MakeLink) -> None:
        parent, _, name = action.path.rstrip("/").rpartition("/")
        folder = open_in_root(self._root, parent or "/", os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.symlink(action.target, name, dir_fd=folder)
            os.chown(name, *self._owner(action.owner), dir_fd=folder, follow_symlinks=False)
            if action.time_ns is not None:
                os.utime(name, ns=(action.time_ns, action.time_ns), dir_fd=folder, follow_symlinks=False)
        finally:
            os.close(folder)

    def remove(self, action: RemovePath) -> None:
        from barque.builder.folder_tree import FolderTree

        paths = [action.path.strip("/")]
        if action.wildcard:
            tree = FolderTree(self._root)
            try:
                paths = matching(tree, action.path)
            finally:
                tree.close()
        for path in paths:
            parent, _, name = path.rpartition("/")
            if not name:
                raise InvalidInputError("rmPath: invalid empty path")
            try:
                folder = open_in_root(self._root, parent or "/", os.O_RDONLY | os.O_DIRECTORY)
            except FileNotFoundError:
                if action.optional:
                    continue
                raise NotFoundError(f"lstat /{path}: no such file or directory") from None
            try:
                os.stat(name, dir_fd=folder, follow_symlinks=False)
                remove_below(folder, os.fsencode(name))
            except FileNotFoundError:
                if not action.optional:
                    raise NotFoundError(f"lstat /{path}: no such file or directory") from None
            finally:
                os.close(folder)

    def _owner(self, text: str) -> tuple[int, int]:
        """Return the ids of user[:group] by the root's own files; a lone user is the group too.

        Raises:
            InvalidInputError: a name without an entry.
        """
        if text in ("", "="):
            return (0, 0)
        user, colon, group = text.partition(":")
        if ":" in group:
            raise InvalidInputError(f"invalid chown string format: {text}")
        uid, own = self._user(user)
        return uid, self._group(group) if colon else own

    def _user(self, name: str) -> tuple[int, int]:
        """Return a user's id and the id of its group: a number is both."""
        if name.isascii() and name.isdigit():
            return int(name), int(name)
        if not name:
            return 0, 0
        for entry in parse_passwd(text_of(self._root, "/etc/passwd")):
            if entry.name == name:
                return entry.uid, entry.gid
        raise InvalidInputError("unable to convert uid/gid chown string to host mapping: can't find uid for user "
                                f"{name}: no such user: {name}")  # fmt: skip

    def _group(self, name: str) -> int:
        if name.isascii() and name.isdigit():
            return int(name)
        if not name:
            return 0
        for entry in parse_group(text_of(self._root, "/etc/group")):
            if entry.name == name:
                return entry.gid
        raise InvalidInputError("unable to convert uid/gid chown string to host mapping: can't find gid for group "
                                f"{name}: no such group: {name}")  # fmt: skip


def _is_archive(tree: Tree, path: str) -> bool:
    """Tell whether a file is a tar, compressed or not."""
    head = b""
    try:
        for chunk in plain(tree.read(path)):
            head += bytes(chunk[:_HEAD])
            if len(head) >= _HEAD:
                break
    except BarqueError:
        return False
    if len(head) < 512:
        return False
    if not head[:512].strip(b"\0"):
        return False
    from barque.storage.archive import tar

    try:
        next(tar.entries(memoryview(head)), None)
    except InvalidInputError as error:
        return "unexpected EOF" in str(error)
    return True
