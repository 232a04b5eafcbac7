"""Sizes, durations and numbers as Docker reads and prints them."""

DECIMAL = ("B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB")
BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB")
_SIZE_LETTERS = "bkmgtp"
_DURATION_NS = {
    "ns": 1,
    "us": 1000,
    "µs": 1000,
    "μs": 1000,
    "ms": 1000_000,
    "s": 1000_000_000,
    "m": 60_000_000_000,
    "h": 3600_000_000_000,
}


def parse_bytes(text: str) -> int:
    """Return the bytes that a size such as 64m or 1.5GiB means; units are powers of 1024.

    Raises:
        ValueError: it is no size.
    """
    number = text.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    unit = text[len(number) :].lower()
    number = number.removesuffix(" ")
    letter = unit[:1] or "b"
    if (
        letter not in _SIZE_LETTERS
        or unit[1:] not in (("",) if letter == "b" else ("", "b", "ib"))
        or not number.replace(".", "", 1).isdigit()
        or not number.isascii()
        or not number[0].isdigit()
        or not number[-1].isdigit()
    ):
        raise ValueError(f"invalid size: '{text}'")
    scale: int = 1024 ** _SIZE_LETTERS.index(letter)
    return int(number) * scale if number.isdigit() else int(float(number) * scale)


def parse_decimal(text: str) -> int:
    """Return billionths of a decimal number or fraction.

    Raises:
        ValueError: it is no number, or finer than a billionth.
    """
    from fractions import Fraction

    try:
        value = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"failed to parse {text} as a rational number") from None
    nano = value * 10**9
    if nano.denominator != 1:
        raise ValueError("value is too precise")
    return int(nano)


def parse_duration(text: str) -> int:
    """Return the nanoseconds of a duration such as 1h30m or 1.5s.

    Raises:
        ValueError: it is no duration.
    """
    wrong = ValueError(f'time: invalid duration "{text}"')
    sign = -1 if text.startswith("-") else 1
    rest = text[1:] if text[:1] in ("-", "+") else text
    if rest == "0":
        return 0
    if not rest:
        raise wrong
    total = 0
    while rest:
        end = 0
        while end < len(rest) and (rest[end].isdigit() or rest[end] == "."):
            end += 1
        number, rest = rest[:end], rest[end:]
        end = 0
        while end < len(rest) and not (rest[end].isdigit() or rest[end] == "."):
            end += 1
        unit, rest = rest[:end], rest[end:]
        if not number.strip(".") or number.count(".") > 1:
            raise wrong
        if not unit:
            raise ValueError(f'time: missing unit in duration "{text}"')
        if unit not in _DURATION_NS:
            raise ValueError(f'time: unknown unit "{unit}" in duration "{text}"')
        whole, _, part = number.partition(".")
        scale = _DURATION_NS[unit]
        total += int(whole or 0) * scale + (int(part) * scale // 10 ** len(part) if part else 0)
    return sign * total


def general(value: float, digits: int) -> str:
    """Return a number with at most so many digits, as the %g verb prints it."""
    return f"{value:.{digits}g}"


def human_size(size: float, digits: int = 4) -> str:
    """Return bytes in powers of 1000, such as 1.24MB."""
    return _scaled(size, 1000.0, DECIMAL, digits)


def binary_size(size: float) -> str:
    """Return bytes in powers of 1024, such as 23.54GiB."""
    return _scaled(size, 1024.0, BINARY, 4)


def _scaled(size: float, base: float, units: tuple[str, ...], digits: int) -> str:
    step = 0
    while size >= base and step < len(units) - 1:
        size /= base
        step += 1
    return general(size, digits) + units[step]


def human_duration(seconds: float) -> str:
    """Return a duration in words, such as "About a minute" or "3 hours"."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    minutes = int(seconds / 60)
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = int(seconds / 3600 + 0.5)
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    return _long_duration(hours, int(seconds / 3600))


def _long_duration(hours: int, whole_hours: int) -> str:
    if hours < 24 * 7 * 2:
        return f"{hours // 24} days"
    if hours < 24 * 30 * 2:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{whole_hours // 24 // 365} years"
