"""The process that answers names: it serves every container, and goes on while no daemon is there.

The daemon connects to one socket and says, in packets of JSON:

    {"op": "share"} with a descriptor of the memory that it counts its further messages in (see gate.py)
    {"op": "add", "entry": [endpoint, container, network, network name, [names], ip, ip6, links]}
    {"op": "remove", "endpoint"}
    {"op": "order", "id", "endpoints": [...]}
    {"op": "serve", "id", "settings": {...}} with two descriptors, UDP and TCP, where they are new
    {"op": "end", "id"}
    {"op": "settle", "ids": [...], "endpoints": [...]}  forget all others
    {"op": "quit"}
    {"op": "lend", "id"} -> {} with the two descriptors
    {"op": "status"} -> {"ids": [...], "cached": ...}

A daemon that connects anew takes the place of the one before. Without a daemon the process ends
once it serves nobody, or once its socket's path is not its own any more.
"""

import os
import select
import socket
import time
from typing import Any

from barque.kernel import packets
from barque.kernel.poller import Poller
from barque.network.dns.forward import Asker, Forwarder
from barque.network.dns.gate import Gate
from barque.network.dns.listening import Listening, Responder, opener_beside
from barque.network.dns.local import CountedNames, LocalNames, Settings
from barque.network.names import Entry
from barque.network.resolving import Upstream

_SWEEP_S = 2.0
_ALONE_S = 20.0

Json = dict[str, Any]


class NameServer:
    """All state of the process."""

    def __init__(self, listener: socket.socket, path: str) -> None:
        self.poller = Poller()
        self._listener, self._path = listener, path
        self._inode = os.stat(path).st_ino
        self._names = CountedNames()
        self._endpoints: set[str] = set()
        self._forwarder = Forwarder(self.poller)
        self._gate = Gate(self._messages)
        self._served: dict[str, tuple[Listening, Responder]] = {}
        self._daemon: socket.socket | None = None
        self._alone_since_s = time.monotonic()
        listener.setblocking(False)
        self.poller.watch(listener.fileno(), select.EPOLLIN, self._connection)
        self.poller.later(_SWEEP_S, self._sweep)

    def _connection(self, events: int) -> None:
        try:
            made, _ = self._listener.accept()
        except OSError:
            return
        self._leave()
        made.setblocking(False)
        self._daemon = made
        self.poller.watch(made.fileno(), select.EPOLLIN, lambda events: self._messages())

    def _leave(self) -> None:
        if self._daemon is not None:
            self.poller.forget(self._daemon.fileno())
            self._daemon.close()
            self._daemon = None
            self._gate.leave()
            self._alone_since_s = time.monotonic()

    def _messages(self) -> None:
        while self._daemon is not None:
            try:
                message, fds = packets.receive(self._daemon)
            except BlockingIOError:
                return
            except (OSError, ValueError):
                self._leave()
                return
            if message is None:
                self._leave()
                return
            try:
                self._act(message, fds)
            finally:
                packets.close_all(fds)
                if message["op"] != "share":
                    self._gate.acted()

    def _act(self, message: Json, fds: list[int]) -> None:
        kind = message["op"]
        if kind == "share":
            self._gate.open(fds[0])
        elif kind == "add":
            entry = entry_of(message["entry"])
            self._endpoints.add(entry.endpoint_id)
            self._names.add(entry)
        elif kind == "remove":
            self._endpoints.discard(message["endpoint"])
            self._names.remove(message["endpoint"])
        elif kind == "order":
            self._names.order(message["id"], message["endpoints"])
        elif kind == "serve":
            self._serve(message["id"], settings_of(message["settings"]), fds)
        elif kind == "end":
            self._end(message["id"])
        elif kind == "settle":
            self._settle(set(message["ids"]), set(message["endpoints"]))
        elif kind == "quit":
            self.poller.stopped = True
        elif kind == "lend" and self._daemon is not None:
            packets.send(self._daemon, {}, self._served[message["id"]][0].descriptors())
        elif kind == "status" and self._daemon is not None:
            packets.send(self._daemon, {"ids": [*self._served], "cached": len(self._forwarder.cache)})

    def _serve(self, name: str, settings: Settings, fds: list[int]) -> None:
        if len(fds) == 2:
            self._end(name)
            udp, tcp = (socket.socket(fileno=fds.pop(0)) for _ in range(2))
            asker = Asker(name, opener_beside(udp))
            responder = Responder(LocalNames(self._names, name, settings), self._forwarder, asker)
            self._served[name] = Listening(self.poller, responder, self._gate, udp, tcp), responder
        elif name in self._served:
            self._served[name][1].names.settings = settings

    def _end(self, name: str) -> None:
        served = self._served.pop(name, None)
        if served is not None:
            self._forwarder.forget(name)
            served[0].close()

    def _settle(self, ids: set[str], endpoints: set[str]) -> None:
        for name in [name for name in self._served if name not in ids]:
            self._end(name)
        for endpoint in self._endpoints - endpoints:
            self._names.remove(endpoint)
        self._endpoints &= endpoints

    def _sweep(self) -> None:
        now_s = time.monotonic()
        for listening, _ in self._served.values():
            listening.close_idle(now_s)
        alone = self._daemon is None
        long_alone = alone and now_s - self._alone_since_s >= _ALONE_S
        if (long_alone and not self._served) or (alone and not self._is_ours()):
            self.poller.stopped = True
        self.poller.later(_SWEEP_S, self._sweep)

    def _is_ours(self) -> bool:
        try:
            return os.stat(self._path).st_ino == self._inode
        except OSError:
            return False


def entry_of(row: list[Any]) -> Entry:
    """Return the entry that a message carries."""
    endpoint, container, network, network_name, names, ip, ip6, links = row
    return Entry(endpoint, container, network, network_name, tuple(names), ip, ip6, links)


def settings_of(row: Json) -> Settings:
    """Return the settings that a message carries."""
    upstreams = tuple(Upstream(address, bool(from_host)) for address, from_host in row["upstreams"])
    return Settings(upstreams, bool(row["keeps_short"]))
