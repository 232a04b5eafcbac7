"""Detach keys: what they are called, and how they are found in a stream of typed bytes."""

from barque.base.errors import InvalidInputError

DEFAULT = b"\x10\x11"
_NAMED = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31}


def parse_keys(text: str) -> bytes:
    """Return the bytes of keys like `ctrl-p,ctrl-q`; the default for empty text.

    Raises:
        InvalidInputError: a key is unknown.
    """
    if not text:
        return DEFAULT
    return bytes(_key(part, text) for part in text.split(","))


def _key(part: str, text: str) -> int:
    if len(part) == 1 and part.isascii():
        return ord(part)
    name, _, letter = part.partition("-")
    if name.lower() == "ctrl" and len(letter) == 1:
        if letter.isascii() and letter.isalpha():
            return ord(letter.lower()) - 96
        if letter in _NAMED:
            return _NAMED[letter]
    raise InvalidInputError(f"Invalid escape keys ({text}) provided")


class Detector:
    """Finds the keys, also when they come in several pieces; holds back what may become them."""

    __slots__ = ("_keys", "_matched")

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._matched = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Return what is to be passed on, and whether the keys were typed."""
        keys = self._keys
        if not keys or (self._matched == 0 and keys[0] not in data):
            return data, False
        out = bytearray()
        for byte in data:
            if byte == keys[self._matched]:
                self._matched += 1
                if self._matched == len(keys):
                    return bytes(out), True
                continue
            out += keys[: self._matched]
            self._matched = 0
            if byte == keys[0]:
                self._matched = 1
            else:
                out.append(byte)
        return bytes(out), False
