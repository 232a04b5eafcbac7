"""Bringing a client's folder over: one exchange of BuildKit's file synchronisation, of which nothing is done twice."""

import hashlib
from array import array
from typing import Any, NamedTuple

from grpclib.exceptions import GRPCError, StreamTerminatedError

from barque.base.errors import UnavailableError
from barque.builder.buildkit.bulk import Raw, batches, send_all
from barque.builder.buildkit.connection import refused
from barque.builder.buildkit.pb import wire_pb2
from barque.builder.buildkit.receiving import Receiver
from barque.builder.buildkit.sessions import ClientSession
from barque.builder.file_digests import FileDigests

DIFF_COPY = "moby.filesync.v1.FileSync/DiffCopy"
_MOST_FILES = 100_000
_MOST_BYTES = 16 << 20
"""Longer listings are looked at each time: while one may be the earlier one it waits in memory."""


class Listing(NamedTuple):
    """A client's files as it listed them: a hash of each message, which holds in this process, and the digest of all."""

    hashes: "array[int]"
    digest: bytes


class Recognition:
    """Looks whether a client lists what it listed the last time: then there is nothing to be done for any of it.

    Args:
        earlier: the listing of the last time, None where the folder may have become another one.
    """

    def __init__(self, earlier: Listing | None) -> None:
        self._earlier = earlier
        self._held: list[bytes] = []
        self._hashes = array("q")
        self._hasher = hashlib.sha256()
        self._size = 0
        self.same = False
        """Whether all was listed, and as it was."""

    def fresh(self, messages: list[bytes]) -> list[bytes]:
        """Take messages; return those to be looked at: none so far as they are those of the last time, else all since the first."""
        if self._earlier is None or self.same:
            return messages
        known, count = self._earlier.hashes, len(self._held)
        self._held += messages
        if known[count : len(self._held)] == array("q", map(hash, messages)):
            if len(self._held) < len(known):
                return []
            if hashlib.sha256(b"".join(self._held)).digest() == self._earlier.digest:
                self.same = True
                self._held.clear()
                return []
        self._earlier, held = None, self._held
        self._held = []
        return held

    def note(self, message: bytes) -> None:
        """Take note of a message of a listing that was looked at."""
        self._size += len(message)
        if self._size <= _MOST_BYTES and len(self._hashes) <= _MOST_FILES:
            self._hashes.append(hash(message))
            self._hasher.update(message)

    def listing(self) -> Listing | None:
        """Return what was listed, None where it was too much to be kept."""
        if self.same:
            return self._earlier
        fits = self._size <= _MOST_BYTES and len(self._hashes) <= _MOST_FILES
        return Listing(self._hashes, self._hasher.digest()) if fits else None


class Received(NamedTuple):
    """How many bytes came over, whether the folder was changed by them (see Receiver.changed), and what was listed."""

    transferred: int
    changed: bool
    listing: Listing | None


async def receive(
    session: ClientSession, path: str, options: dict[str, list[str]], digests: FileDigests | None = None,
    earlier: Listing | None = None,
) -> Received:  # fmt: skip
    """Bring a folder of the host to what a client has.

    Args:
        session: the client.
        path: the folder that is filled; files in it that are as the client has them are not sent again.
        options: `dir-name`, `include-patterns`, `exclude-patterns`, `followpaths`.
        digests: takes note of the content that comes.
        earlier: what was listed the last time, where the folder is still what came of it.

    Raises:
        InvalidInputError: the client sent what cannot be part of a context.
        BarqueError: the client refused.
        UnavailableError: the client went away.
    """
    metadata = [(key, value) for key, values in options.items() for value in values]
    receiver = Receiver(path, digests=digests)
    recognition = Recognition(earlier)
    size = 0
    try:
        async with session.client.stream(DIFF_COPY, metadata=metadata, answer=Raw) as stream:
            await stream.send_request()
            ended = False
            async for messages in batches(stream):
                size += sum(map(len, messages))
                await _look_at(recognition.fresh(messages), recognition, receiver, stream)
                if not ended and (recognition.same or receiver.complete):
                    ended = True
                    if not recognition.same:
                        receiver.finish()
                    await stream.send_message(wire_pb2.Packet(type=wire_pb2.Packet.PACKET_FIN), end=True)
            if not ended:
                raise UnavailableError("the client ended its files before all had come")
    except GRPCError as error:
        raise refused(error) from None
    except (ConnectionError, StreamTerminatedError) as error:
        raise UnavailableError(f"the client went away while it sent its files: {error}") from None
    finally:
        receiver.close()
    return Received(size, receiver.changed, recognition.listing())


async def _look_at(messages: list[bytes], recognition: Recognition, receiver: Receiver, stream: Any) -> None:
    """Do what messages say, and ask for the content that is needed because of them."""
    kinds = wire_pb2.Packet
    wanted = []
    for message in messages:
        packet = kinds.FromString(message)
        if packet.type == kinds.PACKET_STAT:
            recognition.note(message)
        number = receiver.take(packet)
        if number is not None:
            wanted.append(kinds(type=kinds.PACKET_REQ, ID=number))
    if wanted:
        await send_all(stream, wanted)
