"""Our files go over to a client: the sending half of the file synchronisation, and streams of bytes."""

from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from contextlib import aclosing
from typing import Any

from grpclib.exceptions import GRPCError, StreamTerminatedError

from barque.base.errors import BarqueError, InvalidInputError, UnavailableError
from barque.builder.buildkit.connection import refused
from barque.builder.buildkit.pb import filesync_pb2, stat_pb2, wire_pb2
from barque.builder.buildkit.sessions import ClientSession
from barque.builder.tar_tree import TarTree
from barque.builder.trees import BLOCK, CHAR, FIFO, FILE, FOLDER, LINK, Node, Tree
from barque.storage.archive.write import END, file

FILE_SEND = "moby.filesync.v1.FileSend/DiffCopy"
_CHUNK = 32 << 10
_STREAM_CHUNK = 3 << 20
_EXPORTER_ID = "buildkit-attachable-exporter-id"
Sent = tuple[str, Node, Tree, str]
"""A file that goes to a client: its path there, what it is, the tree that has it and its path in the tree."""
_KINDS = {FILE: 0, FOLDER: 1 << 31, LINK: 1 << 27, FIFO: 1 << 25, BLOCK: 1 << 26, CHAR: 1 << 26 | 1 << 21}


def go_mode(node: Node) -> int:
    """Return a file's kind and mode as Go's os.FileMode has them."""
    mode = node.mode & 0o777 | _KINDS[node.kind]
    for bit, theirs in ((0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)):
        if node.mode & bit:
            mode |= theirs
    return mode


def walked(tree: Tree, path: str = "") -> Iterator[tuple[str, Node]]:
    """Yield all files below a path, each folder before what is in it, names in order."""
    stack = [iter(tree.names(path))]
    bases = [path]
    while stack:
        name = next(stack[-1], None)
        if name is None:
            stack.pop()
            bases.pop()
            continue
        inner = f"{bases[-1]}/{name}".lstrip("/")
        node = tree.lstat(inner)
        if node is None:
            continue
        yield inner, node
        if node.kind == FOLDER:
            stack.append(iter(tree.names(inner)))
            bases.append(inner)


def _need(session: ClientSession) -> None:
    if not session.serves(FILE_SEND):
        raise InvalidInputError(f"method /{FILE_SEND} not supported by the client")


async def send_tree(session: ClientSession, entries: Iterable[Sent], exporter: int) -> None:
    """Write files into the folder that the client chose.

    Args:
        session: the client.
        entries: the files, each folder before what is in it, names in order.
        exporter: the number of the export in the client's request.

    Raises:
        BarqueError: the client refused.
        UnavailableError: the client went away.
    """
    _need(session)
    kinds = wire_pb2.Packet
    files: list[tuple[Tree, str]] = []
    try:
        async with session.client.stream(
            FILE_SEND, metadata={_EXPORTER_ID: str(exporter)}, request=kinds, answer=kinds
        ) as stream:
            for shown, found, source, inner in entries:
                files.append((source, inner))
                await stream.send_message(kinds(type=kinds.PACKET_STAT, stat=_stat(shown, found)))
            await stream.send_message(kinds(type=kinds.PACKET_STAT))
            while (packet := await stream.recv_message()) is not None:
                if packet.type == kinds.PACKET_REQ:
                    await _send_file(stream, packet.ID, files)
                elif packet.type == kinds.PACKET_ERR:
                    raise BarqueError(packet.data.decode("utf-8", "replace"))
                elif packet.type == kinds.PACKET_FIN:
                    await stream.send_message(kinds(type=kinds.PACKET_FIN), end=True)
                    break
            while await stream.recv_message() is not None:
                pass
    except GRPCError as error:
        raise refused(error) from None
    except (ConnectionError, StreamTerminatedError) as error:
        raise UnavailableError(f"the client went away while files were sent to it: {error}") from None


def split(trees: dict[str, Tree]) -> Iterator[Sent]:
    """Yield the files of trees that each go into a folder of their own, by its name."""
    for prefix, one in sorted(trees.items()):
        root = one.lstat("")
        yield prefix, root or Node(FOLDER, 0o755, 0, 0, 0, 0), one, ""
        for path, node in walked(one):
            yield f"{prefix}/{path}", node, one, path


def with_files(entries: Iterable[Sent], files: Mapping[str, Mapping[str, bytes]]) -> list[Sent]:
    """Return entries with small files in folders of them (each named with a slash at its end, empty for the top).

    Raises:
        InvalidInputError: there is such a file.
    """
    found = list(entries)
    for folder, named in files.items():
        made = b"".join(file(name.encode(), data, mode=0o600) for name, data in named.items()) + END
        extra = TarTree(memoryview(made))
        for path, node in walked(extra):
            if any(one[0] == folder + path for one in found):
                raise InvalidInputError(f"cannot write {path}: the build has a file of this name")
            found.append((folder + path, node, extra, path))
    # A folder goes before what is in it, and names are in order.
    return sorted(found, key=lambda one: one[0].split("/"))


def joined(trees: dict[str, Tree]) -> list[Sent]:
    """Return the files of trees that all go into one folder.

    Raises:
        InvalidInputError: two of them have the same file.
    """
    found: dict[str, tuple[str, Sent]] = {}
    for name, one in trees.items():
        for path, node in walked(one):
            before = found.get(path)
            if before is None:
                found[path] = name, (path, node, one, path)
            elif node.kind != FOLDER or before[1][1].kind != FOLDER:
                raise InvalidInputError(
                    f"cannot overwrite {path} from {before[0]} with {name} when split option is disabled"
                )
    return [found[path][1] for path in sorted(found, key=lambda path: path.split("/"))]


def _stat(path: str, node: Node) -> Any:
    return stat_pb2.Stat(
        path=path, mode=go_mode(node), uid=node.uid, gid=node.gid, size=node.size if node.kind == FILE else 0,
        modTime=node.mtime_ns, linkname=node.link if node.kind == LINK else "", devmajor=node.device[0],
        devminor=node.device[1],
    )  # fmt: skip


async def _send_file(stream: Any, number: int, files: list[tuple[Tree, str]]) -> None:
    kinds = wire_pb2.Packet
    if number >= len(files):
        raise BarqueError(f"the client asked for a file that was not listed ({number})")
    tree, path = files[number]
    for chunk in tree.read(path):
        view = memoryview(chunk)
        for start in range(0, len(view), _CHUNK):
            await stream.send_message(kinds(type=kinds.PACKET_DATA, ID=number, data=bytes(view[start : start + _CHUNK])))
    await stream.send_message(kinds(type=kinds.PACKET_DATA, ID=number))


async def send_stream(
    session: ClientSession, chunks: AsyncGenerator[bytes, None], exporter: int, response: dict[str, str]
) -> None:
    """Write bytes into the file that the client chose.

    Args:
        session: the client.
        chunks: the bytes; it is closed at the end, whatever that is.
        exporter: the number of the export in the client's request.
        response: what the client is told of the export.

    Raises:
        BarqueError: the client refused.
        UnavailableError: the client went away.
    """
    _need(session)
    message = filesync_pb2.BytesMessage
    metadata = {_EXPORTER_ID: str(exporter), **{f"exporter-md-{key}": value for key, value in response.items()}}
    try:
        async with (
            aclosing(chunks),
            session.client.stream(FILE_SEND, metadata=metadata, request=message, answer=message) as stream,
        ):
            async for chunk in chunks:
                for start in range(0, len(chunk), _STREAM_CHUNK):
                    await stream.send_message(message(data=chunk[start : start + _STREAM_CHUNK]))
            await stream.end()
            while await stream.recv_message() is not None:
                pass
    except GRPCError as error:
        raise refused(error) from None
    except (ConnectionError, StreamTerminatedError) as error:
        raise UnavailableError(f"the client went away while its file was written: {error}") from None
