"""What a server of names must know of each container's namespace, and how it is told."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from barque.network.names import Entry

ADDRESS = "127.0.0.11"
"""Where every container in a user-defined network finds its server of names."""


class Upstream(NamedTuple):
    """A server that unknown names are asked of; `from_host`: ask out of the host's network namespace.

    Servers on the host's own loopback addresses can be reached from there alone.
    """

    address: str
    from_host: bool


class ServedNamespace(NamedTuple):
    """One container's network namespace that names are to be served in.

    `netns_path` opens the namespace and is valid while `serve` runs; the server keeps what it opened.
    What a name means there is `Names.lookup(name, container_id)`. `forward` is false where all of the
    container's networks are internal: unknown names are then asked out of its own namespace, of servers that its
    networks hold.
    """

    container_id: str
    netns_path: str
    upstreams: tuple[Upstream, ...]
    forward: bool = True
    ipv6: bool = False
    options: tuple[str, ...] = ()


class NameServer(Protocol):
    """Serves names on ADDRESS inside namespaces (see dns.client.NameService); the manager calls it from one thread.

    It has the names of its own, so all changes of them are told to it: `add`, `remove` and `order` are those of
    `Names`. A manager that takes over running containers tells all of theirs again, then calls `settle`.
    """

    def add(self, entry: Entry) -> None:
        """Make an endpoint's names known; an entry of the same endpoint is replaced."""
        ...

    def remove(self, endpoint_id: str) -> None:
        """Forget an endpoint; fine where it is not known."""
        ...

    def order(self, container_id: str, endpoint_ids: Sequence[str]) -> None:
        """Set the order in which a container's networks are asked."""
        ...

    def serve(self, space: ServedNamespace) -> None:
        """Begin to serve, or take note of changed values of a namespace that is served already.

        Raises:
            OSError: the namespace cannot be entered or the address is taken.
        """
        ...

    def stop(self, container_id: str) -> None:
        """Stop serving a container's namespace; fine where it is not served."""
        ...

    def settle(self) -> None:
        """Forget what an earlier daemon told and this one did not."""
        ...

    def close(self) -> None:
        """Leave; containers that are still served stay served."""
        ...
