"""Log drivers outside the engine, by Docker's plugin protocol: StartLogging, a named pipe, StopLogging.

Through the pipe go entries as Docker's `LogEntry` messages, each behind its length as 32 bits, big-endian:

    1 source (string)   2 time_nano (int64)   3 line (bytes)   4 partial (bool)   5 {last, id, ordinal}
"""

import os
import select
import struct
import time
import uuid
from collections.abc import Callable
from typing import Any

from barque.base.errors import BarqueError
from barque.base.times import format_ns
from barque.logdrivers.entry import ContainerFacts, DriverError, Entry

Call = Callable[[str, dict[str, Any]], dict[str, Any]]
_WAIT_S = 30.0


class PluginLog:
    """A plugin that speaks `LogDriver`.

    Args:
        facts: of the container.
        call: calls one method of the plugin.
        folder: where the named pipe is made; the plugin opens it by this path.
    """

    def __init__(self, facts: ContainerFacts, call: Call, folder: str) -> None:
        self._facts = facts
        self._call = call
        self._path = f"{folder}/{uuid.uuid4().hex}"
        self._fd = -1

    def open(self) -> None:
        """Make the pipe and have the plugin read it."""
        if self._fd >= 0:
            return
        os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
        os.mkfifo(self._path, 0o600)
        # Open for reading too, so that opening does not wait for the plugin.
        self._fd = os.open(self._path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            self._call("LogDriver.StartLogging", {"File": self._path, "Info": info(self._facts)})
        except BarqueError as error:
            self._drop()
            raise DriverError(str(error)) from None

    def send(self, entries: list[Entry]) -> None:
        """Write entries into the pipe."""
        self.open()
        for number, entry in enumerate(entries):
            body = message(entry)
            self._write(struct.pack(">I", len(body)) + body, number)

    def _write(self, data: bytes, delivered: int) -> None:
        deadline = time.monotonic() + _WAIT_S
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise DriverError("the log plugin does not read", delivered) from None
                select.select([], [self._fd], [], 1)

    def close(self) -> None:
        """Tell the plugin that no more comes."""
        if self._fd < 0:
            return
        try:
            self._call("LogDriver.StopLogging", {"File": self._path})
        except BarqueError:
            pass
        self._drop()

    def _drop(self) -> None:
        os.close(self._fd)
        self._fd = -1
        os.unlink(self._path)


def info(facts: ContainerFacts) -> dict[str, Any]:
    """Return what a plugin is told of the container."""
    return {
        "Config": facts.options, "ContainerID": facts.id, "ContainerName": f"/{facts.name}",
        "ContainerEntrypoint": facts.command[0] if facts.command else "", "ContainerArgs": facts.command[1:],
        "ContainerImageID": facts.image_id, "ContainerImageName": facts.image_name,
        "ContainerCreated": format_ns(facts.created_ns), "ContainerEnv": facts.env, "ContainerLabels": facts.labels,
        "LogPath": "", "DaemonName": facts.daemon,
    }  # fmt: skip


def message(entry: Entry) -> bytes:
    """Return an entry as a protobuf `LogEntry`."""
    parts = [_bytes(1, entry.stream.encode()), _number(2, entry.time_ns), _bytes(3, entry.text)]
    if entry.partial_id:
        parts.append(_number(4, 1))
        inner = (_number(1, 1) if entry.last else b"") + _bytes(2, entry.partial_id.encode()) + _number(3, entry.ordinal)
        parts.append(_bytes(5, inner))
    return b"".join(parts)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(field: int, value: int) -> bytes:
    return bytes((field << 3,)) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return bytes((field << 3 | 2,)) + _varint(len(value)) + value
