"""Ports that change while they are published, on real sockets."""

import socket
from collections.abc import Iterator

import pytest

from barque.base.errors import BarqueError
from barque.kernel.netlink.connection import Connection
from barque.network.bridge_options import BridgeOptions
from barque.network.firewall import Forward
from barque.network.model import NetworkOptions, PortRequest
from barque.network.publish import Target
from barque.network.publishing import Publisher

_HERE = "127.0.0.1"


class Firewall:
    """Remembers what is let through."""

    def __init__(self) -> None:
        self.forwards: set[Forward] = set()

    def add_forwards(self, forwards: list[Forward]) -> None:
        self.forwards |= set(forwards)

    def remove_forwards(self, forwards: list[Forward], staying: tuple[Forward, ...] = ()) -> None:
        self.forwards -= set(forwards) - set(staying)


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    connection = Connection()
    made = Publisher(NetworkOptions(direct_routing=True), connection)
    made.firewall = Firewall()  # type: ignore[assignment]
    yield made
    connection.close()


def _free() -> int:
    with socket.socket() as any_socket:
        any_socket.bind((_HERE, 0))
        return int(any_socket.getsockname()[1])


def _request(inner: int, outer: int) -> PortRequest:
    return PortRequest(inner, "tcp", _HERE, outer, outer)


def _is_free(port: int) -> bool:
    with socket.socket() as any_socket:
        any_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            any_socket.bind((_HERE, port))
        except OSError:
            return False
        return True


def test_a_change_that_fails_leaves_all_as_it_was_and_nothing_is_held_afterwards(publisher: Publisher) -> None:
    target = Target("10.0.0.2", "", BridgeOptions())
    stays, goes = _free(), _free()
    made = publisher.publish("web", [_request(80, stays), _request(81, goes)], target)
    firewall = publisher.firewall
    before = set(firewall.forwards)  # type: ignore[union-attr]
    kept = next(item for item in made.reservations if item.binding.host_port == stays)
    with socket.create_server((_HERE, 0)) as other:
        taken = other.getsockname()[1]
        after, failure = publisher.change("web", made, [_request(80, stays), _request(82, taken)])
    assert isinstance(failure, BarqueError) and str(taken) in str(failure)
    assert set(after.bindings) == set(made.bindings)
    assert firewall.forwards == set(after.forwards) == before  # type: ignore[union-attr]
    assert kept in after.reservations and kept.sock.fileno() >= 0, "a port that stays is not touched"
    assert not _is_free(stays) and not _is_free(goes)
    publisher.withdraw("web", after)
    assert _is_free(stays) and _is_free(goes)
    assert firewall.forwards == set()  # type: ignore[union-attr]


def test_a_change_publishes_what_is_asked_for_and_no_more(publisher: Publisher) -> None:
    target = Target("10.0.0.2", "", BridgeOptions())
    first, second, third = _free(), _free(), _free()
    made = publisher.publish("web", [_request(80, first), _request(81, second)], target)
    after, failure = publisher.change("web", made, [_request(80, first), _request(82, third)])
    assert failure is None
    assert {item.host_port for item in after.bindings} == {first, third}
    assert set(after.forwards) == publisher.firewall.forwards  # type: ignore[union-attr]
    assert {item.binding.container_port for item in after.forwards if item.direct} == {80, 82}
    assert _is_free(second)
    publisher.withdraw("web", after)
    assert _is_free(first) and _is_free(third)
