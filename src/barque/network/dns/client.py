"""The daemon's side of the name server: it starts the process, tells it names, and minds it.

All that was told is remembered here, so that a process that died is replaced and told all again.
Every method takes well under a millisecond; nothing waits for the process.
"""

import contextlib
import itertools
import logging
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from barque.kernel import packets
from barque.network.dns import listeners
from barque.network.dns.gate import Counter
from barque.network.names import Entry
from barque.network.resolving import ServedNamespace, Upstream

log = logging.getLogger(__name__)

_SEND_TIMEOUT_S = 2
_STATUS_TIMEOUT_S = 2
_REST_S = (0.0, 0.1, 0.5, 2.0, 5.0)

Json = dict[str, Any]


class NameService:
    """Names for containers; `folder` holds the socket of the process."""

    def __init__(self, folder: str, boot: Sequence[str] | None = None) -> None:
        """Take over a process that an earlier daemon left; none is started yet."""
        boot_file = os.path.join(os.path.dirname(os.path.abspath(__file__)), "boot.py")
        self._boot = list(boot or [sys.executable, "-I", "-S", boot_file])
        self._path = f"{folder}/dns.sock"
        self._lock = threading.RLock()
        self._entries: dict[str, Entry] = {}
        self._orders: dict[str, list[str]] = {}
        self._served: dict[str, ServedNamespace] = {}
        # Kept open here too: what is asked while the process is replaced waits in them.
        self._sockets: dict[str, tuple[socket.socket, socket.socket]] = {}
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = threading.Event()
        self._take_over()

    @property
    def pid(self) -> int:
        """Return the pid of the process, 0 where none was started by this daemon."""
        return self._process.pid if self._process is not None else 0

    def add(self, entry: Entry) -> None:
        """Make an endpoint's names known."""
        with self._lock:
            self._entries[entry.endpoint_id] = entry
            self._tell({"op": "add", "entry": _entry_row(entry)})

    def remove(self, endpoint_id: str) -> None:
        """Forget an endpoint's names; unknown ones are fine."""
        with self._lock:
            if self._entries.pop(endpoint_id, None) is not None:
                self._tell({"op": "remove", "endpoint": endpoint_id})

    def order(self, container_id: str, endpoint_ids: Sequence[str]) -> None:
        """Set the order in which a container's networks are asked."""
        with self._lock:
            self._orders[container_id] = [*endpoint_ids]
            self._tell({"op": "order", "id": container_id, "endpoints": [*endpoint_ids]})

    def serve(self, space: ServedNamespace) -> None:
        """Answer at 127.0.0.11 in a container's network namespace; or change how, where it is served already.

        Raises:
            OSError: the namespace is gone, or the kernel refused sockets there.
        """
        name = space.container_id
        with self._lock:
            known = name in self._sockets
            if not known:
                with open_path(space.netns_path) as fd:
                    self._sockets[name] = listeners.open_listeners(fd)
            self._served[name] = space
            if self._socket is None:
                self._start()
            else:
                self._tell_of(space, new=not known)

    def stop(self, container_id: str) -> None:
        """Stop serving a container; unknown ones are fine."""
        with self._lock:
            self._orders.pop(container_id, None)
            self._served.pop(container_id, None)
            sockets = self._sockets.pop(container_id, ())
            for sock in sockets:
                sock.close()
            if sockets:
                self._tell({"op": "end", "id": container_id})

    def settle(self) -> None:
        """Let the process forget what an earlier daemon told it and this one did not."""
        with self._lock:
            for name in [name for name in self._sockets if name not in self._served]:
                self.stop(name)
            self._tell({"op": "settle", "ids": [*self._served], "endpoints": [*self._entries]})

    def close(self) -> None:
        """Leave; the process goes on while it serves anybody."""
        with self._lock:
            self._closed.set()
            if not self._served:
                self._tell({"op": "quit"})
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)
            for sockets in self._sockets.values():
                for sock in sockets:
                    sock.close()
        if not self._served and self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(2)
            with contextlib.suppress(OSError):
                os.unlink(self._path)

    def _take_over(self) -> None:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            made.settimeout(_STATUS_TIMEOUT_S)
            made.connect(self._path)
            packets.send(made, {"op": "status"})
            message, _ = packets.receive(made)
            for name in (message or {})["ids"]:
                packets.send(made, {"op": "lend", "id": name})
                _, fds = packets.receive(made)
                udp, tcp = (socket.socket(fileno=fd) for fd in fds)
                self._sockets[name] = udp, tcp
        except FileNotFoundError:
            made.close()
            return
        except (OSError, ValueError, KeyError) as error:
            log.warning("the name server of an earlier daemon does not answer and is replaced: %s", error)
            made.close()
            return
        self._use(made)

    def _use(self, made: socket.socket) -> None:
        made.settimeout(None)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", _SEND_TIMEOUT_S, 0))
        self._counter = Counter()
        with contextlib.suppress(OSError):
            packets.send(made, {"op": "share"}, [self._counter.fd])
        self._counter.close_fd()
        self._socket = made
        threading.Thread(target=self._mind, args=(made,), name="name-server", daemon=True).start()

    def _start(self) -> None:
        """Start a process and tell it all."""
        temporary = f"{self._path}.{os.getpid()}"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC) as listener:
            listener.bind(temporary)
            os.chmod(temporary, 0o600)
            listener.listen(4)
            os.rename(temporary, self._path)
            self._process = subprocess.Popen(
                [*self._boot, self._path, str(listener.fileno())],
                stdin=subprocess.DEVNULL, stdout=2, pass_fds=[listener.fileno()], start_new_session=True, cwd="/",
            )  # fmt: skip
        made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        made.connect(self._path)
        self._use(made)
        for entry in self._entries.values():
            self._tell({"op": "add", "entry": _entry_row(entry)})
        for container_id, endpoints in self._orders.items():
            self._tell({"op": "order", "id": container_id, "endpoints": endpoints})
        for space in self._served.values():
            self._tell_of(space, new=True)

    def _tell_of(self, space: ServedNamespace, *, new: bool) -> None:
        message = {"op": "serve", "id": space.container_id, "settings": _settings_row(space)}
        self._tell(message, [sock.fileno() for sock in self._sockets[space.container_id]] if new else ())

    def _tell(self, message: Json, fds: Sequence[int] = ()) -> None:
        """Send a message; where that fails the process is replaced, and the next one told all."""
        if self._socket is None:
            return
        try:
            packets.send(self._socket, message, fds)
            self._counter.sent()
        except OSError as error:
            log.warning("the name server does not listen: %s", error)
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def _mind(self, mine: socket.socket) -> None:
        """Wait for the end of the process, and replace it."""
        with contextlib.suppress(OSError, ValueError):
            while packets.receive(mine)[0] is not None:
                pass
        with self._lock:
            mine.close()
            if self._socket is mine:
                self._socket = None
            if self._closed.is_set():
                return
            process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
        for attempt in itertools.count():
            if self._closed.wait(_REST_S[min(attempt, len(_REST_S) - 1)]):
                return
            with self._lock:
                if self._closed.is_set() or self._socket is not None or not self._served:
                    return
                log.warning("the name server ended and is started again")
                try:
                    self._start()
                except OSError as error:
                    log.warning("the name server cannot be started: %s", error)
                else:
                    return


@contextlib.contextmanager
def open_path(path: str) -> Iterator[int]:
    """Give a descriptor of a path for as long as the body runs."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _entry_row(entry: Entry) -> list[Any]:
    return [*entry[:-1], dict(entry.links)]


def _settings_row(space: ServedNamespace) -> Json:
    """Return what the process is told.

    Without a way outside, servers are asked out of the container's own namespace, where only those in its
    networks can be reached.
    """
    upstreams = [*space.upstreams]
    if not space.forward:
        upstreams = [Upstream(item.address, from_host=False) for item in upstreams if not _is_the_host(item)]
    return {
        "upstreams": [list(item) for item in upstreams],
        "keeps_short": any(option.startswith("ndots:") and option != "ndots:0" for option in space.options),
    }


def _is_the_host(server: Upstream) -> bool:
    return server.from_host and (server.address.startswith("127.") or server.address == "::1")
