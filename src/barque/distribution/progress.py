"""Docker's progress messages: one JSON object a step, bars for what takes long, not more than ten a second."""

import threading
import time
from collections.abc import Callable
from typing import Any

Json = dict[str, Any]
Emit = Callable[[Json], None]

_INTERVAL_S = 0.1
_BAR = 50


class Progress:
    """Where a transfer tells how far it is; safe to use from several threads."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._lock = threading.Lock()
        self._last: dict[str, float] = {}

    def message(self, text: str, identity: str = "") -> None:
        """Tell something that stays on the screen."""
        self._emit({"status": text, "id": identity} if identity else {"status": text})

    def step(self, identity: str, text: str) -> None:
        """Tell that a part has reached a step."""
        with self._lock:
            self._last.pop(identity, None)
        self._emit({"status": text, "progressDetail": {}, "id": identity})

    def bar(self, identity: str, text: str, current: int, total: int) -> None:
        """Tell how many of a part's bytes are done; most calls between two tenths of a second are swallowed."""
        now = time.monotonic()
        with self._lock:
            if now - self._last.get(identity, 0.0) < _INTERVAL_S and current < total:
                return
            self._last[identity] = now
        detail = {"current": current, "total": total} if total > 0 else {"current": current}
        message = {"status": text, "progressDetail": detail, "progress": bar(current, total)}
        self._emit({**message, "id": identity} if identity else message)

    def aux(self, value: Json) -> None:
        """Tell programs something that people are not shown."""
        self._emit({"progressDetail": {}, "aux": value})


def bar(current: int, total: int) -> str:
    """Return a bar with its numbers, as Docker draws it."""
    if total <= 0:
        return f"{human_size(current):>8}"
    part = min(_BAR, int(current / total * 100) // 2)
    return f"[{'=' * part}>{' ' * (_BAR - part)}] {human_size(current):>8}/{human_size(total)}"


def human_size(size: float) -> str:
    """Return bytes with four significant digits and a decimal unit, as Go's units package does."""
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if size < 1000 or unit == "PB":
            return f"{size:.4g}{unit}"
        size /= 1000
    raise AssertionError("unreachable")
