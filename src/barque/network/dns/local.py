"""Answers from the book: what one container is told about the names of its networks.

A question that was answered once is answered again from its bytes alone, until a name changes.
"""

import socket
from collections.abc import Iterable
from typing import NamedTuple

from barque.network.dns import wire
from barque.network.names import Entry, Names
from barque.network.resolving import Upstream

TTL_S = 600
# Bytes of questions and answers; the same name can be asked in very many spellings.
_REMEMBERED_BYTES = 1 << 20
_OVERHEAD_BYTES = 200


class Settings(NamedTuple):
    """Whom a container's name server asks for foreign names, in this order.

    With `keeps_short` names without a dot are not asked outside, so that the asker tries his search list.
    """

    upstreams: tuple[Upstream, ...] = ()
    keeps_short: bool = False


class CountedNames(Names):
    """Names whose changes are counted, so that what was made of them is known to be old."""

    def __init__(self) -> None:
        """Start with none."""
        super().__init__()
        self.generation = 0

    def add(self, entry: Entry) -> None:
        """Make an endpoint's names known."""
        self.generation += 1
        super().add(entry)

    def remove(self, endpoint_id: str) -> None:
        """Forget an endpoint."""
        self.generation += 1
        super().remove(endpoint_id)

    def order(self, container_id: str, endpoint_ids: Iterable[str]) -> None:
        """Set the order in which a container's networks are asked."""
        self.generation += 1
        super().order(container_id, endpoint_ids)


class _Rotating:
    """An answer with several records, which start with another one each time; `size` bytes are kept of it."""

    __slots__ = ("_at", "_head", "_records", "_shown", "_step", "_tail", "_whole", "size")

    def __init__(self, head: bytes, records: list[bytes], shown: int, tail: bytes) -> None:
        self._head, self._tail = head, tail
        self._records = b"".join(records + records[:shown])
        self._step = len(records[0])
        self._whole, self._shown, self._at = len(records) * self._step, shown * self._step, 0
        self.size = len(head) + len(self._records) + len(tail)

    def next(self) -> bytes:
        """Return all but the first two bytes of the next answer."""
        at = self._at
        self._at = (at + self._step) % self._whole
        return self._head + self._records[at : at + self._shown] + self._tail


class LocalNames:
    """The names that one container sees."""

    __slots__ = ("_bytes", "_container_id", "_generation", "_names", "_ready", "settings")

    def __init__(self, names: CountedNames, container_id: str, settings: Settings) -> None:
        self._names, self._container_id = names, container_id
        self._generation = -1
        self._ready: dict[bytes, bytes | _Rotating] = {}
        self._bytes = 0
        self.settings = settings

    def quick(self, data: bytes) -> bytes | None:
        """Return the answer to a question that was answered before, byte for byte the same but for its number."""
        if self._generation != self._names.generation:
            self._forget()
            self._generation = self._names.generation
            return None
        known = self._ready.get(data[2:])
        if known is None:
            return None
        return data[:2] + (known if known.__class__ is bytes else known.next())  # type: ignore[union-attr]

    def answer(self, query: wire.Query, limit: int, remember: bytes = b"") -> bytes | None:
        """Return the answer of at most `limit` bytes, None where the name is not ours.

        Args:
            query: the question.
            limit: the most that may be sent.
            remember: its bytes, for quick() to know them again.
        """
        if query.klass != wire.IN:
            return None
        if query.kind == wire.PTR:
            return self._reverse(query)
        found = self._names.lookup(query.name, self._container_id)
        if found is None:
            return None
        records: list[bytes] = []
        if query.kind in (wire.A, wire.ANY):
            records += [wire.record(wire.A, TTL_S, socket.inet_aton(address)) for address in found.ip]
        if query.kind in (wire.AAAA, wire.ANY):
            packed = [socket.inet_pton(socket.AF_INET6, address) for address in found.ip6]
            records += [wire.record(wire.AAAA, TTL_S, address) for address in packed]
        room = (limit - len(wire.reply(query))) // max(map(len, records)) if records else 0
        made = _made(query, records, min(len(records), room))
        if remember:
            self._remember(remember[2:], made)
        return query.ident.to_bytes(2, "big") + (made if isinstance(made, bytes) else made.next())

    def _remember(self, question: bytes, made: "bytes | _Rotating") -> None:
        size = len(question) + (len(made) if isinstance(made, bytes) else made.size) + _OVERHEAD_BYTES
        if self._bytes + size > _REMEMBERED_BYTES:
            self._forget()
        self._ready[question] = made
        self._bytes += size

    def _forget(self) -> None:
        self._ready.clear()
        self._bytes = 0

    def _reverse(self, query: wire.Query) -> bytes | None:
        address = wire.address_of_reverse(query.name)
        name = self._names.reverse(address, self._container_id) if address else None
        if not name:
            return None
        try:
            target = wire.encode_name(name)
        except ValueError:
            return None
        return wire.reply(query, records=wire.record(wire.PTR, TTL_S, target), count=1)

    def keeps(self, query: wire.Query) -> bool:
        """Tell whether a foreign name is answered as empty here rather than asked outside."""
        return self.settings.keeps_short and query.kind in (wire.A, wire.AAAA) and "." not in query.name


def _made(query: wire.Query, records: list[bytes], shown: int) -> bytes | _Rotating:
    truncated = shown < len(records)
    if len({len(record) for record in records}) != 1 or len(records) == 1:
        return wire.reply(query, records=b"".join(records[:shown]), count=shown, truncated=truncated)[2:]
    whole = wire.reply(query, count=shown, truncated=truncated)[2:]
    split = wire.HEADER - 2 + len(query.question)
    return _Rotating(whole[:split], records, shown, whole[split:])
