"""Which network of a container carries its published ports, at start and as its networks change."""

import contextlib
import logging

from barque.base.errors import BarqueError, InvalidInputError, UnsupportedError
from barque.network import endpoints as plumbing
from barque.network.catalog import Catalog
from barque.network.model import PortRequest
from barque.network.publish import Target
from barque.network.publishing import Publication, Publisher
from barque.network.use import Use

log = logging.getLogger(__name__)


class SandboxPorts:
    """Publishes ports through the endpoint that gives a container its default route."""

    def __init__(self, catalog: Catalog, publisher: Publisher) -> None:
        """Remember both."""
        self._catalog = catalog
        self._publisher = publisher

    def publish(self, use: Use, undo: contextlib.ExitStack | None) -> None:
        """Publish a container's ports through the network that gives its default route."""
        use.published_on, use.publication = "", Publication()
        order = plumbing.by_gateway(use.endpoints)
        if not order or not use.ports or order[0].internal:
            return
        endpoint = order[0]
        network = self._catalog.by_id(endpoint.network_id)
        driver = self._catalog.driver(network)
        if not driver.publishes:
            return
        target = Target(endpoint.ip, endpoint.ip6, driver.settings(network))
        try:
            made = self._publisher.publish(use.container_id, use.ports, target)
        except (UnsupportedError, InvalidInputError):
            raise
        except (BarqueError, OSError) as error:
            raise BarqueError(
                "driver failed programming external connectivity on endpoint "
                f"{use.container_name} ({endpoint.endpoint_id}): {error}"
            ) from error
        if undo is not None:
            undo.callback(self._publisher.withdraw, use.container_id, made)
        use.published_on, use.publication = endpoint.endpoint_id, made
        use.endpoints = [
            item._replace(ports=made.bindings if item.endpoint_id == endpoint.endpoint_id else ())
            for item in use.endpoints
        ]

    def change(self, use: Use, ports: tuple[PortRequest, ...]) -> None:
        """Publish other ports; those that stay do not lose a connection.

        Raises:
            BarqueError: a port is taken; all is as before.
        """
        before, use.ports = use.ports, ports
        try:
            if use.publication.target is None:
                self.publish(use, None)
            else:
                use.publication = self._publisher.change(use.container_id, use.publication, ports)
        except BaseException:
            use.ports = before
            raise
        use.endpoints = [
            item._replace(ports=use.publication.bindings if item.endpoint_id == use.published_on else ())
            for item in use.endpoints
        ]

    def withdraw(self, use: Use) -> None:
        """Take all ports back."""
        self._publisher.withdraw(use.container_id, use.publication)

    def _publish_again(self, use: Use, old: Publication) -> None:
        """Publish once more, with the ephemeral ports that were given before."""
        given: dict[tuple[int, str], int] = {}
        for binding in old.bindings:
            given.setdefault((binding.container_port, binding.protocol), binding.host_port)
        wanted, use.ports = use.ports, tuple(
            item._replace(host_port=port, host_port_end=port)
            if not item.host_port and (port := given.get((item.container_port, item.protocol))) else item
            for item in use.ports
        )  # fmt: skip
        try:
            self.publish(use, None)
        finally:
            use.ports = wanted
            if not use.publication.reservations:
                use.endpoints = [item._replace(ports=()) for item in use.endpoints]

    def move(self, use: Use) -> None:
        """Publish through another network once another one gives the default route."""
        order = plumbing.by_gateway(use.endpoints)
        wanted = order[0].endpoint_id if order else ""
        if not use.ports or wanted == use.published_on:
            return
        old = use.publication
        self._publisher.withdraw(use.container_id, old)
        try:
            self._publish_again(use, old)
        except BarqueError as error:
            log.warning("container %s: ports are not published any more: %s", use.container_name, error)

    def adopt(self, use: Use) -> None:
        """Take over what an earlier daemon had published."""
        published = next((item for item in use.endpoints if item.ports), None)
        order = plumbing.by_gateway(use.endpoints)
        first = published or (order[0] if order else None)
        if first is not None and use.ports:
            driver = self._catalog.driver(self._catalog.by_id(first.network_id))
            if driver.publishes and not first.internal:
                target = Target(first.ip, first.ip6, driver.settings(self._catalog.by_id(first.network_id)))
                use.publication = self._publisher.adopt(use.container_id, first.ports, use.ports, target)
                use.published_on = first.endpoint_id
                at = use.endpoints.index(first)
                use.endpoints[at] = first._replace(ports=use.publication.bindings)
