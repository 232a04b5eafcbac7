"""The network manager: the engine's one door to bridges, addresses, ports and firewall."""

from collections.abc import Iterable

from barque.network.model import Endpoint, EndpointRequest, Json, NetworkOptions


class NetworkManager:
    """Owns the engine's networks on this machine; all methods are called from one thread."""

    def __init__(self, state_dir: str, exec_root: str, options: NetworkOptions) -> None:
        """Remember where state lies; open() touches the machine."""

    def open(self) -> None:
        """Load the networks, make the firewall table, start the pool."""
        raise NotImplementedError

    def restore(self, running: Iterable[tuple[str, int]]) -> dict[str, Endpoint]:
        """Take over the endpoints of running containers, given as (container id, pid of its init)."""
        raise NotImplementedError

    def allocate(self, request: EndpointRequest) -> Endpoint:
        """Give a container its network namespace, address and ports."""
        raise NotImplementedError

    def isolated(self, container_id: str) -> int:
        """Return a descriptor of a new namespace with nothing but lo up (network mode none)."""
        raise NotImplementedError

    def release(self, container_id: str) -> None:
        """Take back what allocate() or isolated() gave; unknown ids are fine."""
        raise NotImplementedError

    def endpoint(self, container_id: str) -> Endpoint | None:
        """Return the live endpoint of a container."""
        raise NotImplementedError

    def statistics(self, container_id: str) -> Json:
        """Return the counters of the container's interfaces as stats' "networks" object."""
        raise NotImplementedError

    def close(self) -> None:
        """Drain the pool; remove our table and bridge where nothing uses them."""
        raise NotImplementedError
