"""Time stamps as Docker writes them: RFC 3339 in UTC with nanoseconds."""

import re
import time

from barque.base.errors import InvalidInputError

ZERO = "0001-01-01T00:00:00Z"

_UNIX = re.compile(r"(-?\d{1,19})(?:\.(\d{1,9})\d*)?")
_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9})\d*)?)?)?"
    r"(?:([Zz])|([+-])(\d\d):?(\d\d))?"
)


def format_ns(time_ns: int) -> str:
    """Return time_ns (nanoseconds since the epoch) as RFC 3339, trailing zeros of the fraction cut."""
    seconds, fraction = divmod(time_ns, 1_000_000_000)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    if fraction:
        text += f".{fraction:09d}".rstrip("0")
    return text + "Z"


def parse_ns(text: str) -> int:
    """Return the nanoseconds since the epoch of an RFC 3339 time; without a zone it is UTC.

    Raises:
        ValueError: text is not a time.
    """
    import calendar

    match = _RFC3339.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"not an RFC 3339 time: {text}")
    year, month, day, hour, minute, second, fraction, _, sign, zone_h, zone_m = match.groups()
    if not (1 <= int(month) <= 12 and 1 <= int(day) <= 31):
        raise ValueError(f"not an RFC 3339 time: {text}")
    clock = (int(hour or 0), int(minute or 0), int(second or 0))
    seconds = calendar.timegm((int(year), int(month), int(day), *clock, 0, 0, 0))
    if sign:
        offset = int(zone_h) * 3600 + int(zone_m) * 60
        seconds += -offset if sign == "+" else offset
    return seconds * 1_000_000_000 + int((fraction or "").ljust(9, "0") or 0)


def moment_ns(text: str) -> int:
    """Return the nanoseconds since the epoch of a Unix time, a duration before now, or an RFC 3339 time.

    Raises:
        ValueError: text is none of these.
    """
    from barque.base.durations import parse_duration

    match = _UNIX.fullmatch(text)
    if match is not None:
        return int(match[1]) * 1_000_000_000 + int((match[2] or "").ljust(9, "0"))
    if text[:1].isdigit() and text[-1:] in ("s", "m", "h"):
        return time.time_ns() - parse_duration(text)
    return parse_ns(text)


def until_ns(text: str) -> int:
    """Return what moment_ns does, for a filter.

    Raises:
        InvalidInputError: text is no time and no duration; the message is Docker's.
    """
    try:
        return moment_ns(text)
    except ValueError:
        raise InvalidInputError(f'failed to parse value as time or duration: "{text}"') from None
