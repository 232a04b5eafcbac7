"""What the options of bridges do, seen by containers, by their machine and by its neighbour."""

import json
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from machines import HERE, HERE6, THERE, THERE6, EngineThere, Machine, engine_on, machine
from traffic import Question, Server, ask
from under_test import needs_root, until

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

_BRIDGE, _SECOND, _SECOND6 = "com.docker.network.bridge.", "198.51.100.77", "fd99::77"
_SUBNET, _SUBNET6 = "10.66.0.0/24", "fd66::/64"


class Scene:
    """A machine with an engine, whose networks have IPv6 by its configuration, and servers that end with the test."""

    def __init__(self, where: Machine, engine: EngineThere) -> None:
        self.where, self.engine = where, engine
        self.ending = ExitStack()

    def network(self, *flags: str) -> None:
        """Make the network net."""
        self.engine.docker("network", "create", "--subnet", _SUBNET, "--subnet", _SUBNET6, *flags, "net")

    def run(self, *flags: str) -> str:
        """Start the container box in it; return the path of its network namespace."""
        self.engine.docker("run", "-d", "--name", "box", "--network", "net", *flags, "busybox", "sleep", "100000")
        return f"/proc/{self.engine.docker('inspect', '-f', '{{.State.Pid}}', 'box')}/ns/net"

    def serve(self, netns: str) -> None:
        """Serve in a namespace until the test ends."""
        self.ending.callback(Server(netns).end)

    def told(self, netns: str, questions: list[Question], wanted: list[str]) -> None:
        """Wait until servers tell somebody what is wanted: the address that they see, "" where he reaches nobody."""
        until(lambda: ask({netns: questions})[netns] == wanted, f"{questions} are answered by {wanted}")


@pytest.fixture(scope="module")
def guarded() -> Iterator[Scene]:
    needs_root()
    with machine() as where, engine_on(where, "--default-network-opt=bridge=com.docker.network.enable_ipv6=true") as engine:
        # Ways to the containers, which only the firewall may bar.
        where.run_there(f"ip route add {_SUBNET} via {HERE}")
        where.run_there(f"ip route add {_SUBNET6} via {HERE6}")
        yield Scene(where, engine)


@pytest.fixture
def scene(guarded: Scene) -> Iterator[Scene]:
    with guarded.ending:
        yield guarded
    guarded.ending = ExitStack()
    guarded.engine.docker("rm", "-f", "box", check=False)
    guarded.engine.docker("network", "rm", "net", check=False)


_OUT: list[Question] = [("tcp", THERE, 80), ("udp", THERE, 53), ("tcp", THERE6, 80), ("udp", THERE6, 53)]
_IN: list[Question] = [("tcp", "10.66.0.2", 80), ("udp", "10.66.0.2", 53), ("ping", "10.66.0.2", 0),
                       ("tcp", "fd66::2", 80), ("udp", "fd66::2", 53), ("ping", "fd66::2", 0)]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "seen"),
    [
        ({}, [HERE, HERE6]),
        ({"enable_ip_masquerade": "false"}, ["10.66.0.2", "fd66::2"]),
        ({"gateway_mode_ipv4": "routed"}, ["10.66.0.2", HERE6]),
        ({"gateway_mode_ipv6": "routed"}, [HERE, "fd66::2"]),
        ({"com.docker.network.host_ipv4": _SECOND}, [_SECOND, HERE6]),
        ({"com.docker.network.host_ipv6": _SECOND6}, [HERE, _SECOND6]),
    ],
)
def test_under_which_address_others_see_a_container(scene: Scene, options: dict[str, str], seen: list[str]) -> None:
    scene.where.run(f"ip addr replace {_SECOND}/24 dev lan0")
    scene.where.run(f"ip addr replace {_SECOND6}/64 dev lan0 nodad preferred_lft 0")
    scene.network(*(word for key, value in options.items() for word in ("-o", f"{_full(key)}={value}")))
    box = scene.run()
    scene.serve(scene.where.neighbour)
    scene.told(box, _OUT, [seen[0], seen[0], seen[1], seen[1]])


def _full(key: str) -> str:
    return key if "." in key else _BRIDGE + key


@pytest.mark.parametrize(
    ("options", "reached", "published"),
    [
        ({}, [], [THERE, THERE6]),
        ({"gateway_mode_ipv4": "routed"}, _IN[:1] + _IN[2:3], ["", THERE6]),
        ({"gateway_mode_ipv6": "routed"}, _IN[3:4] + _IN[5:], [THERE, ""]),
        ({"gateway_mode_ipv4": "nat-unprotected"}, _IN[:3], [THERE, THERE6]),
        ({"gateway_mode_ipv6": "nat-unprotected"}, _IN[3:], [THERE, THERE6]),
        ({"trusted_host_interfaces": "lan0"}, _IN, [THERE, THERE6]),
        ({"trusted_host_interfaces": "lan7:lan8"}, [], [THERE, THERE6]),
    ],
)
def test_what_a_neighbour_reaches_at_a_containers_own_address_and_at_its_machines(
    scene: Scene, options: dict[str, str], reached: list[Question], published: list[str]
) -> None:
    scene.network(*(word for key, value in options.items() for word in ("-o", f"{_full(key)}={value}")))
    scene.serve(scene.run("-p", "18080:80"))
    far = scene.where.neighbour
    asked: list[Question] = [*_IN, ("tcp", HERE, 18080), ("tcp", HERE6, 18080)]
    scene.told(far, asked, [_seen(question, THERE, THERE6) if question in reached else "" for question in _IN] + published)
    # The machine itself reaches all.
    scene.told(scene.where.netns, _IN, [_seen(question, "10.66.0.1", "fd66::1") for question in _IN])


def _seen(question: Question, four: str, six: str) -> str:
    return "alive" if question[0] == "ping" else six if ":" in question[1] else four


def test_ports_are_bound_where_the_network_says(scene: Scene) -> None:
    scene.network("-o", f"{_BRIDGE}host_binding_ipv4=127.0.0.1")
    scene.serve(scene.run("-p", "18080:80", "-p", "0.0.0.0:18081:80"))
    assert scene.engine.docker("port", "box", "80").splitlines() == ["0.0.0.0:18081", "127.0.0.1:18080"]
    scene.told(scene.where.netns, [("tcp", "127.0.0.1", 18080), ("tcp", "127.0.0.1", 18081)], ["10.66.0.1", "10.66.0.1"])
    scene.told(scene.where.neighbour, [("tcp", HERE, 18080), ("tcp", HERE, 18081)], ["", THERE])


def test_a_bridge_without_an_address_leaves_the_gateway_to_somebody_else(scene: Scene) -> None:
    scene.network("-o", f"{_BRIDGE}inhibit_ipv4=true", "-o", f"{_BRIDGE}name=shared0")
    box = scene.run()
    shown = json.loads(scene.where.run("ip -j addr show dev shared0"))[0]["addr_info"]
    assert "inet" not in {item["family"] for item in shown}
    assert scene.engine.docker("inspect", "-f", "{{.NetworkSettings.Networks.net.Gateway}}", "box") == "10.66.0.1"
    # The neighbour gets an end in the bridge, and is the gateway.
    scene.where.run_there(f"ip route del {_SUBNET}")
    scene.ending.callback(scene.where.run_there, f"ip route add {_SUBNET} via {HERE}")
    scene.where.run("ip link add port0 type veth peer name router0")
    scene.ending.callback(scene.where.run, "ip link del port0")
    scene.where.run(f"ip link set router0 netns {scene.where.neighbour}")
    scene.where.run("ip link set port0 master shared0 up")
    scene.where.run_there("ip addr add 10.66.0.1/24 dev router0")
    scene.where.run_there("ip link set router0 up")
    scene.serve(scene.where.neighbour)
    scene.told(box, [("tcp", "10.66.0.1", 80), ("tcp", THERE, 80)], ["10.66.0.2", "10.66.0.2"])


def test_interfaces_and_bridge_have_the_names_and_sizes_that_were_asked_for(scene: Scene) -> None:
    scene.network("-o", "com.docker.network.container_iface_prefix=net", "-o", "com.docker.network.driver.mtu=1400",
                  "-o", f"{_BRIDGE}name=lab0")  # fmt: skip
    scene.run()
    inside = json.loads(scene.engine.run(["nsenter", "-t", scene.engine.docker("inspect", "-f", "{{.State.Pid}}", "box"),
                                          "-n", "ip", "-j", "link"]).stdout)  # fmt: skip
    assert {item["ifname"]: item["mtu"] for item in inside if item["ifname"] != "lo"} == {"net0": 1400}
    assert json.loads(scene.where.run("ip -j link show dev lab0"))[0]["mtu"] == 1400
    taken = scene.engine.docker_result("network", "create", "-o", f"{_BRIDGE}name=lab0", "other")
    assert taken.returncode == 1 and "networks have same bridge name" in taken.stderr


@pytest.mark.parametrize("version", ["4", "6"])
def test_an_isolated_gateway_is_none(scene: Scene, version: str) -> None:
    scene.network("--internal", "-o", f"{_BRIDGE}gateway_mode_ipv{version}=isolated", "-o", f"{_BRIDGE}name=alone0")
    scene.serve(scene.run())
    scene.told(scene.where.netns, [_IN[0], _IN[3]], ["10.66.0.1", ""] if version == "6" else ["", "fd66::1"])
    address = "10.66.0.2" if version == "4" else "fd66::2"
    assert scene.engine.docker("run", "--rm", "--network", "net", "busybox", "ping", "-c1", "-W2", "-q", address)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("enable_icc=perhaps", "failed to parse com.docker.network.bridge.enable_icc value: perhaps"),
        ("gateway_mode_ipv4=isolated", "gateway mode 'isolated' can only be used for an internal network"),
        ("gateway_mode_ipv6=nonsense", "unknown gateway mode nonsense"),
        ("host_binding_ipv4=here", "failed to parse com.docker.network.bridge.host_binding_ipv4 value: here"),
        ("trusted_host_interfaces=a/b", "invalid interface name"),
        ("name=much-too-long-a-name", "invalid interface name"),
    ],
)
def test_an_option_that_cannot_be_is_said_and_nothing_is_made(scene: Scene, option: str, said: str) -> None:
    refused = scene.engine.docker_result("network", "create", "-o", _BRIDGE + option, "net")
    assert refused.returncode == 1 and said in refused.stderr
    assert scene.engine.docker("network", "ls", "-q", "--filter", "name=net") == ""
