"""Foreign answers that were heard before, as long as their records live. Pure."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import NamedTuple

from barque.network.dns.wire import Answer

LONGEST_S = 3600
LONGEST_NEGATIVE_S = 300


class Kept(NamedTuple):
    """An answer and when it came, in seconds of the monotonic clock."""

    data: bytes
    answer: Answer
    came_s: float


class Cache:
    """Answers by their question, bounded in number and bytes; what was not asked for longest goes first."""

    def __init__(self, most: int = 10_000, most_bytes: int = 8 << 20) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._kept: OrderedDict[Hashable, Kept] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def size(self) -> int:
        """Return the bytes of all answers."""
        return self._bytes

    def put(self, key: Hashable, data: bytes, answer: Answer, now_s: float) -> None:
        """Keep an answer if its records may be kept at all."""
        if answer.lifetime_s <= 0:
            return
        self._drop(key)
        self._kept[key] = Kept(data, answer, now_s)
        self._bytes += len(data)
        while len(self._kept) > self._most or self._bytes > self._most_bytes:
            self._drop(next(iter(self._kept)))

    def get(self, key: Hashable, now_s: float) -> Kept | None:
        """Return an answer that still lives."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        longest = LONGEST_S if kept.answer.answers else LONGEST_NEGATIVE_S
        if now_s - kept.came_s >= min(kept.answer.lifetime_s, longest):
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        return kept

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()
        self._bytes = 0

    def _drop(self, key: Hashable) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._bytes -= len(kept.data)
