"""Points in time as clients give them in queries: seconds since the epoch with a fraction, or RFC 3339."""

from barque.base import times
from barque.base.errors import InvalidInputError


def parse_ns(text: str, name: str) -> int:
    """Return nanoseconds since the epoch; 0 for empty text. A Go duration counts back from now.

    Raises:
        InvalidInputError: text is no time.
    """
    if text in ("", "0"):
        return 0
    try:
        return times.moment_ns(text)
    except ValueError:
        raise InvalidInputError(
            f'invalid value for "{name}": failed to parse value as time or duration: "{text}"'
        ) from None
