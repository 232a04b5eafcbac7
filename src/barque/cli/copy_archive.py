"""The tar streams of `cp`: packed from files of this machine, and extracted to them."""

import io
import os
import tarfile
from collections.abc import Iterator
from typing import Any

from barque.base.errors import InvalidInputError

PIECE_BYTES = 1 << 18


class Counter:
    """Passes pieces on and counts their bytes."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.pieces = pieces
        self.count = 0

    def __iter__(self) -> Iterator[bytes]:
        for piece in self.pieces:
            self.count += len(piece)
            yield piece


class _Sink(io.RawIOBase):
    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.pieces.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        data = b"".join(self.pieces)
        self.pieces.clear()
        return data


class _Source(io.RawIOBase):
    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.pieces = pieces
        self.rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self.rest:
            piece = next(self.pieces, None)
            if piece is None:
                return 0
            self.rest = piece
        count = min(len(buffer), len(self.rest))
        buffer[:count] = self.rest[:count]
        self.rest = self.rest[count:]
        return count


def packed(path: str, name: str, *, follow: bool) -> Iterator[bytes]:
    """Yield a tar stream of a file or folder under a name; `follow` looks behind the path's own last link."""
    sink = _Sink()
    real = os.path.realpath(path) if follow else path
    with tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT, bufsize=PIECE_BYTES) as archive:
        for item, inside in _walk(real, name):
            member = archive.gettarinfo(item, inside)
            if member is None:
                continue
            if not member.isreg():
                archive.addfile(member)
            else:
                yield from _add_file(archive, member, item, sink)
            yield sink.take()
    yield sink.take()


def _add_file(archive: tarfile.TarFile, member: tarfile.TarInfo, path: str, sink: _Sink) -> Iterator[bytes]:
    # The head goes through the archive, the content around it: a file of any size passes in pieces.
    size, member.size = member.size, member.size
    stream: Any = archive.fileobj
    stream.write(member.tobuf(archive.format, archive.encoding or "utf-8", archive.errors or "surrogateescape"))
    left = size
    with open(path, "rb") as file:
        while left:
            piece = file.read(min(left, PIECE_BYTES))
            if not piece:
                raise InvalidInputError(f"{path} became shorter while it was read")
            stream.write(piece)
            left -= len(piece)
            yield sink.take()
    stream.write(b"\0" * (-size % 512))


def _walk(path: str, name: str) -> Iterator[tuple[str, str]]:
    yield path, name
    if os.path.isdir(path) and not os.path.islink(path):
        for entry in sorted(os.listdir(path)):
            yield from _walk(os.path.join(path, entry), f"{name}/{entry}")


def extract(pieces: Counter, target: str, *, name: str, folder: bool, contents: bool, owners: bool) -> None:
    """Extract an engine's archive to a place on this machine.

    Args:
        pieces: the tar stream; its members lie under one first name.
        target: where to: an existing folder, a file, or a name that does not exist yet.
        name: the copied object's own name.
        folder: whether it is a folder.
        contents: take the folder's contents, not the folder itself.
        owners: keep user and group ids.

    Raises:
        InvalidInputError: the target does not fit, or a member would land outside of it.
    """
    root, base = _destination(target, name, folder, contents)
    source = io.BufferedReader(_Source(iter(pieces)), PIECE_BYTES)
    with tarfile.open(fileobj=source, mode="r|") as archive:
        # Python's filter would refuse, from 3.14 on without being asked, what `_place` has checked; 3.11.3 has none.
        archive.extraction_filter = _as_it_is
        for member in archive:
            _, _, inside = member.name.rstrip("/").partition("/")
            if inside in ("", "."):
                member.name = base
            else:
                member.name = f"{base}/{inside}"
            if member.islnk():
                _, _, link = member.linkname.partition("/")
                member.linkname = f"{base}/{link}" if link else base
            _place(archive, member, root, owners)


def _destination(target: str, name: str, folder: bool, contents: bool) -> tuple[str, str]:
    if os.path.isdir(target):
        return target, "." if contents else name
    if os.path.lexists(target) and folder:
        raise InvalidInputError("cannot copy directory")
    if target.endswith("/") and not folder:
        raise InvalidInputError("no such directory")
    clean = os.path.abspath(target)
    return os.path.dirname(clean), os.path.basename(clean)


def _as_it_is(member: tarfile.TarInfo, _root: str) -> tarfile.TarInfo:
    return member


def _place(archive: tarfile.TarFile, member: tarfile.TarInfo, root: str, owners: bool) -> None:
    path = _inside(root, member.name)
    if member.islnk():
        member.linkname = os.path.relpath(_inside(root, member.linkname), root)
    member.name = os.path.relpath(path, root)
    if not owners or os.geteuid() != 0:
        member.uid, member.gid = os.geteuid(), os.getegid()
    member.uname = member.gname = ""
    if member.isdir():
        _place_folder(member, path, root)
        return
    if os.path.isdir(path) and not os.path.islink(path):
        raise InvalidInputError(f"cannot overwrite directory {json_text(path)} with non-directory")
    if os.path.lexists(path):
        os.unlink(path)
    archive.extract(member, root, set_attrs=True, numeric_owner=True)


def _place_folder(member: tarfile.TarInfo, path: str, root: str) -> None:
    if os.path.lexists(path) and not os.path.isdir(path):
        raise InvalidInputError(f"cannot overwrite non-directory {json_text(path)} with directory")
    if os.path.islink(path) and path != os.path.normpath(root):
        # The folder takes the link's place: through it, what it leads to would be changed.
        os.unlink(path)
    os.makedirs(path, exist_ok=True)
    os.chmod(path, member.mode & 0o7777)
    if os.geteuid() == 0:
        os.chown(path, member.uid, member.gid)


def _inside(root: str, name: str) -> str:
    """Return the place of a member: below the root, also where links of the archive lie on the way.

    Raises:
        InvalidInputError: it lies outside.
    """
    path = os.path.normpath(os.path.join(root, name))
    real_root = os.path.realpath(root)
    parent = os.path.realpath(os.path.dirname(path))
    within = path == os.path.normpath(root) or os.path.commonpath([parent, real_root]) == real_root
    if not within or ".." in name.split("/"):
        raise InvalidInputError(f"the archive's member {name!r} lies outside of {root}")
    return path


def json_text(text: str) -> str:
    """Return text in double quotes."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
