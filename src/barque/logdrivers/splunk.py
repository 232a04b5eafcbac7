"""Splunk's HTTP Event Collector: batches of JSON objects in one POST."""

import gzip
import json
import ssl
import uuid
from typing import Any
from urllib.parse import urlsplit

from barque.base.errors import InvalidInputError
from barque.logdrivers import values
from barque.logdrivers.attributes import extra_attributes, tag
from barque.logdrivers.connection import HttpClient
from barque.logdrivers.entry import ContainerFacts, Driver, DriverError, Entry

_PATH = "/services/collector/event/1.0"
_BATCH = 1000
_SHOWN = 1024


def collector(options: dict[str, str]) -> str:
    """Return the collector's address.

    Raises:
        InvalidInputError: it or the token is missing or malformed.
    """
    url = options.get("splunk-url")
    if url is None:
        raise InvalidInputError("splunk: splunk-url is expected")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.path not in ("", "/") \
            or parts.query or parts.fragment:  # fmt: skip
        raise InvalidInputError("splunk: expected format scheme://dns_name_or_ip:port for splunk-url")
    if "splunk-token" not in options:
        raise InvalidInputError("splunk: splunk-token is expected")
    return url


class Splunk(Driver):
    """The driver `splunk`."""

    def __init__(self, facts: ContainerFacts) -> None:
        options = facts.options
        url = collector(options)
        self._http = HttpClient(url, _context(options), server_name=options.get("splunk-caname", ""))
        self._headers = {"Authorization": f"Splunk {options['splunk-token']}", "Content-Type": "application/json"}
        self._form = options.get("splunk-format", "inline")
        self._gzip = values.truth(options.get("splunk-gzip", "false"))
        self._level = int(options.get("splunk-gzip-level", "-1"))
        self._verify = values.truth(options.get("splunk-verify-connection", "true"))
        self._channel = values.truth(options.get("splunk-index-acknowledgment", "false"))
        self._tag = "" if options.get("tag") == "" else tag(facts)
        self._attrs = extra_attributes(facts)
        pairs = (("host", facts.hostname), ("source", options.get("splunk-source")),
                 ("sourcetype", options.get("splunk-sourcetype")), ("index", options.get("splunk-index")))  # fmt: skip
        self._base = {key: value for key, value in pairs if value}

    def open(self) -> None:
        """Ask the collector whether it is there, unless the options say not to."""
        if self._verify:
            status, text = self._http.request("OPTIONS", _PATH, None, {})
            if status != 200:
                raise DriverError(f"splunk: failed to verify connection - {status} - {_words(text)}")

    def send(self, entries: list[Entry]) -> None:
        """Post entries, a thousand at a time."""
        for start in range(0, len(entries), _BATCH):
            body = b"".join(filter(None, map(self.message, entries[start : start + _BATCH])))
            if body:
                self._post(body, start)

    def _post(self, body: bytes, delivered: int) -> None:
        headers = dict(self._headers)
        if self._gzip:
            body = gzip.compress(body, self._level if self._level >= 0 else 6)
            headers["Content-Encoding"] = "gzip"
        if self._channel:
            headers["X-Splunk-Request-Channel"] = str(uuid.uuid4())
        try:
            status, text = self._http.request("POST", _PATH, body, headers)
        except DriverError as error:
            raise DriverError(str(error), delivered) from None
        if status != 200:
            raise DriverError(f"splunk: failed to send event - {status} - {_words(text)}", delivered)

    def message(self, entry: Entry) -> bytes:
        """Return an entry as the collector takes it, nothing for what it refuses."""
        text = entry.text.decode("utf-8", "replace")
        event: Any
        if self._form == "raw":
            if not text.strip():
                return b""
            words = [self._tag] if self._tag else []
            words += [f"{key}={value}" for key, value in self._attrs.items()]
            event = " ".join([*words, text])
        else:
            event = {"line": _as_json(text) if self._form == "json" else text, "source": entry.stream}
            if self._tag:
                event["tag"] = self._tag
            if self._attrs:
                event["attrs"] = self._attrs
        value = {"event": event, "time": f"{entry.time_ns / 1e9:.6f}", **self._base}
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()

    def close(self) -> None:
        """Close the connection."""
        self._http.close()


def _as_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _context(options: dict[str, str]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=options.get("splunk-capath") or None)
    except (OSError, ssl.SSLError) as error:
        raise DriverError(f"splunk: {error}") from None
    if values.truth(options.get("splunk-insecureskipverify", "false")):
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _words(text: bytes) -> str:
    return text[:_SHOWN].decode("utf-8", "replace")
