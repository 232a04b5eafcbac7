"""How fast names are answered inside containers, and one name that many containers bear, beside Docker.

    python bench/names.py [--seconds 2] [--askers 1,4] [--bearers 100]

Askers are processes in the network namespaces of containers, each with 32 questions under way.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from peers import Peer, barque_peers, docker_peer

from under_test import busybox_tar, isolate_network

# Asks for one name as fast as it can; prints answers and seconds, then the records of the last answer.
_ASK = """
import socket, struct, sys, time
name, seconds = sys.argv[1], float(sys.argv[2])
question = b"".join(bytes((len(p),)) + p.encode() for p in name.split(".")) + bytes((0, 0, 1, 0, 1))
edns = bytes((0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 0))
tail = b"\\x01\\0\\0\\x01\\0\\0\\0\\0\\0\\x01" + question + edns
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(5)
sock.connect(("127.0.0.11", 53))
got, sent, data = 0, 0, b""
start = time.perf_counter()
end = start + seconds
while time.perf_counter() < end:
    while sent - got < 32:
        sock.send(struct.pack("!H", sent & 0xFFFF) + tail)
        sent += 1
    data = sock.recv(65535)
    got += 1
print(got, time.perf_counter() - start, struct.unpack_from("!H", data, 6)[0])
"""


def ask(pids: list[str], name: str, seconds: float) -> tuple[float, int]:
    """Return answers a second of all askers together, and the records of an answer."""
    running = [
        subprocess.Popen(["nsenter", "-t", pid, "-n", sys.executable, "-I", "-S", "-c", _ASK, name, str(seconds)],
                         stdout=subprocess.PIPE, text=True)
        for pid in pids
    ]  # fmt: skip
    rate, records = 0.0, 0
    for process in running:
        got, took, records = process.communicate()[0].split()
        rate += int(got) / float(took)
    return rate, int(records)


def measure(peer: Peer, arguments: argparse.Namespace) -> None:
    """Print the rates of one engine."""
    askers = [int(count) for count in arguments.askers.split(",")]
    peer.run("network", "create", "names")
    for number in range(1, max(askers) + 1):
        peer.run("run", "-d", "--name", f"asker-{number}", "--network", "names", "busybox", "sleep", "100000")
    listed = [f"asker-{number}" for number in range(1, max(askers) + 1)]
    pids = peer.run("inspect", "-f", "{{.State.Pid}}", *listed).split()
    for count in askers:
        rate, _ = ask(pids[:count], "asker-1", arguments.seconds)
        print(f"  {peer.name:10} one address, {count} askers: {rate:10.0f} answers/s", flush=True)
    line = " ".join(
        peer.line("run", "-d", "--name", "bearer-N", "--network", "names", "--network-alias", "all", "busybox", "sleep",
                  "100000")
    )  # fmt: skip
    started = time.perf_counter()
    subprocess.run(["sh", "-c", f"seq {arguments.bearers} | xargs -P 8 -I N {line}"], env=peer.environment, check=True,
                   capture_output=True)  # fmt: skip
    took = time.perf_counter() - started
    rate, records = ask(pids[:1], "all", arguments.seconds)
    print(f"  {peer.name:10} {records} addresses, 1 asker: {rate:10.0f} answers/s ({took:.1f} s to start them)", flush=True)
    peer.run("rm", "-f", *listed, *[f"bearer-{number}" for number in range(1, arguments.bearers + 1)])
    peer.run("network", "rm", "names")


def main() -> int:
    """Run on all engines that are there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--askers", default="1,4")
    parser.add_argument("--bearers", type=int, default=100)
    arguments = parser.parse_args()
    isolate_network()
    root = Path(tempfile.mkdtemp(prefix="bench", dir="/var/tmp"))
    peers: list[Peer] = []
    try:
        for name, make in (("barque", lambda path: barque_peers(path)[0]), ("docker", docker_peer)):
            (root / name).mkdir()
            peer = make(root / name)
            if peer is not None:
                peers.append(peer)
                peer.run("import", "-", "busybox:latest", data=busybox_tar())
        for peer in peers:
            measure(peer, arguments)
    finally:
        for peer in peers:
            peer.end()
        shutil.rmtree(root, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
