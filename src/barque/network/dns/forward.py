"""Questions that are not ours: asked of all servers at once, heard once, kept as long as they live.

The order of the servers counts: an answer of a later one waits a moment for the earlier ones that
are well, since the first server may know names that the second does not. A server that kept silent
twice is not waited for, and asked again only now and then.
"""

import socket
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from barque.kernel.poller import Poller
from barque.network.dns import wire
from barque.network.dns.cache import Cache, Kept
from barque.network.dns.exchange import Exchange, Opener
from barque.network.dns.health import Health
from barque.network.resolving import Upstream

SERVERS = 3
DEADLINE_S = 4.0
GRACE_S = 0.15
MOST_PENDING = 1024
MOST_PENDING_EACH = 256
MOST_WAITING = 8192
_REPEATS_S = (1.0, 2.2)
_TICK_S = 0.05

_Key = tuple[object, ...]
# Called with the answer, or with None and the code that says why there is none.
Heard = Callable[[Kept | None, int], None]


class Asker(NamedTuple):
    """Who asks: his name for the limits, and who opens sockets in his own network namespace."""

    name: str
    opener: Opener


class _Pending:
    __slots__ = ("asker", "exchanges", "grace_s", "is_over", "repeats", "results", "servers", "started_s", "waiting")

    def __init__(self, asker: Asker, servers: Sequence[Upstream], now_s: float) -> None:
        self.asker = asker
        self.servers = servers
        self.started_s = now_s
        self.waiting: list[Heard] = []
        self.exchanges: list[Exchange] = []
        self.results: dict[int, Kept | None] = {}
        self.repeats = 0
        self.grace_s = 0.0
        self.is_over = False

    @property
    def is_inside(self) -> bool:
        """Tell whether a server is asked out of the asker's own namespace."""
        return not all(server.from_host for server in self.servers)


class Forwarder:
    """Asks servers outside; everything it holds is bounded."""

    def __init__(self, poller: Poller, clock: Callable[[], float] = time.monotonic) -> None:
        self.cache = Cache()
        self._poller = poller
        self._clock = clock
        self._health: dict[tuple[str, str], Health] = {}
        self._pending: dict[_Key, _Pending] = {}
        self._lingering: list[_Pending] = []
        self._each: dict[str, int] = {}
        self._waiting = 0
        self._ticking = False

    def ask(self, query: wire.Query, servers: Sequence[Upstream], asker: Asker, heard: Heard) -> None:
        """Ask for a query; `heard` is called once, at once where the answer is known or refused."""
        now_s = self._clock()
        servers = servers[:SERVERS]
        origin = asker.name if not all(server.from_host for server in servers) else ""
        key = (tuple(servers), origin, query.question.lower(), query.flags & wire.CD, query.wants_dnssec)
        kept = self.cache.get(key, now_s)
        if kept is not None:
            heard(kept, wire.NOERROR)
            return
        pending = self._pending.get(key)
        if pending is None:
            if not servers:
                heard(None, wire.SERVFAIL)
                return
            full = len(self._pending) + len(self._lingering) >= MOST_PENDING
            if full or self._each.get(asker.name, 0) >= MOST_PENDING_EACH:
                heard(None, wire.REFUSED)
                return
            pending = self._pending[key] = _Pending(asker, servers, now_s)
            self._each[asker.name] = self._each.get(asker.name, 0) + 1
        elif self._waiting >= MOST_WAITING:
            heard(None, wire.REFUSED)
            return
        pending.waiting.append(heard)
        self._waiting += 1
        if len(pending.waiting) == 1:
            self._start(key, pending, query)

    def forget(self, asker: str) -> None:
        """Drop what is asked out of the namespace of an asker that is gone; others may wait for all else."""
        for key, pending in list(self._pending.items()):
            if pending.asker.name == asker and pending.is_inside:
                self._finish(key, pending, None)
        for pending in self._lingering:
            if pending.asker.name == asker and pending.is_inside:
                for exchange in pending.exchanges:
                    exchange.close()
        for name in [name for name in self._health if name[0] == asker]:
            del self._health[name]

    def _start(self, key: _Key, pending: _Pending, query: wire.Query) -> None:
        now_s = self._clock()
        due = [at for at, server in enumerate(pending.servers) if self._of(pending, server).is_due(now_s)]

        def done(exchange: Exchange, data: bytes | None, answer: wire.Answer | None) -> None:
            self._heard(key, pending, exchange, data, answer)

        for at, server in enumerate(pending.servers):
            if due and at not in due:
                pending.results[at] = None
                continue
            edns = self._of(pending, server).edns
            opener = socket.socket if server.from_host else pending.asker.opener
            exchange = Exchange(self._poller, at, server.address, query, opener, edns, done)
            pending.exchanges.append(exchange)
        for exchange in pending.exchanges:
            exchange.start()
        if not self._ticking and (self._pending or self._lingering):
            self._ticking = True
            self._poller.later(_TICK_S, self._tick)

    def _of(self, pending: _Pending, server: Upstream) -> Health:
        origin = "" if server.from_host else pending.asker.name
        return self._health.setdefault((origin, server.address), Health())

    def _heard(
        self, key: _Key, pending: _Pending, exchange: Exchange, data: bytes | None, answer: wire.Answer | None
    ) -> None:
        now_s = self._clock()
        health = self._of(pending, pending.servers[exchange.index])
        if exchange.no_edns:
            health.edns = False
        if data is None or answer is None:
            health.silent(now_s)
        else:
            health.answered()
        if pending.is_over:
            return
        kept = None
        if data is not None and answer is not None and answer.rcode in (wire.NOERROR, wire.NXDOMAIN):
            kept = Kept(data, answer, now_s)
        pending.results[exchange.index] = kept
        self._decide(key, pending, now_s)

    def _decide(self, key: _Key, pending: _Pending, now_s: float) -> None:
        """Finish if what was heard suffices."""
        best: Kept | None = None
        for at, server in enumerate(pending.servers):
            if at in pending.results:
                best = best or pending.results[at]
                if best is not None:
                    self._finish(key, pending, best)
                    return
            elif not self._of(pending, server).is_sick:
                break
        if len(pending.results) == len(pending.servers):
            self._finish(key, pending, None)
        elif any(pending.results.values()) and not pending.grace_s:
            pending.grace_s = now_s + GRACE_S
            self._poller.later(GRACE_S, lambda: self._grace_over(key, pending))

    def _grace_over(self, key: _Key, pending: _Pending) -> None:
        if pending.is_over:
            return
        now_s = self._clock()
        found = [at for at in sorted(pending.results) if pending.results[at] is not None]
        for at in range(found[0]):
            if at not in pending.results:
                self._of(pending, pending.servers[at]).silent(now_s)
        self._finish(key, pending, pending.results[found[0]])

    def _finish(self, key: _Key, pending: _Pending, kept: Kept | None) -> None:
        pending.is_over = True
        self._pending.pop(key, None)
        left = self._each.get(pending.asker.name, 1) - 1
        if left:
            self._each[pending.asker.name] = left
        else:
            self._each.pop(pending.asker.name, None)
        if kept is not None:
            self.cache.put(key, kept.data, kept.answer, kept.came_s)
        waiting, pending.waiting = pending.waiting, []
        self._waiting -= len(waiting)
        # The others may still show whether they are well.
        if any(not exchange.is_over for exchange in pending.exchanges):
            self._lingering.append(pending)
        for heard in waiting:
            heard(kept, wire.SERVFAIL)

    def _tick(self) -> None:
        now_s = self._clock()
        for key, pending in list(self._pending.items()):
            age_s = now_s - pending.started_s
            if pending.repeats < len(_REPEATS_S) and age_s >= _REPEATS_S[pending.repeats]:
                pending.repeats += 1
                for exchange in pending.exchanges:
                    exchange.repeat()
            if age_s >= DEADLINE_S:
                self._give_up(pending, now_s)
                best = [pending.results[at] for at in sorted(pending.results) if pending.results[at] is not None]
                if not pending.is_over:
                    self._finish(key, pending, best[0] if best else None)
        for pending in self._lingering:
            if now_s - pending.started_s >= DEADLINE_S:
                self._give_up(pending, now_s)
        self._lingering = [p for p in self._lingering if any(not exchange.is_over for exchange in p.exchanges)]
        self._ticking = bool(self._pending or self._lingering)
        if self._ticking:
            self._poller.later(_TICK_S, self._tick)

    def _give_up(self, pending: _Pending, now_s: float) -> None:
        for exchange in pending.exchanges:
            if not exchange.is_over:
                exchange.close()
                self._of(pending, pending.servers[exchange.index]).silent(now_s)
