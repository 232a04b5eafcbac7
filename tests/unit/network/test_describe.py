from barque.network import describe
from barque.network.model import Endpoint, Network, PortBinding, Sandbox, Subnet

WEB = Endpoint(
    "c" * 64, "web", "bridge", "f" * 64, "e" * 64, 5, "eth0", "veth1", "172.17.0.2", 16,
    "172.17.0.1", "02:42:ac:11:00:02", "", 0, "",
    (PortBinding(80, "tcp", "0.0.0.0", 8080), PortBinding(80, "tcp", "::", 8080)),
)  # fmt: skip
BACK = WEB._replace(network="back", network_id="b" * 64, ip="10.0.0.2", gateway="10.0.0.1", ports=())
SANDBOX = Sandbox("c" * 64, 5, (WEB, BACK))


def test_a_network_shows_subnets_options_and_members():
    network = Network(
        "f" * 64, "back", "bridge", 0, options={"x": "y"}, labels={"a": "b"},
        subnets=(Subnet("10.0.0.0/24", "10.0.0.128/25", "10.0.0.1", {"printer": "10.0.0.9"}),),
    )  # fmt: skip
    shown = describe.network(network, [WEB])
    assert shown["IPAM"] == {
        "Driver": "default",
        "Options": None,
        "Config": [
            {"Subnet": "10.0.0.0/24", "IPRange": "10.0.0.128/25", "Gateway": "10.0.0.1",
             "AuxiliaryAddresses": {"printer": "10.0.0.9"}}
        ],
    }  # fmt: skip
    assert shown["Containers"]["c" * 64]["IPv4Address"] == "172.17.0.2/16"
    assert (shown["Options"], shown["Labels"], shown["Scope"]) == ({"x": "y"}, {"a": "b"}, "local")


def test_the_predefined_networks_show_null_where_docker_does():
    shown = describe.network(Network("f" * 64, "host", "host", 0))
    assert shown["IPAM"] == {"Driver": "default", "Options": None, "Config": None}


def test_a_running_container_shows_all_its_networks_and_ports():
    shown = describe.network_settings(SANDBOX, {"bridge": {}, "back": {"Aliases": ["x"]}}, {}, exposed=["80/tcp", "81"],
                                      running=True)  # fmt: skip
    assert shown["IPAddress"] == shown["Networks"]["bridge"]["IPAddress"] == "172.17.0.2"
    assert shown["Networks"]["back"]["IPAddress"] == "10.0.0.2"
    assert shown["Networks"]["back"]["Aliases"] == ["x"]
    assert shown["Ports"] == {
        "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}],
        "81/tcp": None,
    }


def test_a_stopped_container_shows_its_network_alone():
    shown = describe.network_settings(None, {"bridge": {}}, {"bridge": "f" * 64})
    assert shown["Ports"] == {} and shown["IPAddress"] == ""
    assert shown["Networks"]["bridge"]["NetworkID"] == "f" * 64


def test_the_use_of_addresses_is_shown_up_to_what_64_bits_hold():
    shown = describe.ipam_status([("10.0.0.0/24", 3, 253), ("fd00::/48", 2, 1 << 80)])
    assert shown["IPAM"]["Subnets"]["10.0.0.0/24"] == {"IPsInUse": 3, "DynamicIPsAvailable": 253}
    assert shown["IPAM"]["Subnets"]["fd00::/48"]["DynamicIPsAvailable"] == (1 << 64) - 1
