"""Network namespaces held by a descriptor alone; nothing is mounted.

The calling thread enters a new namespace for a moment and returns, so other threads never notice.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from barque.kernel import libc
from barque.kernel.netlink import route
from barque.kernel.netlink.connection import Connection

_CLONE_NEWNET = 0x40000000
_OWN = "/proc/thread-self/ns/net"
_SIOCGSKNS = 0x894C
_IPV6 = "/proc/sys/net/ipv6/conf"


class Namespace:
    """A network namespace: its descriptor and a netlink connection inside; close() ends both."""

    def __init__(self, fd: int, connection: Connection) -> None:
        """Own both."""
        self.fd = fd
        self.connection = connection

    def close(self) -> None:
        """Let go; the kernel removes the namespace once no process is in it."""
        self.connection.close()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


@contextmanager
def _away() -> Iterator[None]:
    home = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield
    finally:
        try:
            # A thread that cannot return would work on the wrong machine from now on.
            if libc.setns(home, _CLONE_NEWNET) != 0:
                os.abort()
        finally:
            os.close(home)


def create(*, ipv6: bool) -> Namespace:
    """Make a namespace with lo up; without ipv6 other interfaces get no IPv6 addresses.

    Raises:
        KernelError: no right to, or too many namespaces.
    """
    with _away():
        if libc.unshare(_CLONE_NEWNET) != 0:
            raise libc.fail("unshare", "network namespace")
        fd = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
        try:
            connection = Connection()
        except BaseException:
            os.close(fd)
            raise
        made = Namespace(fd, connection)
        try:
            _prepare(connection, ipv6=ipv6)
        except BaseException:
            made.close()
            raise
    return made


@contextmanager
def inside(path: str) -> Iterator[None]:
    """Run the body in the network namespace behind a path such as /proc/<pid>/ns/net.

    Raises:
        OSError: the path is gone.
        KernelError: no right to enter.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with entered(fd):
            yield
    finally:
        os.close(fd)


@contextmanager
def entered(fd: int) -> Iterator[None]:
    """Run the body in the network namespace of a descriptor.

    Raises:
        KernelError: no right to enter.
    """
    with _away():
        if libc.setns(fd, _CLONE_NEWNET) != 0:
            raise libc.fail("setns", "network namespace")
        yield


def of_socket(fd: int) -> int:
    """Return a new descriptor of the network namespace that a socket lives in.

    Raises:
        OSError: no right to.
    """
    import fcntl

    return fcntl.ioctl(fd, _SIOCGSKNS)


def open_path(path: str) -> Namespace:
    """Return the namespace behind a path, with a connection inside.

    Raises:
        OSError: the path is gone.
        KernelError: it is no network namespace, or no right to enter.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        with entered(fd):
            return Namespace(fd, Connection())
    except BaseException:
        os.close(fd)
        raise


def write_sysctls(fd: int, values: Mapping[str, str]) -> None:
    """Set switches below /proc/sys in the namespace of a descriptor.

    Raises:
        OSError: there is no such switch, or the kernel takes no such value; errno and filename tell.
    """
    with entered(fd):
        for path, value in values.items():
            switch = os.open(f"/proc/sys/{path}", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(switch, value.encode())
            finally:
                os.close(switch)


def _prepare(connection: Connection, *, ipv6: bool) -> None:
    if not ipv6:
        # Not "all": programs may expect ::1, and a network with IPv6 may be joined later.
        _write_sysctl(f"{_IPV6}/default/disable_ipv6", "1")
    connection.run([route.bring_up(1)])


def _write_sysctl(path: str, value: str) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return  # a kernel without IPv6
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)
