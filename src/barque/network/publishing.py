"""Publishing the ports of one sandbox: sockets reserved, the firewall told, the rest given to the proxy."""

import logging
from collections.abc import Iterable
from typing import NamedTuple

from barque.base.errors import BarqueError, KernelError
from barque.kernel import conntrack
from barque.kernel.netlink import route
from barque.kernel.netlink.connection import Connection
from barque.network import ports, publish
from barque.network.firewall import Firewall, Forward
from barque.network.model import NetworkOptions, PortBinding, PortRequest
from barque.network.publish import Target

log = logging.getLogger(__name__)


class Publication(NamedTuple):
    """What is published of one sandbox; to be given back to withdraw()."""

    reservations: tuple[ports.Reservation, ...] = ()
    forwards: tuple[Forward, ...] = ()
    target: Target | None = None

    @property
    def bindings(self) -> tuple[PortBinding, ...]:
        """Return the ports as they are bound on the host."""
        return tuple(item.binding for item in self.reservations)


class Publisher:
    """Holds all published ports of one engine."""

    def __init__(self, options: NetworkOptions, connection: Connection) -> None:
        """Start with none; firewall and proxy are set later."""
        self.options = options
        self._connection = connection
        self.firewall: Firewall | None = None
        self.proxy: publish.Proxy | None = None
        self.mark = 0
        self._allocator = ports.PortAllocator()

    def publish(self, container_id: str, requests: Iterable[PortRequest], target: Target) -> Publication:
        """Publish ports, all or none.

        Raises:
            BarqueError: a port is taken.
            InvalidInputError: a host address that cannot be served.
            KernelError: the firewall refused.
        """
        wanted = tuple(requests)
        reservations = self._reserve(wanted, target)
        try:
            forwards = publish.forwards(reservations, self.options, target)
            forwards += publish.directs(wanted, self.options, target)
            if self.firewall is not None and forwards:
                self.firewall.add_forwards(forwards)
        except BaseException:
            self._allocator.free(reservations)
            raise
        made = Publication(tuple(reservations), tuple(forwards), target)
        self._forget_flows(made)
        self.start_proxy(container_id, made)
        return made

    def adopt(self, container_id: str, bindings: Iterable[PortBinding], requests: Iterable[PortRequest],
              target: Target) -> Publication:  # fmt: skip
        """Take over what an earlier daemon had published; ports that are gone are left out, aloud."""
        found: list[ports.Reservation] = []
        for item in bindings:
            wanted = PortRequest(item.container_port, item.protocol, item.host_ip, item.host_port)
            try:
                found += self._allocator.reserve(wanted, [item.host_ip], target.ip or target.ip6)
            except BarqueError as error:
                log.warning("container %s: %s", container_id, error)
        forwards = publish.forwards(found, self.options, target) + publish.directs(requests, self.options, target)
        made = Publication(tuple(found), tuple(forwards), target)
        self.start_proxy(container_id, made)
        return made

    def start_proxy(self, container_id: str, made: Publication) -> None:
        """Give the proxy what the firewall cannot carry."""
        wanted = self.options.userland_proxy or publish.carried_by_proxy(self.options)
        if self.proxy is None or not wanted or made.target is None:
            return
        rest = publish.unled(made.reservations, list(made.forwards), made.target, self.mark)
        if rest:
            self.proxy.start(container_id, rest)

    def withdraw(self, container_id: str, made: Publication) -> None:
        """Take ports back; connections that go on without packets of new ones end by themselves."""
        if not made.reservations and not made.forwards:
            return
        if self.proxy is not None:
            self.proxy.stop(container_id)
        if self.firewall is not None and made.forwards:
            try:
                self.firewall.remove_forwards(made.forwards)
            except OSError as error:
                log.warning("published ports were gone from the firewall: %s", error)
        self._allocator.free(made.reservations)
        self._forget_flows(made)

    def change(self, container_id: str, made: Publication,
               requests: Iterable[PortRequest]) -> tuple[Publication, BaseException | None]:  # fmt: skip
        """Publish other ports in place of those of a publication; what stays is not touched.

        Return what is published now, and why it is what was before: a port is taken, or cannot be served.
        """
        assert made.target is not None
        kept, missing = self._sorted(made, tuple(requests))
        bindings = {item.binding for item in kept}
        gone = made._replace(
            reservations=tuple(item for item in made.reservations if item.binding not in bindings),
            forwards=tuple(item for item in made.forwards if item.direct or item.binding not in bindings),
        )
        staying = made._replace(reservations=tuple(kept), forwards=tuple(set(made.forwards) - set(gone.forwards)))
        self._withdraw_some(container_id, gone, keep=staying)
        failure: BaseException | None = None
        direct = publish.directs(requests, self.options, made.target)
        try:
            added = self.publish(container_id, missing, made.target)
        except BaseException as error:
            failure, direct = error, [item for item in made.forwards if item.direct]
            added = self._publish_again(container_id, gone)
        if self.firewall is not None and direct:
            self.firewall.add_forwards(direct)
        led = [item for item in (*staying.forwards, *added.forwards) if not item.direct]
        return Publication(staying.reservations + added.reservations, (*led, *direct), made.target), failure

    def _publish_again(self, container_id: str, gone: Publication) -> Publication:
        """Publish what was withdrawn a moment ago, on new sockets."""
        assert gone.target is not None
        exact = [PortRequest(item.container_port, item.protocol, item.host_ip, item.host_port) for item in gone.bindings]
        try:
            return self.publish(container_id, exact, gone.target)
        except (BarqueError, OSError) as error:
            log.warning("container %s: ports are not published any more: %s", container_id, error)
            return Publication(target=gone.target)

    def move(self, container_id: str, made: Publication, requests: Iterable[PortRequest], target: Target) -> Publication:
        """Lead the same ports to another address of the container; sockets that stay are not given away meanwhile.

        Raises:
            BarqueError: a port that is needed besides is taken; none is published then.
        """
        wanted = tuple(requests)
        kept, missing = self._sorted(made._replace(target=target), wanted)
        bindings = {item.binding for item in kept}
        if self.proxy is not None:
            self.proxy.stop(container_id)
        if self.firewall is not None and made.forwards:
            self.firewall.remove_forwards(made.forwards)
        self._allocator.free([item for item in made.reservations if item.binding not in bindings])
        self._forget_flows(made)
        staying = Publication(tuple(kept), tuple(publish.forwards(kept, self.options, target)), target)
        try:
            if self.firewall is not None and staying.forwards:
                self.firewall.add_forwards(staying.forwards)
            added = self.publish(container_id, missing, target)
        except BaseException:
            self.withdraw(container_id, staying)
            raise
        self.start_proxy(container_id, staying)
        direct = tuple(publish.directs(wanted, self.options, target))
        if self.firewall is not None and direct:
            self.firewall.add_forwards(direct)
        led = [item for item in (*staying.forwards, *added.forwards) if not item.direct]
        return Publication(staying.reservations + added.reservations, (*led, *direct), target)

    def _sorted(
        self, made: Publication, requests: tuple[PortRequest, ...]
    ) -> tuple[list[ports.Reservation], list[PortRequest]]:
        """Return the reservations that already do what is asked, and what is asked besides."""
        assert made.target is not None
        left = list(made.reservations)
        kept, missing = [], []
        for item in requests:
            hosts = publish.host_addresses(item, self.options, made.target)
            last = max(item.host_port, item.host_port_end)
            fitting = [
                held for held in left
                if (held.binding.container_port, held.binding.protocol) == (item.container_port, item.protocol)
                and held.binding.host_ip in hosts
                and (not item.host_port or item.host_port <= held.binding.host_port <= last)
            ]  # fmt: skip
            same = [held for held in fitting if held.binding.host_port == fitting[0].binding.host_port]
            if hosts and {held.binding.host_ip for held in same} == set(hosts):
                kept += same
                left = [held for held in left if held not in same]
            else:
                missing.append(item)
        return kept, missing

    def _withdraw_some(self, container_id: str, gone: Publication, keep: Publication) -> None:
        if self.proxy is not None and gone.reservations:
            self.proxy.stop(container_id, set(gone.bindings))
        if self.firewall is not None and gone.forwards:
            self.firewall.remove_forwards(gone.forwards, keep.forwards)
        self._allocator.free(gone.reservations)
        self._forget_flows(gone)

    def let_go(self, container_id: str, made: Publication) -> None:
        """Stop serving at the daemon's end; what the firewall leads goes on."""
        if self.proxy is not None:
            self.proxy.stop(container_id)
        self._allocator.free(made.reservations)

    def _reserve(self, wanted: tuple[PortRequest, ...], target: Target) -> list[ports.Reservation]:
        found: list[ports.Reservation] = []
        try:
            for item in wanted:
                hosts = publish.host_addresses(item, self.options, target)
                if hosts:
                    shown = f"[{target.ip6}]" if (":" in hosts[0] and target.ip6) or not target.ip else target.ip
                    found += self._allocator.reserve(item, hosts, shown)
        except BaseException:
            self._allocator.free(found)
            raise
        return found

    def _forget_flows(self, made: Publication) -> None:
        """Let datagrams find their way anew: the kernel remembers where those of a flow went before."""
        listed = {(item.host_port, ":" in item.host_ip) for item in made.bindings if item.protocol == "udp"}
        if not listed or made.target is None:
            return
        try:
            mine = route.all_addresses(self._connection)
            for port, v6 in listed:
                conntrack.forget_udp_to(mine, port, v6=v6)
            for address in filter(None, (made.target.ip, made.target.ip6)):
                conntrack.forget_udp_of(address)
        except KernelError as error:
            log.debug("cannot forget flows of datagrams: %s", error)
