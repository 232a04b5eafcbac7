"""Sizes and numbers as Docker reads and prints them."""

DECIMAL = ("B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB")
BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB")
_SIZE_LETTERS = "bkmgtp"

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
