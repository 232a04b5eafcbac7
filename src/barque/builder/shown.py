"""Values as the history and others show them."""

import re
from collections.abc import Mapping
from typing import Any

_PASSWORD = re.compile(r"(://[^/@:\s]*):[^/@\s]*@")


def without_passwords(text: str) -> str:
    """Return a text as others may read it: of its URLs the passwords are gone."""
    return _PASSWORD.sub(r"\1:xxxxx@", text)


def shown_health(health: Mapping[str, Any]) -> str:
    """Return a health check as the history shows it."""
    times = " ".join(f"{key}:{_shown_duration(health.get(key) or 0)}"
                     for key in ("Interval", "Timeout", "StartPeriod", "StartInterval"))  # fmt: skip
    return f"{{Test:[{' '.join(health['Test'])}] {times} Retries:{health.get('Retries') or 0}}}"


def _shown_duration(nanoseconds: int) -> str:
    """Return a duration as Go shows it."""
    if nanoseconds == 0:
        return "0s"
    for unit, size in (("ns", 1), ("µs", 1000), ("ms", 1_000_000)):
        if nanoseconds < size * 1000:
            return f"{nanoseconds / size:.9f}".rstrip("0").rstrip(".") + unit
    seconds = nanoseconds / 1e9
    hours, rest = divmod(seconds, 3600)
    minutes, rest = divmod(rest, 60)
    text = f"{rest:.9f}".rstrip("0").rstrip(".") + "s"
    if hours or minutes:
        text = f"{int(minutes)}m{text}"
    return f"{int(hours)}h{text}" if hours else text
