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

# The kernel changes one interface at a time. Unless the pool is empty the thread keeps away this
# long from a container that is just starting or ending.
_QUIET_S = 0.1
_RETRY_S = 1.0


class Wiring(NamedTuple):
    """How veth pairs of a bridge are to be made; `interface` is the name inside."""

    bridge_index: int
    mtu: int
    ipv6: bool
    isolated: bool
    interface: str = "eth0"


class Wire(NamedTuple):
    """An interface (down) in a container's namespace, whose other end is up and in the bridge; 0: no such end."""

    inner_index: int
    host_name: str
    host_index: int


class Sandbox(NamedTuple):
    """A namespace with one wire, made ahead."""

    space: namespace.Namespace
    wire: Wire
    wiring: Wiring

    @property
    def host_index(self) -> int:
        """Return the index of the wire's end on the host."""
        return self.wire.host_index


def make(connection: Connection, wiring: Wiring) -> Sandbox:
    """Make a namespace and its veth pair now.

    Raises:
        KernelError: the kernel refused; nothing is left behind.
    """
    space = namespace.create(ipv6=wiring.ipv6)
    try:
        return Sandbox(space, plug(connection, wiring, space), wiring)
    except BaseException:
        space.close()
        raise


def plug(connection: Connection, wiring: Wiring, space: namespace.Namespace) -> Wire:
    """Make a veth pair between a bridge and a namespace.

    Raises:
        KernelError: the kernel refused; nothing is left behind.
    """
    name = _add_pair(connection, wiring, space.fd)
    host = route.link(connection, name)
    inner = route.link(space.connection, wiring.interface)
    if host is None or inner is None:
        raise KernelError(errno.ENODEV, "netlink", name)
    try:
        connection.run([route.set_port(host.ifindex, isolated=wiring.isolated)])
    except BaseException:
        connection.attempt([route.remove_link(host.ifindex)], errno.ENODEV)
        raise
    return Wire(inner.ifindex, name, host.ifindex)


def _add_pair(connection: Connection, wiring: Wiring, fd: int) -> str:
    while True:
        name = f"veth{os.urandom(4).hex()[:7]}"
        made = route.add_veth(
            name,
            wiring.interface,
            netns_fd=fd,
            master=wiring.bridge_index,
            mtu=wiring.mtu,
        )
        try:
            connection.run([made])
        except KernelError as error:
            if error.errno != errno.EEXIST or route.link(connection, name) is None:
                raise
        else:
            return name


class SandboxPool:
    """Keeps sandboxes and bare namespaces ready; take() and bare() never wait for the background thread."""

    def __init__(self, size: int, bare: int) -> None:
        """Start the thread; sandboxes are made once wire() has told how."""
        self._wiring: Wiring | None = None
        self._size = size
        self._bare_size = bare
        self._ready: queue.SimpleQueue[Sandbox] = queue.SimpleQueue()
        self._bare: queue.SimpleQueue[namespace.Namespace] = queue.SimpleQueue()
        self._used: queue.SimpleQueue[tuple[int, namespace.Namespace | None]] = queue.SimpleQueue()
        self._wake = threading.Event()
        self._hurry = threading.Event()
        self._stop = False
        self._foreground = Connection()
        self._background = Connection()
        self._thread = threading.Thread(target=self._work, name="network-pool", daemon=True)
        self._wake.set()
        self._thread.start()

    def wire(self, wiring: Wiring) -> None:
        """Make sandboxes with this wiring from now on; those made otherwise are thrown away."""
        self._wiring = wiring
        while not self._ready.empty():
            try:
                sandbox = self._ready.get_nowait()
            except queue.Empty:
                break
            self.discard(sandbox.host_index, sandbox.space)
        self._wake.set()

    def take(self) -> Sandbox:
        """Return a sandbox that is the caller's from now on.

        Raises:
            KernelError: none was ready and the kernel refused a new one.
        """
        assert self._wiring is not None
        while True:
            try:
                found = self._ready.get_nowait()
            except queue.Empty:
                found = make(self._foreground, self._wiring)
            if found.wiring == self._wiring:
                break
            self.discard(found.host_index, found.space)
        if self._ready.empty():
            self._hurry.set()
        self._wake.set()
        return found

    def bare(self) -> namespace.Namespace:
        """Return a namespace with nothing but lo in it that is the caller's from now on.

        Raises:
            KernelError: none was ready and the kernel refused a new one.
        """
        try:
            found = self._bare.get_nowait()
        except queue.Empty:
            found = namespace.create(ipv6=False)
        if self._bare.empty():
            self._hurry.set()
        self._wake.set()
        return found

    def discard(self, host_index: int, space: namespace.Namespace | None) -> None:
        """Delete an interface (0: none) in the background, then let its namespace go."""
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
        while not self._bare.empty():
            self._bare.get_nowait().close()
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
            wiring = self._wiring
            if not self._stop and wiring is not None and self._ready.qsize() < self._size:
                self._ready.put(make(self._background, wiring))
            elif not self._stop and self._bare.qsize() < self._bare_size:
                self._bare.put(namespace.create(ipv6=False))
            elif not self._used.empty():
                self._delete(self._background, *self._used.get_nowait())
            else:
                return

    def _delete(self, connection: Connection, index: int, space: namespace.Namespace | None) -> None:
        try:
            if index:
                connection.attempt([route.remove_link(index)], errno.ENODEV, errno.EINVAL)
        finally:
            if space is not None:
                space.close()
