"""What drivers are given: entries of a log, facts of a container, and what they answer."""

import os
from typing import Any, NamedTuple, Protocol

from barque.base.errors import BarqueError


class Entry(NamedTuple):
    """One line of output, or a piece of a line longer than 16 KiB."""

    text: bytes
    """Without the newline."""
    stream: str
    """`stdout` or `stderr`."""
    time_ns: int
    partial_id: str = ""
    """The same for all pieces of one line, empty for a whole line."""
    ordinal: int = 0
    """The piece's number from 1."""
    last: bool = True


class ContainerFacts(NamedTuple):
    """What a driver knows of the container."""

    options: dict[str, str]
    id: str
    name: str
    command: list[str]
    image_id: str
    image_name: str
    created_ns: int
    env: list[str]
    labels: dict[str, str]
    daemon: str = "barque"
    environment: dict[str, str] = {}  # noqa: RUF012 - a field of a tuple; nobody writes to it
    """The daemon's own environment, in which clouds' credentials are looked for."""

    @property
    def hostname(self) -> str:
        """Return the host's name."""
        return os.uname().nodename

    @property
    def command_line(self) -> str:
        """Return the command with its arguments."""
        return " ".join(self.command)

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` takes; the environment of the daemon is left out."""
        return {**self._asdict(), "environment": {}}

    @classmethod
    def from_json(cls, row: dict[str, Any], environment: dict[str, str]) -> "ContainerFacts":
        """Return the facts that `to_json` gave."""
        return cls(**{**row, "environment": environment})


class DriverError(BarqueError):
    """A driver cannot deliver; `delivered` entries of the batch went out before."""

    def __init__(self, message: str, delivered: int = 0) -> None:
        super().__init__(message)
        self.delivered = delivered


class Retries(NamedTuple):
    """How an entry is tried again that was not delivered."""

    first_s: float = 0.1
    """The pause before the first time; each next one is twice as long."""
    longest_s: float = 5.0
    most: int | None = None
    """So often an entry is tried again, and then given up; None: for ever."""


FOR_EVER = Retries()


class Driver(Protocol):
    """Brings entries to a server. Blocking, used by one thread."""

    gather_s: float = 0.0
    """So long entries are gathered before they are sent, unless there are many."""

    def unfinished(self, entries: list[Entry]) -> int:
        """Return how many of the last entries had better wait for what follows them."""
        return 0

    def open(self) -> None:
        """Connect.

        Raises:
            DriverError: the server is not there, or refuses.
        """

    def send(self, entries: list[Entry]) -> None:
        """Deliver entries in their order.

        Raises:
            DriverError: some were not delivered; the caller tries those again.
        """

    def close(self) -> None:
        """Let go of connections; never raises."""
