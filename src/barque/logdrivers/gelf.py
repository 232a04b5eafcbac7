"""GELF 1.1: compressed and cut over UDP, ended by a zero byte over TCP."""

import gzip
import json
import os
import time
import zlib

from barque.base.times import format_ns
from barque.logdrivers.attributes import extra_attributes, tag
from barque.logdrivers.connection import Stream
from barque.logdrivers.entry import ContainerFacts, Driver, DriverError, Entry
from barque.logdrivers.options import gelf_address

_CHUNK = 1420
_CHUNK_HEAD = 12
_MOST_CHUNKS = 128
_ERROR, _INFO = 3, 6


class Gelf(Driver):
    """The driver `gelf`."""

    def __init__(self, facts: ContainerFacts) -> None:
        options = facts.options
        self._address = gelf_address(options)
        self._host = facts.hostname
        self._packing = options.get("gelf-compression-type", "gzip")
        self._level = int(options.get("gelf-compression-level", "1"))
        self._tries = int(options.get("gelf-tcp-max-reconnect", "3")) + 1
        self._pause_s = float(options.get("gelf-tcp-reconnect-delay", "1"))
        self._stream = Stream(self._address)
        self._extra = {
            "_container_id": facts.id, "_container_name": facts.name, "_image_id": facts.image_id,
            "_image_name": facts.image_name, "_command": facts.command_line, "_tag": tag(facts),
            "_created": format_ns(facts.created_ns),
            **extra_attributes(facts, lambda key: key if key.startswith("_") else f"_{key}"),
        }  # fmt: skip

    def open(self) -> None:
        """Connect."""
        try:
            self._stream.open()
        except DriverError as error:
            where = f"{self._address.host}:{self._address.port}"
            raise DriverError(f"gelf: cannot connect to GELF endpoint: {where} {error}") from None

    def send(self, entries: list[Entry]) -> None:
        """Send one message an entry; empty lines are left out."""
        for number, entry in enumerate(entries):
            if not entry.text:
                continue
            try:
                self._send_one(self.message(entry))
            except DriverError as error:
                raise DriverError(f"gelf: cannot send GELF message: {error}", number) from None

    def _send_one(self, text: bytes) -> None:
        if self._address.scheme == "udp":
            for packet in cut(self._packed(text), os.urandom(8)):
                self._stream.write(packet)
            return
        for left in range(self._tries - 1, -1, -1):
            try:
                self._stream.write(text + b"\0")
                return
            except DriverError:
                if not left:
                    raise
                # gelf-tcp-reconnect-delay: the user's own pause, in the log's own thread.
                time.sleep(self._pause_s)

    def _packed(self, text: bytes) -> bytes:
        if self._packing == "gzip":
            return gzip.compress(text, self._level if self._level >= 0 else 6)
        return zlib.compress(text, self._level) if self._packing == "zlib" else text

    def message(self, entry: Entry) -> bytes:
        """Return an entry as GELF's JSON."""
        value = {
            "version": "1.1", "host": self._host, "short_message": entry.text.decode("utf-8", "replace"),
            "timestamp": entry.time_ns // 1_000_000 / 1000, "level": _ERROR if entry.stream == "stderr" else _INFO,
            **self._extra,
        }  # fmt: skip
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()


def cut(data: bytes, message_id: bytes) -> list[bytes]:
    """Return the packets of one message: itself, or chunks with GELF's head of 12 bytes.

    Raises:
        DriverError: it takes more chunks than GELF allows.
    """
    if len(data) <= _CHUNK:
        return [data]
    room = _CHUNK - _CHUNK_HEAD
    count = -(-len(data) // room)
    if count > _MOST_CHUNKS:
        raise DriverError(f"message too large, would need {count} chunks")
    return [
        b"\x1e\x0f" + message_id + bytes((n, count)) + data[n * room : (n + 1) * room] for n in range(count)
    ]  # fmt: skip
