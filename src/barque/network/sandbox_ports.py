"""Which network of a container carries its published ports, at start and as its networks change."""

import contextlib
import logging

from barque.base.errors import BarqueError, InvalidInputError, UnsupportedError
from barque.network import endpoints as plumbing
from barque.network.catalog import Catalog
from barque.network.model import Endpoint, PortRequest
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
        if not order or not use.ports:
            return
        endpoint = order[0]
        target = self._target(endpoint)
        if target is None:
            return
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
        self._note(use)

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
                use.publication, failure = self._publisher.change(use.container_id, use.publication, ports)
                if failure is not None:
                    raise failure
        except BaseException:
            use.ports = before
            self._note(use)
            raise
        self._note(use)

    def withdraw(self, use: Use) -> None:
        """Take all ports back."""
        self._publisher.withdraw(use.container_id, use.publication)

    def move(self, use: Use) -> None:
        """Publish through another network once another one gives the default route."""
        order = plumbing.by_gateway(use.endpoints)
        wanted = order[0] if order else None
        if not use.ports or (wanted is not None and wanted.endpoint_id == use.published_on):
            return
        old = use.publication
        target = self._target(wanted) if wanted is not None else None
        use.published_on, use.publication = "", Publication()
        try:
            if target is None or wanted is None:
                self._publisher.withdraw(use.container_id, old)
            elif old.target is None:
                self.publish(use, None)
                return
            else:
                use.publication = self._publisher.move(use.container_id, old, use.ports, target)
                use.published_on = wanted.endpoint_id
        except BarqueError as error:
            log.warning("container %s: ports are not published any more: %s", use.container_name, error)
        self._note(use)

    def _note(self, use: Use) -> None:
        """Show the ports at the endpoint that carries them."""
        use.endpoints = [
            item._replace(ports=use.publication.bindings if item.endpoint_id == use.published_on else ())
            for item in use.endpoints
        ]

    def _target(self, endpoint: Endpoint) -> Target | None:
        """Return where published ports lead, None for a network that has none."""
        network = self._catalog.by_id(endpoint.network_id)
        driver = self._catalog.driver(network)
        if endpoint.internal or not driver.publishes:
            return None
        settings = driver.settings(network)
        ours = {item.gateway for item in network.subnets}
        through_us = not settings.inhibit_ipv4 and {endpoint.gateway, endpoint.gateway6} - {""} <= ours
        return Target(endpoint.ip, endpoint.ip6, settings, tuple(item.subnet for item in network.subnets), through_us)

    def adopt(self, use: Use) -> None:
        """Take over what an earlier daemon had published; what it died over moving is published again."""
        if not use.ports:
            return
        published = next((item for item in use.endpoints if item.ports), None)
        if published is None:
            try:
                self.publish(use, None)
            except BarqueError as error:
                log.warning("container %s: ports are not published any more: %s", use.container_name, error)
            return
        target = self._target(published)
        if target is not None:
            use.publication = self._publisher.adopt(use.container_id, published.ports, use.ports, target)
            use.published_on = published.endpoint_id
            self._note(use)
