"""An archive as a tree: nothing is unpacked, a file's bytes are a slice of the archive."""

import hashlib
import os
from collections.abc import Iterator

from barque.base.errors import InvalidInputError
from barque.builder.trees import BLOCK, CHAR, FIFO, FILE, FOLDER, LINK, Node, resolve
from barque.storage.archive import tar
from barque.storage.archive.extract import clean

_KINDS = {
    tar.REGULAR: FILE, tar.FOLDER: FOLDER, tar.SYMLINK: LINK, tar.CHAR: CHAR, tar.BLOCK_DEVICE: BLOCK,
    tar.FIFO: FIFO,
}  # fmt: skip
_ROOT = Node(FOLDER, 0o755, 0, 0, 0, 0)
_ZEROS = bytes(1 << 16)


class TarTree:
    """The files of a tar.

    Raises:
        InvalidInputError: a broken archive, or an entry that climbs out of it.
    """

    def __init__(self, buffer: memoryview) -> None:
        self._buffer = buffer
        self._nodes: dict[str, Node] = {"": _ROOT}
        self._entries: dict[str, tar.Entry] = {}
        self._children: dict[str, dict[str, None]] = {"": {}}
        self._digests: dict[int, str] = {}
        self._links = False
        for entry in tar.entries(buffer):
            self._add(entry)

    def lstat(self, path: str) -> Node | None:
        """Return the file at path (see Tree)."""
        return self._nodes.get(path)

    def names(self, path: str) -> list[str]:
        """Return the names in a folder (see Tree)."""
        return sorted(self._children.get(path, ()))

    def read(self, path: str) -> Iterator[bytes | memoryview]:
        """Yield a file's bytes (see Tree)."""
        entry = self._entries[path]
        if entry.holes is None:
            yield self._buffer[entry.data : entry.data + entry.size]
            return
        at, data = 0, entry.data
        for offset, length in entry.holes:
            yield from _zeros(offset - at)
            yield self._buffer[data : data + length]
            data += length
            at = offset + length
        yield from _zeros(entry.size - at)

    def xattrs(self, path: str) -> dict[bytes, bytes]:
        """Return the extended attributes (see Tree)."""
        entry = self._entries.get(path)
        return entry.xattrs if entry else {}

    def digest(self, path: str) -> str:
        """Return a file's digest, computed once (see Tree)."""
        entry = self._entries[path]
        known = self._digests.get(entry.data) if entry.size else None
        if known is None:
            hasher = hashlib.sha256()
            for chunk in self.read(path):
                hasher.update(chunk)
            known = hasher.hexdigest()
            if entry.size:
                self._digests[entry.data] = known
        return known

    def hide(self, path: str) -> None:
        """Take a file out of the tree; a missing one is no error."""
        if path in self._nodes and path:
            self._drop(path)
            parent, _, name = path.rpartition("/")
            self._children[parent].pop(name, None)

    def _add(self, entry: tar.Entry) -> None:
        path = os.fsdecode(clean(entry.name))
        if self._links and "/" in path:
            parent, _, name = path.rpartition("/")
            path = f"{resolve(self, parent)}/{name}".lstrip("/")
        if entry.kind == tar.HARDLINK:
            self._add_link(path, entry)
            return
        kind = _KINDS.get(entry.kind)
        if kind is None:
            raise InvalidInputError(f"unhandled tar header type {ord(entry.kind)} of {os.fsdecode(entry.name)!r}")
        if not path:
            if kind == FOLDER:
                self._nodes[""] = Node(FOLDER, entry.mode, entry.uid, entry.gid, 0, entry.mtime_ns)
            return
        self._links = self._links or kind == LINK
        node = Node(
            kind, entry.mode, entry.uid, entry.gid, entry.size if kind == FILE else 0, entry.mtime_ns,
            os.fsdecode(entry.link) if kind == LINK else "", entry.device,
        )  # fmt: skip
        self._put(path, node, entry)

    def _add_link(self, path: str, entry: tar.Entry) -> None:
        target = os.fsdecode(clean(entry.link))
        found, source = self._nodes.get(target), self._entries.get(target)
        if found is None or source is None or found.kind == FOLDER:
            raise InvalidInputError(f"invalid hard link {os.fsdecode(entry.name)!r} -> {os.fsdecode(entry.link)!r}")
        if path == target:
            return
        shared = found._replace(inode=found.inode if found.inode is not None else source.data)
        self._nodes[target] = shared
        self._put(path, shared, source)

    def _put(self, path: str, node: Node, entry: tar.Entry) -> None:
        before = self._nodes.get(path)
        if before is not None and before.kind == FOLDER and node.kind != FOLDER:
            self._drop(path)
        self._parents(path)
        self._nodes[path] = node
        self._entries[path] = entry
        if node.kind == FOLDER:
            self._children.setdefault(path, {})
        parent, _, name = path.rpartition("/")
        self._children[parent][name] = None

    def _parents(self, path: str) -> None:
        missing: list[str] = []
        parent = path.rpartition("/")[0]
        while parent not in self._children:
            if parent in self._nodes:
                raise InvalidInputError(f"archive entry below {parent!r}, which is not a directory")
            missing.append(parent)
            parent = parent.rpartition("/")[0]
        for folder in reversed(missing):
            self._nodes[folder] = _ROOT
            self._children[folder] = {}
            above, _, name = folder.rpartition("/")
            self._children[above][name] = None

    def _drop(self, path: str) -> None:
        stack = [path]
        while stack:
            gone = stack.pop()
            stack += [f"{gone}/{name}" for name in self._children.pop(gone, ())]
            self._nodes.pop(gone, None)
            self._entries.pop(gone, None)


def _zeros(count: int) -> Iterator[bytes]:
    while count > 0:
        yield _ZEROS[: min(count, len(_ZEROS))]
        count -= len(_ZEROS)
