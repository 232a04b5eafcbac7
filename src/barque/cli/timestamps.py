"""Times as users give them on the command line, turned into what the API takes."""

import time
from datetime import datetime, timedelta

from barque.base.durations import parse_duration
from barque.base.errors import InvalidInputError

_FORMS = ("%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H", "%Y-%m-%d")


def api_time(text: str) -> str | None:
    """Return seconds since the epoch, with nanoseconds, of a time or of a duration ago.

    Args:
        text: seconds, an RFC 3339 time (parts may be missing), or a duration such as 42m; None comes back for "".

    Raises:
        InvalidInputError: it is none of these.
    """
    if not text:
        return None
    try:
        moment = time.time_ns() - parse_duration(text)
        return f"{moment // 10**9}.{moment % 10**9:09d}"
    except ValueError:
        pass
    whole, _, part = text.partition(".")
    if whole.lstrip("-").isdigit() and (not part or part.isdigit()):
        return text
    moment_text = _calendar(text)
    if moment_text is None:
        raise InvalidInputError(f'invalid value for "since": failed to parse value as time or duration: "{text}"')
    return moment_text


def _calendar(text: str) -> str | None:
    body, zone = text, ""
    if text.endswith("Z"):
        body, zone = text[:-1], "+00:00"
    elif len(text) > 6 and text[-6] in "+-" and text[-3] == ":" and "T" in text:
        body, zone = text[:-6], text[-6:]
    body, _, fraction = body.partition(".")
    if fraction and not fraction.isdigit():
        return None
    for form in _FORMS:
        try:
            moment = datetime.strptime(body, form)
        except ValueError:
            continue
        seconds = (moment - datetime(1970, 1, 1)) // timedelta(seconds=1)
        if zone:
            sign = -1 if zone[0] == "-" else 1
            seconds -= sign * (int(zone[1:3]) * 3600 + int(zone[4:6]) * 60)
        else:
            seconds = int(time.mktime(moment.timetuple()))
        return f"{seconds}.{fraction[:9]:0<9}"
    return None


def local_rfc3339(nanoseconds: int) -> str:
    """Return a time with nine digits of fraction in the local zone, as `events` prints it."""
    seconds, rest = divmod(nanoseconds, 10**9)
    moment = time.localtime(seconds)
    offset = moment.tm_gmtoff
    zone = (
        "Z" if offset == 0 else f"{'-' if offset < 0 else '+'}{abs(offset) // 3600:02d}:{abs(offset) % 3600 // 60:02d}"
    )
    return time.strftime("%Y-%m-%dT%H:%M:%S", moment) + f".{rest:09d}{zone}"


def parse_rfc3339(text: str) -> float:
    """Return seconds since the epoch of an engine's time, 0 where it is none."""
    found = _calendar(text)
    return float(found) if found else 0.0


def go_time(text: str) -> str:
    """Return an engine's time as Go prints it: "2026-01-02 03:04:05.678 +0000 UTC"; other texts unchanged."""
    if len(text) < 20 or text[10] != "T":
        return text
    whole, zone = (text[:-1], "+00:00") if text.endswith("Z") else (text[:-6], text[-6:])
    body, _, fraction = whole.partition(".")
    fraction = fraction.rstrip("0")
    offset = zone.replace(":", "")
    shown = f"{body.replace('T', ' ')}{'.' + fraction if fraction else ''} {offset}"
    return f"{shown} {'UTC' if offset == '+0000' else offset}"
