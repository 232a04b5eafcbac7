"""Detach keys, found in a stream of typed bytes."""


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
