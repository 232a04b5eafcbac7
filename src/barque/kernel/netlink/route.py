"""The rtnetlink messages that networks need: links, addresses, routes, bridge ports.

Builders return requests and do nothing; readers ask a connection. Numbers are those of
linux/if_link.h, linux/rtnetlink.h and linux/if_addr.h.
"""

import errno
import ipaddress
import socket
import struct
from typing import NamedTuple

from barque.base.errors import KernelError
from barque.kernel.netlink import codec
from barque.kernel.netlink.codec import Request
from barque.kernel.netlink.connection import Connection

IFF_UP = 0x1

_NEWLINK, _DELLINK, _GETLINK, _SETLINK = 16, 17, 18, 19
_NEWADDR, _DELADDR, _GETADDR = 20, 21, 22
_NEWROUTE, _DELROUTE, _GETROUTE = 24, 25, 26
_NEWNEIGH = 28
_RTA_OIF, _RTPROT_RA = 4, 9
_CREATE = codec.NLM_F_CREATE | codec.NLM_F_EXCL
_AF_BRIDGE = 7

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_MASTER, _IFLA_AF_SPEC = 1, 3, 4, 5, 10, 26
_IFLA_PROTINFO, _IFLA_LINKINFO, _IFLA_IFALIAS, _IFLA_STATS64, _IFLA_GROUP, _IFLA_NET_NS_FD = 12, 18, 20, 23, 27, 28
_IFLA_EXT_MASK, _WITHOUT_STATISTICS, _INFO_KIND = 29, 1 << 3, 1
_OF_LINKS = frozenset((_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_MASTER, _IFLA_LINKINFO, _IFLA_IFALIAS, _IFLA_GROUP))
_IPV4_ARP_NOTIFY = 22
_BRPORT_STATE, _BRPORT_MODE, _BRPORT_FLUSH, _BRPORT_ISOLATED = 1, 4, 24, 33


class Link(NamedTuple):
    """A network interface as the kernel describes it; master and parent are 0 where there is none."""

    ifindex: int
    name: str
    flags: int
    mtu: int
    master: int
    alias: str
    mac: str
    kind: str
    parent: int = 0
    group: int = 0


class Counters(NamedTuple):
    """Traffic counters of an interface, from that interface's own point of view."""

    rx_packets: int
    tx_packets: int
    rx_bytes: int
    tx_bytes: int
    rx_errors: int
    tx_errors: int
    rx_dropped: int
    tx_dropped: int


def _info(index: int = 0, flags: int = 0, change: int = 0, family: int = 0) -> bytes:
    return struct.pack("=BxHiII", family, 0, index, flags, change)


def mac_bytes(mac: str) -> bytes:
    """Return the six bytes of a MAC address.

    Raises:
        ValueError: mac is not one.
    """
    data = bytes.fromhex(mac.replace(":", "").replace("-", ""))
    if len(data) != 6:
        raise ValueError(f"not a MAC address: {mac}")
    return data


def add_bridge(name: str, *, mtu: int, mac: str, group: int = 0) -> Request:
    """Make a bridge without spanning tree, up, in a group of interfaces."""
    body = _info(flags=IFF_UP, change=IFF_UP)
    body += codec.text(_IFLA_IFNAME, name) + codec.u32(_IFLA_MTU, mtu)
    body += codec.attribute(_IFLA_ADDRESS, mac_bytes(mac)) + codec.u32(_IFLA_GROUP, group)
    body += codec.nested(_IFLA_LINKINFO, codec.text(1, "bridge"))
    return Request(_NEWLINK, _CREATE, body)


def add_veth(name: str, peer: str, *, netns_fd: int, master: int, mtu: int) -> Request:
    """Make a veth pair: `name` up and in the bridge `master`, `peer` down in another namespace."""
    other = _info() + codec.text(_IFLA_IFNAME, peer) + codec.u32(_IFLA_MTU, mtu)
    other += codec.u32(_IFLA_NET_NS_FD, netns_fd)
    data = codec.nested(2, codec.attribute(1, other))
    body = _info(flags=IFF_UP, change=IFF_UP)
    body += codec.text(_IFLA_IFNAME, name) + codec.u32(_IFLA_MTU, mtu)
    if master:
        body += codec.u32(_IFLA_MASTER, master)
    body += codec.nested(_IFLA_LINKINFO, codec.text(1, "veth"), data)
    return Request(_NEWLINK, _CREATE, body)


def add_macvlan(name: str, parent: int, mode: int, *, mac: str, netns_fd: int, mtu: int = 0) -> Request:
    """Make a macvlan interface in another namespace; modes: 1 private, 2 vepa, 4 bridge, 8 passthru."""
    body = _info() + codec.text(_IFLA_IFNAME, name) + codec.u32(_IFLA_LINK, parent)
    body += codec.u32(_IFLA_NET_NS_FD, netns_fd)
    if mac:
        body += codec.attribute(_IFLA_ADDRESS, mac_bytes(mac))
    if mtu:
        body += codec.u32(_IFLA_MTU, mtu)
    data = codec.nested(2, codec.u32(1, mode))
    return Request(_NEWLINK, _CREATE, body + codec.nested(_IFLA_LINKINFO, codec.text(1, "macvlan"), data))


def add_ipvlan(name: str, parent: int, mode: int, flags: int, *, netns_fd: int, mtu: int = 0) -> Request:
    """Make an ipvlan interface in another namespace; modes: 0 l2, 1 l3, 2 l3s; flags: 1 private, 2 vepa."""
    body = _info() + codec.text(_IFLA_IFNAME, name) + codec.u32(_IFLA_LINK, parent)
    body += codec.u32(_IFLA_NET_NS_FD, netns_fd)
    if mtu:
        body += codec.u32(_IFLA_MTU, mtu)
    data = codec.nested(2, codec.attribute(1, struct.pack("=H", mode)), codec.attribute(2, struct.pack("=H", flags)))
    return Request(_NEWLINK, _CREATE, body + codec.nested(_IFLA_LINKINFO, codec.text(1, "ipvlan"), data))


def add_vlan(name: str, parent: int, number: int) -> Request:
    """Make an 802.1q sub-interface, up."""
    body = _info(flags=IFF_UP, change=IFF_UP) + codec.text(_IFLA_IFNAME, name) + codec.u32(_IFLA_LINK, parent)
    data = codec.nested(2, codec.attribute(1, struct.pack("=H", number)))
    return Request(_NEWLINK, _CREATE, body + codec.nested(_IFLA_LINKINFO, codec.text(1, "vlan"), data))


def add_dummy(name: str) -> Request:
    """Make an interface that leads nowhere, up."""
    body = _info(flags=IFF_UP, change=IFF_UP) + codec.text(_IFLA_IFNAME, name)
    return Request(_NEWLINK, _CREATE, body + codec.nested(_IFLA_LINKINFO, codec.text(1, "dummy")))


def add_vxlan(name: str, number: int, *, local: str, port: int, mtu: int) -> Request:
    """Make an end of VXLAN tunnels, up; where frames go is told by add_flood_target()."""
    body = _info(flags=IFF_UP, change=IFF_UP) + codec.text(_IFLA_IFNAME, name) + codec.u32(_IFLA_MTU, mtu)
    parts = [codec.u32(1, number), codec.attribute(15, struct.pack("!H", port)), codec.u8(7, 1)]
    if local:
        address = ipaddress.ip_address(local)
        parts.append(codec.attribute(4 if address.version == 4 else 17, address.packed))
    return Request(_NEWLINK, _CREATE, body + codec.nested(_IFLA_LINKINFO, codec.text(1, "vxlan"), codec.nested(2, *parts)))


def add_flood_target(index: int, address: str) -> Request:
    """Send frames of a VXLAN port whose receiver is not known, and those for all, to another machine too."""
    ip = ipaddress.ip_address(address)
    # A permanent entry of the all-zero address, on the port itself.
    body = struct.pack("=BxxxiHBB", _AF_BRIDGE, index, 0x80, 0x2, 0)
    body += codec.attribute(1, ip.packed) + codec.attribute(2, bytes(6))
    return Request(_NEWNEIGH, codec.NLM_F_CREATE | codec.NLM_F_APPEND, body)


def probe(kind: str) -> Request:
    """Ask for an interface on no parent, which always fails: EOPNOTSUPP where the kernel has no such kind."""
    body = _info() + codec.text(_IFLA_IFNAME, "probe%d") + codec.nested(_IFLA_LINKINFO, codec.text(1, kind))
    return Request(_NEWLINK, _CREATE, body)


def set_master(index: int, master: int) -> Request:
    """Put an interface into a bridge."""
    return Request(_NEWLINK, 0, _info(index) + codec.u32(_IFLA_MASTER, master))


def bring_up(
    index: int, *, mac: str = "", mtu: int = 0, alias: str | None = None, announce: bool = False
) -> Request:
    """Set an interface up, with what is given; an alias takes it out of its group; announce: tell neighbours its addresses."""
    body = _info(index, IFF_UP, IFF_UP)
    if mac:
        body += codec.attribute(_IFLA_ADDRESS, mac_bytes(mac))
    if mtu:
        body += codec.u32(_IFLA_MTU, mtu)
    if alias is not None:
        body += codec.text(_IFLA_IFALIAS, alias) + codec.u32(_IFLA_GROUP, 0)
    if announce:
        conf = codec.nested(1, codec.u32(_IPV4_ARP_NOTIFY, 1))
        body += codec.nested(_IFLA_AF_SPEC, codec.nested(socket.AF_INET, conf))
    return Request(_NEWLINK, 0, body)


def rename(index: int, name: str) -> Request:
    """Give an interface that is down another name."""
    return Request(_NEWLINK, 0, _info(index) + codec.text(_IFLA_IFNAME, name))


def remove_link(index: int) -> Request:
    """Delete an interface; the other end of a veth goes with it."""
    return Request(_DELLINK, 0, _info(index))


def add_address(index: int, address: str, prefix_length: int) -> Request:
    """Give an interface an address; IPv6 without duplicate detection, as we hand them out."""
    ip = ipaddress.ip_address(address)
    family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
    body = struct.pack("=BBBBI", family, prefix_length, 0 if ip.version == 4 else 2, 0, index)
    body += codec.attribute(1, ip.packed) + codec.attribute(2, ip.packed)
    if ip.version == 4 and prefix_length < 31:
        net = ipaddress.ip_network((ip, prefix_length), strict=False)
        body += codec.attribute(4, net.broadcast_address.packed)
    return Request(_NEWADDR, _CREATE, body)


def _default_route(index: int, version: int) -> bytes:
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    return struct.pack("=BBBBBBBBI", family, 0, 0, 0, 254, 3, 0, 1, 0) + codec.u32(4, index)


def add_default_route(index: int, gateway: str) -> Request:
    """Send all that has no better route to a gateway; without one (0.0.0.0 or ::) straight out of the interface."""
    ip = ipaddress.ip_address(gateway)
    body = _default_route(index, ip.version)
    if not ip.is_unspecified:
        body += codec.attribute(5, ip.packed)
    elif ip.version == 4:
        body = body[:6] + bytes((253,)) + body[7:]  # scope link
    return Request(_NEWROUTE, _CREATE, body)


def remove_default_route(index: int, version: int) -> Request:
    """Take away the default route that leads out of an interface."""
    body = _default_route(index, version)
    # Neither scope nor origin matter for finding it.
    return Request(_DELROUTE, 0, body[:5] + bytes((0, 255)) + body[7:])


def set_port(index: int, *, isolated: bool) -> Request:
    """Let a bridge port send back what came from it; isolated ports cannot talk to each other."""
    port = codec.nested(_IFLA_PROTINFO, codec.u8(_BRPORT_MODE, 1), codec.u8(_BRPORT_ISOLATED, int(isolated)))
    return Request(_SETLINK, 0, _info(index, family=_AF_BRIDGE) + port)


def silence_port(index: int) -> Request:
    """Stop a bridge port and forget its neighbours, at once; deleting an interface takes longer."""
    port = codec.nested(_IFLA_PROTINFO, codec.u8(_BRPORT_STATE, 0), codec.attribute(_BRPORT_FLUSH, b""))
    return Request(_SETLINK, 0, _info(index, family=_AF_BRIDGE) + port)


def links(connection: Connection, kind: str = "") -> list[Link]:
    """Return all interfaces of the connection's namespace, or those of a kind."""
    # Most of what an interface has to tell are its counters.
    body = _info() + codec.u32(_IFLA_EXT_MASK, _WITHOUT_STATISTICS)
    if kind:
        # Kernels before 4.6 do not choose.
        body += codec.nested(_IFLA_LINKINFO, codec.text(_INFO_KIND, kind))
    found = map(_link, connection.dump(_GETLINK, body))
    return [one for one in found if not kind or one.kind == kind]


def link(connection: Connection, name: str) -> Link | None:
    """Return the interface of a name, None where there is none."""
    body = _info() + codec.text(_IFLA_IFNAME, name)
    try:
        answer = connection.dump(_GETLINK, body, 0)
    except KernelError as error:
        if error.errno == errno.ENODEV:
            return None
        raise
    return _link(answer[0])


def link_at(connection: Connection, index: int) -> Link | None:
    """Return the interface of an index, None where there is none."""
    try:
        answer = connection.dump(_GETLINK, _info(index), 0)
    except KernelError as error:
        if error.errno == errno.ENODEV:
            return None
        raise
    return _link(answer[0])


def counters(connection: Connection, index: int) -> Counters:
    """Return an interface's traffic counters.

    Raises:
        KernelError: ENODEV, no such interface.
    """
    answer = connection.dump(_GETLINK, _info(index), 0)
    data = codec.attributes(answer[0][16:])[_IFLA_STATS64]
    return Counters(*struct.unpack_from("=8Q", data))


def addresses(connection: Connection, index: int) -> list[tuple[str, int]]:
    """Return (address, prefix length) of an interface, link-local ones left out."""
    found = []
    for payload in connection.dump(_GETADDR, struct.pack("=BBBBI", 0, 0, 0, 0, 0)):
        _, prefix_length, _, scope, owner = struct.unpack_from("=BBBBI", payload)
        table = codec.attributes(payload[8:])
        raw = table.get(2) or table.get(1)
        if owner == index and scope == 0 and raw is not None:
            found.append((str(ipaddress.ip_address(raw)), prefix_length))
    return found


def all_addresses(connection: Connection) -> frozenset[str]:
    """Return all addresses of the connection's namespace."""
    found = set()
    for payload in connection.dump(_GETADDR, struct.pack("=BBBBI", 0, 0, 0, 0, 0)):
        table = codec.attributes(payload[8:])
        raw = table.get(2) or table.get(1)
        if raw is not None:
            found.add(str(ipaddress.ip_address(raw)))
    return frozenset(found)


def destinations(connection: Connection) -> list[str]:
    """Return the networks that the main table has IPv4 and IPv6 routes to, default ones left out."""
    found = []
    for payload in connection.dump(_GETROUTE, struct.pack("=BBBBBBBBI", *([0] * 9))):
        _, prefix_length, _, _, table, _, _, kind, _ = struct.unpack_from("=BBBBBBBBI", payload)
        if table != 254 or kind != 1 or not prefix_length:
            continue
        raw = codec.attributes(payload[12:]).get(1)
        if raw is not None:
            found.append(f"{ipaddress.ip_address(raw)}/{prefix_length}")
    return found


def taught_by_routers(connection: Connection) -> frozenset[int]:
    """Return the indexes of interfaces with IPv6 default routes that a router's advertisements brought."""
    found = connection.dump(_GETROUTE, struct.pack("=BBBBBBBBI", socket.AF_INET6, *([0] * 8)))
    return frozenset(
        int.from_bytes(codec.attributes(payload[12:]).get(_RTA_OIF, b""), "little")
        for payload in found if payload[5] == _RTPROT_RA
    )  # fmt: skip


def _link(payload: bytes) -> Link:
    _, _, index, flags, _ = struct.unpack_from("=BxHiII", payload)
    table = codec.attributes(payload[16:], _OF_LINKS)

    def word(key: int) -> str:
        return table.get(key, b"").rstrip(b"\0").decode(errors="replace")

    info = codec.attributes(table.get(_IFLA_LINKINFO, b""))
    return Link(
        ifindex=index,
        name=word(_IFLA_IFNAME),
        flags=flags,
        mtu=int.from_bytes(table.get(_IFLA_MTU, b""), "little"),
        master=int.from_bytes(table.get(_IFLA_MASTER, b""), "little"),
        alias=word(_IFLA_IFALIAS),
        mac=table.get(_IFLA_ADDRESS, b"").hex(":"),
        kind=info.get(1, b"").rstrip(b"\0").decode(),
        parent=int.from_bytes(table.get(_IFLA_LINK, b""), "little"),
        group=int.from_bytes(table.get(_IFLA_GROUP, b""), "little"),
    )
