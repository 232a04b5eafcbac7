"""Messages between the processes of an engine: one JSON object a packet, descriptors beside it.

A body over `INLINE_LIMIT` bytes travels in a sealed memory file whose descriptor comes last, so that
a packet never meets the socket's send buffer limit.
"""

import json
import os
import socket
import struct
from array import array
from collections.abc import Sequence
from typing import Any

from barque.base.files import write_all

INLINE_LIMIT = 60_000
MAX_BODY = 64 << 20
MAX_FDS = 250
_BIG = b"\0"
# dumps() makes an encoder at each call where it is not the default one.
_encode = json.JSONEncoder(separators=(",", ":")).encode
_HEADER_ROOM = socket.CMSG_SPACE(MAX_FDS * 4)

Message = dict[str, Any]


def send(sock: socket.socket, message: Message, fds: Sequence[int] = ()) -> None:
    """Send one message; descriptors stay the caller's.

    Raises:
        BlockingIOError: the socket is non-blocking and full; nothing was sent.
        OSError: the peer is gone.
    """
    body = _encode(message).encode()
    carried = list(fds)
    extra = -1
    if len(body) > INLINE_LIMIT:
        extra = os.memfd_create("message", os.MFD_CLOEXEC)
        carried.append(extra)
    try:
        if extra >= 0:
            size = len(body)
            write_all(extra, body)
            body = _BIG + struct.pack("=Q", size)
        rights = array("i", carried)
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if carried else []
        sock.sendmsg([body], ancillary, socket.MSG_NOSIGNAL)
    finally:
        if extra >= 0:
            os.close(extra)


def receive(sock: socket.socket) -> tuple[Message | None, list[int]]:
    """Receive one message and the descriptors that came with it, which are then the caller's.

    Returns:
        (None, []) at the end of the connection.

    Raises:
        BlockingIOError: the socket is non-blocking and empty.
        ValueError: the packet is no message; its descriptors are closed.
        OSError: the connection broke.
    """
    body, ancillary, flags, _ = sock.recvmsg(INLINE_LIMIT + 1, _HEADER_ROOM, socket.MSG_CMSG_CLOEXEC)
    fds: list[int] = []
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            received = array("i")
            received.frombytes(data[: len(data) - len(data) % 4])
            fds.extend(received)
    if not body:
        close_all(fds)
        return None, []
    try:
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise ValueError("a packet was cut")
        if body[:1] == _BIG:
            body = _read_big(body, fds)
        message = json.loads(body)
        if not isinstance(message, dict):
            raise ValueError("a message must be an object")
    except (ValueError, OSError) as error:
        close_all(fds)
        raise ValueError(str(error)) from error
    return message, fds


def _read_big(head: bytes, fds: list[int]) -> bytes:
    """Return the body that lies in the last descriptor, which is closed."""
    if len(head) != 9 or not fds:
        raise ValueError("a large message without its memory file")
    (size,) = struct.unpack("=Q", head[1:])
    fd = fds.pop()
    try:
        if size > MAX_BODY or os.fstat(fd).st_size != size:
            raise ValueError("a large message of a wrong size")
        return os.pread(fd, size, 0)
    finally:
        os.close(fd)


def close_all(fds: Sequence[int]) -> None:
    """Close every descriptor of the sequence that is not negative."""
    for fd in fds:
        if fd >= 0:
            os.close(fd)
