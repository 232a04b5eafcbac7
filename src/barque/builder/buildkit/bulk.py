"""Many small messages over gRPC: a short way past grpclib and h2 for what is nearly all of a transfer of files.

Plain DATA frames of streams that are open need of h2 only that the windows of flow control are counted; all other
frames go the long way. Messages are taken as many at once as have come.
"""

import struct
import time
from collections.abc import AsyncIterator, Iterable
from typing import Any

from google.protobuf.message import Message
from h2.connection import ConnectionState
from h2.stream import StreamState

from barque.base.errors import UnavailableError
from barque.builder.buildkit.gathering import Gathering

_FRAME = struct.Struct(">HBBBL")
_FRAME_HEAD, _MESSAGE_HEAD = 9, 5
_MESSAGE = struct.Struct(">BL")
_DATA = 0
_OPEN = (StreamState.OPEN, StreamState.HALF_CLOSED_LOCAL)
_LARGEST_MESSAGE = 64 << 20


class Frames(Gathering):
    """The end of a connection that makes the calls; the other end sends no preface."""

    _rest = b""

    def data_received(self, data: bytes) -> None:
        """Take bytes: frames of data the short way, everything else by h2, in order."""
        if self._rest:
            data, self._rest = self._rest + data, b""
        at = done = 0
        number, payloads = 0, list[bytes]()
        largest, count = self.connection._connection.max_inbound_frame_size, len(data)
        while count - at >= _FRAME_HEAD:
            high, low, kind, flags, stream = _FRAME.unpack_from(data, at)
            size = high << 8 | low
            end = at + _FRAME_HEAD + size
            if size > largest:
                # An error, which h2 is to tell.
                end = count
            elif end > count:
                break
            plain = kind == _DATA and not flags and 0 < size <= largest
            if payloads and (not plain or stream != number):
                done = self._pass(data, done, at, number, payloads)
            if plain:
                if not payloads and done < at:
                    super().data_received(data[done:at])
                    done = at
                number = stream
                payloads.append(data[at + _FRAME_HEAD : end])
            at = end
        if payloads:
            done = self._pass(data, done, at, number, payloads)
        if done < at:
            super().data_received(data[done:at])
        self._rest = data[at:]

    def _pass(self, data: bytes, start: int, end: int, number: int, payloads: list[bytes]) -> int:
        """Pass the payloads of the frames from start to end on, by h2 where they are not as they should be; return the end."""
        if not self._take(number & 0x7FFF_FFFF, b"".join(payloads)):
            super().data_received(data[start:end])
        payloads.clear()
        return end

    def _take(self, number: int, payload: bytes) -> bool:
        """Take what frames brought if it is as it should be in every respect."""
        h2, size = self.connection._connection, len(payload)
        stream, inner = self.processor.streams.get(number), h2.streams.get(number)
        if stream is None or inner is None or h2.state_machine.state is not ConnectionState.CLIENT_OPEN:
            return False
        state, windows = inner.state_machine, (h2._inbound_flow_control_window_manager, inner._inbound_window_manager)
        if state.state not in _OPEN or not state.headers_received or inner._expected_content_length is not None:
            return False
        if any(window.current_window_size < size for window in windows):
            return False
        for window in windows:
            window.window_consumed(size)
        stream.buffer.add(payload, size)
        stream.data_received += size
        self.connection.data_received += size
        self.connection.last_data_received = time.monotonic()
        return True


class Raw(Message):
    """Stands for the kind of messages that are taken as the bytes they are."""

    FromString = bytes  # type: ignore[assignment]


async def batches(stream: Any) -> AsyncIterator[list[bytes]]:
    """Yield the messages (see Raw) of a call's other end, as many at once as are there, until it ends.

    Raises:
        UnavailableError: it ends in the middle of a message.
        StreamTerminatedError: the connection broke.
    """
    first = await stream.recv_message()
    if first is None:
        return
    yield [first]
    buffer = stream._stream.buffer
    kept = bytearray().join(chunk for chunk, _ in buffer._acked)
    buffer._acked.clear()
    buffer._acked_size = 0
    ended = False
    while True:
        # What came together with the first is looked at before more is waited for.
        found, at, come = [], 0, bytes(kept)
        while len(come) - at >= _MESSAGE_HEAD:
            compressed, size = _MESSAGE.unpack_from(come, at)
            if compressed or size > _LARGEST_MESSAGE:
                raise UnavailableError("the client sent a message that is compressed or too large")
            if len(come) - at - _MESSAGE_HEAD < size:
                break
            at += _MESSAGE_HEAD
            found.append(come[at : at + size])
            at += size
        del kept[:at]
        if found:
            yield found
        if ended:
            break
        with stream._wrapper:
            ended = await _more(buffer, kept)
    if kept:
        raise UnavailableError("the client ended in the middle of a message")


async def _more(buffer: Any, kept: bytearray) -> bool:
    """Add what has come, at least something; return whether that was all."""
    taken, ended = 0, False
    if buffer._eof and buffer._unacked.empty():
        return True
    item = await buffer._unacked.get()
    while True:
        if not item.ack_size:
            ended = True
            break
        kept += item.data
        taken += item.ack_size
        if buffer._unacked.empty():
            break
        item = buffer._unacked.get_nowait()
    buffer._ack_callback(taken)
    return ended


async def send_all(stream: Any, messages: Iterable[Message]) -> None:
    """Send messages of a call in one piece."""
    made = bytearray()
    for message in messages:
        raw = message.SerializeToString()
        made += _MESSAGE.pack(0, len(raw)) + raw
    if made:
        with stream._wrapper:
            await stream._stream.send_data(bytes(made))
