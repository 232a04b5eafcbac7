"""Examples of hypothesis that are made of bytes: each byte chooses among options.

Drawing twenty texts takes twenty times as long as drawing their bytes at once; and the bytes shrink as well, since
the first option of each choice is the plainest.
"""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Choices:
    """Chooses by the bytes in turn; by zeros when they are used up."""

    def __init__(self, data: bytes) -> None:
        self._bytes = iter(data)

    def of(self, options: Sequence[T]) -> T:
        """Choose one of at most 256 options."""
        return options[next(self._bytes, 0) % len(options)]
