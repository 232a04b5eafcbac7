from barque.network import describe
from barque.network.bridge import Bridge
from barque.network.model import Endpoint, NetworkOptions, PortBinding

ROW = {"id": "f" * 64, "driver": "bridge", "created": "2026-01-01T00:00:00Z"}
BRIDGE = Bridge("barque0", 3, 1500, "172.17.0.1", 16, "", 0, True)
WEB = Endpoint(
    "c" * 64, "web", "bridge", "f" * 64, "e" * 64, 5, "eth0", "veth1", "172.17.0.2", 16,
    "172.17.0.1", "02:42:ac:11:00:02", "", 0, "",
    (PortBinding(80, "tcp", "0.0.0.0", 8080), PortBinding(80, "tcp", "::", 8080)),
)  # fmt: skip


def test_the_default_bridge_shows_its_options_and_members():
    shown = describe.network("bridge", ROW, [WEB], BRIDGE, NetworkOptions())
    assert shown["IPAM"]["Config"] == [{"Subnet": "172.17.0.0/16", "Gateway": "172.17.0.1"}]
    assert shown["Options"]["com.docker.network.bridge.name"] == "barque0"
    assert shown["Containers"]["c" * 64]["IPv4Address"] == "172.17.0.2/16"


def test_a_running_container_shows_address_and_ports():
    shown = describe.network_settings(WEB, network_mode="default", exposed=["80/tcp", "81"])
    assert shown["IPAddress"] == shown["Networks"]["bridge"]["IPAddress"] == "172.17.0.2"
    assert shown["Ports"] == {
        "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}],
        "81/tcp": None,
    }


def test_a_stopped_container_shows_its_network_alone():
    shown = describe.network_settings(None, network_mode="bridge", network_id="f" * 64)
    assert shown["Ports"] == {} and shown["IPAddress"] == ""
    assert shown["Networks"]["bridge"]["NetworkID"] == "f" * 64


def test_a_container_in_anothers_namespace_has_no_networks():
    assert describe.network_settings(None, network_mode="container:x")["Networks"] == {}
