import pytest

from barque.base.errors import InvalidInputError
from barque.network import publish
from barque.network.bridge_options import BridgeOptions
from barque.network.model import NetworkOptions, PortBinding, PortRequest
from barque.network.ports import Reservation
from barque.network.publish import Target

BOTH = Target("172.17.0.2", "fd00::2", BridgeOptions())
FOUR = Target("172.17.0.2", "", BridgeOptions())
SIX = Target("", "fd00::2", BridgeOptions())
WEB = PortRequest(80, "tcp", "", 8080, 8080)


def held(*hosts: str) -> list[Reservation]:
    return [Reservation(PortBinding(80, "tcp", host, 8080), None) for host in hosts]


@pytest.fixture(autouse=True)
def host_with_ipv6(monkeypatch):
    monkeypatch.setattr(publish.ports, "host_has_ipv6", lambda: True)


def test_a_port_is_bound_in_both_versions_unless_an_address_is_named():
    options = NetworkOptions()
    assert publish.host_addresses(WEB, options, FOUR) == ["0.0.0.0", "::"]
    assert publish.host_addresses(WEB._replace(host_ip="127.0.0.1"), options, FOUR) == ["127.0.0.1"]
    bound = FOUR._replace(settings=BridgeOptions(host_binding="127.0.0.1"))
    assert publish.host_addresses(WEB, options, bound) == ["127.0.0.1"]
    assert publish.host_addresses(WEB, options._replace(userland_proxy=False), FOUR) == ["0.0.0.0"]
    assert publish.host_addresses(WEB, options._replace(userland_proxy=False), SIX) == ["::"]


def test_an_address_that_nothing_can_serve_is_refused():
    options = NetworkOptions(userland_proxy=False)
    with pytest.raises(InvalidInputError, match="no IPv6 address"):
        publish.host_addresses(WEB._replace(host_ip="::1"), options, FOUR)
    with pytest.raises(InvalidInputError, match="no IPv4 address"):
        publish.host_addresses(WEB._replace(host_ip="127.0.0.1"), options, SIX)


def test_the_firewall_leads_what_has_an_address_of_its_version_and_the_proxy_the_rest():
    led = publish.forwards(held("0.0.0.0", "::"), NetworkOptions(), FOUR)
    assert [(item.binding.host_ip, item.target) for item in led] == [("0.0.0.0", "172.17.0.2")]
    rest = publish.unled(held("0.0.0.0", "::"), led, FOUR)
    assert [(item.reservation.binding.host_ip, item.address) for item in rest] == [("::", "172.17.0.2")]
    led = publish.forwards(held("0.0.0.0", "::"), NetworkOptions(), SIX)
    assert [item.target for item in led] == ["fd00::2"]


def test_where_the_hosts_rules_count_all_goes_through_the_proxy():
    options = NetworkOptions(firewall=publish.RESPECT_HOST, userland_proxy=False)
    assert publish.host_addresses(WEB, options, FOUR) == ["0.0.0.0", "::"]
    assert publish.forwards(held("0.0.0.0"), options, BOTH) == []
    assert len(publish.unled(held("0.0.0.0", "::"), [], BOTH)) == 2


@pytest.mark.parametrize(
    ("client", "kept"),
    [("198.51.100.2", True), ("127.0.0.1", False), ("172.17.0.9", False), ("169.254.1.1", False), ("2001:db8::1", False)],
)
def test_a_client_is_shown_where_the_answer_comes_back_this_way(client, kept):
    ours = FOUR._replace(subnets=("172.17.0.0/16", "fd00::/64"), through_us=True)
    shown = publish.unled(held("0.0.0.0"), [], ours, mark=7)[0]
    assert shown.keeps(client) is kept
    assert not publish.unled(held("0.0.0.0"), [], ours)[0].keeps(client)
    assert not publish.unled(held("0.0.0.0"), [], ours._replace(through_us=False), mark=7)[0].keeps(client)


def test_a_client_by_ipv6_is_shown_to_a_container_with_ipv6():
    found = publish.unled(held("::"), [], BOTH._replace(subnets=("fd00::/64",), through_us=True), mark=7)[0]
    assert found.address == "fd00::2"
    assert found.keeps("2001:db8::1") and not found.keeps("fd00::5") and not found.keeps("fe80::1%eth0")


def test_a_routed_network_publishes_at_the_containers_own_address():
    target = BOTH._replace(settings=BridgeOptions(mode4="routed", mode6="nat"))
    assert publish.host_addresses(WEB, NetworkOptions(), target) == ["::"]
    (direct,) = publish.directs([WEB, WEB], NetworkOptions(), target)
    assert (direct.target, direct.binding.container_port, direct.direct) == ("172.17.0.2", 80, True)
