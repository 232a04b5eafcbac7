"""The network manager: the engine's one door to networks, addresses, ports and firewall.

Order of use: `open`, then `restore` (with an empty mapping on a fresh start), then any calls, then
`close`. All methods are called from one thread; a container's start and end take well under a
millisecond on the default bridge while the pool has a namespace ready.
"""

import hashlib
import logging
import os
from collections.abc import Iterable, Mapping

from barque.base.errors import ForbiddenError, KernelError
from barque.kernel.netlink import route
from barque.kernel.netlink.connection import Connection
from barque.kernel.netlink.watch import DeletionWatch
from barque.network import others, pool, publish, resolving, state
from barque.network.adopting import Adoption
from barque.network.bridge import Bridge
from barque.network.catalog import Catalog
from barque.network.firewall import BridgeRules, Firewall
from barque.network.guard import Guard
from barque.network.linking import Links, LinkTarget
from barque.network.model import (
    Endpoint,
    EndpointRequest,
    Json,
    Network,
    NetworkOptions,
    PortRequest,
    Sandbox,
    SandboxRequest,
)
from barque.network.publishing import Publisher
from barque.network.sandboxes import Sandboxes
from barque.network.transparency import Transparency
from barque.network.use import Use

log = logging.getLogger(__name__)
BARE_READY = 3


class NetworkManager:
    """Owns the engine's networks on this machine."""

    def __init__(self, state_dir: str, exec_root: str, options: NetworkOptions, store: state.Store) -> None:
        """Remember where state lies; open() touches the machine."""
        self.options = options
        self._folder = f"{exec_root}/network"
        self._alias = f"barque:{os.path.abspath(state_dir)}"[:255]
        self._store = store
        self._watch: DeletionWatch | None = None
        self._lost: set[str] = set()
        self._rules_touched = False

    def open(self) -> None:
        """Load the networks, make their interfaces, start the pool; the firewall follows in restore().

        Raises:
            InvalidInputError: an option is wrong.
            KernelError: the kernel refused, or rights are missing.
        """
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        self._connection = Connection()
        self.catalog = Catalog(self.options, self._store, self._connection, self._alias)
        self.catalog.open()
        self._firewall: Firewall | None = None
        self._publisher = Publisher(self.options, self._connection)
        self._pool = pool.SandboxPool(self.options.pool_size, min(BARE_READY, self.options.pool_size))
        self._guard = Guard(self._table_name())
        self._sandboxes = Sandboxes(
            self.catalog, self._publisher, self._pool, self._connection, self._folder, self._guard
        )  # fmt: skip
        self._transparency = Transparency(self._table_name(), self._connection)
        self._links = Links(self.catalog, self._sandboxes.uses)

    @property
    def bridge(self) -> Bridge | None:
        """Return the default bridge, None where the daemon runs without one."""
        return self.catalog.bridge

    def use_proxy(self, proxy: publish.Proxy) -> None:
        """Let a proxy carry published ports that the firewall cannot lead."""
        self._publisher.proxy = proxy

    def use_name_server(self, server: resolving.NameServer) -> None:
        """Let a server answer for names in containers' namespaces; called before restore()."""
        self._sandboxes.server = server

    def restore(self, running: Mapping[str, int]) -> dict[str, Sandbox]:
        """Take over the namespaces of running containers, given as {container id: pid of its init}.

        Those of others are removed, and the firewall's table is built anew in one step.
        """
        if self.options.iptables and publish.carried_by_proxy(self.options) and self._transparency.open():
            self._publisher.mark = self._transparency.mark
        adoption = Adoption(self._sandboxes, self.catalog, self._guard, self._connection, self._folder)
        adoption.restore(running)
        wiring = self.catalog.default_wiring()
        if wiring is not None:
            self._pool.wire(wiring)
        if self.options.iptables:
            self._firewall = Firewall(self._table_name(), self.options.accept_mark)
            self._publisher.firewall = self._firewall
            self._rebuild_firewall()
        self.catalog.open_ways()
        return {key: use.sandbox() for key, use in self._uses.items()}

    def needs_process(self) -> bool:
        """Tell whether ports are published, or names told, for which this process has to be there."""
        return any(use.served or use.ports or use.publication.reservations for use in self._uses.values())

    @property
    def _uses(self) -> dict[str, Use]:
        return self._sandboxes.uses

    # Networks.

    def create(self, wanted: Network) -> tuple[Network, str]:
        """Make a network; return it and a warning (empty: none).

        Raises:
            ConflictError: the name is taken.
            ForbiddenError: it collides with another network.
            InvalidInputError: an option cannot be.
            BarqueError: the kernel refused.
        """
        made, warning = self.catalog.create(wanted)
        rules = self._rules(made)
        if rules is not None and self._firewall is not None:
            try:
                self._firewall.add_bridge(rules)
            except BaseException:
                self.catalog.remove(made)
                raise
        return made, warning

    def remove(self, network: Network) -> None:
        """Remove a network that nobody is in.

        Raises:
            ForbiddenError: it is predefined or in use.
        """
        members = self.endpoints_of(network)
        if members and not network.is_predefined:
            listed = ", ".join(f'name:"{item.container_name}" id:"{item.endpoint_id[:12]}"' for item in members)
            raise ForbiddenError(
                f"error while removing network: network {network.name} has active endpoints ({listed})"
            )
        rules = None if network.is_predefined else self._rules(network)
        self.catalog.remove(network)
        if rules is not None and self._firewall is not None:
            try:
                self._firewall.remove_bridge(rules)
            except OSError as error:
                log.warning("the network's rules were gone from the firewall: %s", error)

    def endpoints_of(self, network: Network) -> list[Endpoint]:
        """Return the endpoints in a network."""
        return [item for use in self._uses.values() for item in use.endpoints if item.network_id == network.id]

    def _rules(self, network: Network) -> BridgeRules | None:
        if network.config_only or network.id in self.catalog.broken or network.driver in ("host", "null"):
            return None
        return self.catalog.driver(network).rules(network)

    # Containers.

    def allocate(self, request: SandboxRequest) -> Sandbox:
        """Give a container its namespace, endpoints and ports; without endpoints it has lo alone.

        Raises:
            NotFoundError: no such network.
            ConflictError: the container has a namespace already.
            ForbiddenError: an address is in use.
            InvalidInputError: an address, option or port cannot be.
            BarqueError: a port is taken, no address is free, or the kernel refused.
        """
        made = self._sandboxes.allocate(request)
        self._links.refresh(self._firewall)
        return made

    def release(self, container_id: str) -> None:
        """Take back what allocate() gave; unknown ids are fine."""
        self._sandboxes.release(container_id)
        self._links.set(container_id, ())
        self._links.refresh(self._firewall)

    def link(self, container_id: str, targets: tuple[LinkTarget, ...]) -> None:
        """Let a container reach what others expose, where containers of the default bridge may not talk otherwise."""
        self._links.set(container_id, targets)
        self._links.refresh(self._firewall)

    def connect(self, container_id: str, request: EndpointRequest) -> Sandbox:
        """Add a network to a running container."""
        made = self._sandboxes.connect(container_id, request)
        self._links.refresh(self._firewall)
        return made

    def disconnect(self, container_id: str, network_id: str) -> Sandbox:
        """Take a running container off a network."""
        made = self._sandboxes.disconnect(container_id, network_id)
        self._links.refresh(self._firewall)
        return made

    def republish(self, container_id: str, ports: tuple[PortRequest, ...]) -> Sandbox:
        """Publish other ports of a running container, or leave all as it was and say why."""
        return self._sandboxes.republish(container_id, ports)

    def rename(self, container_id: str, name: str, by_network: Mapping[str, tuple[str, ...]]) -> Sandbox | None:
        """Let a container answer to other names at once."""
        return self._sandboxes.rename(container_id, name, by_network)

    def started(self, container_id: str, pid: int) -> None:
        """Take note of the process that lives in a container's namespace."""
        use = self._uses.get(container_id)
        if use is not None:
            use.pid = pid

    def sandbox(self, container_id: str) -> Sandbox | None:
        """Return a container's namespace with its endpoints."""
        use = self._uses.get(container_id)
        return use.sandbox() if use is not None else None

    def statistics(self, container_id: str) -> Json:
        """Return the counters of the container's interfaces as stats' "networks" object."""
        use = self._uses.get(container_id)
        found: Json = {}
        for item in use.endpoints if use is not None else ():
            counted = self._count(use, item) if use is not None else None
            if counted is not None:
                found[item.interface] = counted
        return found

    def _count(self, use: Use, item: Endpoint) -> Json | None:
        index = use.host_indexes.get(item.endpoint_id, 0)
        try:
            if index:
                # What the host's end receives is what the container sent.
                return _shown(route.counters(self._connection, index), mirrored=True)
            if use.space is None:
                return None
            link = route.link(use.space.connection, item.interface)
            return _shown(route.counters(use.space.connection, link.ifindex), mirrored=False) if link else None
        except KernelError:
            return None

    # What others do to our interfaces and rules.

    def watch(self) -> tuple[int, ...]:
        """Return descriptors that become readable when somebody deletes interfaces or rules: call notice()."""
        self._watch = DeletionWatch()
        return self.watched

    @property
    def watched(self) -> tuple[int, ...]:
        """Return the descriptors that watch() gave."""
        return (self._watch.links.fileno(), self._watch.rules.fileno()) if self._watch is not None else ()

    def watch_rules_on(self) -> list[int]:
        """Return a descriptor with the news of deleted rules that outlives this object; none where nothing needs rules."""
        return [os.dup(self._watch.rules.fileno())] if self._watch is not None and self._uses else []

    def notice(self) -> bool:
        """Read the news; return whether something of ours may be gone, so that mend() is due."""
        if self._watch is None:
            return False
        deleted = self._watch.deleted_links()
        if deleted:
            ours = {self.catalog.bridge_index(network): network.id for network in self.catalog.standing()}
            self._lost |= {ours[index] for index in deleted if index in ours}
            if -1 in deleted:
                self._lost |= set(ours.values())
        self._rules_touched |= self._watch.rules_changed()
        return bool(self._lost) or self._rules_touched

    def mend(self) -> list[str]:
        """Make anew what somebody deleted of ours; return what that was.

        Raises:
            KernelError: the kernel refused.
        """
        mended = []
        lost, self._lost = self._lost, set()
        for network in self.catalog.standing():
            index = self.catalog.bridge_index(network)
            if network.id in lost and index and route.link_at(self._connection, index) is None:
                self._mend_bridge(network)
                mended.append(f"the bridge of network {network.name}")
        touched, self._rules_touched = self._rules_touched, False
        if touched and self._firewall is not None and not self._firewall.is_whole():
            self._rebuild_firewall()
            mended.append(f"the firewall's table {self._firewall.table}")
        if touched and self._publisher.mark and not self._transparency.is_whole():
            self._transparency.rebuild()
            mended.append("the proxy's way back")
        if touched and not self._guard.is_whole():
            self._guard.rebuild()
            mended.append("the table against forged addresses")
        return mended

    def warn_of_others(self) -> None:
        """Tell the log which firewalls of this machine drop what ours lets through."""
        for text in self.closed_by_others(self.catalog.standing(), ports=False):
            log.warning("%s", text)

    def closed_by_others(self, networks: Iterable[Network], *, ports: bool) -> list[str]:
        """Return a warning for each firewall of this machine that drops what it forwards for these networks' bridges.

        With `ports` those alone that keep other machines from published ports.
        """
        forwarded = not publish.carried_by_proxy(self.options)
        if self._firewall is None or (ports and not forwarded):
            return []
        bridges = {}
        for network in networks:
            rules = self._rules(network)
            if rules is not None and not network.internal:
                bridges[rules.name] = network
        try:
            chains = others.dropping(self._firewall.table)
        except KernelError as error:
            log.debug("cannot see what other firewalls drop: %s", error)
            return []
        found = []
        for chain in chains:
            unknown = [name for name, network in bridges.items()
                       if not chain.knows(name) and (network.ipv6 or chain.family != "ip6")]  # fmt: skip
            if unknown and (chain.closes_ports or not ports):
                found.append(others.warning(chain, unknown, forwarded=forwarded))
        return found

    def _mend_bridge(self, network: Network) -> None:
        index = self.catalog.mend(network)
        wiring = self.catalog.default_wiring()
        if network.is_default_bridge and wiring is not None:
            self._pool.wire(wiring)
        for item in self.endpoints_of(network):
            link = route.link(self._connection, item.host_interface) if item.host_interface else None
            if link is not None:
                self._connection.run([route.set_master(link.ifindex, index)])
                self._connection.run([route.set_port(link.ifindex, isolated=self.catalog.is_isolated(network))])

    def _rebuild_firewall(self) -> None:
        assert self._firewall is not None
        rules = [item for item in map(self._rules, self.catalog.standing()) if item is not None]
        forwards = [item for use in self._uses.values() for item in use.publication.forwards]
        self._firewall.rebuild(rules, forwards, self._links.rebuilt())

    def close(self) -> None:
        """Drain the pool; remove our table and bridges unless containers still use them."""
        for use in self._uses.values():
            self._publisher.let_go(use.container_id, use.publication)
            if use.space is not None:
                use.space.close()
        if self._watch is not None:
            self._watch.close()
        if self._sandboxes.server is not None:
            self._sandboxes.server.close()
        self._pool.close()
        self._guard.close(remove=not self._uses)
        self._transparency.close(remove=bool(self._publisher.mark) and not self._uses)
        if self._firewall is not None:
            if not self._uses:
                self._firewall.remove()
            self._firewall.close()
        if not self._uses:
            self.catalog.close()
        self._connection.close()

    def _table_name(self) -> str:
        if self.options.table:
            return self.options.table
        if self.bridge is None:
            return "barque_" + hashlib.sha256(self._alias.encode()).hexdigest()[:8]
        return "barque" if self.bridge.name == "barque0" else f"barque_{self.bridge.name}"


def _shown(counters: route.Counters, *, mirrored: bool) -> Json:
    own, other = ("tx", "rx") if mirrored else ("rx", "tx")
    return {
        f"{name}_{kind}": getattr(counters, f"{side}_{kind}")
        for name, side in (("rx", own), ("tx", other))
        for kind in ("bytes", "packets", "errors", "dropped")
    }
