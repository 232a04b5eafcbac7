"""The user's terminal: raw mode, its size, and the keys that detach."""

from __future__ import annotations

import os
import sys

from barque.base.errors import InvalidInputError

TYPE_CHECKING = False  # the module typing costs every start of the command milliseconds
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any

DEFAULT_KEYS = "ctrl-p,ctrl-q"
_NAMED = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31}


def is_terminal(descriptor: int) -> bool:
    """Return whether a descriptor is a terminal."""
    try:
        return os.isatty(descriptor)
    except OSError:
        return False


def size() -> tuple[int, int]:
    """Return rows and columns of the terminal on standard output, (0, 0) where there is none."""
    try:
        found = os.get_terminal_size(1)
    except OSError:
        return 0, 0
    return found.lines, found.columns


def check_tty(attach_input: bool, tty: bool) -> None:
    """Refuse a terminal session without a terminal.

    Raises:
        ExitError: standard input is no terminal; the message has been printed.
    """
    if tty and attach_input and not os.isatty(0):
        from barque.cli.main import ExitError

        print("the input device is not a TTY", file=sys.stderr)
        raise ExitError(1)


class RawMode:
    """Hands every key to the program unread while the context lasts; NORAW in the environment forbids it."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._before: list[Any] | None = None

    def __enter__(self) -> RawMode:
        if os.environ.get("NORAW") or not is_terminal(self.descriptor):
            return self
        import termios

        self._before = termios.tcgetattr(self.descriptor)
        mode = termios.tcgetattr(self.descriptor)
        mode[0] &= ~(
            termios.IGNBRK
            | termios.BRKINT
            | termios.PARMRK
            | termios.ISTRIP
            | termios.INLCR
            | termios.IGNCR
            | termios.ICRNL
            | termios.IXON
        )
        mode[1] &= ~termios.OPOST
        mode[2] = (mode[2] & ~(termios.CSIZE | termios.PARENB)) | termios.CS8
        mode[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
        mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
        termios.tcsetattr(self.descriptor, termios.TCSANOW, mode)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            import termios

            termios.tcsetattr(self.descriptor, termios.TCSANOW, self._before)


def parse_keys(text: str) -> bytes:
    """Return the bytes of a key sequence such as ctrl-p,ctrl-q.

    Raises:
        InvalidInputError: a key is neither one character nor ctrl- and one of a-z @ [ ] ^ _ and backslash.
    """
    keys = bytearray()
    for key in (text or DEFAULT_KEYS).split(","):
        if len(key) == 1 and key.isascii():
            keys.append(ord(key))
            continue
        letter = key[5:].lower() if key.startswith("ctrl-") else ""
        if len(letter) == 1 and "a" <= letter <= "z":
            keys.append(ord(letter) - ord("a") + 1)
        elif letter in _NAMED:
            keys.append(_NAMED[letter])
        else:
            raise InvalidInputError(f"invalid detach keys ({text}): Unknown character: '{key}'")
    return bytes(keys)


class DetachKeys:
    """Looks for the detach sequence in what the user types."""

    def __init__(self, keys: bytes) -> None:
        self.keys = keys
        self.matched = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Return what goes on to the container, and whether the sequence is complete."""
        out = bytearray()
        for byte in data:
            if byte == self.keys[self.matched]:
                self.matched += 1
                if self.matched == len(self.keys):
                    self.matched = 0
                    return bytes(out), True
                continue
            if self.matched:
                out += self.keys[: self.matched]
                self.matched = 0
            if byte == self.keys[0]:
                self.matched = 1
                continue
            out.append(byte)
        return bytes(out), False
