"""Contexts from the web or a client's standard input: an archive, which is not unpacked, or a Dockerfile alone."""

import asyncio
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

from grpclib.exceptions import GRPCError, StreamTerminatedError

from barque.base.errors import InvalidInputError, UnavailableError
from barque.base.files import write_all
from barque.builder.buildkit.connection import refused
from barque.builder.buildkit.pb import upload_pb2
from barque.builder.graph import Scratch, Source, Vertex
from barque.builder.results import Result
from barque.builder.shown import without_passwords
from barque.builder.sources import Sources, fetch
from barque.builder.tar_tree import TarTree
from barque.storage.compression import plain
from barque.storage.content import ContentStore
from barque.storage.mapping import mapped

if TYPE_CHECKING:
    from barque.builder.buildkit.builds import Build
    from barque.builder.buildkit.sessions import ClientSession

_UPLOADED = "http://buildkit-session/"
_PULL = "moby.upload.v1.Upload/Pull"
_ARCHIVES = (b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")
_MAGIC, _MAGIC_AT, _HEAD = b"ustar", 257, 512
_LARGEST_DOCKERFILE = 100 << 20


async def context_of(url: str, build: "Build", sources: Sources, content: ContentStore) -> tuple[Vertex, str | None]:
    """Return the context that a URL gives, and the Dockerfile's text where the URL gives that alone.

    Raises:
        BarqueError: it cannot be had.
        InvalidInputError: it is a broken archive.
    """
    folder = sources.temporary()
    build.session.folders.append(folder)
    path = f"{folder}/body"
    with build.report.work(f"[internal] load remote build context {without_passwords(url)}") as step:
        if url.startswith(_UPLOADED):
            await _uploaded(build.need_client(), url, path)
        else:
            await fetch(url, path)
        step.transferred("transferring context:", os.path.getsize(path))
        stack = ExitStack()
        build.session.options.setdefault("ends", []).append(stack.close)
        found = await asyncio.to_thread(_read, path, content, stack)
    if isinstance(found, str):
        return Scratch(), found
    build.session.trees[url] = Result(tree=found, identity="context")
    return Source(f"local://{url}", name="[internal] load build context"), None


async def _uploaded(client: "ClientSession", url: str, path: str) -> None:
    message = upload_pb2.BytesMessage
    metadata = {"urlpath": "/" + url.removeprefix(_UPLOADED), "host": "buildkit-session"}
    try:
        async with client.client.stream(_PULL, metadata=metadata) as stream:
            await stream.send_request()
            await stream.end()
            with open(path, "xb") as file:
                while (piece := await stream.recv_message()) is not None:
                    assert isinstance(piece, message)
                    file.write(piece.data)
    except GRPCError as error:
        raise refused(error) from None
    except (ConnectionError, StreamTerminatedError) as error:
        raise UnavailableError(f"the client went away while it sent its context: {error}") from None


def _read(path: str, content: ContentStore, stack: ExitStack) -> TarTree | str:
    with open(path, "rb") as file:
        head = file.read(_HEAD)
        file.seek(0)
        if not head.startswith(_ARCHIVES) and not head[_MAGIC_AT:].startswith(_MAGIC):
            if os.path.getsize(path) > _LARGEST_DOCKERFILE:
                raise InvalidInputError(f"the context is no archive, and larger than a Dockerfile may be: {path}")
            return file.read().decode("utf-8", "replace")
        made = stack.enter_context(content.temporary())
        for chunk in plain(iter(lambda: file.read(1 << 20), b"")):
            write_all(made.fileno(), chunk)
    os.unlink(path)
    return TarTree(stack.enter_context(mapped(made)))
