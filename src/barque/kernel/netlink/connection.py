"""A netlink socket: sends batches of requests, waits for their answers."""

import errno
import socket
import struct
from collections.abc import Iterator, Sequence

from barque.base.errors import KernelError
from barque.kernel.netlink import codec

NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12

_SOL_NETLINK = 270
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_RECEIVE_BYTES = 1 << 16
_SO_SNDBUFFORCE = 32
# What a socket takes at once unless it is told otherwise, without the kernel's own share.
_SEND_BYTES = 1 << 16
# The kernel queues an answer for each request at once; this many fit into the default buffer.
_REQUESTS_AT_ONCE = 64


class Connection:
    """A netlink socket of the network namespace it was made in; close() ends it."""

    def __init__(self, protocol: int = NETLINK_ROUTE) -> None:
        """Open the socket in the calling thread's network namespace."""
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, protocol)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        # The kernel answers before send returns; a limit only guards against waiting for ever.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 10, 0))
        self._sequence = 0
        self._send_bytes = _SEND_BYTES

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def run(self, requests: Sequence[codec.Request]) -> None:
        """Send requests in one datagram each 64 and wait until all are done.

        Raises:
            KernelError: of the first request that failed; those after it were done nevertheless.
        """
        for start in range(0, len(requests), _REQUESTS_AT_ONCE):
            failed = self._exchange(requests[start : start + _REQUESTS_AT_ONCE])
            if failed is not None:
                raise failed

    def attempt(self, requests: Sequence[codec.Request], *forgiven: int) -> None:
        """Send requests one by one; errors whose errno is forgiven are passed over.

        Raises:
            KernelError: a request failed for another reason.
        """
        for request in requests:
            failed = self._exchange((request,))
            if failed is not None and failed.errno not in forgiven:
                raise failed

    def transact(self, requests: Sequence[codec.Request]) -> None:
        """Send an nfnetlink batch: all requests are done, or none.

        Raises:
            KernelError: of the first request that the kernel refused.
        """
        if not requests:
            return
        marker = struct.pack("!BBH", 0, 0, 10)
        first, last = self._sequence + 1, self._sequence + len(requests)
        self._sequence = last
        parts = [codec.pack(codec.Request(16, 0, marker), 0, acknowledge=False)]
        # Failures are told in any case. An answer to each of many requests would not fit into the buffer.
        parts += [codec.pack(item, first + at, acknowledge=first + at == last) for at, item in enumerate(requests)]
        parts.append(codec.pack(codec.Request(17, 0, marker), 0, acknowledge=False))
        data = b"".join(parts)
        if len(data) > self._send_bytes:
            self._send_bytes = len(data) * 2
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, self._send_bytes)
        self._socket.send(data)
        failed = self._collect(first, requests, {last})
        if failed is not None:
            raise failed

    def dump(self, kind: int, body: bytes, flags: int = codec.NLM_F_DUMP) -> list[bytes]:
        """Return the payloads of all messages that answer a question.

        Raises:
            KernelError: the kernel refused the question.
        """
        self._sequence += 1
        sequence = self._sequence
        question = codec.Request(kind, flags, body)
        self._socket.send(codec.pack(question, sequence, acknowledge=False))
        return list(self._answers(sequence, kind, single=flags != codec.NLM_F_DUMP))

    def _answers(self, sequence: int, kind: int, *, single: bool) -> Iterator[bytes]:
        while True:
            for message in codec.unpack(self._receive()):
                if message.sequence != sequence:
                    continue
                if message.kind == codec.NLMSG_DONE:
                    return
                if message.kind == codec.NLMSG_ERROR:
                    number, words = codec.unpack_error(message.payload, message.flags)
                    raise KernelError(number, f"netlink message {kind}", words)
                yield message.payload
                if single:
                    return

    def _exchange(self, requests: Sequence[codec.Request]) -> KernelError | None:
        first = self._sequence + 1
        self._sequence += len(requests)
        data = b"".join(codec.pack(item, first + at) for at, item in enumerate(requests))
        self._socket.send(data)
        return self._collect(first, requests, set(range(first, first + len(requests))))

    def _collect(self, first: int, requests: Sequence[codec.Request], waiting: set[int]) -> KernelError | None:
        """Read the answers that are waited for; return the failure of the first request that failed."""
        failed: tuple[int, KernelError] | None = None
        asked = range(first, first + len(requests))
        lost = False
        while waiting:
            try:
                data = self._socket.recv(_RECEIVE_BYTES, socket.MSG_DONTWAIT) if lost else self._receive()
            except OSError as error:
                if lost:
                    return failed[1] if failed is not None else KernelError(errno.ENOBUFS, "recv", "netlink")
                if error.errno != errno.ENOBUFS:
                    raise
                # More failures than the buffer holds; the first ones are in it.
                lost = True
                continue
            for message in codec.unpack(data):
                if message.kind != codec.NLMSG_ERROR or message.sequence not in asked:
                    # A broken batch as a whole is answered with the number of its beginning.
                    if message.kind == codec.NLMSG_ERROR and message.sequence == 0:
                        number, words = codec.unpack_error(message.payload, message.flags)
                        return KernelError(number, "netlink batch", words)
                    continue
                waiting.discard(message.sequence)
                number, words = codec.unpack_error(message.payload, message.flags)
                if number and (failed is None or message.sequence < failed[0]):
                    kind = requests[message.sequence - first].kind
                    failed = (
                        message.sequence,
                        KernelError(number, f"netlink message {kind:#x}", words),
                    )
        return None if failed is None else failed[1]

    def _receive(self) -> bytes:
        try:
            return self._socket.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            raise KernelError(errno.ETIMEDOUT, "recv", "netlink") from None
