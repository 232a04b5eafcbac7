"""A container's network namespace while it is in use."""

from dataclasses import dataclass, field

from barque.kernel.netlink import namespace
from barque.network import endpoints as plumbing, resolving
from barque.network.model import Endpoint, PortRequest, Sandbox
from barque.network.publishing import Publication


@dataclass
class Use:
    """A container's namespace while it is in use; `space` is None once another daemon had made it."""

    container_id: str
    container_name: str
    space: namespace.Namespace | None
    pid: int = 0
    endpoints: list[Endpoint] = field(default_factory=list)
    host_indexes: dict[str, int] = field(default_factory=dict)
    inner_indexes: dict[str, int] = field(default_factory=dict)
    ports: tuple[PortRequest, ...] = ()
    published_on: str = ""
    publication: Publication = field(default_factory=Publication)
    upstreams: tuple[resolving.Upstream, ...] = ()
    dns_options: tuple[str, ...] = ()
    served: bool = False

    def sandbox(self) -> Sandbox:
        """Return it as the engine sees it."""
        order = tuple(item.endpoint_id for item in plumbing.by_gateway(self.endpoints))
        return Sandbox(self.container_id, self.space.fd if self.space else -1, tuple(self.endpoints), order)

    def path(self) -> str:
        """Return a path that opens the namespace."""
        return f"/proc/self/fd/{self.space.fd}" if self.space is not None else f"/proc/{self.pid}/ns/net"
