"""More programs that test_network runs: gateway modes, learned routers, others' rules, stale flows; `<scenario>`."""

import os
import subprocess
import sys
import tempfile
import time

from network_scenarios import SERVER, Container, Machine, assert_clean, fetch, outside, published, sh

from barque.base.errors import BarqueError
from barque.network.model import NetworkOptions, Subnet

BRIDGE = "com.docker.network.bridge."
BOTH = SERVER.replace('socket.socket(); t', 'socket.socket(socket.AF_INET6); t').replace(
    't.bind(("0.0.0.0"', 't.bind(("::"')  # fmt: skip


class DualContainer(Container):
    """A container whose TCP server answers in both IP versions."""

    def __init__(self, endpoint):
        self.netns = f"/proc/{os.getpid()}/fd/{endpoint.netns_fd}"
        command = ["nsenter", f"--net={self.netns}", sys.executable, "-c", BOTH]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self.process.stdout.readline() == b"ready\n"
        self.netns = f"/proc/{self.process.pid}/ns/net"


def ping(address: str, netns: str = "") -> bool:
    enter = ["nsenter", f"--net={netns}"] if netns else []
    return subprocess.run([*enter, "busybox", "ping", "-c1", "-W1", address], capture_output=True).returncode == 0


def modes(folder: str) -> None:
    """Who reaches a container at its own address, by the gateway mode of its network."""
    far = outside()
    machine = Machine(folder)
    machine.open()
    sh(f"nsenter --net={far} ip route add fd00:10::/32 via fd99::1")
    seen = {}
    for at, mode in enumerate(("nat", "routed", "nat-unprotected")):
        network = machine.network(
            mode, ipv6=True, options={BRIDGE + "gateway_mode_ipv4": mode, BRIDGE + "gateway_mode_ipv6": mode},
            subnets=(Subnet(f"172.30.{at}.0/24"), Subnet(f"fd00:10:{at}::/64")),
        )  # fmt: skip
        web = machine.run(mode, {"80/tcp": published(8080 + at)}, network=network.name)
        served = DualContainer(web)
        seen[mode] = [
            fetch("tcp", web.ip, 80, far), fetch("tcp", web.ip6, 80, far), ping(web.ip, far), ping(web.ip6, far),
            fetch("udp", web.ip, 53, far), fetch("tcp", "198.51.100.1", 8080 + at, far),
        ]  # fmt: skip
        assert fetch("tcp", web.ip, 80), "the host reaches all"
        if mode == "routed":
            # What leaves keeps its address.
            there = subprocess.Popen(["nsenter", f"--net={far}", sys.executable, "-c", SERVER], stdout=subprocess.PIPE)
            there.stdout.readline()
            assert fetch("tcp", "198.51.100.2", 80, served.netns) == web.ip
            there.kill()
        served.kill()
        machine.manager.release(mode * 8)
    four, six = "::ffff:198.51.100.2", "fd99::2"
    assert seen["nat"] == ["", "", False, False, "", four], seen
    assert seen["routed"] == [four, six, True, True, "", ""], seen
    assert seen["nat-unprotected"] == [four, six, True, True, "198.51.100.2 hello", four], seen
    isolated = machine.network("alone", internal=True, options={BRIDGE + "gateway_mode_ipv4": "isolated"})
    one, two = machine.run("one", network="alone"), machine.run("two", network="alone")
    assert isolated.subnets[0].gateway == "" and one.ip.endswith(".1")
    served = Container(one)
    assert fetch("tcp", one.ip, 80, f"/proc/{os.getpid()}/fd/{two.netns_fd}")
    assert not fetch("tcp", one.ip, 80), "the host has no address there"
    served.kill()
    source = machine.network("source", options={"com.docker.network.host_ipv4": "198.51.100.77"})
    sh("ip addr add 198.51.100.77/24 dev out0")
    there = subprocess.Popen(["nsenter", f"--net={far}", sys.executable, "-c", SERVER], stdout=subprocess.PIPE)
    there.stdout.readline()
    three = machine.run("three", network=source.name)
    assert fetch("tcp", "198.51.100.2", 80, f"/proc/{os.getpid()}/fd/{three.netns_fd}") == "198.51.100.77"
    there.kill()
    for name in ("one", "two", "three"):
        machine.manager.release(name * 8)
    machine.manager.close()
    assert_clean(folder)


def direct(folder: str) -> None:
    """--allow-direct-routing, --bridge-accept-fwmark and trusted interfaces."""
    far = outside()
    machine = Machine(folder, NetworkOptions(direct_routing=True, accept_mark=(1, 3)))
    machine.open()
    trusting = machine.network("trusting", options={BRIDGE + "trusted_host_interfaces": "out0"})
    web, other = machine.run("web", {"80/tcp": published(8080)}), machine.run("other")
    third = machine.run("third", network=trusting.name)
    served = [Container(item) for item in (web, other, third)]
    assert fetch("tcp", web.ip, 80, far) and not fetch("tcp", other.ip, 80, far)
    assert fetch("tcp", third.ip, 80, far)
    sh("nft 'table inet theirs { chain c { type filter hook prerouting priority -150; iif out0 meta mark set 1; }; }'")
    assert fetch("tcp", other.ip, 80, far), "marked packets go everywhere"
    for item in served:
        item.kill()
    for name in ("web", "other", "third"):
        machine.manager.release(name * 8)
    machine.manager.close()
    sh("nft delete table inet theirs")
    assert_clean(folder)


def coexist(folder: str) -> None:
    """Another engine's DROP policy is told of and its rules are left alone."""
    import logging

    records: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("barque.network").addHandler(handler)
    sh("nft 'table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; }'")
    before = sh("nft list table ip filter")
    machine = Machine(folder)
    machine.open()
    machine.manager.warn_of_others()
    assert any("the chain FORWARD of the table ip filter drops forwarded packets" in text for text in records), records
    web, near = machine.run("web", {"80/tcp": published(8080)}), machine.run("near")
    served = Container(web)
    assert fetch("tcp", "127.0.0.1", 8080), "this machine's own connections are not forwarded"
    sh("nft insert rule ip filter FORWARD iifname barque0 oifname barque0 accept")
    assert fetch("tcp", web.ip, 80, f"/proc/{os.getpid()}/fd/{near.netns_fd}")
    served.kill()
    for name in ("web", "near"):
        machine.manager.release(name * 8)
    machine.manager.close()
    assert "FORWARD" in before
    sh("nft delete table ip filter")
    assert_clean(folder)


def flows(folder: str) -> None:
    """A client that goes on sending datagrams from one port reaches the container that has the port now."""
    far = outside()
    machine = Machine(folder)
    machine.open()
    talk = subprocess.Popen(
        ["nsenter", f"--net={far}", sys.executable, "-c", TALK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )  # fmt: skip

    def ask() -> str:
        talk.stdin.write("x\n")
        talk.stdin.flush()
        return talk.stdout.readline().strip()

    assert ask() == "none", "nobody is there yet; the kernel remembers the flow"
    for name in ("one", "two"):
        ended = Container(machine.run(name, {"53/udp": published(5353)}))
        assert ask() == "198.51.100.2 hello", name
        ended.kill()
        machine.manager.release(name * 8)
        assert ask() == "none"
    talk.kill()
    machine.manager.close()
    assert_clean(folder)


TALK = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("", 4444)); s.settimeout(0.7)
for line in sys.stdin:
    try:
        s.sendto(b"hello", ("198.51.100.1", 5353)); print(s.recv(99).decode(), flush=True)
    except OSError:
        print("none", flush=True)
"""


ROUTER = """
import socket, struct
s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
s.sendto(struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0), ("ff02::1", 0, 0, socket.if_nametoindex("eth0")))
"""


def routers(folder: str) -> None:
    """A machine that learned its IPv6 router by itself goes on with it when its networks need forwarding."""
    far = outside()
    for switch, value in (("all/forwarding", 0), ("out0/accept_ra", 1), ("out0/accept_ra_defrtr", 1)):
        sh(f"echo {value} > /proc/sys/net/ipv6/conf/{switch}")

    def heard() -> bool:
        return "via fe80:" in sh("ip -6 route show default proto ra dev out0")

    def wait_for_router() -> None:
        deadline = time.monotonic() + 20
        while not heard():
            assert time.monotonic() < deadline, sh("ip -6 route; ip -6 addr")
            # A machine does not speak before it is sure of its own address, of which nothing here tells: it is asked to again.
            subprocess.run(["nsenter", f"--net={far}", sys.executable, "-c", ROUTER], capture_output=True)
            time.sleep(0.05)

    wait_for_router()
    machine = Machine(folder)
    machine.open()
    made = machine.network("six", ipv6=True)
    assert sh("cat /proc/sys/net/ipv6/conf/out0/forwarding") == "1\n"
    assert heard(), "the way out is still there"
    sh("ip -6 route del default")
    wait_for_router()
    assert sh(f"cat /proc/sys/net/ipv6/conf/br-{made.id[:12]}/accept_ra") != "2\n", "containers are no routers"
    machine.manager.remove(made)
    machine.manager.close()
    assert_clean(folder)


def escape(folder: str) -> None:
    """A container with all rights over its own network tries the known ways into another one."""
    machine = Machine(folder)
    machine.open()
    mine = machine.network("mine", ipv6=True, subnets=(Subnet("10.94.0.0/24"), Subnet("fd00:94::/64")))
    theirs = machine.network("theirs", ipv6=True, subnets=(Subnet("10.95.0.0/24"), Subnet("fd00:95::/64")))
    thief, safe = machine.run("thief", network=mine.name), machine.run("safe", network=theirs.name)
    local = machine.run("local", {"80/tcp": published(8083, "127.0.0.1")}, network=theirs.name)
    served = [DualContainer(safe), Container(local)]
    inside = f"/proc/{os.getpid()}/fd/{thief.netns_fd}"
    assert fetch("tcp", safe.ip, 80) and fetch("tcp", safe.ip6, 80) and fetch("tcp", "127.0.0.1", 8083)

    def tries(setting: str, *targets: tuple[str, int]) -> None:
        sh(f"nsenter --net={inside} sh -c '{setting}'")
        reached = [target for target in targets if fetch("tcp", *target, inside)]
        assert not reached, (setting, reached)

    everywhere = ((safe.ip, 80), (safe.ip6, 80), (local.ip, 80))
    tries("true", *everywhere)
    tries("ip route add 10.95.0.0/24 via 10.94.0.1; ip -6 route add fd00:95::/64 via fd00:94::1", *everywhere)
    # Its own address changed into one of the other network, and the other bridge's address as a neighbour of its own.
    tries("ip addr add 10.95.0.77/32 dev eth0; ip route replace 10.95.0.0/24 via 10.94.0.1 src 10.95.0.77", *everywhere)
    tries("ip addr add 10.95.0.78/24 dev eth0", *everywhere)
    # A port that is published for this machine alone: by the bridge's address, by 127.0.0.1 led out of the container.
    tries("ip addr del 127.0.0.1/8 dev lo; echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet;"
          " ip route add 127.0.0.1/32 via 10.94.0.1", ("10.94.0.1", 8083), ("10.95.0.1", 8083), ("127.0.0.1", 8083))  # fmt: skip
    # By a link-local address as the way.
    tries("ip -6 route replace fd00:95::/64 via fe80::1 dev eth0 onlink", (safe.ip6, 80))
    for item in served:
        item.kill()
    for name in ("thief", "safe", "local"):
        machine.manager.release(name * 8)
    machine.manager.close()
    assert_clean(folder)


def same_subnet(folder: str) -> None:
    """Two daemons: what one was given the other does not take, and is warned of where a user insists."""
    first, second = Machine(f"{folder}/a"), Machine(f"{folder}/b")
    first.open()
    second.open()
    one, two = first.network("one", ipv6=True), second.network("two", ipv6=True)
    assert len({item.subnet for item in (*one.subnets, *two.subnets)}) == 4
    wanted = (Subnet(one.subnets[0].subnet),)
    made, warning = second.manager.create(two._replace(id="e" * 64, name="three", subnets=wanted, ipv6=False))
    assert "overlaps the route" in warning
    second.manager.remove(made)
    first.manager.close()
    second.manager.close()


def full(folder: str) -> None:
    """A network without a free address refuses the next container and takes one again after a release."""
    machine = Machine(folder)
    machine.open()
    small = machine.network("small", subnets=(Subnet("10.97.0.0/30"),))
    machine.run("one", network=small.name)
    try:
        machine.run("two", network=small.name)
    except BarqueError as error:
        assert f"no available IPv4 addresses on this network's address pools: small ({small.id})" in str(error)
    else:
        raise AssertionError("there is no address")
    machine.manager.release("one" * 8)
    assert machine.run("two", network=small.name).ip == "10.97.0.2"
    try:
        machine.manager.remove(small)
    except BarqueError as error:
        assert "has active endpoints" in str(error)
    machine.manager.release("two" * 8)
    # An address of the host that changes: ports follow, as rules ask for what is an address of this machine.
    web = machine.run("web", {"80/tcp": published(8080)})
    served = Container(web)
    sh("ip addr add 198.51.100.50/32 dev lo")
    assert fetch("tcp", "198.51.100.50", 8080)
    sh("ip addr del 198.51.100.50/32 dev lo")
    served.kill()
    machine.manager.release("web" * 8)
    machine.manager.close()
    assert_clean(folder)


if __name__ == "__main__":
    sh("ip link set lo up")
    with tempfile.TemporaryDirectory() as place:
        globals()[sys.argv[1]](place)
