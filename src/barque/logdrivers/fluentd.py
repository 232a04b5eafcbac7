"""Fluentd's forward protocol: one message an entry, acknowledged where that is asked for."""

import base64
import os
import ssl
import time

from barque.logdrivers import msgpack, values
from barque.logdrivers.attributes import extra_attributes, tag
from barque.logdrivers.connection import Stream
from barque.logdrivers.entry import ContainerFacts, Driver, DriverError, Entry
from barque.logdrivers.options import fluentd_address


class Fluentd(Driver):
    """The driver `fluentd`."""

    def __init__(self, facts: ContainerFacts) -> None:
        options = facts.options
        self._tag = tag(facts)
        self._base = {"container_id": facts.id, "container_name": f"/{facts.name}"}
        self._extra = extra_attributes(facts)
        self._fine = values.truth(options.get("fluentd-sub-second-precision") or "false")
        self._acknowledged = values.truth(options.get("fluentd-request-ack") or "false")
        later = values.truth(options.get("fluentd-async") or "false")
        self._renew_s = values.duration_s(options.get("fluentd-async-reconnect-interval") or "0") if later else 0.0
        self._connected_s = time.monotonic()
        place = fluentd_address(options.get("fluentd-address", ""))
        context = ssl.create_default_context() if place.scheme == "tls" else None
        self._stream = Stream(
            place, context,
            write_s=values.duration_s(options.get("fluentd-write-timeout") or "0"),
            read_s=values.duration_s(options.get("fluentd-read-timeout") or "0"),
        )  # fmt: skip
        self._received = b""

    def open(self) -> None:
        """Connect."""
        self._stream.open()

    def send(self, entries: list[Entry]) -> None:
        """Send entries, and with request-ack wait until the server has them all."""
        if self._renew_s and time.monotonic() > self._connected_s + self._renew_s:
            # A name may lead elsewhere by now.
            self._stream.close()
            self._connected_s = time.monotonic()
        expected: list[str] = []
        done = 0
        try:
            for number, entry in enumerate(entries):
                chunk = base64.b64encode(os.urandom(16)).decode() if self._acknowledged else ""
                self._stream.write(self.message(entry, chunk))
                if chunk:
                    expected.append(chunk)
                else:
                    done = number + 1
            for number, chunk in enumerate(expected):
                self._await(chunk)
                done = number + 1
        except DriverError as error:
            self._received = b""
            raise DriverError(f"fluentd: {error}", done) from None

    def message(self, entry: Entry, chunk: str = "") -> bytes:
        """Return an entry as [tag, time, record, options]."""
        record = {**self._base, "source": entry.stream, "log": entry.text.decode("utf-8", "replace"), **self._extra}
        if entry.partial_id:
            record |= {
                "partial_message": "true", "partial_id": entry.partial_id, "partial_ordinal": str(entry.ordinal),
                "partial_last": "true" if entry.last else "false",
            }  # fmt: skip
        moment = msgpack.EventTime.of_ns(entry.time_ns) if self._fine else entry.time_ns // 1_000_000_000
        return msgpack.pack([self._tag, moment, record, {"chunk": chunk} if chunk else {}])

    def _await(self, chunk: str) -> None:
        while True:
            try:
                answer, end = msgpack.unpack(self._received)
                break
            except IndexError:
                self._received += self._stream.read()
            except ValueError as error:
                self._stream.close()
                raise DriverError(f"bad acknowledgement: {error}") from None
        self._received = self._received[end:]
        if not isinstance(answer, dict) or answer.get("ack") != chunk:
            self._stream.close()
            raise DriverError(f"another chunk was acknowledged than {chunk}")

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()
