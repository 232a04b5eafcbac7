"""Detach keys as users write them."""

from barque.base.errors import InvalidInputError

DEFAULT = b"\x10\x11"


def parse_keys(text: str) -> bytes:
    """Return the bytes of `ctrl-p,ctrl-q`; the default for an empty text.

    Raises:
        InvalidInputError: an unknown key.
    """
    if not text:
        return DEFAULT
    found = bytearray()
    for key in text.split(","):
        if len(key) == 1:
            found += key.encode()
            continue
        last = key.removeprefix("ctrl-")
        if len(last) != 1 or last == key or not ("a" <= last <= "z" or last in "@[\\]^_"):
            raise InvalidInputError(f"Invalid detach keys ({text}) provided")
        found.append(ord(last.upper()) & 0x1F)
    return bytes(found)
