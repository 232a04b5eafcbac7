"""Legacy links on a default bridge whose containers may not talk: each link opens the target's exposed ports.

Frames do not cross such a bridge, its ports are isolated. The machine answers for the linked containers' addresses
instead (a private VLAN's proxy, RFC 3069), and what it is then asked to pass on meets the firewall.
"""

import logging
from collections.abc import Mapping
from typing import NamedTuple

from barque.network import bridge as bridges
from barque.network.catalog import Catalog
from barque.network.firewall import Firewall, Linked
from barque.network.use import Use

log = logging.getLogger(__name__)


class LinkTarget(NamedTuple):
    """A container that another one is linked to, and (protocol, port) of what it exposes."""

    container_id: str
    ports: tuple[tuple[str, int], ...]


class Links:
    """The links of all running containers."""

    def __init__(self, catalog: Catalog, uses: Mapping[str, Use]) -> None:
        """Start with none."""
        self._catalog = catalog
        self._uses = uses
        self._targets: dict[str, tuple[LinkTarget, ...]] = {}
        self._open: frozenset[Linked] = frozenset()

    def set(self, container_id: str, targets: tuple[LinkTarget, ...]) -> None:
        """Remember what a container is linked to; refresh() follows."""
        if targets:
            self._targets[container_id] = targets
        else:
            self._targets.pop(container_id, None)

    def wanted(self) -> frozenset[Linked]:
        """Return the ports to open, by the addresses that containers have now."""
        if not self._targets or self._catalog.bridge is None or self._catalog.options.icc:
            return frozenset()
        found = set()
        for container_id, targets in self._targets.items():
            source = self._address(container_id)
            for target in targets:
                address = self._address(target.container_id)
                if source and address:
                    found |= {Linked(source, address, *port) for port in target.ports}
        return frozenset(found)

    def _address(self, container_id: str) -> str:
        use = self._uses.get(container_id)
        return next((item.ip for item in use.endpoints if item.network == "bridge"), "") if use is not None else ""

    def refresh(self, firewall: Firewall | None) -> None:
        """Open and close what has changed."""
        wanted = self.wanted()
        if wanted == self._open:
            return
        self.answer()
        if firewall is not None:
            try:
                firewall.change_links(self._open - wanted, wanted - self._open)
            except OSError as error:
                log.warning("ports between linked containers are not as they should be: %s", error)
        self._open = wanted

    def rebuilt(self) -> frozenset[Linked]:
        """Return the ports for a table that is built anew."""
        self._open = self.wanted()
        self.answer()
        return self._open

    def answer(self) -> None:
        """Let the machine answer for containers that do not see each other's frames."""
        bridge, wiring = self._catalog.bridge, self._catalog.default_wiring()
        if bridge is not None and wiring is not None and wiring.isolated and (self._open or self.wanted()):
            bridges.write_sysctl(f"net/ipv4/conf/{bridge.name}/proxy_arp_pvlan", "1")
