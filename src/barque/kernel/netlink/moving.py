"""Handing an interface of the caller's network namespace to a process in another one, addresses and all.

What the kernel drops on the way (addresses, the state `up`) is put back on the other side. Who calls
it: the runtime, for `linux.netDevices`.
"""

import errno
import os
import struct
from typing import NamedTuple

from barque.base.errors import KernelError
from barque.kernel import libc, namespaces
from barque.kernel.netlink import codec
from barque.kernel.netlink.codec import Request
from barque.kernel.netlink.connection import Connection

_NEWLINK, _GETLINK = 16, 18
_NEWADDR, _GETADDR = 20, 22
_IFLA_IFNAME, _IFLA_NET_NS_FD = 3, 28
_IFA_FLAGS = 8
_IFA_F_PERMANENT = 0x80
_IFF_UP = 1
# What an address is made of: address, local, label, broadcast, anycast, flags, route priority, protocol.
_KEPT = (1, 2, 3, 4, 5, 8, 9, 11)


class Address(NamedTuple):
    """An address as the kernel describes it: family, prefix length, scope, and its attributes."""

    family: int
    prefix_length: int
    scope: int
    attributes: tuple[tuple[int, bytes], ...]


def move(name: str, new_name: str, netns_fd: int) -> None:
    """Move an interface to another network namespace, under a new name, and bring it up there.

    Raises:
        KernelError: ENODEV without such an interface, EEXIST where its new name is taken.
    """
    here = Connection()
    try:
        index = _index(here, name)
        kept = _addresses(here, index)
        body = _link(index) + codec.u32(_IFLA_NET_NS_FD, netns_fd) + codec.text(_IFLA_IFNAME, new_name)
        here.run([Request(_NEWLINK, 0, body)])
    finally:
        here.close()
    there = _connect_in(netns_fd)
    try:
        index = _index(there, new_name)
        there.run([_add(index, address, new_name) for address in kept])
        there.run([Request(_NEWLINK, 0, _link(index, _IFF_UP))])
    finally:
        there.close()


def _connect_in(netns_fd: int) -> Connection:
    """Return a connection to another namespace; the caller's thread is back in its own before this returns."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        namespaces.setns(netns_fd, namespaces.KINDS["network"][0])
        try:
            return Connection()
        finally:
            if libc.setns(home, namespaces.KINDS["network"][0]):
                # A thread that cannot return would work on the wrong machine from now on.
                os.abort()
    finally:
        os.close(home)


def _link(index: int, up: int = 0) -> bytes:
    return struct.pack("=BxHiII", 0, 0, index, up, up)


def _index(connection: Connection, name: str) -> int:
    try:
        answer = connection.dump(_GETLINK, _link(0) + codec.text(_IFLA_IFNAME, name), 0)
    except KernelError as error:
        raise KernelError(error.errno or errno.ENODEV, "find network device", name) from None
    index: int = struct.unpack_from("=BxHiII", answer[0])[2]
    return index


def _addresses(connection: Connection, wanted: int) -> list[Address]:
    """Return the lasting addresses of an interface that are not the kernel's own doing."""
    found = []
    for payload in connection.dump(_GETADDR, struct.pack("=BBBBI", 0, 0, 0, 0, 0)):
        family, prefix_length, flags, scope, index = struct.unpack_from("=BBBBI", payload)
        table = dict(codec.attribute_list(payload[8:]))
        flags = int.from_bytes(table.get(_IFA_FLAGS, bytes((flags,))), "little")
        if index == wanted and scope == 0 and flags & _IFA_F_PERMANENT:
            found.append(Address(family, prefix_length, scope, tuple(table.items())))
    return found


def _add(index: int, address: Address, name: str) -> Request:
    body = struct.pack("=BBBBI", address.family, address.prefix_length, 0, address.scope, index)
    for kind, value in address.attributes:
        if kind == 3:
            # The label begins with the interface's name.
            body += codec.text(kind, name)
        elif kind in _KEPT:
            body += codec.attribute(kind, value)
    return Request(_NEWADDR, codec.NLM_F_CREATE | codec.NLM_F_EXCL, body)
