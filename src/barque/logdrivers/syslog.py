"""Syslog: RFC 3164 and RFC 5424 over UDP, TCP, TLS and unix sockets."""

import os
import time

from barque.logdrivers.attributes import tag
from barque.logdrivers.connection import Stream, tls_context
from barque.logdrivers.entry import ContainerFacts, Driver, DriverError, Entry
from barque.logdrivers.options import SYSLOG_SCHEMES, syslog_facility
from barque.logdrivers.values import Address, address

_ERROR, _INFO = 3, 6
_LOCAL = ("/dev/log", "/var/run/syslog", "/var/run/log")


class Syslog(Driver):
    """The driver `syslog`."""

    def __init__(self, facts: ContainerFacts, local_sockets: tuple[str, ...] = _LOCAL) -> None:
        options = facts.options
        self._tag = tag(facts)
        self._hostname = facts.hostname
        self._facility = syslog_facility(options.get("syslog-facility", ""))
        self._format = options.get("syslog-format", "")
        text = options.get("syslog-address", "")
        self._address = address(text, SYSLOG_SCHEMES, 514) if text else None
        self._local = local_sockets
        self._framed = self._address is not None and self._address.scheme == "tcp+tls" and "5424" in self._format
        self._options = options
        self._stream: Stream | None = None

    def open(self) -> None:
        """Connect."""
        if self._stream is not None:
            self._stream.open()
            return
        if self._address is None:
            self._stream = self._open_local()
            return
        context = None
        if self._address.scheme == "tcp+tls":
            context = tls_context(
                lambda name: self._options.get(name, ""), ca="syslog-tls-ca-cert", cert="syslog-tls-cert",
                key="syslog-tls-key", skip_verify="syslog-tls-skip-verify" in self._options,
            )  # fmt: skip
        stream = Stream(self._address, context)
        stream.open()
        self._stream = stream

    def _open_local(self) -> Stream:
        for path in self._local:
            for scheme in ("unixgram", "unix"):
                stream = Stream(Address(scheme, path=path))
                try:
                    stream.open()
                except DriverError:
                    continue
                return stream
        raise DriverError("Unix syslog delivery error")

    def send(self, entries: list[Entry]) -> None:
        """Write one message an entry; empty lines are left out."""
        self.open()
        assert self._stream is not None
        for number, entry in enumerate(entries):
            if not entry.text:
                continue
            try:
                self._stream.write(self.message(entry))
            except DriverError as error:
                if self._address is None:
                    self._stream = None
                raise DriverError(str(error), number) from None

    def message(self, entry: Entry) -> bytes:
        """Return an entry as it goes over the wire."""
        priority = self._facility << 3 | (_ERROR if entry.stream == "stderr" else _INFO)
        pid = os.getpid()
        if self._format.startswith("rfc5424"):
            stamp = _rfc3339(entry.time_ns, micro=self._format.endswith("micro"))
            head = f"<{priority}>1 {stamp} {self._hostname} {self._tag} {pid} {self._tag} - "
        else:
            when = time.localtime(entry.time_ns // 1_000_000_000)
            stamp = f"{time.strftime('%b', when)} {when.tm_mday:2d} {time.strftime('%H:%M:%S', when)}"
            host = f"{self._hostname} " if self._format == "rfc3164" else ""
            head = f"<{priority}>{stamp} {host}{self._tag}[{pid}]: "
        content = head.encode() + entry.text + b"\n"
        return b"%d %s" % (len(content), content) if self._framed else content

    def close(self) -> None:
        """Close the connection."""
        if self._stream is not None:
            self._stream.close()


def _rfc3339(time_ns: int, *, micro: bool) -> str:
    seconds, rest = divmod(time_ns, 1_000_000_000)
    when = time.localtime(seconds)
    offset = when.tm_gmtoff // 60
    zone = "Z" if not offset else f"{'-' if offset < 0 else '+'}{abs(offset) // 60:02d}:{abs(offset) % 60:02d}"
    fraction = f".{rest // 1000:06d}" if micro else ""
    return time.strftime("%Y-%m-%dT%H:%M:%S", when) + fraction + zone
