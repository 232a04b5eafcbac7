"""Programs that test_network runs: macvlan on the host's interfaces, and overlays between engines; `<scenario>`."""

import json
import os
import subprocess
import sys
import tempfile
import time

from network_modes import BOTH, DualContainer
from network_scenarios import Container, Machine, assert_clean, fetch, outside, published, sh

from barque.base.errors import BarqueError, UnsupportedError
from barque.kernel.netlink import namespace, route
from barque.kernel.netlink.connection import Connection
from barque.network.model import Subnet


def macvlan(folder: str) -> None:
    """Containers on the network of one of the host's interfaces; and what this kernel has not."""
    far = outside()
    sh(f"nsenter --net={far} sh -c 'ip addr add 192.0.2.1/24 dev eth0'")
    machine = Machine(folder)
    machine.open()
    lan = machine.network(
        "lan", driver="macvlan", options={"parent": "out0"}, subnets=(Subnet("192.0.2.0/24", "", "192.0.2.1"),)
    )
    one, two = machine.run("one", {"80/tcp": published(8080)}, network=lan.name), machine.run("two", network=lan.name)
    served = Container(one)
    assert one.ports == () and one.gateway == "192.0.2.1"
    assert fetch("tcp", one.ip, 80, far) == "192.0.2.1"
    assert fetch("tcp", one.ip, 80, f"/proc/{os.getpid()}/fd/{two.netns_fd}") == two.ip
    assert not fetch("tcp", one.ip, 80), "a parent does not reach its own children"
    assert machine.manager.statistics("one" * 8)["eth0"]["rx_packets"] > 0
    nowhere = machine.network("nowhere", driver="macvlan")
    three = machine.run("three", network=nowhere.name)
    assert three.gateway == "" and nowhere.internal
    for driver, options in (("ipvlan", {"parent": "out0"}), ("macvlan", {"parent": "out0.10"})):
        try:
            made = machine.network("maybe", driver=driver, options=options)
        except BarqueError as error:
            words = "this kernel has no ipvlan interfaces" if driver == "ipvlan" else "this kernel cannot make it"
            assert words in str(error), error
            assert isinstance(error, UnsupportedError) or driver == "macvlan"
        else:
            machine.manager.remove(made)
    for wrong, words in (
        ({"parent": "nosuch"}, "invalid subinterface vlan name nosuch"), ({"parent": "nosuch.5"}, "master interface nosuch"),
        ({"parent": "out0.5000"}, "vlan id must be between 1-4094"), ({"parent": "a/b"}, "invalid interface name"),
        ({"macvlan_mode": "x"}, "requested macvlan mode 'x' is not valid"),
        ({"com.docker.network.driver.mtu": "x"}, "failed to parse com.docker.network.driver.mtu value: x"),
        ({"com.docker.network.container_iface_prefix": "a b"}, "invalid interface name"),
    ):  # fmt: skip
        refused(machine, "wrong", wrong, words)
    served.kill()
    for name in ("one", "two", "three"):
        machine.manager.release(name * 8)
    machine.manager.remove(nowhere)
    machine.manager.remove(lan)
    machine.manager.close()
    assert not [item.name for item in route.links(Connection()) if item.name.startswith("dm-")]
    assert_clean(folder)


def macvlan_modes(folder: str) -> None:
    """Who reaches whom on one parent, by mode and in both IP versions."""
    far = outside()
    machine = Machine(folder)
    machine.open()
    subnets = (Subnet("198.51.100.0/24", "198.51.100.128/25", "198.51.100.2"), Subnet("fd99::/64", "fd99::1:0/112", "fd99::2"))
    there = subprocess.Popen(["nsenter", f"--net={far}", sys.executable, "-c", BOTH], stdout=subprocess.PIPE)
    there.stdout.readline()
    for mode, each_other in (("bridge", True), ("private", False), ("vepa", False), ("passthru", None)):
        options = {"parent": "out0", "macvlan_mode": mode, "com.docker.network.driver.mtu": "1400"}
        lan = machine.network(f"lan-{mode}", driver="macvlan", ipv6=True, options=options, subnets=subnets)
        one = machine.run("one", network=lan.name)
        inside = f"/proc/{os.getpid()}/fd/{one.netns_fd}"
        assert "mtu 1400" in sh(f"nsenter --net={inside} ip link show eth0")
        served = DualContainer(one)
        assert fetch("tcp", one.ip, 80, far) == "::ffff:198.51.100.2" and fetch("tcp", one.ip6, 80, far) == "fd99::2", mode
        assert fetch("tcp", "198.51.100.2", 80, inside) == f"::ffff:{one.ip}", mode
        assert fetch("tcp", "fd99::2", 80, inside) == one.ip6, mode
        if each_other is None:
            refused(machine, "another", {"parent": "out0", "macvlan_mode": "bridge"}, "already uses parent interface out0")
        else:
            two = machine.run("two", network=lan.name)
            beside = f"/proc/{os.getpid()}/fd/{two.netns_fd}"
            reached = [fetch("tcp", address, 80, beside) for address in (one.ip, one.ip6)]
            assert reached == ([f"::ffff:{two.ip}", two.ip6] if each_other else ["", ""]), (mode, reached)
        served.kill()
        for name in ("one", "two"):
            machine.manager.release(name * 8)
        machine.manager.remove(lan)
    there.kill()
    machine.manager.close()
    assert_clean(folder)


def refused(machine: Machine, name: str, options: dict[str, str], words: str) -> None:
    """Hold that a macvlan network cannot be made with these options, and why."""
    try:
        machine.network(name, driver="macvlan", options=options)
    except BarqueError as error:
        assert words in str(error), error
    else:
        raise AssertionError(options)


def overlay_peer(folder: str) -> None:
    """One of two engines, told its address and the other's on the command line; mends its bridge for each line of input."""
    mine, theirs = sys.argv[2:4]
    machine = Machine(folder)
    machine.open()
    machine.manager.watch()
    options = {"barque.overlay.peers": theirs, "barque.overlay.local": mine}
    subnets = (Subnet("10.99.0.0/24"), Subnet("fd00:99::/64"))
    network = machine.network("wide", driver="overlay", ipv6=True, options=options, subnets=subnets)
    place = machine.run("box", network=network.name)
    served = DualContainer(place)
    ranges = [item.ip_range for item in network.subnets]
    print(json.dumps([place.ip, place.ip6, served.process.pid, ranges]), flush=True)
    for _ in sys.stdin:
        sh(f"ip link del br-{network.id[:12]}")
        # Nobody tells when the kernel's message has come: `notice` itself is how one asks.
        while not machine.manager.notice():
            time.sleep(0.01)
        print(machine.manager.mend(), flush=True)
    served.kill()
    machine.manager.release("box" * 8)
    machine.manager.remove(network)
    machine.manager.close()
    assert_clean(folder)


def overlay(folder: str) -> None:
    """Two engines on two machines: their containers talk through VXLAN, with addresses of their own parts."""
    machines = [namespace.create(ipv6=False) for _ in range(2)]
    paths = [f"/proc/{os.getpid()}/fd/{item.fd}" for item in machines]
    sh(f"ip link add left netns {paths[0]} type veth peer name right netns {paths[1]}")
    hosts = ["192.0.2.1", "192.0.2.2"]
    for path, link, host in zip(paths, ("left", "right"), hosts, strict=True):
        sh(f"nsenter --net={path} sh -c 'ip addr add {host}/24 dev {link}; ip link set {link} up'")
    started = []
    for at in range(2):
        command = ["nsenter", f"--net={paths[at]}", sys.executable, __file__, "overlay_peer", hosts[at], hosts[1 - at]]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
    (ip1, six1, pid1, ranges1), (ip2, six2, pid2, ranges2) = (json.loads(item.stdout.readline()) for item in started)
    assert (ranges1, ranges2) == (["10.99.0.0/25", "fd00:99::/65"], ["10.99.0.128/25", "fd00:99:0:0:8000::/65"])

    def check() -> None:
        deadline = time.monotonic() + 20
        while fetch("tcp", ip2, 80, f"/proc/{pid1}/ns/net") != f"::ffff:{ip1}":
            assert time.monotonic() < deadline, "no way through the tunnel"
        assert fetch("tcp", ip1, 80, f"/proc/{pid2}/ns/net") == f"::ffff:{ip2}"
        assert fetch("tcp", six2, 80, f"/proc/{pid1}/ns/net") == six1
        assert fetch("udp", ip1, 53, f"/proc/{pid2}/ns/net") == f"{ip2} hello"
        # What is larger than the tunnel's packets comes in pieces.
        for size in (56, 1422, 1423, 4000):
            sh(f"nsenter --net=/proc/{pid1}/ns/net busybox ping -c1 -W5 -s {size} {ip2}")

    check()
    started[0].stdin.write("mend\n")
    started[0].stdin.flush()
    assert started[0].stdout.readline() == "['the bridge of network wide']\n"
    check()
    for item in started:
        item.communicate(timeout=20)
        assert item.returncode == 0
    machine = Machine(folder)
    machine.open()
    for options in ({}, {"barque.overlay.peers": "x"}, {"barque.overlay.peers": "192.0.2.9", "encrypted": ""}):
        try:
            machine.network("bad", driver="overlay", options=options, subnets=(Subnet("10.98.0.0/24"),))
        except BarqueError as error:
            assert str(error)
        else:
            raise AssertionError(options)
    machine.manager.close()


if __name__ == "__main__":
    sh("ip link set lo up")
    with tempfile.TemporaryDirectory() as place:
        globals()[sys.argv[1]](place)
