"""The network manager: the engine's one door to bridges, addresses, ports and firewall.

Order of use: `open`, then `restore` (with an empty list on a fresh start), then any number of
`allocate`, `isolated` and `release`, then `close`. All methods are called from one thread and take
well under a millisecond while the pool has a namespace ready.
"""

import contextlib
import errno
import hashlib
import logging
import os
import time
from collections.abc import Iterable
from typing import NamedTuple

from barque.base import ids
from barque.base.errors import (
    BarqueError,
    ConflictError,
    InvalidInputError,
    KernelError,
    NotFoundError,
    UnsupportedError,
)
from barque.kernel.netlink import namespace, route
from barque.kernel.netlink.connection import Connection
from barque.network import bridge as bridges, ipam, pool, ports, publish, state
from barque.network.firewall import BridgeRules, Firewall, Forward
from barque.network.model import Endpoint, EndpointRequest, Json, NetworkOptions, PortRequest

log = logging.getLogger(__name__)


class _Use(NamedTuple):
    endpoint: Endpoint
    space: namespace.Namespace | None
    host_index: int
    reservations: list[ports.Reservation]
    forwards: list[Forward]


class NetworkManager:
    """Owns the engine's networks on this machine."""

    def __init__(self, state_dir: str, exec_root: str, options: NetworkOptions) -> None:
        """Remember where state lies; open() touches the machine."""
        self.options = options
        self.proxy: publish.Proxy | None = None
        self.bridge: bridges.Bridge | None = None
        self.rows: Json = {}
        self._state_dir = state_dir
        self._folder = f"{exec_root}/network"
        self._alias = f"barque:{os.path.abspath(state_dir)}"[:255]
        self._uses: dict[str, _Use] = {}
        self._bare: dict[str, namespace.Namespace] = {}
        self._allocator = ports.PortAllocator()
        self._pool: pool.SandboxPool | None = None
        self._firewall: Firewall | None = None
        self._addresses: ipam.Pool | None = None
        self._addresses6: ipam.Pool | None = None

    def open(self) -> None:
        """Load the networks, make the bridge, start the pool; the firewall follows in restore().

        Raises:
            InvalidInputError: an option is wrong.
            KernelError: the kernel refused, or rights are missing.
        """
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        stored = state.load_networks(self._state_dir, time.time_ns())
        self.rows = stored["networks"]
        self._connection = Connection()
        if self.options.bridge != "none":
            self._open_bridge(stored)
        else:
            self.rows.pop("bridge", None)
        state.save_networks(self._state_dir, stored)

    def restore(self, running: Iterable[tuple[str, int]]) -> dict[str, Endpoint]:
        """Take over the endpoints of running containers, given as (container id, pid of its init).

        Endpoints of others are removed, and the firewall's table is built anew in one step.
        """
        alive = {container_id for container_id, _ in running}
        for endpoint in state.load_endpoints(self._folder):
            if endpoint.container_id in alive and self._adopt(endpoint):
                continue
            self._remove_leftover(endpoint)
        if self.options.iptables and self.bridge is not None:
            self._firewall = Firewall(self._table_name())
            rules = self._bridge_rules()
            forwards = [item for use in self._uses.values() for item in use.forwards]
            self._firewall.rebuild([rules], forwards)
            bridges.open_ways(self.bridge, self.options)
        return {container_id: use.endpoint for container_id, use in self._uses.items()}

    def allocate(self, request: EndpointRequest) -> Endpoint:
        """Give a container its network namespace, address and ports.

        Raises:
            NotFoundError: no such network.
            ConflictError: the container has an endpoint already, or no address is free.
            InvalidInputError: an address is given where none can be, or the MAC address is wrong.
            BarqueError: a port is taken, or the kernel refused.
        """
        self._check(request)
        assert self._pool is not None and self._addresses is not None
        with contextlib.ExitStack() as undo:
            address = self._addresses.take(request.ip)
            undo.callback(self._addresses.give_back, address)
            address6 = ""
            if self._addresses6 is not None:
                address6 = self._addresses6.take(request.ip6)
                undo.callback(self._addresses6.give_back, address6)
            endpoint_id = ids.new_id()
            try:
                reservations = self._reserve(request.ports, address, address6)
                undo.callback(self._allocator.free, reservations)
                forwards = publish.forwards(reservations, self.options, (address, address6))
                sandbox = self._pool.take()
                undo.callback(self._pool.discard, sandbox.host_index, sandbox.space)
                if self._firewall is not None:
                    self._firewall.add_forwards(forwards)
                    undo.callback(self._firewall.remove_forwards, forwards)
                endpoint = self._endpoint(request, endpoint_id, sandbox, address, address6)
                endpoint = endpoint._replace(ports=tuple(item.binding for item in reservations))
                self._configure(sandbox, endpoint)
                state.save_endpoint(self._folder, endpoint)
            except (UnsupportedError, InvalidInputError):
                raise
            except (BarqueError, OSError) as error:
                raise BarqueError(
                    "driver failed programming external connectivity on endpoint "
                    f"{request.container_name} ({endpoint_id}): {error}"
                ) from error
            undo.pop_all()
        use = _Use(endpoint, sandbox.space, sandbox.host_index, reservations, forwards)
        self._uses[request.container_id] = use
        self._start_proxy(use)
        return endpoint

    def isolated(self, container_id: str) -> int:
        """Return a descriptor of a new namespace with nothing but lo up (network mode none).

        Raises:
            ConflictError: the container has one already.
            KernelError: the kernel refused.
        """
        if container_id in self._bare or container_id in self._uses:
            raise ConflictError(f"container {container_id} has a network namespace already")
        space = namespace.create(ipv6=False)
        self._bare[container_id] = space
        return space.fd

    def release(self, container_id: str) -> None:
        """Take back what allocate() or isolated() gave; unknown ids are fine."""
        space = self._bare.pop(container_id, None)
        if space is not None:
            space.close()
        use = self._uses.pop(container_id, None)
        if use is None:
            return
        if self.proxy is not None:
            self.proxy.stop(container_id)
        # The port falls silent now and is deleted later, so its address may be given away at once.
        self._connection.attempt(
            [route.silence_port(use.host_index)],
            errno.ENODEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENETDOWN,
        )  # fmt: skip
        self._forget_forwards(use.forwards)
        self._allocator.free(use.reservations)
        if self._addresses is not None:
            self._addresses.give_back(use.endpoint.ip)
        if self._addresses6 is not None and use.endpoint.ip6:
            self._addresses6.give_back(use.endpoint.ip6)
        state.forget_endpoint(self._folder, container_id)
        if self._pool is not None:
            self._pool.discard(use.host_index, use.space)

    def endpoint(self, container_id: str) -> Endpoint | None:
        """Return the live endpoint of a container."""
        use = self._uses.get(container_id)
        return use.endpoint if use is not None else None

    def endpoints(self) -> list[Endpoint]:
        """Return all live endpoints."""
        return [use.endpoint for use in self._uses.values()]

    def statistics(self, container_id: str) -> Json:
        """Return the counters of the container's interfaces as stats' "networks" object."""
        use = self._uses.get(container_id)
        if use is None:
            return {}
        try:
            host = route.counters(self._connection, use.host_index)
        except KernelError:
            return {}
        # What the host's end receives is what the container sent.
        return {
            use.endpoint.interface: {
                "rx_bytes": host.tx_bytes,
                "rx_packets": host.tx_packets,
                "rx_errors": host.tx_errors,
                "rx_dropped": host.tx_dropped,
                "tx_bytes": host.rx_bytes,
                "tx_packets": host.rx_packets,
                "tx_errors": host.rx_errors,
                "tx_dropped": host.rx_dropped,
            }
        }

    def close(self) -> None:
        """Drain the pool; remove our table and bridge unless containers still use them."""
        if self.proxy is not None:
            for container_id in self._uses:
                self.proxy.stop(container_id)
        for use in self._uses.values():
            self._allocator.free(use.reservations)
        for space in self._bare.values():
            space.close()
        if self._pool is not None:
            self._pool.close()
        if self._firewall is not None:
            if not self._uses:
                self._firewall.remove()
            self._firewall.close()
        if self.bridge is not None and not self._uses:
            bridges.remove(self._connection, self.bridge)
        self._connection.close()

    def _open_bridge(self, stored: Json) -> None:
        options = self.options
        connection = self._connection
        name = bridges.choose_name(connection, options.bridge, stored["bridge_name"], self._alias)
        address = bridges.choose_address(connection, name, options, stored["bridge_address"])
        address6 = self._address6(stored)
        self.bridge = bridges.set_up(connection, name, (address, address6), mtu=options.mtu, alias=self._alias)
        stored |= {"bridge_name": name, "bridge_address": address}
        gateway, size = self.bridge.address, self.bridge.prefix_length
        self._addresses = ipam.Pool(
            f"{gateway}/{size}", gateway=gateway, ip_range=options.fixed_cidr,
            reserved=[options.default_gateway] if options.default_gateway else [],
        )  # fmt: skip
        if address6:
            gateway6 = self.bridge.address6
            self._addresses6 = ipam.Pool(
                f"{gateway6}/{self.bridge.prefix_length6}", gateway=gateway6,
                ip_range=options.fixed_cidr_v6,
            )  # fmt: skip
        wiring = pool.Wiring(
            bridge_index=self.bridge.ifindex,
            mtu=self.bridge.mtu,
            ipv6=bool(address6),
            isolated=not options.icc,
        )
        self._pool = pool.SandboxPool(wiring, options.pool_size)

    def _address6(self, stored: Json) -> str:
        if not (self.options.ipv6 or self.options.bip6 or self.options.fixed_cidr_v6):
            return ""
        if self.options.bip6:
            return self.options.bip6
        subnet = self.options.fixed_cidr_v6 or stored.get("bridge_subnet6", "")
        if not subnet:
            raw = os.urandom(5).hex()
            subnet = f"fd{raw[:2]}:{raw[2:6]}:{raw[6:]}::/64"
            stored["bridge_subnet6"] = subnet
        base, _, size = subnet.partition("/")
        return f"{base.rstrip(':')}::1/{size or 64}"

    def _table_name(self) -> str:
        if self.options.table:
            return self.options.table
        if self.bridge is None:
            return "barque_" + hashlib.sha256(self._alias.encode()).hexdigest()[:8]
        return "barque" if self.bridge.name == "barque0" else f"barque_{self.bridge.name}"

    def _bridge_rules(self) -> BridgeRules:
        assert self.bridge is not None
        return BridgeRules(self.bridge.name, self.options.ip_masq, self.options.icc)

    def _check(self, request: EndpointRequest) -> None:
        if request.network not in ("bridge", "default") or self.bridge is None:
            raise NotFoundError(f"network {request.network} not found")
        if request.container_id in self._uses or request.container_id in self._bare:
            raise ConflictError(f"container {request.container_id} has a network endpoint already")
        if request.ip or request.ip6:
            raise InvalidInputError("user-specified IP address is supported on user-defined networks only")
        if request.mac:
            try:
                raw = route.mac_bytes(request.mac)
            except ValueError:
                raise InvalidInputError(f"invalid MAC address: {request.mac}") from None
            if raw[0] & 1 or not any(raw):
                raise InvalidInputError(f"not the MAC address of one interface: {request.mac}")

    def _reserve(self, wanted: Iterable[PortRequest], address: str, address6: str) -> list[ports.Reservation]:
        found: list[ports.Reservation] = []
        try:
            for item in wanted:
                hosts = publish.host_addresses(item, self.options, has_ipv6=bool(address6))
                target = f"[{address6}]" if ":" in hosts[0] and address6 else address
                found += self._allocator.reserve(item, hosts, target)
        except BaseException:
            self._allocator.free(found)
            raise
        return found

    def _forget_forwards(self, forwards: list[Forward]) -> None:
        if self._firewall is None:
            return
        try:
            self._firewall.remove_forwards(forwards)
        except OSError as error:
            log.warning("published ports were gone from the firewall: %s", error)

    def _start_proxy(self, use: _Use) -> None:
        if self.proxy is None or not self.options.userland_proxy:
            return
        rest = publish.unled(use.reservations, use.forwards, use.endpoint.ip)
        if rest:
            self.proxy.start(use.endpoint.container_id, rest)

    def _endpoint(
        self, request: EndpointRequest, endpoint_id: str, sandbox: pool.Sandbox,
        address: str, address6: str,
    ) -> Endpoint:  # fmt: skip
        assert self.bridge is not None
        return Endpoint(
            container_id=request.container_id,
            container_name=request.container_name,
            network="bridge",
            network_id=self.rows["bridge"]["id"],
            endpoint_id=endpoint_id,
            netns_fd=sandbox.space.fd,
            interface="eth0",
            host_interface=sandbox.host_name,
            ip=address,
            prefix_length=self.bridge.prefix_length,
            gateway=self.options.default_gateway or self.bridge.address,
            mac=request.mac or ipam.mac_of(address),
            ip6=address6,
            prefix_length6=self.bridge.prefix_length6,
            gateway6=self.bridge.address6 if address6 else "",
            ports=(),
        )

    def _configure(self, sandbox: pool.Sandbox, endpoint: Endpoint) -> None:
        index = sandbox.interface_index
        requests = [
            route.bring_up(index, mac=endpoint.mac),
            route.add_address(index, endpoint.ip, endpoint.prefix_length),
            route.add_default_route(index, endpoint.gateway),
        ]
        if endpoint.ip6:
            requests.append(route.add_address(index, endpoint.ip6, endpoint.prefix_length6))
            requests.append(route.add_default_route(index, endpoint.gateway6))
        sandbox.space.connection.run(requests)

    def _adopt(self, endpoint: Endpoint) -> bool:
        link = route.link(self._connection, endpoint.host_interface)
        if link is None or self._addresses is None:
            return False
        try:
            self._addresses.take(endpoint.ip)
        except BarqueError as error:
            log.warning("container %s keeps an address that is not ours: %s",
                        endpoint.container_id, error)  # fmt: skip
        if endpoint.ip6 and self._addresses6 is not None:
            with contextlib.suppress(BarqueError):
                self._addresses6.take(endpoint.ip6)
        reservations = []
        for item in endpoint.ports:
            wanted = PortRequest(item.container_port, item.protocol, item.host_ip, item.host_port)
            try:
                reservations += self._allocator.reserve(wanted, [item.host_ip], endpoint.ip)
            except BarqueError as error:
                log.warning("container %s: %s", endpoint.container_id, error)
        kept = endpoint._replace(ports=tuple(item.binding for item in reservations))
        forwards = publish.forwards(reservations, self.options, (kept.ip, kept.ip6))
        use = _Use(kept, None, link.ifindex, reservations, forwards)
        self._uses[endpoint.container_id] = use
        self._start_proxy(use)
        return True

    def _remove_leftover(self, endpoint: Endpoint) -> None:
        link = route.link(self._connection, endpoint.host_interface)
        if link is not None and self.bridge is not None and link.master == self.bridge.ifindex:
            self._connection.attempt([route.remove_link(link.ifindex)], errno.ENODEV)
        state.forget_endpoint(self._folder, endpoint.container_id)
