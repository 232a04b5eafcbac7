"""Published ports: reading requests for them, and reserving them by bound sockets.

A reserved TCP port has a listening socket, a UDP port a bound one, so that no other program can
take it while the firewall leads its traffic to a container. Where the firewall cannot do so, the
same socket serves the userland proxy.
"""

import errno
import ipaddress
import itertools
import os
import socket
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from barque.base.errors import BarqueError, InvalidInputError, UnsupportedError
from barque.network.model import PortBinding, PortRequest

_PROTOCOLS = {
    "tcp": (socket.SOCK_STREAM, 0),
    "udp": (socket.SOCK_DGRAM, 0),
    "sctp": (socket.SOCK_STREAM, 132),
}
_FALLBACK_RANGE = (49153, 65535)
_BACKLOG = 128


class Reservation(NamedTuple):
    """A bound port with the socket that holds it, owned by the allocator until free()."""

    binding: PortBinding
    sock: socket.socket


def parse_requests(
    bindings: Mapping[str, Any] | None, exposed: Iterable[str] = (), *, publish_all: bool = False
) -> tuple[PortRequest, ...]:
    """Return what HostConfig.PortBindings, and with publish_all the exposed ports, ask for.

    Raises:
        InvalidInputError: a port, range, protocol or address is none.
    """
    found: list[PortRequest] = []
    wanted = dict(bindings or {})
    if publish_all:
        for spec in exposed:
            wanted.setdefault(spec, [{}])
    for spec, listed in wanted.items():
        for port in _container_ports(spec):
            for item in listed or [{}]:
                found.append(_request(port, spec, item or {}))
    order = sorted(found, key=lambda item: (item.container_port, item.protocol))
    # Fixed ports first: an ephemeral one must not take what is asked for by number.
    return tuple(sorted(order, key=lambda item: item.host_port == 0))


def _container_ports(spec: str) -> range:
    first, last = _span(spec.partition("/")[0], spec)
    if first == 0:
        raise InvalidInputError(f"invalid port specification: {spec!r}")
    return range(first, last + 1)


def _request(port: int, spec: str, item: Mapping[str, Any]) -> PortRequest:
    protocol = (spec.partition("/")[2] or "tcp").lower()
    if protocol not in _PROTOCOLS:
        raise InvalidInputError(f"invalid proto: {protocol}")
    address = str(item.get("HostIp") or "").strip("[]")
    if address:
        try:
            ipaddress.ip_address(address)
        except ValueError:
            raise InvalidInputError(f"invalid IP address: {address}") from None
    first, last = _span(str(item.get("HostPort") or "0"), spec)
    return PortRequest(port, protocol, address, first, last)


def _span(text: str, spec: str) -> tuple[int, int]:
    low, dash, high = text.partition("-")
    first = _number(low, spec)
    last = _number(high, spec) if dash else first
    if last < first:
        raise InvalidInputError(f"invalid port range: {text}")
    return first, last


def _number(text: str, spec: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 5 and int(text) <= 65535):
        raise InvalidInputError(f"invalid port {text!r} in {spec!r}: want a number from 0 to 65535")
    return int(text)


def host_has_ipv6() -> bool:
    """Tell whether this machine speaks IPv6 at all."""
    try:
        with open("/proc/sys/net/ipv6/conf/all/disable_ipv6", encoding="ascii") as file:
            return file.read().strip() == "0"
    except OSError:
        return False


class PortAllocator:
    """All ports that this engine holds on the host."""

    def __init__(self) -> None:
        """Start with none."""
        self._held: dict[tuple[str, int], list[str]] = {}
        self._last: dict[str, int] = {}

    def reserve(self, request: PortRequest, addresses: list[str], target: str) -> list[Reservation]:
        """Reserve one port number on all of the host addresses.

        Args:
            request: which port, or range to take the first free of.
            addresses: host addresses; the number is the same on each.
            target: the container's address, for error texts.

        Raises:
            BarqueError: the port, or all of the range, is taken.
            UnsupportedError: this kernel does not know the protocol.
        """
        failure: BarqueError | None = None
        for port in self._candidates(request):
            try:
                found = self._reserve_number(request, port, addresses, target)
            except UnsupportedError:
                raise
            except BarqueError as error:
                failure = error
                continue
            if not request.host_port:
                self._last[request.protocol] = port
            return found
        raise failure or BarqueError("all ports are allocated")

    def free(self, reservations: Iterable[Reservation]) -> None:
        """Give ports back and close their sockets."""
        for binding, sock in reservations:
            key = (binding.protocol, binding.host_port)
            holders = self._held.get(key, [])
            if binding.host_ip in holders:
                holders.remove(binding.host_ip)
            if not holders:
                self._held.pop(key, None)
            sock.close()

    def _candidates(self, request: PortRequest) -> Iterable[int]:
        if request.host_port:
            return range(request.host_port, max(request.host_port_end, request.host_port) + 1)
        low, high = _ephemeral_range()
        shut = _reserved_ports()
        start = self._last.get(request.protocol, low - 1) + 1
        if not low <= start <= high:
            start = low
        turn = itertools.chain(range(start, high + 1), range(low, start))
        return (port for port in turn if port not in shut)

    def _reserve_number(self, request: PortRequest, port: int, addresses: list[str], target: str) -> list[Reservation]:
        found: list[Reservation] = []
        try:
            for address in addresses:
                self._check_ours(request.protocol, address, port)
                binding = PortBinding(request.container_port, request.protocol, address, port)
                found.append(Reservation(binding, _bind(binding, target)))
                self._held.setdefault((request.protocol, port), []).append(address)
        except BaseException:
            self.free(found)
            raise
        return found

    def _check_ours(self, protocol: str, address: str, port: int) -> None:
        mine = ipaddress.ip_address(address)
        for other in self._held.get((protocol, port), ()):
            theirs = ipaddress.ip_address(other)
            clash = mine == theirs or mine.is_unspecified or theirs.is_unspecified
            if clash and mine.version == theirs.version:
                shown = f"[{address}]" if mine.version == 6 else address
                raise BarqueError(f"Bind for {shown}:{port} failed: port is already allocated")


def _bind(binding: PortBinding, target: str) -> socket.socket:
    v6 = ":" in binding.host_ip
    kind, number = _PROTOCOLS[binding.protocol]
    try:
        sock = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, kind, number)
    except OSError as error:
        if error.errno in (errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT):
            raise UnsupportedError(f"this kernel has no {binding.protocol} support") from None
        raise
    try:
        if v6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_STREAM:
            # Old connections that linger do not count; a socket that listens still does.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((binding.host_ip, binding.host_port))
        if kind == socket.SOCK_STREAM:
            sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        host = f"[{binding.host_ip}]" if v6 else binding.host_ip
        words = os.strerror(error.errno or 0).lower()
        raise BarqueError(
            f"failed to bind host port for {host}:{binding.host_port}:{target}:"
            f"{binding.container_port}/{binding.protocol}: {words}"
        ) from None
    return sock


def _ephemeral_range() -> tuple[int, int]:
    try:
        with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as file:
            low, high = file.read().split()
        return int(low), int(high)
    except (OSError, ValueError):
        return _FALLBACK_RANGE


def _reserved_ports() -> set[int]:
    try:
        with open("/proc/sys/net/ipv4/ip_local_reserved_ports", encoding="ascii") as file:
            text = file.read().strip()
    except OSError:
        return set()
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        low, _, high = part.partition("-")
        found.update(range(int(low), int(high or low) + 1))
    return found
