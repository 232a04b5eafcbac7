import pytest

from barque.base.errors import InvalidInputError
from barque.network import bridge_options
from barque.network.model import Network


def parse(internal: bool = False, **options: str) -> bridge_options.BridgeOptions:
    spelled = {
        key if "." in key or key.startswith("com") else f"com.docker.network.bridge.{key}": value
        for key, value in options.items()
    }
    return bridge_options.parse(Network("f" * 64, "net", "bridge", 0, internal=internal, options=spelled))


def test_all_options_are_read():
    made = parse(
        name="lab0", enable_icc="false", enable_ip_masquerade="0", host_binding_ipv4="127.0.0.1", inhibit_ipv4="T",
        gateway_mode_ipv4="routed", gateway_mode_ipv6="nat-unprotected", trusted_host_interfaces="eth1:eth2",
        **{"com.docker.network.driver.mtu": "1400", "com.docker.network.container_iface_prefix": "net",
           "com.docker.network.host_ipv4": "192.0.2.1", "com.docker.network.host_ipv6": "2001:db8::1",
           "barque.network.anti_spoof": "true"},
    )  # fmt: skip
    assert made == bridge_options.BridgeOptions(
        "lab0", False, False, "127.0.0.1", 1400, "routed", "nat-unprotected", True, ("eth1", "eth2"), "net",
        "192.0.2.1", "2001:db8::1", True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"enable_icc": "yes"}, 'enable_icc value: yes (strconv.ParseBool: parsing "yes": invalid syntax)'),
        ({"gateway_mode_ipv4": "x"}, "gateway_mode_ipv4 value: x (unknown gateway mode x)"),
        ({"gateway_mode_ipv4": "isolated"}, "gateway mode 'isolated' can only be used for an internal network"),
        ({"host_binding_ipv4": "x"}, "host_binding_ipv4 value: x (nil ip)"),
        ({"com.docker.network.driver.mtu": "x"}, 'mtu value: x (strconv.Atoi: parsing "x": invalid syntax)'),
        ({"com.docker.network.driver.mtu": "5"}, "invalid MTU number: 5"),
        ({"com.docker.network.host_ipv4": "fd00::1"}, "host_ipv4 value: fd00::1"),
        ({"name": "a/b"}, "invalid interface name: 'a/b'"),
        ({"name": "sixteencharacter"}, "invalid interface name"),
        ({"trusted_host_interfaces": "eth0:a b"}, "invalid interface name: 'a b'"),
    ],
)
def test_a_value_that_cannot_be_is_named(options, words):
    with pytest.raises(InvalidInputError) as caught:
        parse(**options)
    assert words in str(caught.value)


def test_an_internal_network_may_be_isolated():
    assert parse(internal=True, gateway_mode_ipv4="isolated").mode4 == "isolated"
