"""One container's name server: its sockets in the container's network namespace, and who asks there."""

import contextlib
import os
import select
import socket
import struct
import time
from collections.abc import Callable

from barque.kernel.poller import Poller
from barque.network.dns import wire
from barque.network.dns.cache import Kept
from barque.network.dns.forward import Asker, Forwarder
from barque.network.dns.gate import Gate
from barque.network.dns.local import LocalNames

LONGEST_QUERY = 4096
_AT_ONCE = 64
MOST_CONVERSATIONS = 64
IDLE_S = 10.0
_MOST_UNREAD = 256 << 10

Send = Callable[[bytes], None]


class Responder:
    """Answers the questions of one container, from what is known here or from outside."""

    def __init__(self, names: LocalNames, forwarder: Forwarder, asker: Asker) -> None:
        self.names = names
        self._forwarder = forwarder
        self._asker = asker

    def respond(self, data: bytes, send: Send, *, stream: bool) -> None:
        """Call `send` with the answer to a message, now or later; what is no question is passed over."""
        try:
            query = wire.read_query(data)
        except wire.WireError as error:
            if len(data) >= wire.HEADER and not data[2] & 0x80:
                send(wire.refusal(data, error.rcode))
            return
        limit = wire.LARGEST if stream else query.limit
        answer = self.names.answer(query, limit, b"" if stream else data)
        if answer is None and self.names.keeps(query):
            answer = wire.reply(query)
        if answer is not None:
            send(answer)
            return

        def heard(kept: Kept | None, rcode: int) -> None:
            if kept is None:
                send(wire.reply(query, rcode))
            else:
                age_s = int(time.monotonic() - kept.came_s)
                send(wire.passed_on(query, kept.data, kept.answer, age_s, limit))

        self._forwarder.ask(query, self.names.settings.upstreams, self._asker, heard)


class Listening:
    """The sockets of one container."""

    def __init__(
        self, poller: Poller, responder: Responder, gate: Gate, udp: socket.socket, tcp: socket.socket
    ) -> None:
        self._poller, self._responder, self._gate = poller, responder, gate
        self._udp, self._tcp = udp, tcp
        self._conversations: dict[int, _Conversation] = {}
        for sock in (udp, tcp):
            sock.setblocking(False)
        poller.watch(udp.fileno(), select.EPOLLIN, self._datagrams)
        poller.watch(tcp.fileno(), select.EPOLLIN, self._connections)

    def descriptors(self) -> tuple[int, int]:
        """Return the descriptors of the two sockets."""
        return self._udp.fileno(), self._tcp.fileno()

    def close(self) -> None:
        """Close all sockets."""
        for conversation in [*self._conversations.values()]:
            conversation.close()
        for sock in (self._udp, self._tcp):
            if sock.fileno() >= 0:
                self._poller.forget(sock.fileno())
                sock.close()

    def close_idle(self, now_s: float) -> None:
        """End conversations in which nothing was said for long."""
        for conversation in [*self._conversations.values()]:
            if now_s - conversation.heard_s >= IDLE_S:
                conversation.close()

    def _datagrams(self, events: int) -> None:
        udp, quick, gate = self._udp, self._responder.names.quick, self._gate
        try:
            for _ in range(_AT_ONCE):
                data, peer = udp.recvfrom(LONGEST_QUERY)
                if gate.shared[:8] != gate.done:
                    gate.pass_through()
                known = quick(data)
                if known is not None:
                    udp.sendto(known, peer)
                else:
                    self._responder.respond(data, self._sender(peer), stream=False)
        except BlockingIOError:
            # Nothing more to read, or the asker does not take his answers: it is his loss.
            return
        except OSError:
            # The message of an asker who is gone.
            return

    def _sender(self, peer: object) -> Send:
        def send(answer: bytes) -> None:
            with contextlib.suppress(OSError):
                self._udp.sendto(answer, peer)  # type: ignore[call-overload]

        return send

    def _connections(self, events: int) -> None:
        for _ in range(_AT_ONCE):
            try:
                made, _ = self._tcp.accept()
            except OSError:
                return
            if len(self._conversations) >= MOST_CONVERSATIONS:
                made.close()
                continue
            made.setblocking(False)
            fd = made.fileno()
            ended = self._conversations.pop
            self._conversations[fd] = _Conversation(self._poller, self._responder, self._gate, made, ended)


class _Conversation:
    """A TCP connection: questions and answers, each behind its length."""

    def __init__(
        self,
        poller: Poller,
        responder: Responder,
        gate: Gate,
        sock: socket.socket,
        ended: Callable[[int, None], object],
    ) -> None:
        self._poller, self._responder, self._gate = poller, responder, gate
        self._sock, self._ended = sock, ended
        self._read, self._unsent = b"", b""
        self.heard_s = time.monotonic()
        poller.watch(sock.fileno(), select.EPOLLIN, self._ready)

    def close(self) -> None:
        """Close the connection."""
        fd = self._sock.fileno()
        if fd >= 0:
            self._poller.forget(fd)
            self._sock.close()
            self._ended(fd, None)

    def _ready(self, events: int) -> None:
        if events & select.EPOLLOUT:
            self._flush()
        if events & ~select.EPOLLOUT and self._sock.fileno() >= 0:
            self._receive()

    def _receive(self) -> None:
        try:
            data = self._sock.recv(wire.LARGEST)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        self.heard_s = time.monotonic()
        if self._gate.shared[:8] != self._gate.done:
            self._gate.pass_through()
        self._read += data
        while len(self._read) >= 2 and self._sock.fileno() >= 0:
            (size,) = struct.unpack_from("!H", self._read)
            if size > LONGEST_QUERY:
                self.close()
                return
            if len(self._read) < 2 + size:
                return
            message, self._read = self._read[2 : 2 + size], self._read[2 + size :]
            self._responder.respond(message, self._send, stream=True)

    def _send(self, answer: bytes) -> None:
        if self._sock.fileno() < 0:
            return
        self._unsent += struct.pack("!H", len(answer)) + answer
        if len(self._unsent) > _MOST_UNREAD:
            self.close()
        else:
            self._flush()

    def _flush(self) -> None:
        try:
            sent = self._sock.send(self._unsent)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return
        self._unsent = self._unsent[sent:]
        wanted = select.EPOLLIN | (select.EPOLLOUT if self._unsent else 0)
        self._poller.watch(self._sock.fileno(), wanted, self._ready)


def opener_beside(udp: socket.socket) -> Callable[[int, int], socket.socket]:
    """Return a function that opens sockets in the network namespace of a socket."""

    def opened(family: int, kind: int) -> socket.socket:
        from barque.kernel.netlink import namespace

        space = namespace.of_socket(udp.fileno())
        try:
            with namespace.entered(space):
                return socket.socket(family, kind)
        finally:
            os.close(space)

    return opened
