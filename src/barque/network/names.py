"""Which names mean which addresses, as seen from one container. Pure.

Every endpoint in a user-defined network has names: the container's, its aliases, its short id, its
host name. A name is looked up in the networks of the container that asks, one after another; the first
network that knows it answers, with the addresses of all endpoints that bear the name there.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple


class Entry(NamedTuple):
    """What names and addresses one endpoint has.

    `names` are as given by the user (compared without case); the first one answers reverse look-ups.
    `links` maps names that this endpoint's container alone may use to the names meant.
    """

    endpoint_id: str
    container_id: str
    network_id: str
    network_name: str
    names: tuple[str, ...]
    ip: str = ""
    ip6: str = ""
    links: Mapping[str, str] = {}


class Found(NamedTuple):
    """Addresses of a name: empty lists where it exists without an address of that family."""

    ip: tuple[str, ...]
    ip6: tuple[str, ...]


class Names:
    """The endpoints of all containers of one engine."""

    def __init__(self) -> None:
        """Start with none."""
        self._entries: dict[str, Entry] = {}
        self._by_name: dict[tuple[str, str], dict[str, Entry]] = {}
        self._by_address: dict[tuple[str, str], Entry] = {}
        self._of_container: dict[str, list[str]] = {}

    def add(self, entry: Entry) -> None:
        """Make an endpoint's names known; an entry of the same endpoint is replaced in its place."""
        order = self._of_container.setdefault(entry.container_id, [])
        if entry.endpoint_id in self._entries:
            self._forget(self._entries[entry.endpoint_id])
        else:
            order.append(entry.endpoint_id)
        self._entries[entry.endpoint_id] = entry
        for name in entry.names:
            self._by_name.setdefault((entry.network_id, name.lower()), {})[entry.endpoint_id] = entry
        for address in (entry.ip, entry.ip6):
            if address:
                self._by_address[entry.network_id, address] = entry

    def remove(self, endpoint_id: str) -> None:
        """Forget an endpoint; fine where it is not known."""
        entry = self._entries.pop(endpoint_id, None)
        if entry is None:
            return
        self._forget(entry)
        order = self._of_container[entry.container_id]
        order.remove(endpoint_id)
        if not order:
            del self._of_container[entry.container_id]

    def order(self, container_id: str, endpoint_ids: Iterable[str]) -> None:
        """Set the order in which a container's networks are asked: that of its default gateway first."""
        known = self._of_container.get(container_id, [])
        wanted = [item for item in endpoint_ids if item in known]
        if known:
            self._of_container[container_id] = wanted + [item for item in known if item not in wanted]

    def of_container(self, container_id: str) -> list[Entry]:
        """Return a container's entries in the order in which its networks are asked."""
        return [self._entries[item] for item in self._of_container.get(container_id, ())]

    def lookup(self, name: str, container_id: str) -> Found | None:
        """Return the addresses that a name means to a container; None where no network of it knows the name.

        "a.b.c" is looked for as a name in every network, then as "a.b" in network "c", then as "a" in network "b.c".
        """
        plain = name.rstrip(".").lower()
        dot = len(plain)
        while dot >= 0:
            found = self._lookup(plain[:dot], container_id, plain[dot + 1 :])
            if found is not None:
                return found
            dot = plain.rfind(".", 0, dot)
        return None

    def reverse(self, address: str, container_id: str) -> str | None:
        """Return `name.network` of an address in one of a container's networks."""
        for mine in self.of_container(container_id):
            entry = self._by_address.get((mine.network_id, address))
            if entry is not None and entry.names:
                return f"{entry.names[0]}.{entry.network_name}"
        return None

    def _lookup(self, name: str, container_id: str, network: str) -> Found | None:
        for mine in self.of_container(container_id):
            if network and mine.network_name.lower() != network:
                continue
            meant = next((target.lower() for alias, target in mine.links.items() if alias.lower() == name), name)
            entries = list(self._by_name.get((mine.network_id, meant), {}).values())
            if entries:
                return Found(
                    tuple(item.ip for item in entries if item.ip), tuple(item.ip6 for item in entries if item.ip6)
                )
        return None

    def _forget(self, entry: Entry) -> None:
        for name in entry.names:
            bearers = self._by_name.get((entry.network_id, name.lower()), {})
            bearers.pop(entry.endpoint_id, None)
            if not bearers:
                self._by_name.pop((entry.network_id, name.lower()), None)
        for address in (entry.ip, entry.ip6):
            if self._by_address.get((entry.network_id, address)) is entry:
                del self._by_address[entry.network_id, address]
