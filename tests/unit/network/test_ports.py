import socket

import pytest

from barque.base.errors import BarqueError, InvalidInputError
from barque.network.model import PortRequest
from barque.network.ports import PortAllocator, parse_requests


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def test_bindings_are_read_with_fixed_ports_first():
    found = parse_requests(
        {
            "80/tcp": [{"HostIp": "", "HostPort": ""}],
            "53/udp": [{"HostIp": "127.0.0.1", "HostPort": "5353"}],
            "90": [{"HostPort": "8000-8010"}, {"HostIp": "[::1]", "HostPort": "1"}],
        }
    )
    assert found == (
        PortRequest(53, "udp", "127.0.0.1", 5353, 5353),
        PortRequest(90, "tcp", "", 8000, 8010),
        PortRequest(90, "tcp", "::1", 1, 1),
        PortRequest(80, "tcp", "", 0, 0),
    )


def test_publish_all_takes_exposed_ports_that_are_not_bound_already():
    found = parse_requests({"80/tcp": [{"HostPort": "1"}]}, ["80/tcp", "81/udp"], publish_all=True)
    assert found == (PortRequest(80, "tcp", "", 1, 1), PortRequest(81, "udp", "", 0, 0))
    assert parse_requests(None, ["80/tcp"]) == ()


@pytest.mark.parametrize(
    ("spec", "item"),
    [
        ("x/tcp", {}),
        ("0/tcp", {}),
        ("80/icmp", {}),
        ("65536/tcp", {}),
        ("80/tcp", {"HostPort": "-1"}),
        ("80/tcp", {"HostPort": "9-8"}),
        ("80/tcp", {"HostPort": "70000"}),
        ("80/tcp", {"HostPort": "٣"}),
        ("80/tcp", {"HostIp": "localhost"}),
    ],
)
def test_a_wrong_port_is_refused(spec, item):
    with pytest.raises(InvalidInputError):
        parse_requests({spec: [item]})


def test_a_port_of_ours_and_one_of_another_program_are_told_apart():
    ports, number = PortAllocator(), free_port()
    held = ports.reserve(PortRequest(80, "tcp", "", number, number), ["127.0.0.1"], "172.17.0.2")
    with pytest.raises(BarqueError, match=f"Bind for 127.0.0.1:{number} failed: port is already"):
        ports.reserve(PortRequest(80, "tcp", "", number, number), ["127.0.0.1"], "172.17.0.3")
    ports.free(held)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", number))
        other.listen()
        words = f"failed to bind host port for 127.0.0.1:{number}:172.17.0.2:80/tcp: address already in use"
        with pytest.raises(BarqueError, match=words):
            ports.reserve(PortRequest(80, "tcp", "", number, number), ["127.0.0.1"], "172.17.0.2")


def test_a_reserved_port_cannot_be_taken_by_another_program():
    ports, number = PortAllocator(), free_port()
    held = ports.reserve(PortRequest(80, "tcp", "", number, number), ["127.0.0.1"], "x")
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", number))
    ports.free(held)


def test_ephemeral_ports_go_on_after_the_last_one_even_after_it_was_freed():
    ports = PortAllocator()
    first = ports.reserve(PortRequest(80, "tcp"), ["127.0.0.1"], "x")
    ports.free(first)
    second = ports.reserve(PortRequest(80, "tcp"), ["127.0.0.1"], "x")
    ports.free(second)
    assert second[0].binding.host_port > first[0].binding.host_port


def test_a_range_gives_its_first_free_port():
    ports, number = PortAllocator(), free_port()
    with socket.socket() as other:
        other.bind(("127.0.0.1", number))
        other.listen()
        held = ports.reserve(PortRequest(80, "tcp", "", number, number + 20), ["127.0.0.1"], "x")
        assert number < held[0].binding.host_port <= number + 20
        ports.free(held)
