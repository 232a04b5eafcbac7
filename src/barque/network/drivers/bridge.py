"""Networks of the driver bridge: one Linux bridge each, with the subnet's gateway as its address."""

from collections.abc import Iterable
from typing import NamedTuple

from barque.base.errors import ForbiddenError, InvalidInputError
from barque.base.ids import SHORT_LENGTH
from barque.kernel.netlink.connection import Connection
from barque.kernel.netlink.namespace import Namespace
from barque.network import bridge as bridges, bridge_options, pool
from barque.network.bridge_options import BridgeOptions
from barque.network.drivers.driver import gateway_of, prefix_length_of
from barque.network.firewall import BridgeRules
from barque.network.model import Network, NetworkOptions


class Live(NamedTuple):
    """A network's bridge as it stands."""

    bridge: bridges.Bridge
    options: BridgeOptions
    wiring: pool.Wiring


class BridgeDriver:
    """Makes bridges and veth pairs."""

    publishes = True
    own_mac = True

    def __init__(self, connection: Connection, alias: str, options: NetworkOptions) -> None:
        """Mark bridges that are ours with the alias."""
        self._connection = connection
        self._alias = alias
        self._options = options
        self.live: dict[str, Live] = {}

    def prepare(self, network: Network) -> Network:
        """Check the options, and that no other network has the bridge.

        Raises:
            InvalidInputError: an option cannot be.
            ForbiddenError: several subnets of one IP version, or the bridge is another network's.
        """
        options = bridge_options.parse(network)
        if not network.ipv4 and not network.ipv6:
            raise InvalidInputError("IPv4 or IPv6 must be enabled")
        for version in (4, 6):
            if sum((":" in item.subnet) == (version == 6) for item in network.subnets if item.subnet) > 1:
                raise ForbiddenError("bridge driver doesn't support multiple subnets")
        for other_id, live in self.live.items():
            if live.bridge.name == self._name(network, options):
                raise ForbiddenError(
                    f"cannot create network {network.id} ({live.bridge.name}): conflicts with network "
                    f"{other_id} ({live.bridge.name}): networks have same bridge name"
                )
        return network

    def gateways(self, network: Network) -> tuple[bool, bool]:
        """Only isolated bridges have no address of their own."""
        options = bridge_options.parse(network)
        return options.mode4 != "isolated", options.mode6 != "isolated"

    def open(self, network: Network) -> None:
        """Make the bridge, or take the one that is there.

        Raises:
            InvalidInputError: an interface of another kind has its name.
            KernelError: the kernel refused.
        """
        options = bridge_options.parse(network)
        bridge = bridges.set_up(
            self._connection, self._name(network, options), self._addresses(network, options),
            mtu=options.mtu, alias=self._alias,
        )  # fmt: skip
        try:
            bridges.open_ways(self._connection, bridge, self._options)
        except BaseException:
            bridges.remove(self._connection, bridge)
            raise
        self.adopt(network, bridge, options)

    def adopt(self, network: Network, bridge: bridges.Bridge, options: BridgeOptions) -> None:
        """Take note of a network's bridge that stands."""
        wiring = pool.Wiring(
            bridge_index=bridge.ifindex, mtu=bridge.mtu, ipv6=False, isolated=not options.icc and not bridges.firewall_sees_frames(),
            interface=f"{options.prefix}0",
        )  # fmt: skip
        self.live[network.id] = Live(bridge, options, wiring)

    def mend(self, network: Network) -> bridges.Bridge:
        """Make a bridge anew that somebody deleted, with the MAC address that neighbours know.

        Raises:
            KernelError: the kernel refused.
        """
        live = self.live[network.id]
        old = live.bridge
        addresses = [f"{old.address}/{old.prefix_length}" if old.address else "",
                     f"{old.address6}/{old.prefix_length6}" if old.address6 else ""]  # fmt: skip
        bridge = bridges.set_up(
            self._connection, old.name, addresses, mtu=old.mtu, alias=self._alias, mac=old.mac
        )  # fmt: skip
        bridges.open_ways(self._connection, bridge, self._options)
        self.live[network.id] = live._replace(
            bridge=bridge, wiring=live.wiring._replace(bridge_index=bridge.ifindex)
        )
        return bridge

    def close(self, network: Network) -> None:
        """Delete the bridge if it is ours."""
        live = self.live.pop(network.id, None)
        if live is not None:
            bridges.remove(self._connection, live.bridge, force=True)

    def plug(self, network: Network, space: Namespace, interface: str, mac: str) -> pool.Wire:
        """Make a veth pair."""
        wiring = self.live[network.id].wiring._replace(interface=interface)
        return pool.plug(self._connection, wiring, space)

    def default_gateways(self, network: Network, ip: str, ip6: str) -> tuple[str, str]:
        """Return the bridge's addresses, or those that auxiliary addresses name."""
        if network.internal:
            return "", ""
        names = {key: value for item in network.subnets for key, value in item.auxiliary.items()}
        first = names.get("DefaultGatewayIPv4") or gateway_of(network, ip)
        second = names.get("DefaultGatewayIPv6") or gateway_of(network, ip6)
        return first if ip else "", second if ip6 else ""

    def settings(self, network: Network) -> BridgeOptions:
        """Return the network's options."""
        return self.live[network.id].options

    def rules(self, network: Network) -> BridgeRules | None:
        """Return the bridge's rules."""
        live = self.live[network.id]
        options = live.options
        modes = (options.mode4, options.mode6)
        wanted = options.masquerade and not network.internal
        nat = tuple(mode in ("nat", "nat-unprotected") for mode in modes)
        return BridgeRules(
            live.bridge.name,
            masquerade=(wanted and nat[0], wanted and nat[1]),
            icc=options.icc,
            internal=network.internal,
            source=(options.host4, options.host6),
            unprotected=(modes[0] == "nat-unprotected", modes[1] == "nat-unprotected"),
            routed=(modes[0] == "routed", modes[1] == "routed"),
            trusted=options.trusted,
            addresses=tuple(filter(None, (live.bridge.address, live.bridge.address6))),
        )

    def _name(self, network: Network, options: BridgeOptions) -> str:
        return options.name or f"br-{network.id[:SHORT_LENGTH]}"

    def _addresses(self, network: Network, options: BridgeOptions) -> Iterable[str]:
        found = []
        for item in network.subnets:
            isolated = (options.mode6 if ":" in item.subnet else options.mode4) == "isolated"
            hidden = options.inhibit_ipv4 and ":" not in item.subnet
            if item.gateway and not isolated and not hidden:
                found.append(f"{item.gateway}/{prefix_length_of(network, item.gateway)}")
        return found
