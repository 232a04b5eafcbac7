"""A layer's tar as a tree of nodes, as unpacking it would leave them; pure but for a look at lower layers.

What cannot be said in an index (`UnindexableError`) is left to unpacking into a folder: odd sparse
files, hard links to what is not in the layer, names below links. So is every broken archive, whose
error is then that of unpacking.
"""

import os
import stat
from collections.abc import Sequence

from barque.base.errors import InvalidInputError
from barque.storage.archive import tar
from barque.storage.archive.extract import clean
from barque.storage.archive.write import OPAQUE

NAME_MAX = 255
_LINK_MAX = 4095
_ID_MAX = 0xFFFFFFFE
_TIME_MAX = 1 << 62
_KINDS = {
    tar.REGULAR: stat.S_IFREG,
    tar.SYMLINK: stat.S_IFLNK,
    tar.CHAR: stat.S_IFCHR,
    tar.BLOCK_DEVICE: stat.S_IFBLK,
    tar.FIFO: stat.S_IFIFO,
}


class UnindexableError(Exception):
    """The layer has something that an index cannot express."""


class Node:
    """One inode.

    `data` is where a regular file's bytes begin in the tar; `holes` are (offset, length) of the stored
    pieces of a sparse file; `target` is a symbolic link's; `children` is None but for folders.
    """

    __slots__ = (
        "children", "data", "device", "gid", "holes", "layout", "links", "mode", "mtime_ns", "position", "size",
        "target", "uid", "xattrs",
    )  # fmt: skip

    def __init__(self, mode: int, uid: int = 0, gid: int = 0, mtime_ns: int = 0) -> None:
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.mtime_ns = mtime_ns
        self.size = 0
        self.data = 0
        self.holes: list[tuple[int, int]] | None = None
        self.target = b""
        self.device = (0, 0)
        self.links = 1
        self.xattrs: dict[bytes, bytes] | None = None
        self.children: dict[bytes, Node] | None = {} if stat.S_ISDIR(mode) else None
        self.position = -1
        self.layout = 0


def whiteout() -> Node:
    """Return what hides a name of the layers below."""
    return Node(stat.S_IFCHR)


def build(buffer: memoryview, lowers: Sequence[str] = ()) -> Node:
    """Return the root of the tree that a layer's tar makes.

    Args:
        buffer: the tar.
        lowers: folders of the layers below, nearest first: folders that the tar leaves out get their
            owner, mode and time from there.

    Raises:
        UnindexableError: it has something that an index cannot express, or is broken.
    """
    builder = _Builder(lowers)
    try:
        for entry in tar.entries(buffer):
            builder.add(entry)
    except InvalidInputError as error:
        raise UnindexableError(str(error)) from None
    return builder.root


class _Builder:
    def __init__(self, lowers: Sequence[str]) -> None:
        self._lowers = [os.fsencode(lower) for lower in lowers]
        self.root = self._inherited(b"")
        # The folder of the last entry: archives are sorted by folder.
        self._last: tuple[bytes, Node] = (b"", self.root)

    def add(self, entry: tar.Entry) -> None:
        path = clean(entry.name)
        if not path:
            if entry.kind == tar.FOLDER:
                _dress(self.root, entry)
            return
        folder, _, base = path.rpartition(b"/")
        parent = self._folder(folder)
        if len(base) > NAME_MAX:
            raise UnindexableError("name too long")
        children = parent.children
        assert children is not None
        if base.startswith(b".wh."):
            _hide(parent, base)
        elif entry.kind == tar.FOLDER:
            found = children.get(base)
            if found is None or found.children is None:
                made = Node(stat.S_IFDIR)
                if found is not None and _is_whiteout(found):
                    made.xattrs = {OPAQUE: b"y"}
                self._replace(children, base, made)
                found = made
            _dress(found, entry)
        elif entry.kind == tar.HARDLINK:
            self._link(path, base, children, entry)
        else:
            self._replace(children, base, _node(entry))

    def _replace(self, children: dict[bytes, Node], base: bytes, node: Node) -> None:
        before = children.get(base)
        if before is not None:
            before.links -= 1
            if before.children is not None:
                _unlink_all(before)
                self._last = (b"", self.root)
        children[base] = node

    def _folder(self, path: bytes) -> Node:
        if path == self._last[0]:
            return self._last[1]
        node = self.root
        done = b""
        for part in path.split(b"/") if path else ():
            done = done + b"/" + part if done else part
            children = node.children
            assert children is not None
            below = children.get(part)
            if below is None:
                if len(part) > NAME_MAX:
                    raise UnindexableError("name too long")
                below = children[part] = self._inherited(done)
            elif below.children is None:
                raise UnindexableError("a name below something that is no folder")
            node = below
        self._last = (path, node)
        return node

    def _inherited(self, path: bytes) -> Node:
        for lower in self._lowers:
            try:
                found = os.lstat(os.path.join(lower, path))
            except OSError:
                continue
            if stat.S_ISDIR(found.st_mode):
                return Node(found.st_mode, found.st_uid, found.st_gid, found.st_mtime_ns)
            break
        return Node(stat.S_IFDIR | 0o755)

    def _link(self, path: bytes, base: bytes, children: dict[bytes, Node], entry: tar.Entry) -> None:
        target = clean(entry.link)
        if target == path:
            return
        node = self.root
        for part in target.split(b"/"):
            below = (node.children or {}).get(part)
            if below is None:
                raise UnindexableError("a hard link to what the layer does not have")
            node = below
        if node.children is not None or _is_whiteout(node) or target.startswith(path + b"/"):
            raise UnindexableError("a hard link to a folder, to nothing, or to what it replaces")
        node.links += 1
        self._replace(children, base, node)


def _node(entry: tar.Entry) -> Node:
    kind = _KINDS.get(entry.kind)
    if kind is None:
        raise UnindexableError("an entry of an unknown kind")
    node = Node(kind)
    _dress(node, entry)
    if kind == stat.S_IFREG:
        node.size, node.data, node.holes = entry.size, entry.data, entry.holes
    elif kind == stat.S_IFLNK:
        if not 0 < len(entry.link) <= _LINK_MAX:
            raise UnindexableError("a link target of an impossible length")
        node.target, node.size = entry.link, len(entry.link)
        node.mode = kind | 0o777
        node.xattrs = None
    else:
        node.device = entry.device
        major, minor = entry.device
        if _is_whiteout(node) or not (0 <= major < 1 << 12 and 0 <= minor < 1 << 20):
            raise UnindexableError("a device of an impossible number")
        node.xattrs = None
    return node


def _dress(node: Node, entry: tar.Entry) -> None:
    if not (0 <= entry.uid <= _ID_MAX and 0 <= entry.gid <= _ID_MAX) or abs(entry.mtime_ns) > _TIME_MAX:
        raise UnindexableError("an impossible owner or time")
    node.mode = stat.S_IFMT(node.mode) | entry.mode
    node.uid, node.gid, node.mtime_ns = entry.uid, entry.gid, entry.mtime_ns
    for name, value in entry.xattrs.items():
        if name == OPAQUE or xattr_index(name) is None:
            continue
        if len(value) > 0xFFFF or len(name) > NAME_MAX:
            raise UnindexableError("an extended attribute is too big")
        if node.xattrs is None:
            node.xattrs = {}
        node.xattrs[name] = value


_PREFIXES = ((b"user.", 1), (b"security.", 6), (b"trusted.", 4))
_WHOLE = {b"system.posix_acl_access": 2, b"system.posix_acl_default": 3}


def xattr_index(name: bytes) -> tuple[int, bytes] | None:
    """Return an attribute's prefix in EROFS' numbering and the rest of its name; None if it is not kept.

    Overlay's own marks would make one layer's files show another's, so they are not taken from archives.
    """
    if name in _WHOLE:
        return _WHOLE[name], b""
    if name.startswith((b"trusted.", b"user.overlay.", b"security.selinux")) and name != OPAQUE:
        return None
    for prefix, index in _PREFIXES:
        if name.startswith(prefix):
            return index, name[len(prefix) :]
    return None


def _is_whiteout(node: Node) -> bool:
    return stat.S_ISCHR(node.mode) and node.device == (0, 0)


def _hide(parent: Node, base: bytes) -> None:
    children = parent.children
    assert children is not None
    if base == b".wh..wh..opq":
        parent.xattrs = {**(parent.xattrs or {}), OPAQUE: b"y"}
        return
    if base.startswith(b".wh..wh."):
        return
    name = base[4:]
    if name in (b"", b".", b".."):
        raise UnindexableError("an invalid whiteout")
    found = children.get(name)
    if found is None:
        children[name] = whiteout()
    elif found.children is not None:
        # The same layer has it too: only what lies below is hidden.
        found.xattrs = {**(found.xattrs or {}), OPAQUE: b"y"}


def _unlink_all(folder: Node) -> None:
    stack = [folder]
    while stack:
        for child in (stack.pop().children or {}).values():
            child.links -= 1
            if child.children is not None:
                stack.append(child)
