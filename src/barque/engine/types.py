"""Values that the API and the engine exchange besides JSON."""

import socket
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

Json = dict[str, Any]


class AttachOptions(NamedTuple):
    """Which streams a client wants of a container."""

    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    logs: bool = False
    stream: bool = False
    detach_keys: str = ""


class Attachment(NamedTuple):
    """A live connection to a container's or exec's streams.

    `sock` is a non-blocking stream socket owned by the receiver. Reading gives output: raw bytes
    where `tty`, else Docker's 8-byte-header frames. Writing gives input; shutdown(SHUT_WR) ends
    it. Closing it detaches. `detach_keys` are the parsed bytes that the API layer looks for in the
    input (empty: none). `prelude` yields earlier log output to be sent first.
    """

    sock: socket.socket | None
    tty: bool
    detach_keys: bytes
    prelude: AsyncIterator[bytes] | None
    on_detach: Callable[[], None] | None = None


class LogOptions(NamedTuple):
    """Which part of a log is wanted; times in nanoseconds since the epoch, tail -1 is all."""

    stdout: bool
    stderr: bool
    follow: bool = False
    since_ns: int = 0
    until_ns: int = 0
    timestamps: bool = False
    tail: int = -1
    details: bool = False


class LogStream(NamedTuple):
    """Log output: raw bytes where `tty`, else 8-byte-header frames."""

    tty: bool
    chunks: AsyncIterator[bytes]


class ArchiveStream(NamedTuple):
    """A tar of a path: its stat as Docker's X-Docker-Container-Path-Stat holds it, and the bytes."""

    stat: Json
    chunks: AsyncIterator[bytes]
