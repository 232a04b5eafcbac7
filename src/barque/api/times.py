"""Points in time as clients give them in queries: seconds since the epoch with a fraction, or RFC 3339."""

import re
import time

from barque.base import times
from barque.base.errors import InvalidInputError

_UNIX = re.compile(r"(-?\d{1,19})(?:\.(\d{1,9}))?")
_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?")


def parse_ns(text: str, name: str) -> int:
    """Return nanoseconds since the epoch; 0 for empty text. A Go duration counts back from now.

    Raises:
        InvalidInputError: text is no time.
    """
    if text in ("", "0"):
        return 0
    match = _UNIX.fullmatch(text)
    if match is not None:
        return int(match[1]) * 1_000_000_000 + int((match[2] or "").ljust(9, "0"))
    match = _DURATION.fullmatch(text)
    if match is not None:
        hours, minutes, seconds = (float(part or 0) for part in match.groups())
        return time.time_ns() - int((hours * 3600 + minutes * 60 + seconds) * 1e9)
    try:
        return times.parse_ns(text)
    except ValueError:
        raise InvalidInputError(
            f'invalid value for "{name}": failed to parse value as time or duration: "{text}"'
        ) from None
