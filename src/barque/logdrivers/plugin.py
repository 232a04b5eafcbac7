"""Log drivers outside the engine, by Docker's plugin protocol: StartLogging, a named pipe, StopLogging.

Through the pipe go entries as Docker's `LogEntry` messages, each behind its length as 32 bits, big-endian:

    1 source (string)   2 time_nano (int64)   3 line (bytes)   4 partial (bool)   5 {last, id, ordinal}
"""

import fcntl
import os
import select
import struct
import sys
import termios
import time
import uuid
from collections.abc import Callable
from typing import Any

from barque.base.errors import BarqueError
from barque.base.times import format_ns
from barque.logdrivers.entry import ContainerFacts, Driver, DriverError, Entry

Call = Callable[[str, dict[str, Any]], dict[str, Any]]
_WAIT_S = 30.0
_LOOK_MS = 2


class PluginLog(Driver):
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
        self._read_by_us = False

    def open(self) -> None:
        """Make the pipe and have the plugin read it."""
        if self._fd >= 0:
            return
        os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
        os.mkfifo(self._path, 0o600)
        # Open for reading too, so that opening does not wait for the plugin.
        self._fd, self._read_by_us = os.open(self._path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC), True
        try:
            self._call("LogDriver.StartLogging", {"File": self._path, "Info": info(self._facts)})
        except BarqueError as error:
            self._drop()
            raise DriverError(str(error)) from None

    def send(self, entries: list[Entry]) -> None:
        """Write entries into the pipe, and wait until they were read there: what a dead plugin did not read is not gone."""
        self.open()
        try:
            for entry in entries:
                body = message(entry)
                self._write(struct.pack(">I", len(body)) + body)
            self._wait(0, lambda: not self._unread())
            self._leave_reading_to_the_plugin()
        except (OSError, TimeoutError) as error:
            self._drop()
            words = "does not read" if isinstance(error, TimeoutError) else "has ended"
            raise DriverError(f"the log plugin {words}") from None

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:
                self._wait(select.POLLOUT, lambda: False)

    def _wait(self, event: int, enough: Callable[[], bool]) -> None:
        """Wait for an event at the pipe, or until it is enough."""
        poll = select.poll()
        poll.register(self._fd, event)
        deadline = time.monotonic() + _WAIT_S
        while not enough():
            happened = poll.poll(_LOOK_MS)
            if any(what & select.POLLERR for _, what in happened):
                raise BrokenPipeError
            if happened:
                return
            if time.monotonic() > deadline:
                raise TimeoutError

    def _unread(self) -> int:
        return int.from_bytes(fcntl.ioctl(self._fd, termios.FIONREAD, bytes(4)), sys.byteorder)

    def _leave_reading_to_the_plugin(self) -> None:
        """Let go of the pipe's reading end, now that the plugin has it, so that the plugin's end is noticed."""
        if not self._read_by_us:
            return
        fd = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.close(self._fd)
        self._fd, self._read_by_us = fd, False

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
