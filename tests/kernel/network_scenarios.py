"""Programs that test_network runs, each in a network namespace of its own: `<scenario>`."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from barque.base import ids
from barque.base.errors import BarqueError
from barque.engine.port_proxy import PortProxy
from barque.kernel.netlink import namespace, route
from barque.kernel.netlink.connection import Connection
from barque.network.manager import NetworkManager
from barque.network.model import Endpoint, EndpointRequest, Network, NetworkOptions, SandboxRequest
from barque.network.ports import parse_requests

SERVER = """
import socket, sys, threading
t = socket.socket(); t.setsockopt(1, 2, 1); t.bind(("0.0.0.0", 80)); t.listen(64)
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(("0.0.0.0", 53))
def echo():
    while True:
        data, peer = u.recvfrom(2000); u.sendto(peer[0].encode() + b" " + data, peer)
threading.Thread(target=echo, daemon=True).start()
print("ready", flush=True)
while True:
    c, a = t.accept(); c.sendall(a[0].encode()); c.close()
"""
CLIENT = """
import socket, sys
kind, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
family = socket.AF_INET6 if ":" in host else socket.AF_INET
if kind == "tcp":
    s = socket.socket(family); s.settimeout(1); s.connect((host, port)); print(s.recv(99).decode())
else:
    s = socket.socket(family, socket.SOCK_DGRAM); s.settimeout(1)
    s.connect((host, port)); s.send(b"hello"); print(s.recv(99).decode())
"""


def sh(command: str) -> str:
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def fetch(kind: str, host: str, port: int, netns: str = "") -> str:
    """Return what the server saw, "" where it cannot be reached."""
    enter = ["nsenter", f"--net={netns}"] if netns else []
    done = subprocess.run(
        [*enter, sys.executable, "-c", CLIENT, kind, host, str(port)],
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


class Container:
    """A process in an endpoint's namespace that answers on TCP 80 and UDP 53."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.netns = f"/proc/{os.getpid()}/fd/{endpoint.netns_fd}"
        self.process = subprocess.Popen(
            ["nsenter", f"--net={self.netns}", sys.executable, "-c", SERVER],
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"
        self.netns = f"/proc/{self.process.pid}/ns/net"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class FileStore:
    """The engine's rows in one file, for a manager without an engine."""

    def __init__(self, path: str) -> None:
        self.path = path

    def _all(self) -> dict:
        return json.loads(Path(self.path).read_text()) if Path(self.path).exists() else {}

    def load(self, kind: str) -> dict:
        return self._all().get(kind, {})

    def put(self, kind: str, key: str, row: dict) -> None:
        rows = self._all()
        rows.setdefault(kind, {})[key] = row
        Path(self.path).parent.mkdir(parents=True, exist_ok=True)
        Path(self.path).write_text(json.dumps(rows))

    def delete(self, kind: str, key: str) -> None:
        rows = self._all()
        rows[kind].pop(key, None)
        Path(self.path).write_text(json.dumps(rows))


class Machine:
    """One engine's networks in a folder of its own; the proxy runs in a loop in a thread."""

    def __init__(self, folder: str, options: NetworkOptions | None = None) -> None:
        store = FileStore(f"{folder}/state/rows.json")
        self.manager = NetworkManager(f"{folder}/state", f"{folder}/exec", options or NetworkOptions(), store)
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.proxy = PortProxy()

    def start(self, container_id: str, sockets: list) -> None:
        async def run() -> None:
            self.proxy.start(container_id, sockets)

        asyncio.run_coroutine_threadsafe(run(), self.loop).result(5)

    def stop(self, container_id: str, bindings: set | None = None) -> None:
        async def run() -> None:
            self.proxy.stop(container_id, bindings)

        asyncio.run_coroutine_threadsafe(run(), self.loop).result(5)

    def open(self, running: tuple = ()) -> dict[str, Endpoint]:
        self.manager.open()
        self.manager.use_proxy(self)
        found = self.manager.restore(dict(running))
        return {key: sandbox.endpoints[0] for key, sandbox in found.items() if sandbox.endpoints}

    def run(self, name: str, ports: dict | None = None, network: str = "bridge", **more: object) -> Endpoint:
        asked = (EndpointRequest(network, **more),)
        request = SandboxRequest(name * 8, name, asked, parse_requests(ports or {}))
        return self.manager.allocate(request).endpoints[0]

    def network(self, name: str, **more: object) -> Network:
        wanted = Network(ids.new_id(), name, str(more.pop("driver", "bridge")), 1, **more)
        return self.manager.create(wanted)[0]


def published(host_port: int, host: str = "") -> list[dict[str, str]]:
    return [{"HostIp": host, "HostPort": str(host_port)}]


def outside(link: str = "198.51.100") -> str:
    """Make a namespace that plays a neighbour machine; return its path."""
    space = namespace.create(ipv6=True)
    path = f"/proc/{os.getpid()}/fd/{space.fd}"
    sh(f"ip link add out0 type veth peer name eth0 netns {path}")
    sh(f"ip addr add {link}.1/24 dev out0; ip link set out0 up")
    sh("ip addr add fd99::1/64 dev out0 nodad")
    sh(
        f"nsenter --net={path} sh -c 'ip addr add {link}.2/24 dev eth0; ip link set eth0 up;"
        f" ip addr add fd99::2/64 dev eth0 nodad; ip route add 172.16.0.0/12 via {link}.1'"
    )
    outside.keep = space  # type: ignore[attr-defined]
    return path


def reachability(folder: str) -> None:
    far = outside()
    machine = Machine(folder)
    machine.open()
    web = machine.run("web", {"80/tcp": published(8080), "53/udp": published(5353)})
    local = machine.run("local", {"80/tcp": published(8081, "127.0.0.1")})
    served, near = Container(web), Container(local)
    try:
        seen = {
            "host to container": fetch("tcp", web.ip, 80),
            "loopback": fetch("tcp", "127.0.0.1", 8080),
            "loopback udp": fetch("udp", "127.0.0.1", 5353),
            "loopback v6": fetch("tcp", "::1", 8080),
            "loopback v6 udp": fetch("udp", "::1", 5353),
            "own address": fetch("tcp", "198.51.100.1", 8080),
            "bridge address": fetch("tcp", web.gateway, 8080),
            "outside": fetch("tcp", "198.51.100.1", 8080, far),
            "outside udp": fetch("udp", "198.51.100.1", 5353, far),
            "outside v6": fetch("tcp", "fd99::1", 8080, far),
            "neighbour": fetch("tcp", web.ip, 80, near.netns),
            "neighbour published": fetch("tcp", web.gateway, 8080, near.netns),
            "neighbour published udp": fetch("udp", web.gateway, 5353, near.netns),
            "itself": fetch("tcp", web.gateway, 8080, served.netns),
            "loopback only": fetch("tcp", "127.0.0.1", 8081),
        }
        print(seen)
        assert all(seen.values()), seen
        assert seen["outside"] == "198.51.100.2", "the source address is kept"
        assert seen["loopback only"] == local.gateway
        assert not fetch("tcp", "198.51.100.1", 8081, far), "a loopback port is not for others"
        assert not fetch("tcp", web.ip, 80, far), "an unpublished address is not for others"
        counters = machine.manager.statistics("web" * 8)["eth0"]
        assert counters["rx_packets"] > 10 and counters["tx_bytes"] > 500
    finally:
        served.kill()
        near.kill()
    machine.manager.release("web" * 8)
    machine.manager.release("local" * 8)
    assert not fetch("tcp", "127.0.0.1", 8080)
    machine.manager.close()
    assert_clean(folder)


def outbound(folder: str) -> None:
    far = outside()
    sh(f"nsenter --net={far} ip route del 172.16.0.0/12")  # only masqueraded answers come back
    machine = Machine(folder)
    machine.open()
    there = subprocess.Popen(["nsenter", f"--net={far}", sys.executable, "-c", SERVER], stdout=subprocess.PIPE)
    there.stdout.readline()
    one = machine.run("one")
    netns = f"/proc/{os.getpid()}/fd/{one.netns_fd}"
    assert fetch("tcp", "198.51.100.2", 80, netns) == "198.51.100.1"
    assert fetch("udp", "198.51.100.2", 53, netns) == "198.51.100.1 hello"
    there.kill()
    # A loopback service of the host is not reached from a container that forges the route.
    sh(
        f"nsenter --net={netns} sh -c 'echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet;"
        f" ip route del local 127.0.0.0/8 dev lo table local; ip addr del 127.0.0.1/8 dev lo;"
        f" ip route add 127.0.0.0/8 via {one.gateway}'"
    )
    server = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE)
    server.stdout.readline()
    assert not fetch("tcp", "127.0.0.1", 80, netns)
    server.kill()
    machine.manager.release("one" * 8)
    machine.manager.close()
    assert_clean(folder)


def isolation(folder: str) -> None:
    first = Machine(f"{folder}/a")
    second = Machine(f"{folder}/b", NetworkOptions(icc=False))
    first.open()
    second.open()
    one = first.run("one", {"80/tcp": published(8080)})
    two, three = second.run("two"), second.run("three")
    served = [Container(item) for item in (one, two, three)]
    try:
        assert (first.manager.bridge.name, second.manager.bridge.name) == ("barque0", "barque1")
        assert one.ip == "172.17.0.2" and two.ip == "172.18.0.2"
        assert not fetch("tcp", two.ip, 80, served[0].netns), "another engine's bridge"
        assert not fetch("tcp", one.ip, 80, served[1].netns)
        assert not fetch("tcp", three.ip, 80, served[1].netns), "icc is off"
        assert fetch("tcp", one.gateway, 8080, served[1].netns), "published ports are for all"
        assert fetch("tcp", three.ip, 80), "the host reaches all"
        try:
            second.run("four", {"80/tcp": published(8080)})
        except BarqueError as error:
            assert "failed to bind host port for 0.0.0.0:8080:172.18.0.4:80/tcp" in str(error)
        else:
            raise AssertionError("the port belongs to the first engine")
    finally:
        for item in served:
            item.kill()
    for machine, names in ((first, ["one"]), (second, ["two", "three"])):
        for name in names:
            machine.manager.release(name * 8)
        machine.manager.close()
    assert_clean(f"{folder}/a")
    assert_clean(f"{folder}/b")


def restart(folder: str) -> None:
    """A daemon that died: a child allocates and is gone without goodbye; containers live on."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        machine = Machine(folder)
        machine.open()
        kept = machine.run("kept", {"80/tcp": published(8080)})
        lost = machine.run("lost", {"80/tcp": published(8081)})
        served = Container(kept)
        os.write(writer, json.dumps([served.process.pid, kept.ip, lost.host_interface]).encode())
        os._exit(0)
    os.waitpid(child, 0)
    pid, ip, lost_link = json.loads(os.read(reader, 1000))
    machine = Machine(folder)
    try:
        found = machine.open((("kept" * 8, pid),))
        assert list(found) == ["kept" * 8] and found["kept" * 8].ip == ip
        assert fetch("tcp", "127.0.0.1", 8080) and fetch("tcp", "::1", 8080)
        assert not fetch("tcp", "127.0.0.1", 8081)
        assert route.link(Connection(), lost_link) is None
        new = machine.run("new", {"80/tcp": published(8081)})
        assert new.ip == "172.17.0.3"
        try:
            machine.run("other", {"80/tcp": published(8080)})
        except BarqueError as error:
            assert "Bind for 0.0.0.0:8080 failed: port is already allocated" in str(error)
        else:
            raise AssertionError("the port is taken")
        machine.manager.release("new" * 8)
        machine.manager.close()
        assert route.link(Connection(), "barque0") is not None, "a container still uses the bridge"
        assert fetch("tcp", "127.0.0.1", 8080), "a closed daemon leaves its container's port"
        again = Machine(folder)
        again.open((("kept" * 8, pid),))
        os.kill(pid, 9)
        again.manager.release("kept" * 8)
        again.manager.close()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 9)
    assert_clean(folder)


def addresses(folder: str) -> None:
    sh("ip link add lan type bridge; ip addr add 172.17.3.1/24 dev lan; ip link set lan up")
    machine = Machine(folder)
    machine.open()
    a, b = machine.run("a"), machine.run("b")
    assert (a.ip, b.ip) == ("172.18.0.2", "172.18.0.3"), "172.17 is a route of the host"
    machine.manager.release("a" * 8)
    assert machine.run("c").ip == "172.18.0.2"
    assert a.mac == "02:42:ac:12:00:02"
    custom = machine.run("m", mac="02:00:00:00:00:99")
    netns = f"/proc/{os.getpid()}/fd/{custom.netns_fd}"
    assert "02:00:00:00:00:99" in sh(f"nsenter --net={netns} ip link show eth0")
    assert sh(f"nsenter --net={netns} cat /proc/sys/net/ipv6/conf/eth0/disable_ipv6") == "1\n"
    assert sh(f"nsenter --net={netns} cat /proc/sys/net/ipv6/conf/lo/disable_ipv6") == "0\n"
    bare = machine.manager.allocate(SandboxRequest("bare", "bare", ())).netns_fd
    links = json.loads(sh(f"nsenter --net=/proc/{os.getpid()}/fd/{bare} ip -j link"))
    assert [(item["ifname"], "UP" in item["flags"]) for item in links] == [("lo", True)]
    for name in ("b", "c", "m"):
        machine.manager.release(name * 8)
    machine.manager.release("bare")
    machine.manager.close()
    assert_clean(folder)


def ipv6(folder: str) -> None:
    far = outside()
    options = NetworkOptions(
        ipv6=True, fixed_cidr_v6="fd42:1::/64", bip="10.9.0.1/24", bridge="lab0", mtu=1400, userland_proxy=False
    )
    machine = Machine(folder, options)
    machine.open()
    web = machine.run("web", {"80/tcp": published(8080)})
    assert (web.ip, web.ip6) == ("10.9.0.2", "fd42:1::2")
    netns = f"/proc/{os.getpid()}/fd/{web.netns_fd}"
    server = subprocess.Popen(
        [
            "nsenter",
            f"--net={netns}",
            sys.executable,
            "-c",
            SERVER.replace("socket.socket(); t", "socket.socket(socket.AF_INET6); t").replace(
                't.bind(("0.0.0.0"', 't.bind(("::"'
            ),
        ],
        stdout=subprocess.PIPE,
    )
    server.stdout.readline()
    assert fetch("tcp", "fd42:1::2", 80)
    assert fetch("tcp", "fd99::1", 8080, far) == "fd99::2"
    assert fetch("tcp", "198.51.100.1", 8080, far) == "::ffff:198.51.100.2"
    assert not fetch("tcp", "fd42:1::2", 80, far)
    assert "mtu 1400" in sh(f"nsenter --net={netns} ip link show eth0")
    server.kill()
    machine.manager.release("web" * 8)
    machine.manager.close()
    assert_clean(folder)


def unchanged(folder: str) -> None:
    """Switches that are off leave the machine's rules and forwarding alone; the proxy carries."""
    sh("nft add table inet theirs")
    # A new namespace starts with what the machine has.
    with open("/proc/sys/net/ipv4/ip_forward", "w") as file:
        file.write("0")
    options = NetworkOptions(iptables=False, ip_forward=False)
    machine = Machine(folder, options)
    machine.open()
    web = machine.run("web", {"80/tcp": published(8080), "53/udp": published(5353)})
    served = Container(web)
    assert sh("nft list ruleset").split() == ["table", "inet", "theirs", "{", "}"]
    with open("/proc/sys/net/ipv4/ip_forward") as file:
        assert file.read() == "0\n"
    assert fetch("tcp", "127.0.0.1", 8080) and fetch("udp", "127.0.0.1", 5353)
    served.kill()
    machine.manager.release("web" * 8)
    machine.manager.close()
    sh("nft delete table inet theirs")
    assert_clean(folder)


def failures(folder: str) -> None:
    """A start that fails halfway leaves no address, port, rule or interface."""
    machine = Machine(folder, NetworkOptions(pool_size=0))
    machine.open()
    before = sh("nft list ruleset") + sh("ip -o link | wc -l")
    other = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE)
    other.stdout.readline()
    for ports in ({"81/tcp": published(8081), "80/tcp": published(80)}, {"80/sctp": published(1)}):
        try:
            machine.run("x", ports)
        except BarqueError as error:
            print(error)
        else:
            assert "80/sctp" in ports
            machine.manager.release("x" * 8)
    other.kill()
    with contextlib.suppress(BarqueError):
        machine.run("x", mac="zz")
    assert machine.run("y", {"80/tcp": published(8081)}).ip == "172.17.0.2"
    machine.manager.release("y" * 8)
    machine.manager.close()
    assert before.count("barque0") and sh("nft list ruleset") == ""
    assert_clean(folder)


def assert_clean(folder: str) -> None:
    left = [item.name for item in route.links(Connection()) if item.name.startswith(("veth", "barque"))]
    assert left == [], left
    assert "barque" not in sh("nft list ruleset")
    assert os.listdir(f"{folder}/exec/network") == []


if __name__ == "__main__":
    sh("ip link set lo up")
    with tempfile.TemporaryDirectory() as place:
        globals()[sys.argv[1]](place)
