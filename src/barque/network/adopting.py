"""Taking over the namespaces of running containers from an earlier daemon, which may have died at any moment."""

import contextlib
import errno
import logging
from collections.abc import Mapping

from barque.base.errors import BarqueError
from barque.kernel.netlink import namespace, route
from barque.kernel.netlink.connection import Connection
from barque.network import endpoints as plumbing, state
from barque.network.catalog import Catalog
from barque.network.guard import Guard
from barque.network.model import Endpoint
from barque.network.sandboxes import Sandboxes
from barque.network.use import Use

log = logging.getLogger(__name__)


class Adoption:
    """Fills sandboxes with what stands on this machine, and removes what nobody uses."""

    def __init__(self, sandboxes: Sandboxes, catalog: Catalog, guard: Guard, connection: Connection, folder: str) -> None:
        """Remember; restore() does it."""
        self._sandboxes = sandboxes
        self._catalog = catalog
        self._guard = guard
        self._connection = connection
        self._folder = folder
        self._links: dict[str, route.Link] = {}

    def restore(self, running: Mapping[str, int]) -> None:
        """Take over the namespaces of running containers, given as {container id: pid}; others are removed."""
        damaged = []
        # All at once: a question for each would be the longest part of a start with many containers.
        self._links = {link.name: link for link in route.links(self._connection)}
        for saved in state.load_sandboxes(self._folder):
            if saved.container_id in running:
                use = self._adopt(saved, running[saved.container_id])
                if len(use.endpoints) < len(saved.endpoints):
                    damaged.append(use)
            else:
                self._remove_leftover(saved)
        if self._sweep():
            # One was being connected; which one is not known.
            damaged = list(self._sandboxes.uses.values())
        for use in damaged:
            self._repair(use)
        if self._sandboxes.server is not None:
            self._sandboxes.server.settle()

    def _adopt(self, saved: state.SavedSandbox, pid: int) -> Use:
        use = Use(saved.container_id, saved.container_name, None, pid, ports=saved.ports,
                  upstreams=saved.upstreams, dns_options=saved.dns_options)  # fmt: skip
        for item in saved.endpoints:
            if not self._adopt_endpoint(use, item):
                log.warning("container %s: its place in network %s is gone", saved.container_name, item.network)
        if any(not item.host_interface for item in use.endpoints):
            use.space = _held(pid)
        self._sandboxes.ports.adopt(use)
        self._sandboxes.uses[use.container_id] = use
        with contextlib.ExitStack() as undo:
            try:
                self._sandboxes.serve_names(use, undo)
            except OSError as error:
                log.warning("container %s: names are not served: %s", saved.container_name, error)
            undo.pop_all()
        return use

    def _adopt_endpoint(self, use: Use, item: Endpoint) -> bool:
        try:
            network = self._catalog.by_id(item.network_id)
            driver = self._catalog.driver(network)
            pools = self._catalog.addresses(network)
        except (BarqueError, KeyError):
            return False
        index = 0
        if item.host_interface:
            link = self._links.get(item.host_interface)
            if link is None:
                return False
            index = link.ifindex
            bridge = self._catalog.bridge_index(network)
            if bridge and link.master != bridge:
                self._connection.attempt([route.set_master(index, bridge)], errno.ENODEV)
        for version, address in ((4, item.ip), (6, item.ip6)):
            try:
                if address:
                    pools.take(version, address)
            except BarqueError as error:
                log.warning("container %s keeps an address that is not ours: %s", use.container_name, error)
        if index and driver.settings(network).anti_spoof:
            self._guard.add(item)
        use.host_indexes[item.endpoint_id] = index
        use.endpoints.append(item)
        self._sandboxes.announce(item)
        return True

    def _remove_leftover(self, saved: state.SavedSandbox) -> None:
        for item in saved.endpoints:
            link = self._links.pop(item.host_interface, None)
            if link is not None and link.kind == "veth":
                self._connection.attempt([route.remove_link(link.ifindex)], errno.ENODEV)
        state.forget_sandbox(self._folder, saved.container_id)

    def _sweep(self) -> bool:
        """Remove veth pairs in our bridges that no endpoint has; tell whether there were any."""
        bridges = {self._catalog.bridge_index(network) for network in self._catalog.standing()} - {0}
        known = {index for use in self._sandboxes.uses.values() for index in use.host_indexes.values()}
        strays = [
            link for link in self._links.values()
            if link.kind == "veth" and link.master in bridges and link.ifindex not in known
        ]  # fmt: skip
        for link in strays:
            self._connection.attempt([route.remove_link(link.ifindex)], errno.ENODEV)
        return bool(strays)

    def _repair(self, use: Use) -> None:
        """Give a namespace that lost an interface its default route, and its ports another way."""
        try:
            with self._sandboxes.opened(use):
                assert use.space is not None
                plumbing.change_routes(use.space, {}, plumbing.default_routes(use.endpoints))
            self._sandboxes.ports.move(use)
            self._sandboxes.save(use)
        except (BarqueError, OSError) as error:
            log.warning("container %s: its default route is not restored: %s", use.container_name, error)


def _held(pid: int) -> namespace.Namespace | None:
    """Return a process's namespace, None where it is just ending.

    What shares a parent can only be deleted from the inside, also when the process is gone.
    """
    try:
        return namespace.open_path(f"/proc/{pid}/ns/net")
    except OSError:
        return None
