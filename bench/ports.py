"""What a published port carries, beside Docker: throughput, latency, new connections; from a neighbour and loopback.

    python bench/ports.py [--seconds 1] [--rounds 5] [--only stream,tcp,udp,packets,connect]

Each engine has a network namespace of its own, with a neighbour machine (a namespace) on a veth pair. The server in
the container and its clients are the same program for both engines, each on a processor of its own: where the
scheduler puts two busy ends decides more of what a stream carries than the way between them. The engines take turns,
and each goes first in every other round. What holds on a machine where others work is processor time: what both ends of a
stream cost, and `packets`, what it costs to send datagrams one way, most of which is the way through the kernel.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from peers import Peer, barque_peers, docker_peer

from under_test import busybox_tar, isolate_network

_PORT = 8080
# TCP 80: the first byte says what is wanted, a stream or echoes. UDP 53: echoes.
_SERVER = """
import socket, threading
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.bind(("0.0.0.0", 53))
def echo():
    while True:
        udp.sendto(*udp.recvfrom(2000))
threading.Thread(target=echo, daemon=True).start()
def serve(talk):
    block = bytes(1 << 20)
    try:
        talk.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        kind = talk.recv(1)
        while kind == b"s": talk.sendall(block)
        while kind and (data := talk.recv(100)): talk.sendall(data)
    except OSError:
        pass
    talk.close()
listener = socket.create_server(("0.0.0.0", 80), backlog=512)
print("ready", flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""
_CLIENT = """
import socket, statistics, sys, time
kind, host, port, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
def tcp():
    sock = socket.create_connection((host, port), 5)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock
count, times, begun = 0, [], time.perf_counter()
end = begun + seconds
if kind == "stream":
    sock = tcp(); sock.sendall(b"s"); buffer = bytearray(1 << 20)
    while time.perf_counter() < end: count += sock.recv_into(buffer)
elif kind == "packets":
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); sock.connect((host, port)); sock.send(b"x")
    used = time.process_time()
    for count in range(1, int(seconds * 100000) + 1): sock.send(b"x")
    print((time.process_time() - used) / count * 1e6, 0); sys.exit()
elif kind == "connect":
    while time.perf_counter() < end:
        sock = tcp(); sock.sendall(b"ex"); sock.recv(1); sock.close(); count += 1
else:
    if kind == "udp":
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); sock.settimeout(5); sock.connect((host, port))
    else:
        sock = tcp(); sock.sendall(b"e")
    while time.perf_counter() < end:
        start = time.perf_counter(); sock.send(b"x"); sock.recv(9); times.append(time.perf_counter() - start)
    print(statistics.median(times) * 1e6, 0); sys.exit()
print(count / (time.perf_counter() - begun), count)
"""
_MEASURES = (("stream", "MB/s", 1e6, True), ("tcp", "us a round trip", 1, False), ("udp", "us a round trip", 1, False),
             ("packets", "us of processor time a datagram", 1, False), ("connect", "connections/s", 1, True))  # fmt: skip


class Place:
    """One engine's namespace with a neighbour, and a container that serves published ports."""

    def __init__(self, peer: Peer, netns: str, number: int) -> None:
        """Remember; the parts are made by place()."""
        self.peer, self.netns, self.host = peer, netns, f"192.0.2.{4 * number + 1}"
        self.neighbour = ""
        self.server = 0

    def ask(self, source: str, kind: str, seconds: float) -> tuple[float, float]:
        """Measure one thing from one place; return it, and of a stream the seconds of processor time for a gigabyte."""
        netns, host = (self.neighbour, self.host) if source == "neighbour" else (self.netns, "127.0.0.1")
        port = _PORT + 1 if kind in ("udp", "packets") else _PORT
        command = ["nsenter", f"--net={netns}", sys.executable, "-I", "-S", "-c", _CLIENT, kind, host, str(port)]
        before = _cpu_seconds(self.server), sum(os.times()[2:4])
        done = subprocess.run(
            [*_on(1), *command, str(seconds)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{self.peer.name}, {source}, {kind}: {done.stderr[-300:]}")
        used = _cpu_seconds(self.server) - before[0] + sum(os.times()[2:4]) - before[1]
        value, count = map(float, done.stdout.split())
        return value, used / count * 1e9 if kind == "stream" else 0.0


def _on(number: int) -> list[str]:
    """Return the words before a command that keep it on one of the processors that this process may use."""
    allowed = sorted(os.sched_getaffinity(0))
    return ["taskset", "-c", str(allowed[number % len(allowed)])]


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def place(peer: Peer, netns: str, number: int) -> Iterator[Place]:
    """Give an engine a neighbour and a container with published ports."""
    made = Place(peer, netns, number)
    with ExitStack() as stack:
        holder = subprocess.Popen(["unshare", "-n", "sh", "-c", "echo; exec sleep 100000"], stdout=subprocess.PIPE)
        stack.callback(holder.kill)
        assert holder.stdout is not None
        holder.stdout.readline()
        made.neighbour = f"/proc/{holder.pid}/ns/net"
        for line in (
            f"nsenter --net={netns} ip link add lan0 type veth peer name far0 netns {holder.pid}",
            f"nsenter --net={netns} ip addr add {made.host}/30 dev lan0",
            f"nsenter --net={netns} ip link set lan0 up",
            f"nsenter --net={made.neighbour} ip addr add 192.0.2.{4 * number + 2}/30 dev far0",
            f"nsenter --net={made.neighbour} ip link set far0 up",
        ):
            subprocess.run(line.split(), check=True)
        peer.run("import", "-", "busybox:latest", data=busybox_tar())
        peer.run("run", "-d", "--name", "web", "-p", f"{_PORT}:80", "-p", f"{_PORT + 1}:53/udp", "busybox", "sleep", "100000")
        stack.callback(peer.run, "rm", "-f", "web")
        pid = peer.run("inspect", "-f", "{{.State.Pid}}", "web")
        server = subprocess.Popen(
            [*_on(0), "nsenter", "-t", pid, "-n", sys.executable, "-I", "-S", "-c", _SERVER], stdout=subprocess.PIPE
        )
        made.server = server.pid
        stack.callback(server.kill)
        assert server.stdout is not None
        server.stdout.readline()
        yield made


def measure(places: list[Place], arguments: argparse.Namespace) -> None:
    """Print the medians of all engines, side by side, and the ratio to the last one."""
    for source in arguments.sources.split(","):
        for kind, unit, scale, more_is_better in _MEASURES:
            # By loopback a proxy of Docker's takes the datagrams, which is not the sender's time.
            if kind not in arguments.only.split(",") or (kind, source) == ("packets", "loopback"):
                continue
            found: dict[str, list[tuple[float, float]]] = {item.peer.name: [] for item in places}
            for turn in range(arguments.rounds):
                for item in places if turn % 2 == 0 else places[::-1]:
                    found[item.peer.name].append(item.ask(source, kind, arguments.seconds))
            _show(f"{source:10} {kind:8}", [statistics.median(each[0] for each in values) / scale for values in found.values()],
                  list(found), unit, more_is_better)  # fmt: skip
            if kind == "stream":
                costs = [statistics.median(each[1] for each in values) for values in found.values()]
                _show(f"{'':10} {'':8}", costs, list(found), "s of processor time a GB", False)


def _show(title: str, medians: list[float], names: list[str], unit: str, more_is_better: bool) -> None:
    shown = "  ".join(f"{name} {value:10.2f}" for name, value in zip(names, medians, strict=True))
    ratio = ""
    if len(medians) > 1:
        mine, other = medians[:2]
        ratio = f"  {mine / other if more_is_better else other / mine:.2f} times Docker's"
    print(f"{title} {shown}  {unit}{ratio}", flush=True)


def main() -> int:
    """Run on all engines that are there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="stream,tcp,udp,packets,connect", help="what to measure")
    parser.add_argument("--sources", default="neighbour,loopback", help="where clients are")
    arguments = parser.parse_args()
    isolate_network()
    root = Path(tempfile.mkdtemp(prefix="bench", dir="/var/tmp"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, root, ignore_errors=True)
        places = []
        for number, (name, make) in enumerate((("barque", lambda path: barque_peers(path)[0]), ("docker", docker_peer))):
            (root / name).mkdir()
            peer = make(root / name)
            if peer is not None:
                stack.callback(peer.end)
                netns = f"/proc/{os.getpid() if name == 'barque' else (root / name / 'pid').read_text().strip()}/ns/net"
                places.append(stack.enter_context(place(peer, netns, number)))
        measure(places, arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
