"""Servers that play the world outside, and a container that asks; for tests of names."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rrset

from barque.kernel.netlink import namespace
from barque.network.dns.client import NameService
from barque.network.names import Entry
from barque.network.resolving import ServedNamespace, Upstream

Behave = Callable[[dns.message.Message, bool], dns.message.Message | bytes | None]


def address(text: str, ttl: int = 60) -> Behave:
    """Answer every question with this address."""

    def behave(question: dns.message.Message, stream: bool) -> dns.message.Message:
        answer = dns.message.make_response(question)
        answer.flags |= dns.flags.RA
        answer.answer.append(dns.rrset.from_text(question.question[0].name, ttl, "IN", "A", text))
        return answer

    return behave


def code(rcode: int) -> Behave:
    """Answer every question with this code."""

    def behave(question: dns.message.Message, stream: bool) -> dns.message.Message:
        answer = dns.message.make_response(question)
        answer.set_rcode(rcode)
        return answer

    return behave


def silent(question: dns.message.Message, stream: bool) -> None:
    """Say nothing."""


class Outside:
    """A server for names at port 53 of an address, by UDP and TCP."""

    def __init__(self, host: str, behave: Behave) -> None:
        self.behave = behave
        self.asked: list[str] = []
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._tcp = socket.socket()
        self._tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for sock in (self._udp, self._tcp):
            sock.bind((host, 53))
        self._tcp.listen()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._serve_udp, self._serve_tcp)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        for sock in (self._udp, self._tcp):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in self._threads:
            thread.join(5)

    def _answer(self, data: bytes, stream: bool) -> list[bytes]:
        question = dns.message.from_wire(data)
        self.asked.append(str(question.question[0].name))
        answer = self.behave(question, stream)
        if answer is None:
            return []
        found = answer if isinstance(answer, list) else [answer]
        return [one if isinstance(one, bytes) else one.to_wire(max_size=65535) for one in found]

    def _serve_udp(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                data, peer = self._udp.recvfrom(4096)
                if not data:
                    return
                for answer in self._answer(data, False):
                    self._udp.sendto(answer, peer)

    def _serve_tcp(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                made, _ = self._tcp.accept()
                with made, contextlib.suppress(OSError):
                    head = made.recv(2, socket.MSG_WAITALL)
                    data = made.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL)
                    for answer in self._answer(data, True):
                        made.sendall(len(answer).to_bytes(2, "big") + answer)


class Container:
    """A network namespace that asks 127.0.0.11."""

    def __init__(self, service: NameService, name: str) -> None:
        self.name = name
        self.service = service
        self.space = namespace.create(ipv6=False)

    @property
    def path(self) -> str:
        return f"/proc/self/fd/{self.space.fd}"

    def serve(self, *servers: str, inside: bool = False, forward: bool = True, options: tuple[str, ...] = ()) -> None:
        upstreams = tuple(Upstream(server, not inside) for server in servers)
        self.service.serve(ServedNamespace(self.name, self.path, upstreams, forward, options=options))

    def join(self, network: str, *names: str, ip: str) -> None:
        self.service.add(Entry(f"{self.name}-{network}", self.name, network, f"{network}net", names, ip))

    def ask(
        self, name: str, kind: str = "A", *, tcp: bool = False, timeout_s: float = 6, **settings: object
    ) -> dns.message.Message:
        question = dns.message.make_query(name, kind, **settings)
        with namespace.entered(self.space.fd):
            query = dns.query.tcp if tcp else dns.query.udp
            return query(question, "127.0.0.11", timeout=timeout_s)

    def addresses(self, name: str, kind: str = "A", **settings: object) -> list[str]:
        message = self.ask(name, kind, **settings)
        assert message.rcode() == dns.rcode.NOERROR, message
        return sorted(item.to_text() for rrset in message.answer for item in rrset)

    def close(self) -> None:
        self.service.stop(self.name)
        self.space.close()


@contextlib.contextmanager
def world(folder: Path) -> Iterator["World"]:
    """Give a name service with what may be made around it."""
    made = World(folder)
    try:
        yield made
    finally:
        made.close()


class World:
    """A name service, containers, servers outside."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.service = NameService(str(folder))
        self._things: list[Outside | Container] = []

    def outside(self, host: str, behave: Behave) -> Outside:
        self._things.append(Outside(host, behave))
        return self._things[-1]

    def container(self, name: str) -> Container:
        self._things.append(Container(self.service, name))
        return self._things[-1]

    def close(self) -> None:
        for thing in self._things:
            thing.close()
        self.service.close()
