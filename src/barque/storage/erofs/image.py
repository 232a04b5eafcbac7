"""Writing an EROFS image that indexes a tar: folders, inodes and links here, files' bytes in the tar.

On-disk format: fs/erofs/erofs_fs.h of Linux. All blocks are of 512 bytes, a tar's unit, so that every
file begins on one. A file is "chunk based": an index says on which block of which device its chunks
lie; the tar is device 1. Small folders and links lie behind their inode in the same block.

    0       nothing
    1024    superblock
    1152    the slot of the tar in the device table
    1536    inodes, the root first, each with its attributes, index or inline content
    ...     whole blocks of bigger folders and links
"""

import stat
import struct
from typing import NamedTuple

from barque.storage.erofs.tree import Node, UnindexableError, xattr_index

BLOCK = 512
_MAGIC = 0xE0F5E1E2
_CHUNKED_FILE, _DEVICE_TABLE = 0x4, 0x8
_MTIME = 0x2
_START = 1536
_SLOT = 32
_INODE = 64
_PLAIN, _INLINE, _CHUNKS = 0, 2, 4
_INDEXES = 0x20
_CHUNK_BITS_MAX = 31
_HOLE = 0xFFFFFFFF
_BLOCKS_MAX = 1 << 32
_INDEX_ENTRIES_MAX = 1 << 20
_XATTRS_MAX = 1 << 16
_IMAGE_MAX = 1 << 31
_TYPES = {
    stat.S_IFREG: 1, stat.S_IFDIR: 2, stat.S_IFCHR: 3, stat.S_IFBLK: 4, stat.S_IFIFO: 5, stat.S_IFLNK: 7,
}  # fmt: skip
_INODE_FORM = struct.Struct("<HHHHQIIIIqII16x")
_DIRENT = struct.Struct("<QHBB")
_INDEX = struct.Struct("<HHI")
_SUPER = struct.Struct("<IIIBBHQQIIII16s16sIHHHBBIQB23x")
_SLOT_FORM = struct.Struct("<64sII56x")


class Image(NamedTuple):
    """An index with what its layer takes."""

    data: bytearray
    size: int
    """Bytes of the layer's files."""
    inodes: int


def write(root: Node, tar_size: int) -> Image:
    """Return the image of a tree whose files' bytes lie in a tar of so many bytes.

    Raises:
        UnindexableError: the tree has something that the format cannot express.
    """
    if tar_size % BLOCK or tar_size // BLOCK >= _BLOCKS_MAX:
        raise UnindexableError("the tar is no whole number of blocks, or has too many")
    writer = _Writer(tar_size)
    nodes = writer.place(root)
    for node in nodes:
        writer.put(node)
    writer.finish(root, len(nodes))
    return Image(writer.data, writer.size, len(nodes))


class _Writer:
    def __init__(self, tar_size: int) -> None:
        self._tar_blocks = tar_size // BLOCK
        self._at = _START
        self._outside: list[tuple[Node, int]] = []
        self._xattrs: dict[int, bytes] = {}
        self._folders: dict[int, list[tuple[bytes, Node]]] = {}
        self._plain: dict[int, int] = {}
        self._index: dict[int, tuple[int, list[int]]] = {}
        self.data = bytearray()
        self.size = 0

    # First pass: where everything lies.

    def place(self, root: Node) -> list[Node]:
        """Give every inode its position and return them in that order."""
        nodes = [root]
        self._place_node(root, root)
        place = 0
        while place < len(nodes):
            node = nodes[place]
            place += 1
            if node.children is None:
                continue
            for _, child in sorted(node.children.items()):
                if child.position < 0:
                    self._place_node(child, node)
                    nodes.append(child)
        at = _up(self._at, BLOCK)
        for node, size in self._outside:
            self._plain[id(node)] = at // BLOCK
            at += _up(size, BLOCK)
        if at > _IMAGE_MAX:
            raise UnindexableError("the index is too big")
        self.data = bytearray(_up(at, 4096))
        return nodes

    def _place_node(self, node: Node, parent: Node) -> None:
        fixed = _INODE
        if node.xattrs:
            packed = _pack_xattrs(node.xattrs)
            self._xattrs[id(node)] = packed
            fixed += len(packed)
        kind = stat.S_IFMT(node.mode)
        content = 0
        if kind == stat.S_IFDIR:
            content = self._place_folder(node, parent)
        elif kind == stat.S_IFLNK:
            content = len(node.target)
            self.size += content
        elif kind == stat.S_IFREG:
            self.size += node.size
        if kind == stat.S_IFREG and node.size:
            self._place_index(node, fixed)
            return
        at = _up(self._at, _INODE)
        if content and fixed + content <= BLOCK:
            node.layout = _INLINE
            if at % BLOCK + fixed + content > BLOCK:
                at = _up(at, BLOCK)
            fixed += content
        elif content:
            node.layout = _PLAIN
            self._outside.append((node, content))
        node.position = at
        self._at = at + fixed

    def _place_folder(self, node: Node, parent: Node) -> int:
        assert node.children is not None
        entries = sorted([(b".", node), (b"..", parent), *node.children.items()], key=lambda e: e[0])
        self._folders[id(node)] = entries
        used = whole = 0
        for name, child in entries:
            length = _DIRENT.size + len(name)
            if used + length > BLOCK:
                whole += BLOCK
                used = 0
            used += length
            if child.children is not None and name not in (b".", b".."):
                node.links += 1
        # A folder is linked by its name, by "." and by the ".." of each folder in it.
        node.links += 1
        node.size = whole + used
        return node.size

    def _place_index(self, node: Node, fixed: int) -> None:
        bits, chunks = _chunks(node)
        node.layout = _CHUNKS
        at = _up(self._at, _INODE)
        node.position = at
        self._index[id(node)] = (bits, chunks)
        self._at = _up(at + fixed, 8) + 8 * len(chunks)

    # Second pass: the bytes.

    def put(self, node: Node) -> None:
        """Write an inode with what lies behind it."""
        at = node.position
        xattrs = self._xattrs.get(id(node), b"")
        kind = stat.S_IFMT(node.mode)
        where = 0
        index = self._index.get(id(node))
        if index is not None:
            where = _INDEXES | index[0]
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            major, minor = node.device
            where = (minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12)
        else:
            where = self._plain.get(id(node), 0)
        seconds, fraction = divmod(node.mtime_ns, 1_000_000_000)
        _INODE_FORM.pack_into(
            self.data, at, 1 | node.layout << 1, (len(xattrs) - 12) // 4 + 1 if xattrs else 0, node.mode, 0, node.size,
            where, (at // _SLOT) & 0xFFFFFFFF, node.uid, node.gid, seconds, fraction, node.links,
        )  # fmt: skip
        behind = at + _INODE
        self.data[behind : behind + len(xattrs)] = xattrs
        behind += len(xattrs)
        if index is not None:
            self._put_index(_up(behind, 8), index[1])
        elif kind in (stat.S_IFDIR, stat.S_IFLNK):
            content = self._folder_bytes(node) if kind == stat.S_IFDIR else node.target
            place = behind if node.layout == _INLINE else where * BLOCK
            self.data[place : place + len(content)] = content

    def _put_index(self, at: int, chunks: list[int]) -> None:
        for block in chunks:
            _INDEX.pack_into(self.data, at, 0, 0 if block == _HOLE else 1, block)
            at += 8

    def _folder_bytes(self, node: Node) -> bytes:
        """Return a folder's entries: in each block the records, then the names they point to."""
        blocks: list[bytes] = []
        group: list[tuple[bytes, Node]] = []
        used = 0
        for name, child in self._folders[id(node)]:
            length = _DIRENT.size + len(name)
            if used + length > BLOCK:
                blocks.append(_folder_block(group).ljust(BLOCK, b"\0"))
                group, used = [], 0
            group.append((name, child))
            used += length
        blocks.append(_folder_block(group))
        return b"".join(blocks)

    def finish(self, root: Node, inodes: int) -> None:
        """Write the superblock and the table of devices."""
        blocks = len(self.data) // BLOCK
        _SUPER.pack_into(
            self.data, 1024, _MAGIC, 0, _MTIME, 9, 0, root.position // _SLOT, inodes, 0, 0, blocks, 0, 0,
            bytes(16), bytes(16), _CHUNKED_FILE | _DEVICE_TABLE, 0, 1, 1152 // 128, 0, 0, 0, 0, 0,
        )  # fmt: skip
        _SLOT_FORM.pack_into(self.data, 1152, b"tar", self._tar_blocks, 0)


def _folder_block(group: list[tuple[bytes, Node]]) -> bytes:
    start = _DIRENT.size * len(group)
    records = bytearray()
    for name, child in group:
        kind = _TYPES[stat.S_IFMT(child.mode)]
        records += _DIRENT.pack(child.position // _SLOT, start, kind, 0)
        start += len(name)
    return bytes(records) + b"".join(name for name, _ in group)


def _chunks(node: Node) -> tuple[int, list[int]]:
    """Return the chunks' size (a power of two of blocks) and where each begins; a file without holes is one."""
    if node.data % BLOCK:
        raise UnindexableError("a file between two blocks")
    first = node.data // BLOCK
    if node.holes is None:
        bits = max(0, (node.size - 1).bit_length() - 9)
        if bits > _CHUNK_BITS_MAX:
            raise UnindexableError("a file is too big")
        return bits, [first]
    return _sparse_chunks(node, first)


def _sparse_chunks(node: Node, first: int) -> tuple[int, list[int]]:
    assert node.holes is not None
    pieces = [(offset, length) for offset, length in node.holes if length]
    marks = 0
    for offset, length in pieces:
        marks |= offset
        if offset + length != node.size:
            marks |= length
    if marks % BLOCK:
        raise UnindexableError("a sparse file whose pieces are no whole blocks")
    bits = _CHUNK_BITS_MAX if not marks else (marks & -marks).bit_length() - 10
    bits = min(bits, max(0, (node.size - 1).bit_length() - 9))
    chunk = BLOCK << bits
    count = (node.size + chunk - 1) // chunk
    if count > _INDEX_ENTRIES_MAX:
        raise UnindexableError("a sparse file of too many pieces")
    chunks = [_HOLE] * count
    block = first
    for offset, length in pieces:
        for place in range(offset // chunk, (offset + length + chunk - 1) // chunk):
            chunks[place] = block + ((place * chunk - offset) // BLOCK)
        block += (length + BLOCK - 1) // BLOCK
    return bits, chunks


def _pack_xattrs(xattrs: dict[bytes, bytes]) -> bytes:
    packed = bytearray(12)
    for name, value in sorted(xattrs.items()):
        found = xattr_index(name)
        assert found is not None
        index, rest = found
        packed += struct.pack("<BBH", len(rest), index, len(value)) + rest + value
        packed += bytes(-len(packed) % 4)
    if len(packed) > _XATTRS_MAX:
        raise UnindexableError("too many extended attributes")
    return bytes(packed)


def _up(value: int, unit: int) -> int:
    return (value + unit - 1) // unit * unit
