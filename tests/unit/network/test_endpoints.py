import pytest
from hypothesis import given, strategies as st

from barque.base.errors import InvalidInputError
from barque.network import endpoints
from barque.network.model import Endpoint, EndpointRequest


def place(network: str, gateway: str = "g", gateway6: str = "", **more) -> Endpoint:
    return Endpoint("c", "c", network, network, network, -1, f"if-{network}", "", "", 0, gateway, "", "", 0, gateway6, **more)


def order(*listed: Endpoint) -> list[str]:
    return [item.network for item in endpoints.by_gateway(listed)]


def test_the_default_route_goes_by_priority_then_by_what_a_network_offers_then_by_name():
    assert order(place("b"), place("a")) == ["a", "b"]
    assert order(place("a"), place("b", priority=1)) == ["b", "a"]
    assert order(place("a", internal=True), place("b")) == ["b", "a"]
    assert order(place("a"), place("b", gateway6="g")) == ["b", "a"]
    assert endpoints.default_routes([place("a", ""), place("b", "g4"), place("c", "", "g6")]) == {
        4: ("if-b", "g4"),
        6: ("if-c", "g6"),
    }


def test_interfaces_are_numbered_by_the_first_free_number():
    assert endpoints.choose_interface("", "eth", []) == "eth0"
    assert endpoints.choose_interface("", "eth", ["eth0", "eth2"]) == "eth1"
    assert endpoints.choose_interface("lan", "eth", ["eth0"]) == "lan"
    with pytest.raises(InvalidInputError, match="already in use"):
        endpoints.choose_interface("lan", "eth", ["lan"])


def test_sysctls_of_an_interface_are_read():
    options = {endpoints.SYSCTLS: "net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.ifname.accept_ra=2"}
    assert endpoints.parse_sysctls(options, "eth1") == {
        "net/ipv4/conf/eth1/log_martians": "1",
        "net/ipv6/conf/eth1/accept_ra": "2",
    }


@pytest.mark.parametrize("text", ["net.ipv4.ip_forward=1", "net.core.conf.IFNAME.x=1", "kernel.conf.IFNAME.x=1",
                                  "net.ipv4.conf.IFNAME=1", "net.ipv4.../../x.IFNAME.y=1"])  # fmt: skip
def test_other_sysctls_are_refused(text):
    with pytest.raises(InvalidInputError, match="unrecognised network interface sysctl"):
        endpoints.parse_sysctls({endpoints.SYSCTLS: text}, "eth0")


@pytest.mark.parametrize("mac", ["x", "02:00", "01:00:00:00:00:00", "00:00:00:00:00:00", "02:00:00:00:00:00:00"])
def test_a_mac_address_that_no_interface_has_is_refused(mac):
    with pytest.raises(InvalidInputError):
        endpoints.check(EndpointRequest(mac=mac))


@given(st.text(max_size=80))
def test_any_text_of_sysctls_stays_within_its_interface(text):
    try:
        found = endpoints.parse_sysctls({endpoints.SYSCTLS: text}, "eth0")
    except InvalidInputError:
        return
    assert all(path.startswith("net/") and path.split("/")[3] == "eth0" and ".." not in path for path in found)
