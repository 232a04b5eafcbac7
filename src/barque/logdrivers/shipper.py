"""A thread that brings one container's log to its driver, as long as it takes."""

import logging
import threading
import time
from collections.abc import Callable

from barque.base.errors import BarqueError
from barque.logdrivers.entry import Driver, DriverError, Entry
from barque.logdrivers.source import LogSource

log = logging.getLogger(__name__)
_IDLE_S = (0.02, 0.05, 0.1, 0.2)
_RETRY_S, _LONGEST_S = 0.1, 5.0
_TOLD_EVERY_S = 60.0


class Shipper:
    """Delivers what a source has until it is told to stop; failures are tried again for ever.

    Args:
        name: the container's id, for messages.
        source: what to deliver.
        driver: where to.
    """

    def __init__(self, name: str, source: LogSource, driver: Driver) -> None:
        self._name = name
        self._source = source
        self._driver = driver
        self._stop = threading.Event()
        self._ending = threading.Event()
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=f"log-{name[:12]}", daemon=True)
        self._told_s = 0.0
        self.failing = ""
        self.on_end: Callable[[], object] = lambda: None
        """Called by the thread as the last it does."""

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def finish(self) -> None:
        """End once all that is in the log now and comes soon is delivered."""
        self._ending.set()

    def resume(self) -> bool:
        """Take `finish` back; tell whether that was in time."""
        with self._lock:
            if self._done.is_set() or self._stop.is_set():
                return False
            self._ending.clear()
            return True

    def move(self, path: str) -> None:
        """Go on with the log under another name."""
        self._source.move(path)

    def stop(self) -> None:
        """End soon, delivered or not; a new shipper goes on from the position."""
        self._stop.set()

    def wait(self, timeout_s: float | None) -> bool:
        """Tell whether it has ended within the time."""
        return self._done.wait(timeout_s)

    @property
    def ended(self) -> bool:
        """Tell whether it has ended."""
        return self._done.is_set()

    def behind(self) -> int:
        """Return the bytes of log that are not delivered."""
        return self._source.behind()

    def _run(self) -> None:
        idle = 0
        try:
            while not self._stop.is_set():
                # Asked for before the last look, so that nothing slips between.
                ending = self._ending.is_set()
                entries = self._source.read()
                if entries:
                    idle = 0
                    self._deliver(entries)
                elif ending and self._may_end():
                    return
                else:
                    (self._ending if not ending else self._stop).wait(_IDLE_S[min(idle, len(_IDLE_S) - 1)])
                    idle += 1
        except Exception:
            log.exception("container %s: its log is not delivered any more", self._name)
        finally:
            self._driver.close()
            self._source.close()
            self._done.set()
            self.on_end()

    def _may_end(self) -> bool:
        with self._lock:
            if self._ending.is_set():
                self._done.set()
            return self._done.is_set()

    def _deliver(self, entries: list[Entry]) -> None:
        pause_s = _RETRY_S
        done = 0
        while done < len(entries) and not self._stop.is_set():
            try:
                self._driver.send(entries[done:])
                self._source.taken(len(entries))
                self._well()
                return
            except (BarqueError, OSError) as error:
                if isinstance(error, DriverError) and error.delivered:
                    done += error.delivered
                    self._source.taken(done)
                    pause_s = _RETRY_S
                self._ill(str(error))
            self._stop.wait(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_S)

    def _ill(self, message: str) -> None:
        now = time.monotonic()
        if not self.failing or now - self._told_s > _TOLD_EVERY_S:
            log.error("container %s: its log cannot be delivered now, and waits: %s", self._name, message)
            self._told_s = now
        self.failing = message

    def _well(self) -> None:
        if self.failing:
            log.warning("container %s: its log is delivered again", self._name)
            self.failing = ""


def opened(driver: Driver, tolerate: Callable[[], bool]) -> str:
    """Connect a driver; return why it could not where that is tolerated, else nothing.

    Raises:
        BarqueError: it cannot connect.
    """
    try:
        driver.open()
    except (BarqueError, OSError) as error:
        if not tolerate():
            raise
        return str(error)
    return ""
