"""Networks of the driver overlay: bridges of several engines joined by VXLAN.

The engines are told of each other's addresses, and the network is made on each with the same name, subnet
and list. Every engine gives out its own part of the subnet: the list of all engines' addresses is sorted,
and the subnet is cut into as many equal parts.
"""

import ipaddress
import socket

from barque.base.errors import ForbiddenError, InvalidInputError, UnsupportedError
from barque.base.ids import SHORT_LENGTH
from barque.kernel.netlink import route
from barque.network import bridge_options
from barque.network.bridge import Bridge
from barque.network.drivers.bridge import BridgeDriver
from barque.network.model import Network, Subnet

PEERS, LOCAL, PORT = "barque.overlay.peers", "barque.overlay.local", "barque.overlay.port"
VXLAN_ID = "com.docker.network.driver.overlay.vxlanid_list"
_DEFAULT_ID, _DEFAULT_PORT, _HEADERS = 4096, 4789, 50
_NO_SWARM = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to '
    f"swarm and try again. Without a swarm name the other engines' addresses: --opt {PEERS}=192.0.2.1,192.0.2.2"
)


class OverlayDriver(BridgeDriver):
    """Makes a bridge with a VXLAN port."""

    def prepare(self, network: Network) -> Network:
        """Check the list of engines, and give this engine its part of the subnets.

        Raises:
            ForbiddenError: no list is given.
            InvalidInputError: an address or number cannot be, or no subnet is named.
            UnsupportedError: the traffic is to be encrypted.
        """
        if not network.options.get(PEERS):
            raise ForbiddenError(_NO_SWARM)
        if "encrypted" in network.options:
            raise UnsupportedError("encrypted overlay networks are not supported: connect the machines by IPsec or WireGuard")
        network = super().prepare(network)
        peers, local = _peers(network), _local(network)
        _number(network, VXLAN_ID, _DEFAULT_ID, (1 << 24) - 1)
        _number(network, PORT, _DEFAULT_PORT, 65535)
        if not any(item.subnet for item in network.subnets):
            raise InvalidInputError("an overlay network needs --subnet, the same on all engines")
        engines = sorted({*peers, local}, key=lambda item: (":" in item, int(ipaddress.ip_address(item))))
        return network._replace(
            options={**network.options, LOCAL: local},
            subnets=tuple(part_of(item, engines.index(local), len(engines)) for item in network.subnets),
        )

    def open(self, network: Network) -> None:
        """Make bridge and port, and tell the port of the other engines."""
        super().open(network)
        try:
            self._open_port(network)
        except BaseException:
            self.close(network)
            raise

    def mend(self, network: Network) -> Bridge:
        """Make a bridge anew that somebody deleted, with its port."""
        super().mend(network)
        self._open_port(network)
        return self.live[network.id].bridge

    def _open_port(self, network: Network) -> None:
        bridge = self.live[network.id].bridge
        name, mtu = f"vx-{network.id[:SHORT_LENGTH]}", bridge_options.parse(network).mtu
        port = route.link(self._connection, name)
        if port is None:
            port = self._make_port(network, name, mtu or 1500 - _HEADERS)
        self._connection.run([route.set_master(port.ifindex, bridge.ifindex)])
        live = self.live[network.id]
        self.live[network.id] = live._replace(wiring=live.wiring._replace(mtu=mtu or port.mtu))

    def _make_port(self, network: Network, name: str, mtu: int) -> route.Link:
        made = route.add_vxlan(
            name, _number(network, VXLAN_ID, _DEFAULT_ID, (1 << 24) - 1), local=network.options[LOCAL],
            port=_number(network, PORT, _DEFAULT_PORT, 65535), mtu=mtu,
        )  # fmt: skip
        self._connection.run([made])
        port = route.link(self._connection, name)
        assert port is not None
        self._connection.run([route.add_flood_target(port.ifindex, peer) for peer in _peers(network)])
        return port

    def close(self, network: Network) -> None:
        """Delete port and bridge."""
        port = route.link(self._connection, f"vx-{network.id[:SHORT_LENGTH]}")
        if port is not None:
            self._connection.run([route.remove_link(port.ifindex)])
        super().close(network)


def part_of(item: Subnet, at: int, count: int) -> Subnet:
    """Return a subnet with the range of the engine that is at this place of count; a range given stays.

    Raises:
        InvalidInputError: the subnet is too small.
    """
    if item.ip_range or not item.subnet:
        return item
    whole = ipaddress.ip_network(item.subnet)
    size = whole.prefixlen + (count - 1).bit_length()
    if size > whole.max_prefixlen - 2:
        raise InvalidInputError(f"the subnet {item.subnet} is too small for {count} engines")
    first = int(whole.network_address) + (at << (whole.max_prefixlen - size))
    address = ipaddress.IPv4Address(first) if whole.version == 4 else ipaddress.IPv6Address(first)
    return item._replace(ip_range=f"{address}/{size}")


def _peers(network: Network) -> list[str]:
    found = []
    for text in network.options[PEERS].split(","):
        try:
            found.append(str(ipaddress.ip_address(text.strip())))
        except ValueError:
            raise InvalidInputError(f"{PEERS}: not an address: {text!r}") from None
    local = network.options.get(LOCAL)
    return [item for item in dict.fromkeys(found) if item != local]


def _local(network: Network) -> str:
    given = network.options.get(LOCAL)
    if given:
        try:
            return str(ipaddress.ip_address(given))
        except ValueError:
            raise InvalidInputError(f"{LOCAL}: not an address: {given!r}") from None
    peer = _peers(network)[0]
    # Connecting a datagram socket sends nothing; it only asks the routes.
    with socket.socket(socket.AF_INET6 if ":" in peer else socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            asking.connect((peer, 9))
            return str(asking.getsockname()[0])
        except OSError as error:
            raise InvalidInputError(f"no route to {peer}: {error.strerror}; name this engine's address: {LOCAL}") from None


def _number(network: Network, key: str, default: int, most: int) -> int:
    text = network.options.get(key) or str(default)
    if not (text.isascii() and text.isdecimal()) or not 1 <= int(text) <= most:
        raise InvalidInputError(f"{key}: want a number from 1 to {most}, not {text!r}")
    return int(text)
