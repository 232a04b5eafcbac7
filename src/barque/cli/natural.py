"""The order of names with numbers in them: web9 before web10."""

import re

_PARTS = re.compile(r"(\d+)")


def natural_key(text: str) -> tuple[tuple[str, int, int], ...]:
    """Return a key that sorts runs of digits by their value, shorter spellings of it first."""
    parts = _PARTS.split(text)
    numbers = [*parts[1::2], ""]
    return tuple(
        (word, int(number) if number else -1, len(number)) for word, number in zip(parts[::2], numbers, strict=True)
    )
