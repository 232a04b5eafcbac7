"""Ports of a container that a new daemon takes over."""

from typing import Any

import pytest

from barque.base.errors import BarqueError
from barque.network.bridge_options import BridgeOptions
from barque.network.model import Endpoint, Network, PortBinding, PortRequest
from barque.network.publishing import Publication
from barque.network.sandbox_ports import SandboxPorts
from barque.network.use import Use

WANTED = (PortRequest(80, "tcp", "", 8092, 8092),)
BOUND = (PortBinding(80, "tcp", "0.0.0.0", 8092),)


class Driver:
    publishes = True

    def settings(self, network: object) -> BridgeOptions:
        return BridgeOptions()


class Catalog:
    def by_id(self, name: str) -> Network:
        return Network(name, name, "bridge", 1)

    def driver(self, network: object) -> Driver:
        return Driver()


class Publisher:
    def __init__(self, *, taken: bool = False) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.taken = taken

    def publish(self, name: str, ports: Any, target: Any) -> Publication:
        self.calls.append(("publish", tuple(ports), target.ip))
        if self.taken:
            raise BarqueError("address already in use")
        return Publication(target=target)

    def adopt(self, name: str, bindings: Any, ports: Any, target: Any) -> Publication:
        self.calls.append(("adopt", tuple(bindings), target.ip))
        return Publication(target=target)


def endpoint(name: str, ip: str, ports: tuple[PortBinding, ...] = ()) -> Endpoint:
    return Endpoint("c" * 64, "web", name, f"{name}-id", f"{name}-endpoint", -1, "eth0", "veth", ip, 16, "", "", "", 0, "", ports)


def adopted(publisher: Publisher, *endpoints: Endpoint, ports: tuple[PortRequest, ...] = WANTED) -> Use:
    use = Use("c" * 64, "web", None, endpoints=list(endpoints), ports=ports)
    SandboxPorts(Catalog(), publisher).adopt(use)  # type: ignore[arg-type]
    return use


def test_ports_are_taken_over_where_they_are_bound() -> None:
    publisher = Publisher()
    use = adopted(publisher, endpoint("back", "10.0.0.2"), endpoint("front", "10.1.0.2", BOUND))
    assert publisher.calls == [("adopt", BOUND, "10.1.0.2")]
    assert use.published_on == "front-endpoint"


def test_ports_whose_network_went_while_they_were_moved_are_published_again() -> None:
    publisher = Publisher()
    use = adopted(publisher, endpoint("front", "10.1.0.2"))
    assert publisher.calls == [("publish", WANTED, "10.1.0.2")]
    assert use.published_on == "front-endpoint"


def test_a_port_that_somebody_has_taken_meanwhile_is_told(caplog: pytest.LogCaptureFixture) -> None:
    use = adopted(Publisher(taken=True), endpoint("front", "10.1.0.2"))
    assert use.published_on == ""
    assert "ports are not published any more: driver failed" in caplog.text


def test_without_ports_nothing_is_done() -> None:
    publisher = Publisher()
    adopted(publisher, endpoint("front", "10.1.0.2"), ports=())
    assert publisher.calls == []
