"""As much of MessagePack as the forward protocol needs. Pure."""

import struct
from typing import Any


class EventTime(bytes):
    """Fluentd's time: seconds and nanoseconds, in an extension of type 0."""

    @classmethod
    def of_ns(cls, time_ns: int) -> "EventTime":
        """Return the time of nanoseconds since the epoch."""
        return cls(struct.pack(">II", time_ns // 1_000_000_000, time_ns % 1_000_000_000))


def pack(value: Any) -> bytes:
    """Return a value as MessagePack: None, bool, int, str, bytes, list, dict or EventTime.

    Raises:
        TypeError: another type.
    """
    if value is None:
        return b"\xc0"
    if isinstance(value, bool):
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, EventTime):
        return b"\xd7\x00" + value
    if isinstance(value, int):
        return _integer(value)
    if isinstance(value, str):
        raw = value.encode("utf-8", "surrogateescape")
        return _headed(len(raw), 0xA0, 32, (0xD9, 0xDA, 0xDB)) + raw
    if isinstance(value, bytes):
        return _headed(len(value), 0, 0, (0xC4, 0xC5, 0xC6)) + value
    if isinstance(value, list | tuple):
        return _headed(len(value), 0x90, 16, (0, 0xDC, 0xDD)) + b"".join(map(pack, value))
    if isinstance(value, dict):
        return _headed(len(value), 0x80, 16, (0, 0xDE, 0xDF)) + b"".join(pack(k) + pack(v) for k, v in value.items())
    raise TypeError(f"no MessagePack for {type(value).__name__}")


def _integer(value: int) -> bytes:
    if 0 <= value < 128:
        return bytes((value,))
    if -32 <= value < 0:
        return struct.pack(">b", value)
    for code, form, low, high in ((0xCC, ">B", 0, 1 << 8), (0xCD, ">H", 0, 1 << 16), (0xCE, ">I", 0, 1 << 32),
                                  (0xCF, ">Q", 0, 1 << 64)):  # fmt: skip
        if low <= value < high:
            return bytes((code,)) + struct.pack(form, value)
    return b"\xd3" + struct.pack(">q", value)


def _headed(length: int, small: int, limit: int, codes: tuple[int, int, int]) -> bytes:
    if length < limit:
        return bytes((small | length,))
    if length < 1 << 8 and codes[0]:
        return bytes((codes[0], length))
    if length < 1 << 16:
        return bytes((codes[1],)) + struct.pack(">H", length)
    return bytes((codes[2],)) + struct.pack(">I", length)


def unpack(data: bytes, at: int = 0) -> tuple[Any, int]:
    """Return (value, position behind it) of what a server answers.

    Raises:
        IndexError: the data ends within the value.
        ValueError: a type that is not expected.
    """
    code = data[at]
    at += 1
    if code < 0x80:
        return code, at
    if code >= 0xE0:
        return code - 256, at
    if code in (0xC0, 0xC2, 0xC3):
        return {0xC0: None, 0xC2: False, 0xC3: True}[code], at
    if code in _NUMBERS:
        form = _NUMBERS[code]
        size = struct.calcsize(form)
        return struct.unpack(form, _part(data, at, size))[0], at + size
    kind, length, at = _length(data, code, at)
    if kind in ("str", "bin", "ext"):
        raw = _part(data, at, length)
        return (raw.decode("utf-8", "replace") if kind == "str" else raw), at + length
    items = []
    for _ in range(length * (2 if kind == "map" else 1)):
        item, at = unpack(data, at)
        items.append(item)
    return (dict(zip(items[::2], items[1::2], strict=True)) if kind == "map" else items), at


_NUMBERS = {0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q",
            0xCA: ">f", 0xCB: ">d"}  # fmt: skip
_LENGTHS = {0xD9: ("str", ">B"), 0xDA: ("str", ">H"), 0xDB: ("str", ">I"), 0xC4: ("bin", ">B"), 0xC5: ("bin", ">H"),
            0xC6: ("bin", ">I"), 0xDC: ("list", ">H"), 0xDD: ("list", ">I"), 0xDE: ("map", ">H"),
            0xDF: ("map", ">I")}  # fmt: skip


def _length(data: bytes, code: int, at: int) -> tuple[str, int, int]:
    if code >> 5 == 0b101:
        return "str", code & 31, at
    if code >> 4 in (8, 9):
        return ("map" if code >> 4 == 8 else "list"), code & 15, at
    if code == 0xD7:
        return "ext", 8, at + 1
    if code not in _LENGTHS:
        raise ValueError(f"MessagePack type {code:#x} is not expected")
    kind, form = _LENGTHS[code]
    size = struct.calcsize(form)
    return kind, struct.unpack(form, _part(data, at, size))[0], at + size


def _part(data: bytes, at: int, size: int) -> bytes:
    if at + size > len(data):
        raise IndexError("the data ends within a value")
    return data[at : at + size]
