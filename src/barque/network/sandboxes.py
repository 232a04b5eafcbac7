"""The network namespaces of containers: endpoints at start, live changes, taking over, letting go."""

import contextlib
import errno
import logging
from collections.abc import Iterator, Mapping

from barque.base import ids
from barque.base.errors import (
    BarqueError,
    ConflictError,
    ForbiddenError,
    InvalidInputError,
    KernelError,
    NotFoundError,
)
from barque.kernel.netlink import namespace, route
from barque.kernel.netlink.connection import Connection
from barque.network import endpoints as plumbing, names, pool, resolving, state
from barque.network.catalog import Catalog
from barque.network.drivers.driver import prefix_length_of
from barque.network.guard import Guard
from barque.network.model import Endpoint, EndpointRequest, Network, PortRequest, Sandbox, SandboxRequest
from barque.network.publishing import Publisher
from barque.network.sandbox_ports import SandboxPorts
from barque.network.use import Use

log = logging.getLogger(__name__)
_FORGIVEN = (errno.ENODEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENETDOWN)


class Sandboxes:
    """All namespaces in use; called from one thread."""

    def __init__(self, catalog: Catalog, publisher: Publisher, ready: pool.SandboxPool, connection: Connection,
                 folder: str, guard: Guard) -> None:  # fmt: skip
        """Start with none."""
        self._guard = guard
        self._catalog = catalog
        self.ports = SandboxPorts(catalog, publisher)
        self._pool = ready
        self._connection = connection
        self._folder = folder
        self.uses: dict[str, Use] = {}
        self.server: resolving.NameServer | None = None

    # At start and end of containers.

    def allocate(self, request: SandboxRequest) -> Sandbox:
        """Give a container its namespace, endpoints and ports.

        Raises:
            NotFoundError: no such network.
            ConflictError: the container has a namespace already.
            ForbiddenError: an address is in use.
            InvalidInputError: an address, option or port cannot be.
            BarqueError: a port is taken, no address is free, or the kernel refused.
        """
        if request.container_id in self.uses:
            raise ConflictError(f"container {request.container_id} has a network endpoint already")
        for item in request.endpoints:
            plumbing.check(item)
        use = Use(request.container_id, request.container_name, None, ports=request.ports,
                  upstreams=request.upstreams, dns_options=request.dns_options)  # fmt: skip
        with contextlib.ExitStack() as undo:
            first = self._ready_wire(request, use, undo)
            for at, item in enumerate(request.endpoints):
                self._join(use, item, undo, first if at == 0 else None)
            assert use.space is not None
            plumbing.set_routes(use.space, plumbing.default_routes(use.endpoints), use.inner_indexes)
            self.ports.publish(use, undo)
            self.save(use)
            undo.callback(state.forget_sandbox, self._folder, use.container_id)
            self.serve_names(use, undo)
            undo.pop_all()
        self.uses[use.container_id] = use
        return use.sandbox()

    def _ready_wire(self, request: SandboxRequest, use: Use, undo: contextlib.ExitStack) -> pool.Wire | None:
        """Take a namespace; one with a wire in the default bridge where that is what the first endpoint wants."""
        first = request.endpoints[0] if request.endpoints else None
        if first is not None and first.network == "bridge" and self._catalog.bridge is not None \
                and not first.options.get(plumbing.IFNAME):  # fmt: skip
            sandbox = self._pool.take()
            undo.callback(self._pool.discard, sandbox.host_index, sandbox.space)
            use.space = sandbox.space
            return sandbox.wire
        use.space = self._pool.bare()
        undo.callback(self._pool.discard, 0, use.space)
        return None

    def release(self, container_id: str) -> None:
        """Take back what allocate() gave; unknown ids are fine."""
        use = self.uses.pop(container_id, None)
        if use is None:
            return
        self._stop_serving(use)
        self.ports.withdraw(use)
        state.forget_sandbox(self._folder, container_id)
        for item in use.endpoints:
            self._leave(use, item)
        if use.space is not None:
            self._pool.discard(0, use.space)

    def _join(self, use: Use, item: EndpointRequest, undo: contextlib.ExitStack, ready: pool.Wire | None) -> Endpoint:
        """Add an endpoint to a namespace; its interface is up, routes and ports are not set yet."""
        network = self._catalog.find(item.network)
        driver = self._catalog.driver(network)
        if any(other.network_id == network.id for other in use.endpoints):
            raise ForbiddenError(f"endpoint with name {use.container_name} already exists in network {network.name}")
        assert use.space is not None
        endpoint = self._addressed(use, item, network, undo)
        try:
            wire = ready
            if wire is None:
                wire = driver.plug(network, use.space, endpoint.interface, endpoint.mac)
                undo.callback(self._unplug, wire, use.space)
            endpoint = endpoint._replace(netns_fd=use.space.fd, host_interface=wire.host_name)
            plumbing.configure(use.space, wire.inner_index, endpoint, item)
        except KernelError as error:
            raise BarqueError(f"failed to create endpoint {use.container_name} on network {network.name}: {error}") from error
        if wire.host_index and driver.settings(network).anti_spoof:
            self._guard.add(endpoint)
            undo.callback(self._guard.remove, endpoint.endpoint_id)
        use.host_indexes[endpoint.endpoint_id] = wire.host_index
        use.inner_indexes[endpoint.interface] = wire.inner_index
        use.endpoints.append(endpoint)
        if endpoint.names and self.server is not None:
            self.announce(endpoint)
            undo.callback(self.server.remove, endpoint.endpoint_id)
        return endpoint

    def _addressed(self, use: Use, item: EndpointRequest, network: Network, undo: contextlib.ExitStack) -> Endpoint:
        pools = self._catalog.addresses(network)
        driver = self._catalog.driver(network)
        if item.mac and not driver.own_mac:
            raise InvalidInputError(f"{network.driver} interfaces do not support custom mac address assignment")
        taken = []
        for version, wanted in ((4, item.ip), (6, item.ip6)):
            found = pools.take(version, wanted)
            taken.append(found[0] if found else "")
            if found:
                undo.callback(pools.give_back, found[0])
        ip, ip6 = taken
        gateway, gateway6 = driver.default_gateways(network, ip, ip6)
        used = [other.interface for other in use.endpoints]
        settings = driver.settings(network)
        return Endpoint(
            container_id=use.container_id,
            container_name=use.container_name,
            network=network.name,
            network_id=network.id,
            endpoint_id=ids.new_id(),
            netns_fd=-1,
            interface=plumbing.choose_interface(item.options.get(plumbing.IFNAME, ""), settings.prefix, used),
            host_interface="",
            ip=ip,
            prefix_length=prefix_length_of(network, ip),
            gateway=gateway,
            mac=plumbing.choose_mac(item, ip) if driver.own_mac else "",
            ip6=ip6,
            prefix_length6=prefix_length_of(network, ip6),
            gateway6=gateway6,
            priority=item.priority,
            link_local=item.link_local,
            names=item.names,
            links=dict(item.links),
            internal=network.internal,
        )

    def announce(self, endpoint: Endpoint) -> None:
        """Let others find an endpoint by its names."""
        if self.server is not None and endpoint.names:
            self.server.add(names.Entry(
                endpoint.endpoint_id, endpoint.container_id, endpoint.network_id, endpoint.network, endpoint.names,
                endpoint.ip, endpoint.ip6, endpoint.links,
            ))  # fmt: skip

    def _leave(self, use: Use, endpoint: Endpoint) -> None:
        """Give an endpoint's addresses back and remove its interface."""
        if self.server is not None and endpoint.names:
            self.server.remove(endpoint.endpoint_id)
        self._guard.remove(endpoint.endpoint_id)
        index = use.host_indexes.pop(endpoint.endpoint_id, 0)
        if index:
            # The port falls silent now and is deleted later, so its address may be given away at once.
            self._connection.attempt([route.silence_port(index)], *_FORGIVEN)
        elif use.space is not None:
            # What shares a parent gives its addresses free now; its namespace goes when the kernel has the time.
            _remove_interface(use.space, endpoint.interface)
        with contextlib.suppress(NotFoundError, KeyError):
            pools = self._catalog.addresses(self._catalog.by_id(endpoint.network_id))
            pools.give_back(endpoint.ip)
            pools.give_back(endpoint.ip6)
        self._pool.discard(index, None)

    def _unplug(self, wire: pool.Wire, space: namespace.Namespace) -> None:
        if wire.host_index:
            self._connection.attempt([route.remove_link(wire.host_index)], errno.ENODEV)
            return
        space.connection.attempt([route.remove_link(wire.inner_index)], errno.ENODEV)

    # Live changes.

    def connect(self, container_id: str, item: EndpointRequest) -> Sandbox:
        """Add a network to a running container.

        Raises:
            NotFoundError: no such network, or the container has no namespace of its own.
            BarqueError: as allocate().
        """
        use = self._use(container_id)
        plumbing.check(item)
        with self.opened(use), contextlib.ExitStack() as undo:
            assert use.space is not None
            before = plumbing.default_routes(use.endpoints)
            kept = list(use.endpoints)
            undo.callback(setattr, use, "endpoints", kept)
            self._join(use, item, undo, None)
            after = plumbing.default_routes(use.endpoints)
            undo.callback(plumbing.change_routes, use.space, after, before)
            plumbing.change_routes(use.space, before, after)
            self.ports.move(use)
            self.save(use)
            self.serve_names(use, undo)
            undo.pop_all()
        return use.sandbox()

    def disconnect(self, container_id: str, network_id: str) -> Sandbox:
        """Take a running container off a network.

        Raises:
            NotFoundError: it is not in it.
        """
        use = self._use(container_id)
        gone = next((item for item in use.endpoints if item.network_id == network_id), None)
        if gone is None:
            raise NotFoundError(f"container {container_id} is not connected to network {network_id}")
        with self.opened(use):
            assert use.space is not None
            before = plumbing.default_routes(use.endpoints)
            use.endpoints.remove(gone)
            after = plumbing.default_routes(use.endpoints)
            if _remove_interface(use.space, gone.interface):
                use.host_indexes[gone.endpoint_id] = 0
            self._leave(use, gone)
            lost = {key: value for key, value in before.items() if value[0] != gone.interface}
            plumbing.change_routes(use.space, lost, after)
            self.ports.move(use)
            self.save(use)
            if use.served:
                self._stop_serving(use)
            with contextlib.ExitStack() as undo:
                self.serve_names(use, undo)
                undo.pop_all()
        return use.sandbox()

    @contextlib.contextmanager
    def opened(self, use: Use) -> Iterator[None]:
        """Enter a namespace that another daemon made, for as long as it is changed."""
        if use.space is not None:
            yield
            return
        try:
            use.space = namespace.open_path(f"/proc/{use.pid}/ns/net")
        except FileNotFoundError:
            raise ConflictError(f"container {use.container_id} is not running") from None
        try:
            yield
        finally:
            use.space.close()
            use.space = None

    def rename(self, container_id: str, name: str, by_network: Mapping[str, tuple[str, ...]]) -> Sandbox | None:
        """Let a container answer to other names, by network id; None where it has no namespace here."""
        use = self.uses.get(container_id)
        if use is None:
            return None
        use.container_name = name
        use.endpoints = [
            item._replace(container_name=name, names=by_network.get(item.network_id, item.names))
            for item in use.endpoints
        ]
        for item in use.endpoints:
            self.announce(item)
        self.save(use)
        return use.sandbox()

    def republish(self, container_id: str, ports: tuple[PortRequest, ...]) -> Sandbox:
        """Publish other ports of a running container; ports that stay do not lose a connection.

        Raises:
            NotFoundError: the container has no namespace of its own.
            BarqueError: a port is taken; all is as before.
        """
        use = self._use(container_id)
        self.ports.change(use, ports)
        self.save(use)
        return use.sandbox()

    # Names.

    def serve_names(self, use: Use, undo: contextlib.ExitStack) -> None:
        """Serve names in a namespace that has an endpoint in a user-defined network."""
        if not any(item.names for item in use.endpoints) or self.server is None:
            return
        order = plumbing.by_gateway(use.endpoints)
        self.server.order(use.container_id, [item.endpoint_id for item in order])
        self.server.serve(resolving.ServedNamespace(
            use.container_id, use.path(), use.upstreams, forward=not all(item.internal for item in use.endpoints),
            ipv6=any(item.ip6 for item in use.endpoints), options=use.dns_options,
        ))  # fmt: skip
        use.served = True
        undo.callback(self._stop_serving, use)

    def _stop_serving(self, use: Use) -> None:
        if use.served and self.server is not None:
            self.server.stop(use.container_id)
            use.served = False

    def _use(self, container_id: str) -> Use:
        if container_id not in self.uses:
            raise NotFoundError(f"container {container_id} has no network of its own")
        return self.uses[container_id]

    def save(self, use: Use) -> None:
        """Write a namespace down for the next daemon."""
        state.save_sandbox(self._folder, state.SavedSandbox(
            use.container_id, use.container_name, tuple(use.endpoints), use.ports, use.upstreams, use.dns_options
        ))  # fmt: skip


def _remove_interface(space: namespace.Namespace, name: str) -> bool:
    """Delete an interface from the inside; return whether it was there."""
    link = route.link(space.connection, name)
    if link is not None:
        space.connection.attempt([route.remove_link(link.ifindex)], errno.ENODEV)
    return link is not None
