"""Times whole commands on Barque, and on Docker and Podman where they are installed, interleaved.

Prints medians and their ratios to Docker. All engines run in network namespaces of their own, so that the
machine's firewall and bridges stay as they are.

    python bench/run.py [--rounds 15] [--only run,exec,wide,ps,memory,logs]
"""

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from peers import Peer, barque_peers, docker_peer, podman_peer

from barque.kernel import namespaces, process
from under_test import busybox_tar, isolate_network, until

Timing = dict[str, list[float]]
IN_MEMORY = ("barque/exec", "docker/exec", "podman/run", "podman/tmp", "dozing/exec")
_ALL = "run,exec,wide,ps,memory,logs"


def interleaved(peers: list[Peer], rounds: int, *arguments: str) -> Timing:
    """Time the same verb on all peers in turn."""
    timing: Timing = {peer.name: [] for peer in peers}
    for peer in peers:
        peer.run(*arguments)
    for _ in range(rounds):
        for peer in peers:
            timing[peer.name].append(peer.seconds(*arguments))
    return timing


def report(title: str, timing: Timing, unit: str = "ms", scale: float = 1000) -> None:
    """Print medians and their ratios to Docker."""
    print(f"\n{title}")
    docker = statistics.median(timing["docker"]) if timing.get("docker") else None
    for name, values in timing.items():
        if values:
            median = statistics.median(values)
            ratio = f"  {median / docker:7.3f} of docker" if docker else ""
            print(f"  {name:16} {median * scale:10.1f} {unit}{ratio}", flush=True)


def idle(peer: Peer, count: int, name: str, width: int = 8) -> None:
    """Start `count` containers that sleep, `width` at a time."""
    line = " ".join(peer.line("run", "-d", "--name", f"{name}-N", "busybox", "sleep", "100000"))
    subprocess.run(
        ["sh", "-c", f"seq {count} | xargs -P {width} -I N {line}"],
        env=peer.environment, check=True, capture_output=True,
    )  # fmt: skip


def remove(peer: Peer, count: int, name: str) -> None:
    """Remove the containers that `idle` or a loop of creates made."""
    peer.run("rm", "-f", *[f"{name}-{number}" for number in range(1, count + 1)])


def in_memory(folder: Path) -> None:
    """Mount a tmpfs on a folder that is made."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(folder)], check=True)


def settle() -> None:
    """Let what an engine took away be gone: the kernel removes namespaces later and spares fresh inodes for 5 s.

    Nothing tells of either, for any engine: it is time that passes, outside of what is timed.
    """
    time.sleep(6)


def bench_wide(peers: list[Peer]) -> Timing:
    """Time 50 detached runs, eight at a time, three times over."""
    timing: Timing = {peer.name: [] for peer in peers}
    for _ in range(3):
        for peer in peers:
            settle()
            started = time.perf_counter()
            idle(peer, 50, "wide")
            timing[peer.name].append(time.perf_counter() - started)
            remove(peer, 50, "wide")
    return timing


def bench_memory(peers: list[Peer], dozing: Peer) -> None:
    """Print what the engines' processes take with no and with 50 idle containers, the payload not counted.

    `dozing` is Barque as it is a while after the last request, where it may doze.
    """
    total: Timing = {}
    growth: Timing = {}
    for peer in [*peers, dozing]:
        before = peer.memory()
        idle(peer, 50, "idle")
        if peer is dozing:
            awake = dozing.memory()
            until(lambda awake=awake: dozing.memory() < awake / 2, "the daemon dozes", 60)  # type: ignore[misc]
        after = peer.memory()
        total[peer.name] = [after]
        growth[peer.name] = [after - before]
        remove(peer, 50, "idle")
    report("memory of the engine with 50 idle containers", total, "MB", 1e-6)
    report("memory that 50 idle containers add", growth, "MB", 1e-6)


def write_log(peer: Peer) -> None:
    """Let the container `writer` write 1 GB in lines of 100 bytes and end.

    It makes 10 MB and copies them a hundred times, which takes little of the processors: the engine is timed.
    """
    command = f"yes {'x' * 99} | head -c 10000000 >/dev/shm/lines; for n in $(seq 100); do cat /dev/shm/lines; done"
    peer.run("run", "-d", "--name", "writer", "busybox", "sh", "-c", command)
    peer.run("wait", "writer")


def bench_logs(peers: list[Peer], rounds: int) -> Timing:
    """Time a container that writes 1 GB of log, until it has ended."""
    timing: Timing = {peer.name: [] for peer in peers}
    for _ in range(rounds):
        for peer in peers:
            started = time.perf_counter()
            write_log(peer)
            timing[peer.name].append(time.perf_counter() - started)
            peer.run("rm", "-f", "writer")
    return timing


def bench_ps(peers: list[Peer], rounds: int) -> None:
    """Time the list of 100 containers by the command, and through the API where there is a socket."""
    for peer in peers:
        for number in range(1, 101):
            peer.run("create", "--name", f"listed-{number}", "busybox", "true")
    report("ps -a of 100 containers", interleaved(peers, rounds, "ps", "-a"))
    timing: Timing = {}
    with_socket = [peer for peer in peers if peer.socket]
    for _ in range(rounds * 3):
        for peer in with_socket:
            timing.setdefault(peer.name, []).append(peer.get_seconds("/containers/json?all=1"))
    report("GET /containers/json of 100 containers", timing)
    for peer in peers:
        remove(peer, 100, "listed")


def own_mounts() -> None:
    """Mount for ourselves alone; without a cgroup v2 tree beside a v1 one: crun, and so Podman, refuses such a machine."""
    namespaces.unshare(process.CLONE_NEWNS)
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    if Path("/sys/fs/cgroup/unified/cgroup.controllers").exists():
        subprocess.run(["umount", "/sys/fs/cgroup/unified"], check=True)


def main() -> None:
    """Run the chosen benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default=_ALL)
    options = parser.parse_args()
    chosen = options.only.split(",")
    isolate_network()
    own_mounts()
    root = Path(tempfile.mkdtemp(prefix="bqbench", dir="/var/tmp"))
    for name in ("barque", "docker", "podman", "dozing"):
        (root / name).mkdir()
    # As /run is on machines where the engines are installed.
    for name in IN_MEMORY:
        in_memory(root / name)
    peers = barque_peers(root / "barque")
    peers += [peer for peer in (docker_peer(root / "docker"), podman_peer(root / "podman")) if peer]
    engines = [peer for peer in peers if peer.name != "docker->barque"]
    image = busybox_tar()
    print(f"{os.cpu_count()} processors, kernel {os.uname().release}, {socket.gethostname()}, Python {sys.version.split()[0]}")
    try:
        for peer in engines:
            peer.run("import", "-", "busybox:latest", data=image)
        if "run" in chosen:
            report("run --rm busybox true", interleaved(peers, options.rounds, "run", "--rm", "busybox", "true"))
        if "exec" in chosen:
            for peer in engines:
                peer.run("run", "-d", "--name", "target", "busybox", "sleep", "1000")
            report("exec true", interleaved(peers, options.rounds, "exec", "target", "true"))
            for peer in engines:
                peer.run("rm", "-f", "target")
        if "wide" in chosen:
            report("50 x run -d, eight at a time", bench_wide(peers))
        if "ps" in chosen:
            bench_ps(engines, options.rounds)
        if "memory" in chosen:
            dozing = barque_peers(root / "dozing", "--idle-timeout", "2")[0]
            dozing.name = "barque, dozing"
            peers.append(dozing)
            dozing.run("import", "-", "busybox:latest", data=image)
            bench_memory(engines, dozing)
        if "logs" in chosen:
            report("1 GB of log lines", bench_logs(engines, max(1, options.rounds // 5)))
    finally:
        for peer in reversed(peers):
            peer.end()
        subprocess.run(["umount", "-l", *(str(root / name) for name in IN_MEMORY)], check=False)
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
