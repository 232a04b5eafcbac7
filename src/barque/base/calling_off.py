"""Long blocking work that ends early when nobody waits for it any more: it looks now and then."""

import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import TypeVar

from barque.base.errors import BarqueError

T = TypeVar("T")
_CALLED_OFF: ContextVar[threading.Event | None] = ContextVar("called_off", default=None)


def until(called_off: threading.Event, work: Callable[[], T]) -> Callable[[], T]:
    """Return work for a thread of its own, which `check` ends once the event is set."""

    def run() -> T:
        _CALLED_OFF.set(called_off)
        return work()

    return run


def check() -> None:
    """Go on, unless the work that this belongs to has been called off.

    Raises:
        BarqueError: it has.
    """
    called_off = _CALLED_OFF.get()
    if called_off is not None and called_off.is_set():
        raise BarqueError("called off: nobody waits for it any more")
