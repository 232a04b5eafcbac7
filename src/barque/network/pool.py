"""Namespaces with a veth pair made ahead, and the quiet removal of used ones.

Making and deleting interfaces takes milliseconds in the kernel; one background thread does it so
that a container's start and end do not wait. Nothing is mounted: a namespace lives by its
descriptor and is gone when the process dies.
"""

import errno
import logging
import os
import queue
import threading
from typing import NamedTuple

from barque.base.errors import KernelError
from barque.kernel.netlink import namespace, route
from barque.kernel.netlink.connection import Connection

log = logging.getLogger(__name__)

_INTERFACE = "eth0"
# The kernel changes one interface at a time. Unless the pool is empty the thread keeps away this
# long from a container that is just starting or ending.
_QUIET_S = 0.1
_RETRY_S = 1.0


class Sandbox(NamedTuple):
    """A namespace with eth0 (down) in it, whose other end is up and in the bridge."""

    space: namespace.Namespace
    interface_index: int
    host_name: str
    host_index: int


class Wiring(NamedTuple):
    """How the pool's veth pairs are to be made."""

    bridge_index: int
    mtu: int
    ipv6: bool
    isolated: bool


def make(connection: Connection, wiring: Wiring) -> Sandbox:
    """Make a namespace and its veth pair now.

    Raises:
        KernelError: the kernel refused; nothing is left behind.
    """
    space = namespace.create(ipv6=wiring.ipv6)
    try:
        name = _add_pair(connection, wiring, space.fd)
        host = route.link(connection, name)
        inner = route.link(space.connection, _INTERFACE)
        if host is None or inner is None:
            raise KernelError(errno.ENODEV, "netlink", name)
        connection.run([route.set_port(host.ifindex, isolated=wiring.isolated)])
    except BaseException:
        space.close()
        raise
    return Sandbox(space, inner.ifindex, name, host.ifindex)


def _add_pair(connection: Connection, wiring: Wiring, fd: int) -> str:
    while True:
        name = f"veth{os.urandom(4).hex()[:7]}"
        made = route.add_veth(
            name,
            _INTERFACE,
            netns_fd=fd,
            master=wiring.bridge_index,
            mtu=wiring.mtu,
        )
        try:
            connection.run([made])
        except KernelError as error:
            if error.errno != errno.EEXIST:
                raise
        else:
            return name


class SandboxPool:
    """Keeps `size` sandboxes ready; take() never waits for the background thread."""

    def __init__(self, wiring: Wiring, size: int) -> None:
        """Start the thread."""
        self._wiring = wiring
        self._size = size
        self._ready: queue.SimpleQueue[Sandbox] = queue.SimpleQueue()
        self._used: queue.SimpleQueue[tuple[int, namespace.Namespace | None]] = queue.SimpleQueue()
        self._wake = threading.Event()
        self._hurry = threading.Event()
        self._stop = False
        self._foreground = Connection()
        self._background = Connection()
        self._thread = threading.Thread(target=self._work, name="network-pool", daemon=True)
        self._wake.set()
        self._thread.start()

    def take(self) -> Sandbox:
        """Return a sandbox that is the caller's from now on.

        Raises:
            KernelError: none was ready and the kernel refused a new one.
        """
        try:
            found = self._ready.get_nowait()
        except queue.Empty:
            found = make(self._foreground, self._wiring)
        if self._ready.empty():
            self._hurry.set()
        self._wake.set()
        return found

    def discard(self, host_index: int, space: namespace.Namespace | None) -> None:
        """Delete an interface in the background, then let its namespace go."""
        self._used.put((host_index, space))
        self._wake.set()

    def close(self) -> None:
        """Delete all that is ready or waits for its removal; return when that is done."""
        self._stop = True
        self._hurry.set()
        self._wake.set()
        self._thread.join()
        while not self._ready.empty():
            sandbox = self._ready.get_nowait()
            self._delete(self._foreground, sandbox.host_index, sandbox.space)
        self._foreground.close()
        self._background.close()

    def _work(self) -> None:
        failed = False
        while not self._stop:
            self._wake.wait(_RETRY_S if failed else None)
            self._hurry.wait(0 if self._ready.empty() else _QUIET_S)
            self._wake.clear()
            self._hurry.clear()
            try:
                self._turn()
                failed = False
            except OSError as error:
                if not failed:
                    log.warning("cannot prepare network namespaces: %s", error)
                failed = True
        self._turn()

    def _turn(self) -> None:
        # Making comes first: a container that starts is waited for, one that ended is not.
        while True:
            if not self._stop and self._ready.qsize() < self._size:
                self._ready.put(make(self._background, self._wiring))
            elif not self._used.empty():
                self._delete(self._background, *self._used.get_nowait())
            else:
                return

    def _delete(self, connection: Connection, index: int, space: namespace.Namespace | None) -> None:
        try:
            connection.attempt([route.remove_link(index)], errno.ENODEV, errno.EINVAL)
        finally:
            if space is not None:
                space.close()
