"""Networks of the drivers macvlan and ipvlan: containers appear on the network of one of the host's interfaces."""

import errno
import os
import re

from barque.base.errors import BarqueError, ForbiddenError, InvalidInputError, KernelError, UnsupportedError
from barque.base.ids import SHORT_LENGTH
from barque.kernel.netlink import route
from barque.kernel.netlink.connection import Connection
from barque.kernel.netlink.namespace import Namespace
from barque.network.bridge_options import PREFIX, BridgeOptions, is_interface_name, mtu_of
from barque.network.drivers.driver import gateway_of
from barque.network.firewall import BridgeRules
from barque.network.ipam import random_mac
from barque.network.model import Network
from barque.network.pool import Wire

PARENT, MACVLAN_MODE = "parent", "macvlan_mode"
IPVLAN_MODE, IPVLAN_FLAG = "ipvlan_mode", "ipvlan_flag"
_MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
_IPVLAN_MODES = {"l2": 0, "l3": 1, "l3s": 2}
_IPVLAN_FLAGS = {"bridge": 0, "private": 1, "vepa": 2}


class SharedInterfaceDriver:
    """Makes interfaces on top of a parent; `kind` is macvlan or ipvlan."""

    publishes = False

    def __init__(self, kind: str, connection: Connection, alias: str) -> None:
        """Mark parents that we made with the alias."""
        self._kind = kind
        self.own_mac = kind == "macvlan"
        self._connection = connection
        self._alias = alias
        self._live: dict[str, tuple[Network, str]] = {}

    def prepare(self, network: Network) -> Network:
        """Check mode, parent and size of packets.

        Raises:
            InvalidInputError: an unknown mode or flag, a wrong name or size.
            ForbiddenError: another network uses the parent alone.
            UnsupportedError: this kernel has no such interfaces.
        """
        options = network.options
        parent = options.get(PARENT, "")
        for name in filter(None, (parent, f"{self.settings(network).prefix}0")):
            if not is_interface_name(name):
                raise InvalidInputError(f"invalid interface name: {name!r}")
        mtu_of(options)
        if self._kind == "macvlan":
            mode = options.get(MACVLAN_MODE, "bridge")
            if mode not in _MACVLAN_MODES:
                raise InvalidInputError(f"requested macvlan mode '{mode}' is not valid, 'bridge' mode is the "
                                        "macvlan driver default")  # fmt: skip
            self._check_alone(parent, mode)
        else:
            for key, known, default in ((IPVLAN_MODE, _IPVLAN_MODES, "l2"), (IPVLAN_FLAG, _IPVLAN_FLAGS, "bridge")):
                if options.get(key, default) not in known:
                    raise InvalidInputError(f"requested ipvlan {key.partition('_')[2]} '{options[key]}' is not valid, "
                                            f"'{default}' is the ipvlan driver default")  # fmt: skip
        self._check_kernel()
        # Containers on a parent of their own that leads nowhere are as good as internal.
        return network if parent else network._replace(internal=True)

    def _check_alone(self, parent: str, mode: str) -> None:
        for other, _ in self._live.values():
            if parent and other.options.get(PARENT) == parent:
                theirs = other.options.get(MACVLAN_MODE, "bridge")
                if "passthru" in (mode, theirs):
                    raise ForbiddenError(f"network {other.id} already uses parent interface {parent} in mode {theirs}")

    def _check_kernel(self) -> None:
        """Ask for an interface on a parent that cannot be: a kernel that knows the kind says so first."""
        try:
            self._connection.run([route.probe(self._kind)])
        except KernelError as error:
            if error.errno == errno.EOPNOTSUPP:
                raise UnsupportedError(
                    f"this kernel has no {self._kind} interfaces: load the module {self._kind}, or choose another driver"
                ) from None

    def gateways(self, network: Network) -> tuple[bool, bool]:
        """The neighbours' router is the gateway; the first address is taken for it."""
        return True, True

    def open(self, network: Network) -> None:
        """Find the parent, or make it: a VLAN of another interface (eth0.10), or one that leads nowhere.

        Raises:
            BarqueError: there is no such interface, or the kernel cannot make it.
        """
        name = network.options.get(PARENT) or f"dm-{network.id[:SHORT_LENGTH]}"
        if route.link(self._connection, name) is None:
            try:
                self._make_parent(network, name)
            except KernelError as error:
                words = "this kernel cannot make it" if error.errno == errno.EOPNOTSUPP else str(error)
                raise BarqueError(f"failed to create the parent interface {name}: {words}") from error
            made = route.link(self._connection, name)
            if made is not None:
                self._connection.run([route.bring_up(made.ifindex, alias=self._alias)])
        self._live[network.id] = (network, name)

    def _make_parent(self, network: Network, name: str) -> None:
        if not network.options.get(PARENT):
            try:
                self._connection.run([route.add_dummy(name)])
            except KernelError as error:
                if error.errno != errno.EOPNOTSUPP:
                    raise
                self._connection.run([route.add_bridge(name, mtu=1500, mac=random_mac(os.urandom(4)))])
            return
        match = re.fullmatch(r"(.+)\.(\d+)", name)
        if match is None:
            raise BarqueError(f"invalid subinterface vlan name {name}, example formatting is eth0.10")
        number = int(match[2])
        if not 1 <= number <= 4094:
            raise InvalidInputError(f"vlan id must be between 1-4094, received: {number}")
        master = route.link(self._connection, match[1])
        if master is None:
            raise BarqueError(f"failed to find master interface {match[1]} on the Docker host: Link not found")
        self._connection.run([route.add_vlan(name, master.ifindex, number)])

    def close(self, network: Network) -> None:
        """Delete the parent if we made it and no other network uses it."""
        _, name = self._live.pop(network.id, (network, ""))
        if any(other == name for _, other in self._live.values()):
            return
        found = route.link(self._connection, name) if name else None
        if found is not None and found.alias == self._alias:
            self._connection.attempt([route.remove_link(found.ifindex)], errno.ENODEV)

    def plug(self, network: Network, space: Namespace, interface: str, mac: str) -> Wire:
        """Make an interface on the parent.

        Raises:
            BarqueError: the parent is gone.
            KernelError: the kernel refused.
        """
        name = self._live[network.id][1]
        parent = route.link(self._connection, name)
        if parent is None:
            raise BarqueError(f"the parent interface {name} is gone")
        mtu = mtu_of(network.options)
        options = network.options
        if self._kind == "macvlan":
            mode = _MACVLAN_MODES[options.get(MACVLAN_MODE, "bridge")]
            made = route.add_macvlan(interface, parent.ifindex, mode, mac=mac, netns_fd=space.fd, mtu=mtu)
        else:
            mode, flag = _IPVLAN_MODES[options.get(IPVLAN_MODE, "l2")], _IPVLAN_FLAGS[options.get(IPVLAN_FLAG, "bridge")]
            made = route.add_ipvlan(interface, parent.ifindex, mode, flag, netns_fd=space.fd, mtu=mtu)
        self._connection.run([made])
        inner = route.link(space.connection, interface)
        assert inner is not None
        return Wire(inner.ifindex, "", 0)

    def default_gateways(self, network: Network, ip: str, ip6: str) -> tuple[str, str]:
        """Return the subnets' gateways; ipvlan routes of layer 3 need none and lead straight out."""
        if network.internal:
            return "", ""
        if self._kind == "ipvlan" and network.options.get(IPVLAN_MODE, "l2") != "l2":
            return "0.0.0.0" if ip else "", "::" if ip6 else ""
        return gateway_of(network, ip), gateway_of(network, ip6)

    def settings(self, network: Network) -> BridgeOptions:
        """Ports are not published here: containers have addresses of the host's network."""
        return BridgeOptions(prefix=network.options.get(PREFIX) or "eth")

    def rules(self, network: Network) -> BridgeRules | None:
        """The host's firewall does not see this traffic."""
        return None
