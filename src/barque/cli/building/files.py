"""Files of ours go to the engine and files of the engine come to us: the session's file services."""

from __future__ import annotations

import asyncio
import os
import stat
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_plus

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from barque.builder.buildkit.pb import filesync_pb2, stat_pb2, upload_pb2, wire_pb2
from barque.builder.buildkit.receiving import Receiver
from barque.cli.building.walk import Choice, Entry, followed, walk

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

    from barque.cli.building.outputs import Destination

_CHUNK = 1 << 20
_EVERY = 256
_EXPORTER_ID = "buildkit-attachable-exporter-id"
_METADATA = "exporter-md-"
# Bits of Go's os.FileMode.
_GO_KINDS = {
    stat.S_IFREG: 0, stat.S_IFDIR: 1 << 31, stat.S_IFLNK: 1 << 27, stat.S_IFBLK: 1 << 26,
    stat.S_IFCHR: 1 << 26 | 1 << 21, stat.S_IFIFO: 1 << 25, stat.S_IFSOCK: 1 << 24,
}  # fmt: skip
_Packet = wire_pb2.Packet


def _many(metadata: Any, name: str) -> list[str]:
    found = [str(value) for value in metadata.getall(name, [])]
    # Texts that a header cannot hold come escaped, and a header beside them says so.
    return [unquote_plus(one) for one in found] if metadata.get(f"{name}-encoded") else found


class FileSync:
    """Serves moby.filesync.v1.FileSync: local folders, each by the name that requests use."""

    descriptor = filesync_pb2.DESCRIPTOR.services_by_name["FileSync"]

    def __init__(self, folders: dict[str, str]) -> None:
        self._folders = folders

    async def diff_copy(self, stream: Any) -> None:
        """Send a folder's list, and of its files those that are asked for."""
        given = stream.metadata
        name = next(iter(_many(given, "dir-name")), "")
        if name not in self._folders:
            raise GRPCError(Status.NOT_FOUND, f"no access allowed to dir {name!r}")
        root = self._folders[name]
        includes = _many(given, "include-patterns")
        follow = _many(given, "followpaths")
        if follow:
            more = followed(root, follow)
            includes = [*includes, *more] if more else []
        sender = _Sender(stream, root)
        await sender.send(Choice(includes, _many(given, "exclude-patterns")))


class _Sender:
    """One exchange."""

    def __init__(self, stream: Any, root: str) -> None:
        self._stream = stream
        self._root = root
        self._paths: dict[int, str] = {}
        self._wanted: asyncio.Queue[int | None] = asyncio.Queue()

    async def send(self, choice: Choice) -> None:
        asking = asyncio.create_task(self._listen())
        sending = asyncio.create_task(self._send_files())
        try:
            for number, entry in enumerate(walk(self._root, choice)):
                if stat.S_ISREG(entry.stat.st_mode) and not entry.link:
                    self._paths[number] = entry.path
                await self._stream.send_message(_Packet(type=_Packet.PACKET_STAT, stat=_stat(entry)))
                if number % _EVERY == 0:
                    await asyncio.sleep(0)
            await self._stream.send_message(_Packet(type=_Packet.PACKET_STAT))
            await asyncio.gather(asking, sending)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            text = f"failed to read {error.filename}: {reason}" if error.filename else reason
            await self._stream.send_message(_Packet(type=_Packet.PACKET_ERR, data=text.encode()))
        finally:
            asking.cancel()
            sending.cancel()

    async def _listen(self) -> None:
        while (packet := await self._stream.recv_message()) is not None:
            if packet.type == _Packet.PACKET_REQ:
                self._wanted.put_nowait(packet.ID)
            elif packet.type == _Packet.PACKET_ERR:
                raise GRPCError(Status.UNKNOWN, packet.data.decode("utf-8", "replace"))
            elif packet.type == _Packet.PACKET_FIN:
                break
        self._wanted.put_nowait(None)

    async def _send_files(self) -> None:
        while (number := await self._wanted.get()) is not None:
            path = self._paths.get(number)
            if path is None:
                raise GRPCError(Status.INVALID_ARGUMENT, f"invalid file id {number}")
            with open(f"{self._root}/{path}", "rb", buffering=0) as file:
                while data := file.read(_CHUNK):
                    await self._stream.send_message(_Packet(type=_Packet.PACKET_DATA, ID=number, data=data))
            await self._stream.send_message(_Packet(type=_Packet.PACKET_DATA, ID=number))
        await self._stream.send_message(_Packet(type=_Packet.PACKET_FIN))


def _stat(entry: Entry) -> Any:
    found = entry.stat
    mode = found.st_mode & 0o777 | _GO_KINDS[stat.S_IFMT(found.st_mode)]
    for bit, theirs in ((stat.S_ISUID, 1 << 23), (stat.S_ISGID, 1 << 22), (stat.S_ISVTX, 1 << 20)):
        if found.st_mode & bit:
            mode |= theirs
    device = stat.S_ISBLK(found.st_mode) or stat.S_ISCHR(found.st_mode)
    # Whose files they are on this machine says nothing to the image.
    return stat_pb2.Stat(
        path=entry.path, mode=mode, uid=0, gid=0, size=found.st_size if stat.S_ISREG(found.st_mode) else 0,
        modTime=found.st_mtime_ns, linkname=entry.link, xattrs=entry.attributes,
        devmajor=os.major(found.st_rdev) if device else 0, devminor=os.minor(found.st_rdev) if device else 0,
    )  # fmt: skip


class Raw:
    """A message that is not parsed: one method carries two protocols."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = data

    @classmethod
    def FromString(cls, data: bytes) -> Raw:  # noqa: N802 - what a codec calls
        """Take bytes."""
        return cls(bytes(data))

    def SerializeToString(self) -> bytes:  # noqa: N802 - what a codec calls
        """Give bytes."""
        return self.data


class FileSend:
    """Serves moby.filesync.v1.FileSend: what a build exports comes to the destinations that were chosen."""

    descriptor = filesync_pb2.DESCRIPTOR.services_by_name["FileSend"]
    raw = Raw

    def __init__(self, destinations: dict[str, Destination]) -> None:
        self._destinations = destinations

    async def diff_copy(self, stream: Any) -> None:
        """Receive one export."""
        number = str(stream.metadata.get(_EXPORTER_ID, "0") or "0")
        destination = self._destinations.get(number)
        if destination is None:
            raise GRPCError(Status.NOT_FOUND, f"nothing is exported as number {number}")
        if destination.folder:
            await self._receive_folder(stream, destination.folder)
        else:
            await self._receive_file(stream, destination.open())

    async def _receive_file(self, stream: Any, file: BinaryIO) -> None:
        while (message := await stream.recv_message()) is not None:
            file.write(filesync_pb2.BytesMessage.FromString(message.data).data)
        file.flush()

    async def _receive_folder(self, stream: Any, folder: str) -> None:
        os.makedirs(folder, exist_ok=True)
        receiver = Receiver(folder, owner=(os.getuid(), os.getgid()), merge=True)
        ended = False
        try:
            while (message := await stream.recv_message()) is not None:
                packet = _Packet.FromString(message.data)
                if packet.type == _Packet.PACKET_STAT:
                    number = receiver.listed(packet)
                    if number is not None:
                        await stream.send_message(Raw(_Packet(type=_Packet.PACKET_REQ, ID=number).SerializeToString()))
                elif packet.type == _Packet.PACKET_DATA:
                    receiver.data(packet)
                elif packet.type == _Packet.PACKET_ERR:
                    raise GRPCError(Status.UNKNOWN, packet.data.decode("utf-8", "replace"))
                elif packet.type == _Packet.PACKET_FIN:
                    return
                if receiver.complete and not ended:
                    ended = True
                    receiver.finish()
                    await stream.send_message(Raw(_Packet(type=_Packet.PACKET_FIN).SerializeToString()))
        finally:
            receiver.close()


class Upload:
    """Serves moby.upload.v1.Upload: files that the engine asks for by a name, such as a context on standard input."""

    descriptor = upload_pb2.DESCRIPTOR.services_by_name["Upload"]

    def __init__(self) -> None:
        self._files: dict[str, Callable[[], BinaryIO]] = {}

    def add(self, name: str, opened: Callable[[], BinaryIO]) -> str:
        """Offer a file; return the URL that requests name it by."""
        self._files[name] = opened
        return f"http://buildkit-session/{name}"

    async def pull(self, stream: Any) -> None:
        """Send a file."""
        path = str(stream.metadata.get("urlpath", ""))
        opened = self._files.get(path.rpartition("/")[2])
        if opened is None:
            raise GRPCError(Status.NOT_FOUND, f"no upload named {path}")
        with opened() as file:
            while data := await asyncio.to_thread(file.read, _CHUNK):
                await stream.send_message(upload_pb2.BytesMessage(data=data))
