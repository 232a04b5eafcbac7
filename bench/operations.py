"""Times what operators do on an engine with many containers, on Barque and on Docker in one run.

    python bench/operations.py [--rounds 5] [--containers 100] [--only stats,start,logs,rm]

`stats --no-stream` of all, the daemon's start while all run (--live-restore) to its first list of them,
`logs --tail 10` of a log of 1 GB, and `rm -f` of all. The docker command drives Docker and Barque alike; Barque's own
command is timed beside. Prints medians and their ratios to Docker, and says at the end which is above its limit: by the same command, `stats` by each engine's own.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from peers import Peer, barque_peers, docker_peer
from run import Timing, idle, interleaved, own_mounts, report, write_log

from under_test import busybox_tar, isolate_network

LIMITS = {"stats": 0.1, "start": 0.2, "logs": 1.0, "rm": 0.15}
"""The largest allowed ratio to Docker."""


def time_starts(engines: list[Peer], rounds: int) -> Timing:
    """Time the daemons' starts in turn while their containers run."""
    timing: Timing = {peer.name: [] for peer in engines}
    for _ in range(rounds):
        for peer in engines:
            timing[peer.name].append(peer.restart_seconds())
    return timing


def time_removals(peers: list[Peer], count: int, rounds: int) -> Timing:
    """Time `rm -f` of all containers; those of another command's removal are started anew before."""
    timing: Timing = {peer.name: [] for peer in peers}
    for _ in range(rounds):
        for peer in peers:
            idle(peer, count, "many")
            names = [f"many-{number}" for number in range(1, count + 1)]
            timing[peer.name].append(peer.seconds("rm", "-f", *names))
    return timing


def verdicts(found: dict[str, Timing]) -> list[str]:
    """Return a line for each thing that takes more of Docker's time than it may, by the same client."""
    above = []
    for name, timing in found.items():
        if not timing.get("docker"):
            continue
        # The docker command waits half a second in `stats` by itself: there each engine has its own command.
        ours = timing["barque"] if name == "stats" else timing.get("docker->barque") or timing["barque"]
        ratio = statistics.median(ours) / statistics.median(timing["docker"])
        if ratio > LIMITS[name]:
            above.append(f"{name}: {ratio:.3f} of docker, allowed are {LIMITS[name]}")
    return above


def measure(peers: list[Peer], engines: list[Peer], chosen: list[str], options: argparse.Namespace) -> dict[str, Timing]:
    """Run the chosen measurements on engines that have the image."""
    found: dict[str, Timing] = {}
    count, rounds = options.containers, options.rounds
    if {"stats", "start"} & set(chosen):
        for peer in engines:
            idle(peer, count, "many")
        if "stats" in chosen:
            found["stats"] = interleaved(peers, rounds, "stats", "--no-stream")
            report(f"stats --no-stream of {count} containers", found["stats"])
        if "start" in chosen:
            found["start"] = time_starts(engines, rounds)
            report(f"the daemon's start with {count} running containers", found["start"])
        for peer in engines:
            peer.run("rm", "-f", *[f"many-{number}" for number in range(1, count + 1)])
    if "logs" in chosen:
        for peer in engines:
            write_log(peer)
        found["logs"] = interleaved(peers, rounds * 3, "logs", "--tail", "10", "writer")
        report("logs --tail 10 of 1 GB", found["logs"])
        for peer in engines:
            peer.run("rm", "-f", "writer")
    if "rm" in chosen:
        found["rm"] = time_removals(peers, count, max(1, rounds // 2))
        report(f"rm -f of {count} running containers", found["rm"])
    return found


def main() -> None:
    """Run the chosen benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--containers", type=int, default=100)
    parser.add_argument("--only", default=",".join(LIMITS))
    options = parser.parse_args()
    isolate_network()
    own_mounts()
    root = Path(tempfile.mkdtemp(prefix="bqbench", dir="/var/tmp"))
    for name in ("barque", "docker"):
        (root / name).mkdir()
    peers = barque_peers(root / "barque", "--live-restore")
    docker = docker_peer(root / "docker", "--live-restore")
    peers += [docker] if docker else []
    engines = [peer for peer in peers if peer.name != "docker->barque"]
    image = busybox_tar()
    print(f"{os.cpu_count()} processors, kernel {os.uname().release}, Python {sys.version.split()[0]}", flush=True)
    begun = time.perf_counter()
    try:
        for peer in engines:
            peer.run("import", "-", "busybox:latest", data=image)
        above = verdicts(measure(peers, engines, options.only.split(","), options))
    finally:
        for peer in engines:
            for name in peer.run("ps", "-aq").split():
                peer.run("rm", "-f", name)
        for peer in reversed(peers):
            peer.end()
        shutil.rmtree(root, ignore_errors=True)
    print(f"\n{time.perf_counter() - begun:.0f} seconds; above their limits: {'; '.join(above) or 'none'}")
    sys.exit(1 if above else 0)


if __name__ == "__main__":
    main()
