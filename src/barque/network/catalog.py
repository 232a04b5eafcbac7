"""The networks of one engine: their rows, the drivers that make them, the addresses they give out."""

import contextlib
import errno
import ipaddress
import logging
import os
import time
from collections.abc import Iterable

from barque.base import ids
from barque.base.errors import BarqueError, ConflictError, ForbiddenError, InvalidInputError, NotFoundError
from barque.kernel.netlink import route
from barque.kernel.netlink.connection import Connection
from barque.network import bridge as bridges, bridge_options, ipam, request, state, subnets
from barque.network.drivers.bridge import BridgeDriver, Live
from barque.network.drivers.driver import Driver
from barque.network.drivers.macvlan import SharedInterfaceDriver
from barque.network.drivers.overlay import OverlayDriver
from barque.network.model import Json, Network, NetworkOptions, Subnet
from barque.network.pool import Wiring

log = logging.getLogger(__name__)
_KINDS = {"bridge": "bridge", "host": "host", "none": "null"}


class Catalog:
    """Finds, makes and removes networks; what is made is on disk and stands on this machine."""

    def __init__(self, options: NetworkOptions, store: state.Store, connection: Connection, alias: str) -> None:
        """Remember; open() touches the machine."""
        self.options = options
        self._store = store
        self._connection = connection
        self._alias = alias
        self._by_id: dict[str, Network] = {}
        self._addresses: dict[str, subnets.Addresses] = {}
        self._bridge_driver = BridgeDriver(connection, alias, options)
        self._overlay_driver = OverlayDriver(connection, alias, options)
        self._drivers: dict[str, Driver] = {
            "bridge": self._bridge_driver,
            "macvlan": SharedInterfaceDriver("macvlan", connection, alias),
            "ipvlan": SharedInterfaceDriver("ipvlan", connection, alias),
            "overlay": self._overlay_driver,
        }
        self.bridge: bridges.Bridge | None = None
        self.broken: dict[str, str] = {}

    def open(self) -> None:
        """Load all networks and make what they need.

        Raises:
            InvalidInputError: an option of the default bridge is wrong.
            KernelError: the default bridge cannot be made.
        """
        for row in self._store.load("network").values():
            network = request.from_row(row)
            self._by_id[network.id] = network
        for name, driver in _KINDS.items():
            if all(item.name != name for item in self._by_id.values()):
                made = Network(ids.new_id(), name, driver, time.time_ns())
                self._by_id[made.id] = made
                self._save(made)
        if self.options.bridge != "none":
            self._open_default_bridge()
        else:
            self._by_id.pop(self.by_name("bridge").id, None)
        for network in list(self._by_id.values()):
            if not network.is_predefined and not network.config_only:
                self._open_again(network)
        self._sweep()

    def _open_again(self, network: Network) -> None:
        """One network that cannot be made must not keep the others, or the daemon, down."""
        try:
            self._drivers[network.driver].open(network)
            self._addresses[network.id] = subnets.Addresses(network)
            self.broken.pop(network.id, None)
        except (BarqueError, OSError) as error:
            self.broken[network.id] = str(error)
            log.error("network %s cannot be made: %s", network.name, error)

    def _sweep(self) -> None:
        """Remove our bridges that no network knows: one was being made or removed when the daemon was killed."""
        known = {live.bridge.ifindex for live in self._all_bridges()}
        group = bridges.group_of(self._alias)
        for link in route.links(self._connection, "bridge"):
            ours = link.alias == self._alias or (not link.alias and link.group == group)
            if link.kind == "bridge" and ours and link.ifindex not in known and not link.name.startswith("dm-"):
                self._connection.attempt([route.remove_link(link.ifindex)], errno.ENODEV)

    # Looking up.

    def all(self) -> list[Network]:
        """Return all networks in the order of their names."""
        return sorted(self._by_id.values(), key=lambda item: (item.name, item.id))

    def by_id(self, network_id: str) -> Network:
        """Return a network by its whole id.

        Raises:
            NotFoundError: there is none.
        """
        if network_id not in self._by_id:
            raise NotFoundError(f"network {network_id} not found")
        return self._by_id[network_id]

    def by_name(self, name: str) -> Network:
        """Return a network by its name.

        Raises:
            NotFoundError: there is none.
        """
        for network in self._by_id.values():
            if network.name == name:
                return network
        raise NotFoundError(f"network {name} not found")

    def find(self, ref: str) -> Network:
        """Return the network that an id, a name or a unique part of an id means.

        Raises:
            NotFoundError: none is meant.
            InvalidInputError: several are.
        """
        if ref in self._by_id:
            return self._by_id[ref]
        for network in self._by_id.values():
            if network.name == ref:
                return network
        found = [item for key, item in self._by_id.items() if ref and key.startswith(ref)]
        if len(found) > 1:
            raise InvalidInputError(f"network {ref} is ambiguous ({len(found)} matches found based on ID prefix)")
        if not found:
            raise NotFoundError(f"network {ref} not found")
        return found[0]

    def driver(self, network: Network) -> Driver:
        """Return the driver of a network that containers can join.

        Raises:
            ForbiddenError: it only holds settings for others.
            BarqueError: it could not be made when the daemon started.
        """
        if network.config_only:
            raise ForbiddenError("cannot create endpoint on configuration-only network")
        if network.id in self.broken:
            raise BarqueError(f"network {network.name} could not be made: {self.broken[network.id]}")
        return self._drivers[network.driver]

    def addresses(self, network: Network) -> subnets.Addresses:
        """Return the pools of addresses of a network that stands."""
        return self._addresses[network.id]

    def usage(self, network: Network) -> list[tuple[str, int, int]]:
        """Return (subnet, addresses in use, addresses free for containers) of each subnet."""
        pools = self._addresses.get(network.id)
        return pools.usage() if pools is not None else []

    def standing(self) -> list[Network]:
        """Return the networks that stand on this machine and that containers can join."""
        return [item for item in self._by_id.values() if item.id in self._addresses]

    # Making and removing.

    def create(self, wanted: Network) -> tuple[Network, str]:
        """Make a network; return it and a warning, empty where there is nothing to warn of.

        Raises:
            ConflictError: the name is taken.
            ForbiddenError: it collides with another network.
            InvalidInputError: an option cannot be.
            BarqueError: the kernel refused.
        """
        self._check_free(wanted.name)
        if wanted.config_only:
            made = wanted._replace(driver="null")
            self._add(made)
            return made, ""
        if wanted.config_from:
            wanted = request.apply_config(wanted, self._configuration(wanted.config_from))
        driver = self._drivers[wanted.driver]
        wanted = driver.prepare(wanted)
        routes = tuple(route.destinations(self._connection))
        warning = "; ".join(
            f"subnet {mine} overlaps the route to {theirs} of this machine"
            for mine, theirs in subnets.overlapped(wanted, routes)
        )
        made = self._with_subnets(wanted, driver, routes)
        pools = subnets.Addresses(made)
        driver.open(made)
        self._addresses[made.id] = pools
        self._add(made)
        return made, warning

    def _with_subnets(self, wanted: Network, driver: Driver, routes: tuple[str, ...]) -> Network:
        if wanted.ipam_driver == "null":
            return wanted._replace(subnets=())
        taken = tuple(item.subnet for other in self._by_id.values() for item in other.subnets if not other.config_only)
        pools = list(self.options.default_address_pools) or list(ipam.DEFAULT_POOLS)
        if not any(":" in base for base, _ in pools):
            pools.append(subnets.unique_local_pool(self._alias))
        if all(":" in base for base, _ in pools):
            pools = [*ipam.DEFAULT_POOLS, *pools]
        return subnets.fill(wanted, pools, subnets.Taken(taken, routes), gateways=driver.gateways(wanted))

    def _check_free(self, name: str) -> None:
        if any(item.name == name for item in self._by_id.values()):
            raise ConflictError(f"network with name {name} already exists")

    def rename(self, network: Network, name: str) -> Network:
        """Give a network that no container is in another name; what stands on this machine bears its id and stays.

        Raises:
            ConflictError: the name is taken, or other networks name this one as theirs to take settings from.
            ForbiddenError: it is predefined.
        """
        if network.is_predefined:
            raise ForbiddenError(f"operation is not permitted on predefined {network.name} network")
        self._check_free(name)
        if self._gives_settings(network):
            raise ConflictError(f'configuration network "{network.name}" is in use')
        made = network._replace(name=name)
        self._add(made)
        if made.id in self._addresses:
            self._addresses[made.id] = subnets.Addresses(made)
        return made

    def _gives_settings(self, network: Network) -> bool:
        return network.config_only and any(item.config_from == network.name for item in self._by_id.values())

    def _configuration(self, name: str) -> Network:
        for network in self._by_id.values():
            if network.name == name and network.config_only:
                return network
        raise NotFoundError(f'configuration network "{name}" does not exist')

    def remove(self, network: Network) -> None:
        """Remove a network that no container is in.

        Raises:
            ForbiddenError: it is predefined, or its settings are used by another network.
        """
        if network.is_predefined:
            raise ForbiddenError(f"{network.name} is a pre-defined network and cannot be removed")
        if self._gives_settings(network):
            raise ForbiddenError(f'error while removing network: configuration network "{network.name}" is in use')
        self._store.delete("network", network.id)
        del self._by_id[network.id]
        self._addresses.pop(network.id, None)
        self.broken.pop(network.id, None)
        if not network.config_only:
            self._drivers[network.driver].close(network)

    def close(self) -> None:
        """Remove everything from this machine that a later open() makes again."""
        for network in self.standing():
            if network.is_default_bridge:
                if self.bridge is not None:
                    bridges.remove(self._connection, self.bridge)
            else:
                self._drivers[network.driver].close(network)

    def _add(self, network: Network) -> None:
        self._by_id[network.id] = network
        self._save(network)

    def _save(self, network: Network) -> None:
        self._store.put("network", network.id, request.to_row(network))

    # The bridges.

    def _all_bridges(self) -> list[Live]:
        return [*self._bridge_driver.live.values(), *self._overlay_driver.live.values()]

    def bridge_index(self, network: Network) -> int:
        """Return the index of a network's bridge, 0 where it has none."""
        for driver in (self._bridge_driver, self._overlay_driver):
            if network.id in driver.live:
                return driver.live[network.id].bridge.ifindex
        return 0

    def is_isolated(self, network: Network) -> bool:
        """Tell whether the containers of a network cannot reach each other."""
        driver = self._overlay_driver if network.driver == "overlay" else self._bridge_driver
        return driver.live[network.id].wiring.isolated

    def mend(self, network: Network) -> int:
        """Make a deleted bridge anew; return its index.

        Raises:
            KernelError: the kernel refused.
        """
        driver = self._overlay_driver if network.driver == "overlay" else self._bridge_driver
        bridge = driver.mend(network)
        if network.is_default_bridge:
            self.bridge = bridge
        return bridge.ifindex

    def default_wiring(self) -> Wiring | None:
        """Return how the default bridge's veth pairs are made, None without one."""
        if self.bridge is None:
            return None
        wiring = self._bridge_driver.live[self.by_name("bridge").id].wiring
        return wiring._replace(ipv6=bool(self.bridge.address6))

    def _open_default_bridge(self) -> None:
        options, network = self.options, self.by_name("bridge")
        stored: Json = self._store.load("engine").get("bridge") or {}
        others = [item.subnet for other in self._by_id.values() for item in other.subnets if other.id != network.id]
        name = bridges.choose_name(self._connection, options.bridge, stored.get("name", ""), self._alias)
        address = bridges.choose_address(self._connection, name, options, stored.get("address", ""), others)
        address6 = self._address6(stored)
        bridge = bridges.set_up(self._connection, name, (address, address6), mtu=options.mtu, alias=self._alias)
        known = {**stored, "name": name, "address": address}
        if known != stored:
            self._store.put("engine", "bridge", known)
        made = network._replace(
            options=_default_options(bridge, options), ipv6=bool(address6), subnets=tuple(_subnets(bridge, options))
        )
        self._by_id[made.id] = made
        if made != network:
            self._save(made)
        self._addresses[made.id] = subnets.Addresses(made)
        # Where --ip is not given, ports are bound on IPv6 too, whatever is shown.
        parsed = bridge_options.parse(made)._replace(host_binding=options.host_ip)
        self._bridge_driver.adopt(made, bridge, parsed)
        self.bridge = bridge

    def _address6(self, stored: Json) -> str:
        options = self.options
        if not (options.ipv6 or options.bip6 or options.fixed_cidr_v6):
            return ""
        if options.bip6:
            return options.bip6
        subnet = options.fixed_cidr_v6 or stored.get("subnet6", "")
        if not subnet:
            raw = os.urandom(5).hex()
            subnet = stored["subnet6"] = f"fd{raw[:2]}:{raw[2:6]}:{raw[6:]}::/64"
        base, _, size = subnet.partition("/")
        return f"{base.rstrip(':')}::1/{size or 64}"

    def open_ways(self) -> None:
        """Switch on what the default bridge needs of the kernel."""
        if self.bridge is not None:
            with contextlib.suppress(OSError):
                bridges.open_ways(self._connection, self.bridge, self.options)


def _default_options(bridge: bridges.Bridge, options: NetworkOptions) -> dict[str, str]:
    def flag(value: bool) -> str:
        return "true" if value else "false"

    return {
        bridge_options.DEFAULT: "true",
        bridge_options.ICC: flag(options.icc),
        bridge_options.MASQUERADE: flag(options.ip_masq),
        bridge_options.HOST_BINDING: options.host_ip or "0.0.0.0",
        bridge_options.NAME: bridge.name,
        bridge_options.MTU: str(bridge.mtu),
    }


def _subnets(bridge: bridges.Bridge, options: NetworkOptions) -> Iterable[Subnet]:
    subnet = ipaddress.ip_network((bridge.address, bridge.prefix_length), strict=False)
    auxiliary = {"DefaultGatewayIPv4": options.default_gateway} if options.default_gateway else {}
    yield Subnet(str(subnet), options.fixed_cidr, bridge.address, auxiliary)
    if bridge.address6:
        subnet6 = ipaddress.ip_network((bridge.address6, bridge.prefix_length6), strict=False)
        auxiliary = {"DefaultGatewayIPv6": options.default_gateway6} if options.default_gateway6 else {}
        yield Subnet(str(subnet6), options.fixed_cidr_v6, bridge.address6, auxiliary)
