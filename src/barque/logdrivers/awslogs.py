"""Amazon CloudWatch Logs: batches within the service's limits, lines joined to events where that is asked for."""

import json
import re
import time
from typing import Any
from urllib.parse import urlsplit

from barque.base.errors import InvalidInputError
from barque.logdrivers import values
from barque.logdrivers.attributes import compiled, tag
from barque.logdrivers.aws_access import CredentialSource, region_of_machine, sign
from barque.logdrivers.connection import HttpClient
from barque.logdrivers.entry import ContainerFacts, Driver, DriverError, Entry

_EVENT_COST = 26
_MOST_BYTES = 1_048_576
_MOST_EVENTS = 10_000
_MOST_EVENT_BYTES = 262_144 - _EVENT_COST
_DAY_MS = 86_400_000
_GATHER_S = 5

# What each part of `awslogs-datetime-format` matches.
_TIME_PARTS = {
    "%a": "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)",
    "%A": "(?:Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday)",
    "%w": "[0-6]", "%d": "(?:0[1-9]|[1,2][0-9]|3[0,1])",
    "%b": "(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)",
    "%B": "(?:January|February|March|April|May|June|July|August|September|October|November|December)",
    "%m": "(?:0[1-9]|1[0-2])", "%Y": r"\d{4}", "%y": r"\d{2}", "%H": "(?:[0,1][0-9]|2[0-3])",
    "%I": "(?:0[0-9]|1[0-2])", "%p": "[A,P]M", "%M": "[0-5][0-9]", "%S": "[0-5][0-9]", "%f": r"\d{6}",
    "%z": r"[+-]\d{4}", "%Z": "[A-Z]{1,4}T", "%j": "(?:0[0-9][1-9]|[1,2][0-9][0-9]|3[0-5][0-9]|36[0-6])",
    "%L": r"\.\d{3}",
}  # fmt: skip


class Event:
    """One event: its text, its time in milliseconds, the number of entries that end with it."""

    __slots__ = ("entries", "text", "time_ms")

    def __init__(self, text: bytes, time_ms: int, entries: int) -> None:
        self.text, self.time_ms, self.entries = text, time_ms, entries


class AwsLogs(Driver):
    """The driver `awslogs`."""

    def __init__(self, facts: ContainerFacts) -> None:
        options = self._options = facts.options
        environment = facts.environment
        self._group = options["awslogs-group"]
        self._log_stream = options.get("awslogs-stream") or tag(facts, "{{.FullID}}")
        self._pattern = multiline_pattern(options)
        self._region = options.get("awslogs-region") or environment.get("AWS_REGION", "")
        self._endpoint = options.get("awslogs-endpoint", "")
        self._credentials = CredentialSource(environment, options.get("awslogs-credentials-endpoint", ""))
        self._http: HttpClient | None = None
        self._is_ready = False
        self.gather_s = float(options.get("awslogs-force-flush-interval-seconds") or _GATHER_S)
        self._most = min(_MOST_EVENTS, int(options.get("awslogs-max-buffered-events") or _MOST_EVENTS))

    def open(self) -> None:
        """Make the group and the stream where they are to be made and are missing."""
        if self._is_ready:
            return
        if not self._region:
            self._region = region_of_machine()
        self._endpoint = self._endpoint or f"https://logs.{self._region}.amazonaws.com"
        self._http = HttpClient(self._endpoint)
        if values.truth(self._options.get("awslogs-create-stream") or "true"):
            self._make_stream()
        self._is_ready = True

    def _make_stream(self) -> None:
        names = {"logGroupName": self._group, "logStreamName": self._log_stream}
        try:
            self._make("CreateLogStream", names)
        except DriverError as error:
            missing = "ResourceNotFoundException" in str(error)
            if not missing or not values.truth(self._options.get("awslogs-create-group") or "false"):
                raise DriverError(f"failed to create Cloudwatch log stream: {error}") from None
            self._make("CreateLogGroup", {"logGroupName": self._group})
            self._make("CreateLogStream", names)

    def _make(self, action: str, body: dict[str, str]) -> None:
        try:
            self._call(action, body)
        except DriverError as error:
            if "ResourceAlreadyExistsException" not in str(error):
                raise

    def send(self, entries: list[Entry]) -> None:
        """Put events, each batch within the service's limits and its 24 hours."""
        self.open()
        delivered = 0
        for batch in batches(events(entries, self._pattern), self._most):
            try:
                self._put(batch)
            except DriverError as error:
                raise DriverError(str(error), delivered) from None
            delivered += sum(event.entries for event in batch)

    def unfinished(self, entries: list[Entry]) -> int:
        """Return how many of the last lines make an event that began just now: more of its lines may come."""
        if self._pattern is None or not entries:
            return 0
        last = events(entries, self._pattern)[-1]
        is_old = not 0 <= time.time_ns() // 1_000_000 - last.time_ms < self.gather_s * 1000
        return 0 if is_old or len(last.text) > _MOST_EVENT_BYTES // 2 else last.entries

    def _put(self, batch: list[Event]) -> None:
        rows = [
            {"message": event.text.decode("utf-8", "replace"), "timestamp": event.time_ms}
            for event in sorted(batch, key=lambda event: event.time_ms) if event.text
        ]  # fmt: skip
        if not rows:
            return
        body = {"logGroupName": self._group, "logStreamName": self._log_stream, "logEvents": rows}
        try:
            self._call("PutLogEvents", body)
        except DriverError as error:
            if "DataAlreadyAcceptedException" not in str(error):
                raise

    def _call(self, action: str, body: dict[str, Any]) -> None:
        assert self._http is not None
        data = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogateescape")
        headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": f"Logs_20140328.{action}"}
        if self._options.get("awslogs-format"):
            headers["x-amzn-logs-format"] = "json/emf"
        host = urlsplit(self._endpoint).netloc
        signed = sign(self._credentials.get(), self._region, "logs", host, headers, data, time.time())
        status, text = self._http.request("POST", "/", data, signed)
        if status != 200:
            raise DriverError(f"operation error CloudWatch Logs: {action}, {_reason(status, text)}")

    def close(self) -> None:
        """Close the connection."""
        if self._http is not None:
            self._http.close()


def _reason(status: int, text: bytes) -> str:
    try:
        row = json.loads(text)
        kind = str(row.get("__type") or "").rpartition("#")[2]
        return f"https response error StatusCode: {status}, {kind}: {row.get('message') or row.get('Message') or ''}"
    except (ValueError, AttributeError):
        return f"https response error StatusCode: {status}"


def multiline_pattern(options: dict[str, str]) -> re.Pattern[str] | None:
    """Return what the first line of an event looks like, None where each line is one.

    Raises:
        InvalidInputError: the pattern is malformed.
    """
    text = options.get("awslogs-multiline-pattern") or ""
    if options.get("awslogs-datetime-format"):
        text = re.sub("%.", lambda m: _TIME_PARTS.get(m[0], ""), options["awslogs-datetime-format"])
    try:
        return compiled(text) if text else None
    except InvalidInputError as error:
        raise InvalidInputError(f'awslogs could not parse multiline pattern key "{text}": {error}') from None


def events(entries: list[Entry], pattern: re.Pattern[str] | None) -> list[Event]:
    """Return the events that entries make: lines joined up to the next that fits the pattern, cut where too long."""
    found: list[Event] = []
    for entry in entries:
        time_ms = entry.time_ns // 1_000_000
        if pattern is None:
            found += _cut(entry.text, time_ms)
            continue
        line = entry.text + b"\n"
        starts = pattern.search(entry.text.decode("utf-8", "replace")) is not None
        if found and not starts and len(found[-1].text) + len(line) <= _MOST_EVENT_BYTES:
            found[-1].text += line
            found[-1].entries += 1
        else:
            found += _cut(line, time_ms)
    return found


def _cut(text: bytes, time_ms: int) -> list[Event]:
    pieces = []
    while len(text) > _MOST_EVENT_BYTES:
        end = _MOST_EVENT_BYTES
        while text[end] & 0xC0 == 0x80:
            end -= 1
        pieces.append(Event(text[:end], time_ms, 0))
        text = text[end:]
    return [*pieces, Event(text, time_ms, 1)]


def batches(found: list[Event], most: int = _MOST_EVENTS) -> list[list[Event]]:
    """Return the events divided as the service demands: count, bytes, at most 24 hours in one batch."""
    result: list[list[Event]] = []
    size = first_ms = 0
    for event in found:
        # Invalid bytes become three each.
        cost = len(event.text.decode("utf-8", "replace").encode()) + _EVENT_COST
        if not result or size + cost > _MOST_BYTES or len(result[-1]) >= most \
                or abs(event.time_ms - first_ms) >= _DAY_MS:  # fmt: skip
            result.append([])
            size, first_ms = 0, event.time_ms
        result[-1].append(event)
        size += cost
    return result
