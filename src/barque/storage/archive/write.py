"""Writing tar: headers (ustar, PAX where ustar cannot say it), trees, layers of overlay's form."""

import os
import stat
from collections.abc import Callable, Generator, Iterator
from typing import TypedDict

from barque.base.errors import InvalidInputError
from barque.base.files import open_regular
from barque.storage.archive.tar import (
    BLOCK,
    BLOCK_DEVICE,
    CHAR,
    FIFO,
    FOLDER,
    HARDLINK,
    REGULAR,
    SYMLINK,
)

CHUNK = 1 << 18
_SMALL = 1 << 16
END = bytes(2 * BLOCK)
OPAQUE = b"trusted.overlay.opaque"
_LONGEST_PATH = 4096
_Walk = Generator["bytes | _Walk", None, None]
_OCTAL_11 = 8**11
_OCTAL_7 = 8**7


class _Common(TypedDict):
    mode: int
    uid: int
    gid: int
    mtime_ns: int


def header(
    name: bytes,
    *,
    kind: str = REGULAR,
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    size: int = 0,
    mtime_ns: int = 0,
    link: bytes = b"",
    device: tuple[int, int] = (0, 0),
    xattrs: dict[bytes, bytes] | None = None,
) -> bytes:
    """Return the header blocks of one entry; sizes in bytes, times in nanoseconds since the epoch."""
    pax: dict[bytes, bytes] = {}
    if len(name) > 100 or not name.isascii():
        pax[b"path"] = name
    if len(link) > 100 or not link.isascii():
        pax[b"linkpath"] = link
    if size >= _OCTAL_11:
        pax[b"size"] = b"%d" % size
    if uid >= _OCTAL_7:
        pax[b"uid"] = b"%d" % uid
    if gid >= _OCTAL_7:
        pax[b"gid"] = b"%d" % gid
    seconds, fraction = divmod(mtime_ns, 1_000_000_000)
    if fraction or not 0 <= seconds < _OCTAL_11:
        pax[b"mtime"] = _decimal_time(mtime_ns)
    for key, value in (xattrs or {}).items():
        pax[b"SCHILY.xattr." + key] = value
    head = b""
    if pax:
        body = b"".join(_record(key, value) for key, value in sorted(pax.items()))
        short = b"PaxHeaders.0/" + name.rstrip(b"/").rpartition(b"/")[2][:80]
        head = _block(short, "x", 0o644, 0, 0, len(body), 0, b"", (0, 0)) + pad(body)
    return head + _block(
        name[:100],
        kind,
        mode,
        uid if uid < _OCTAL_7 else 0,
        gid if gid < _OCTAL_7 else 0,
        size if size < _OCTAL_11 else 0,
        seconds if 0 <= seconds < _OCTAL_11 else 0,
        link[:100],
        device,
    )


def pad(data: bytes) -> bytes:
    """Return data filled up to whole blocks."""
    return data + bytes(-len(data) % BLOCK)


def file(name: bytes, data: bytes, *, mtime_ns: int = 0, mode: int = 0o644) -> bytes:
    """Return a small regular file as an entry."""
    return header(name, size=len(data), mtime_ns=mtime_ns, mode=mode) + pad(data)


def tree(
    root: int,
    start: bytes = b"",
    *,
    prefix: bytes = b"",
    overlay: bool = False,
    hides: Callable[[bytes], bool] | None = None,
    one_file_system: bool = False,
) -> Iterator[bytes]:
    """Yield the tar (without its end) of what lies below the folder `root`.

    Args:
        root: descriptor of the folder.
        start: path below root of the folder to pack; itself not an entry.
        prefix: put before every name, ends with a slash unless empty.
        overlay: root is a layer in overlay's form; whiteouts become `.wh.` files.
        hides: tells whether the path of an opaque folder exists in a lower layer.
        one_file_system: leave out what lies on another file system, but for its mount points.

    Raises:
        OSError: reading failed.
    """
    device = os.fstat(root).st_dev if one_file_system else None
    packer = _Packer(prefix, overlay=overlay, hides=hides, device=device)
    fd = os.open(start or b".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root)
    try:
        yield from _flat(packer.folder(fd, start))
    finally:
        os.close(fd)


def single(parent: int, name: bytes, shown: bytes, hidden: frozenset[int] = frozenset()) -> Iterator[bytes]:
    """Yield the tar (without its end) of one file or folder in `parent`, called `shown` inside.

    Of the file systems `hidden` (numbers of devices) the mount points are packed, not what they hold.
    """
    packer = _Packer(b"", overlay=False, hides=None, device=None)
    packer.hidden = hidden
    packer.rename = (name, shown)
    yield from _flat(packer.item(parent, name, b""))


def _flat(walk: _Walk) -> Iterator[bytes]:
    """Yield the bytes of a walk whose parts may be walks: without recursion, however deep folders are nested.

    Small parts come together: whoever writes them would make a system call of each.
    """
    stack, small, size = [walk], list[bytes](), 0
    try:
        while stack:
            part = next(stack[-1], None)
            if part is None:
                stack.pop()
            elif not isinstance(part, bytes):
                stack.append(part)
            elif len(part) < _SMALL:
                small.append(part)
                size += len(part)
                if size >= CHUNK:
                    yield b"".join(small)
                    small, size = [], 0
            else:
                yield from (b"".join(small), part) if small else (part,)
                small, size = [], 0
        if small:
            yield b"".join(small)
    finally:
        for part in reversed(stack):
            part.close()


class _Packer:
    """Walks folders by descriptor and remembers hard links."""

    def __init__(
        self,
        prefix: bytes,
        *,
        overlay: bool,
        hides: Callable[[bytes], bool] | None,
        device: int | None,
    ) -> None:
        self._prefix = prefix
        self._overlay = overlay
        self._hides = hides
        self._device = device
        self._links: dict[tuple[int, int], bytes] = {}
        self.rename: tuple[bytes, bytes] | None = None
        self.hidden: frozenset[int] = frozenset()

    def folder(self, fd: int, path: bytes) -> _Walk:
        with os.scandir(fd) as found:
            names = sorted(os.fsencode(entry.name) for entry in found)
        for name in names:
            yield self.item(fd, name, path)

    def item(self, parent: int, name: bytes, path: bytes) -> _Walk:
        try:
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            # A running container removed it since the folder was read.
            return
        below = path + b"/" if path else b""
        inner = below + name
        shown = self._prefix + inner
        if self.rename is not None:
            old, new = self.rename
            shown = new + inner[len(old) :]
        if self._overlay and stat.S_ISCHR(found.st_mode) and found.st_rdev == 0:
            yield header(self._prefix + below + b".wh." + name, mode=0, mtime_ns=found.st_mtime_ns)
            return
        if stat.S_ISSOCK(found.st_mode):
            return
        if stat.S_ISDIR(found.st_mode):
            yield self._folder_entry(parent, name, inner, shown, found)
        elif stat.S_ISREG(found.st_mode):
            yield from self._file_entry(parent, name, shown, found)
        else:
            yield self._node_entry(parent, name, shown, found)

    def _folder_entry(self, parent: int, name: bytes, inner: bytes, shown: bytes, found: os.stat_result) -> _Walk:
        if len(inner) > _LONGEST_PATH:
            raise InvalidInputError("folders are nested too deep: a path in an archive has at most 4096 bytes")
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(name, flags, dir_fd=parent)
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            xattrs, opaque = _xattrs(fd)
            yield header(shown.rstrip(b"/") + b"/", kind=FOLDER, xattrs=xattrs, **_common(found))
            if found.st_dev in self.hidden or (self._device is not None and found.st_dev != self._device):
                return
            if self._overlay and opaque and (self._hides is None or self._hides(inner)):
                yield header(shown + b"/.wh..wh..opq", mode=0)
            yield self.folder(fd, inner)
        finally:
            os.close(fd)

    def _file_entry(self, parent: int, name: bytes, shown: bytes, found: os.stat_result) -> Iterator[bytes]:
        if found.st_nlink > 1:
            key = (found.st_dev, found.st_ino)
            first = self._links.setdefault(key, shown)
            if first != shown:
                yield header(shown, kind=HARDLINK, link=first, **_common(found))
                return
        try:
            fd = open_regular(name, dir_fd=parent)
        except FileNotFoundError:
            return
        if fd < 0:
            return
        try:
            xattrs, _ = _xattrs(fd)
            yield header(shown, size=found.st_size, xattrs=xattrs, **_common(found))
            yield from _file_bytes(fd, found.st_size)
        finally:
            os.close(fd)

    def _node_entry(self, parent: int, name: bytes, shown: bytes, found: os.stat_result) -> bytes:
        common = _common(found)
        if stat.S_ISLNK(found.st_mode):
            target = os.fsencode(os.readlink(name, dir_fd=parent))
            return header(shown, kind=SYMLINK, link=target, **common)
        if stat.S_ISFIFO(found.st_mode):
            return header(shown, kind=FIFO, **common)
        kind = CHAR if stat.S_ISCHR(found.st_mode) else BLOCK_DEVICE
        device = (os.major(found.st_rdev), os.minor(found.st_rdev))
        return header(shown, kind=kind, device=device, **common)


def _file_bytes(fd: int, size: int) -> Iterator[bytes]:
    """Yield exactly size bytes and the padding: a file that shrinks meanwhile is filled with zeros."""
    left = size
    while left:
        data = os.read(fd, min(CHUNK, left))
        if not data:
            data = bytes(min(CHUNK, left))
        left -= len(data)
        yield data
    if size % BLOCK:
        yield bytes(-size % BLOCK)


def _common(found: os.stat_result) -> _Common:
    return {
        "mode": stat.S_IMODE(found.st_mode),
        "uid": found.st_uid,
        "gid": found.st_gid,
        "mtime_ns": found.st_mtime_ns,
    }


def _xattrs(fd: int) -> tuple[dict[bytes, bytes], bool]:
    """Return the attributes that belong into an archive, and whether the folder is opaque."""
    kept: dict[bytes, bytes] = {}
    opaque = False
    try:
        names = os.listxattr(fd)
    except OSError:
        return kept, opaque
    for name in names:
        if name == OPAQUE.decode():
            opaque = os.getxattr(fd, name) == b"y"
        elif name.startswith(("user.", "security.capability")) and not name.startswith("user.overlay."):
            kept[os.fsencode(name)] = os.getxattr(fd, name)
    return kept, opaque


def _decimal_time(time_ns: int) -> bytes:
    seconds, fraction = divmod(abs(time_ns), 1_000_000_000)
    text = f"{'-' if time_ns < 0 else ''}{seconds}"
    return (f"{text}.{fraction:09d}".rstrip("0") if fraction else text).encode()


def _record(key: bytes, value: bytes) -> bytes:
    body = b" " + key + b"=" + value + b"\n"
    length = len(body) + len(str(len(body)))
    if len(str(length)) > len(str(len(body))):
        length = len(body) + len(str(length))
    return b"%d" % length + body


def _block(
    name: bytes,
    kind: str,
    mode: int,
    uid: int,
    gid: int,
    size: int,
    mtime: int,
    link: bytes,
    device: tuple[int, int],
) -> bytes:
    block = bytearray(BLOCK)
    block[: len(name)] = name
    block[100:108] = b"%07o\0" % mode
    block[108:116] = b"%07o\0" % uid
    block[116:124] = b"%07o\0" % gid
    block[124:136] = b"%011o\0" % size
    block[136:148] = b"%011o\0" % mtime
    block[148:156] = b" " * 8
    block[156] = ord(kind)
    block[157 : 157 + len(link)] = link
    block[257:265] = b"ustar\00000"
    block[329:337] = b"%07o\0" % device[0]
    block[337:345] = b"%07o\0" % device[1]
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)
