"""Signals by the names and numbers that users give."""

import re
import signal as signals

from barque.base.errors import InvalidInputError


def parse_signal(text: str) -> int:
    """Return the number of `9`, `KILL`, `SIGKILL` or `RTMIN+3`.

    Raises:
        InvalidInputError: no such signal.
    """
    upper = text.upper().removeprefix("SIG")
    if upper.isdecimal() and len(upper) <= 2 and 1 <= int(upper) <= 64:
        return int(upper)
    match = re.fullmatch(r"RT(MIN|MAX)(?:([+-])(\d{1,2}))?", upper)
    if match:
        base = int(signals.SIGRTMIN if match[1] == "MIN" else signals.SIGRTMAX)
        number = base + int((match[2] or "+") + (match[3] or "0"))
        if int(signals.SIGRTMIN) <= number <= int(signals.SIGRTMAX):
            return number
    elif not upper.isdecimal() and hasattr(signals.Signals, "SIG" + upper):
        return int(signals.Signals["SIG" + upper])
    raise InvalidInputError(f"invalid signal: {text}")
