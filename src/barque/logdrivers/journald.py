"""The systemd journal, by its native protocol over a datagram socket."""

import array
import os
import re
import socket
import uuid

from barque.base.files import write_all
from barque.base.times import format_ns
from barque.logdrivers.attributes import extra_attributes, short_id, tag
from barque.logdrivers.connection import go_words
from barque.logdrivers.entry import ContainerFacts, Driver, DriverError, Entry

SOCKET = "/run/systemd/journal/socket"
_ERROR, _INFO = 3, 6


def field_name(text: str) -> str:
    """Return a label's or variable's name as the journal allows it."""
    return re.sub(r"[^A-Z0-9_]", "_", text.upper()).lstrip("_")


class Journald(Driver):
    """The driver `journald`."""

    def __init__(self, facts: ContainerFacts, path: str = SOCKET) -> None:
        self._path = path
        name = tag(facts)
        self._fields = {
            "CONTAINER_ID": short_id(facts.id), "CONTAINER_ID_FULL": facts.id, "CONTAINER_NAME": facts.name,
            "CONTAINER_TAG": name, "IMAGE_NAME": facts.image_name, "SYSLOG_IDENTIFIER": name,
            "CONTAINER_LOG_EPOCH": uuid.uuid4().hex * 2, **extra_attributes(facts, field_name),
        }  # fmt: skip
        self._number = 0
        self._sock: socket.socket | None = None

    def open(self) -> None:
        """Connect."""
        if self._sock is not None:
            return
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            sock.connect(self._path)
        except OSError:
            sock.close()
            raise DriverError("journald is not enabled on this host") from None
        self._sock = sock

    def send(self, entries: list[Entry]) -> None:
        """Send one datagram an entry; what is too large for one travels in a memory file."""
        self.open()
        assert self._sock is not None
        for number, entry in enumerate(entries):
            data = self.message(entry)
            try:
                try:
                    self._sock.send(data)
                except OSError as error:
                    if error.errno != 90:  # EMSGSIZE
                        raise
                    self._send_file(data)
            except OSError as error:
                self.close()
                raise DriverError(f"journald: {go_words(error)}", number) from None

    def _send_file(self, data: bytes) -> None:
        assert self._sock is not None
        fd = os.memfd_create("journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            write_all(fd, data)
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
            self._sock.sendmsg([b""], rights)
        finally:
            os.close(fd)

    def message(self, entry: Entry) -> bytes:
        """Return an entry in the journal's form."""
        self._number += 1
        fields = {
            **self._fields, "PRIORITY": str(_ERROR if entry.stream == "stderr" else _INFO),
            "SYSLOG_TIMESTAMP": format_ns(entry.time_ns), "CONTAINER_LOG_ORDINAL": str(self._number),
        }  # fmt: skip
        if entry.partial_id:
            fields |= {
                "CONTAINER_PARTIAL_ID": entry.partial_id, "CONTAINER_PARTIAL_ORDINAL": str(entry.ordinal),
                "CONTAINER_PARTIAL_LAST": "true" if entry.last else "false",
            }  # fmt: skip
            if not entry.last:
                fields["CONTAINER_PARTIAL_MESSAGE"] = "true"
        parts = [_field("MESSAGE", entry.text)]
        parts += [_field(key, value.encode("utf-8", "surrogateescape")) for key, value in fields.items()]
        return b"".join(parts)

    def close(self) -> None:
        """Close the socket."""
        sock, self._sock = self._sock, None
        if sock is not None:
            sock.close()


def _field(name: str, value: bytes) -> bytes:
    if b"\n" in value:
        return name.encode() + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"
    return name.encode() + b"=" + value + b"\n"
