"""A thread that brings one container's log to its driver, as long as it takes."""

import logging
import threading
import time
from collections.abc import Callable

from barque.base.errors import BarqueError
from barque.logdrivers.entry import FOR_EVER, Driver, DriverError, Entry, Retries
from barque.logdrivers.source import LogSource

log = logging.getLogger(__name__)
_IDLE_S = (0.02, 0.05, 0.1, 0.2)
_MANY = 1 << 16
_TOLD_EVERY_S = 60.0


class Shipper:
    """Delivers what a source has until it is told to stop.

    Args:
        name: the container's id, for messages.
        source: what to deliver.
        driver: where to.
        retries: how entries that were not delivered are tried again.
    """

    def __init__(self, name: str, source: LogSource, driver: Driver, retries: Retries = FOR_EVER) -> None:
        self._name = name
        self._source = source
        self._driver = driver
        self._retries = retries
        self._stop = threading.Event()
        self._ending = threading.Event()
        self._hurry = threading.Event()
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
        self._hurry.set()

    def resume(self) -> bool:
        """Take `finish` back; tell whether that was in time."""
        with self._lock:
            if self._done.is_set() or self._stop.is_set():
                return False
            self._ending.clear()
            self._hurry.clear()
            return True

    def move(self, path: str) -> None:
        """Go on with the log under another name."""
        self._source.move(path)

    def stop(self) -> None:
        """End soon, delivered or not; a new shipper goes on from the position."""
        self._stop.set()
        self._hurry.set()

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
                entries = self._gathered()
                if not ending:
                    entries = entries[: len(entries) - self._driver.unfinished(entries)]
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

    def _gathered(self) -> list[Entry]:
        """Return the next entries, once there are many or the driver's time for gathering is over."""
        entries = self._source.read()
        if not entries or not self._driver.gather_s:
            return entries
        deadline = time.monotonic() + self._driver.gather_s
        while (left := deadline - time.monotonic()) > 0 and self._source.behind() < _MANY:
            if self._hurry.wait(min(left, _IDLE_S[-1])):
                break
        return self._source.read()

    def _may_end(self) -> bool:
        with self._lock:
            if self._ending.is_set():
                self._done.set()
            return self._done.is_set()

    def _deliver(self, entries: list[Entry]) -> None:
        pause_s = self._retries.first_s
        done = tries = 0
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
                    pause_s, tries = self._retries.first_s, 0
                self._ill(str(error))
            if tries == self._retries.most:
                # One line is given up, and all others have their own tries.
                done += 1
                self._source.taken(done)
                pause_s, tries = self._retries.first_s, 0
                continue
            self._stop.wait(pause_s)
            tries += 1
            pause_s = min(pause_s * 2, max(self._retries.first_s, self._retries.longest_s))

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
