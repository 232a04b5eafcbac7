"""Whether networks stay flat: making the next network, and starting the next container, where there are many.

    python bench/networks.py [--networks 200] [--containers 300] [--aliased 100] [--rounds 20] [--subnets 1000]

Two engines run side by side. One is filled: networks, containers on one of them, some of which share an alias. The
other one stays empty, and each start in one is followed by a start in the other, so that what else this machine does
counts for both. Start times are of the API alone: POST /containers/<id>/start. The subnets are of the pure part; each engine
has a network namespace of its own.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from caller import Caller

from barque.network.model import Network
from barque.network.subnets import Addresses, Taken, fill, unique_local_pool
from under_test import EngineUnderTest


def seconds(act: Callable[[], Any]) -> float:
    """Return how long something takes."""
    begun = time.perf_counter()
    act()
    return time.perf_counter() - begun


class Scene:
    """An engine whose networks and containers are counted."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self.containers: list[str] = []
        self.networks: list[str] = []

    def add_network(self, name: str) -> None:
        """Make a network."""
        self.networks.append(self.caller.call("POST", "/networks/create", {"Name": name})["Id"])

    def start(self, network: str, *aliases: str, keep: bool = True) -> float:
        """Start a container on a network; return the seconds of its start."""
        config = {
            "Image": "busybox", "Cmd": ["sleep", "100000"] if keep else ["true"], "HostConfig": {"NetworkMode": network},
            "NetworkingConfig": {"EndpointsConfig": {network: {"Aliases": list(aliases)} if aliases else {}}},
        }  # fmt: skip
        made = self.caller.call("POST", "/containers/create", config)["Id"]
        taken = seconds(lambda: self.caller.call("POST", f"/containers/{made}/start"))
        if keep:
            self.containers.append(made)
        else:
            self.caller.call("POST", f"/containers/{made}/wait")
            self.caller.call("DELETE", f"/containers/{made}")
        return taken


def compare(title: str, empty: Scene, full: Scene, network: str, rounds: int) -> None:
    """Time starts of containers that end at once, in both engines in turn; print the medians and their ratio."""
    pairs = [(empty.start(network, keep=False), full.start(network, keep=False)) for _ in range(rounds)]
    show(f"start on {network}, {title}", *(statistics.median(times) for times in zip(*pairs, strict=True)))


def _given(wanted: Network, pools: list[tuple[str, int]], taken: list[str]) -> list[str]:
    made = fill(wanted, pools, Taken(tuple(taken)))
    return [item.subnet for item in made.subnets if Addresses(made).take(6 if ":" in item.subnet else 4)]


def choose_subnets(count: int) -> None:
    """Give that many networks subnets of both IP versions, and an address of each."""
    pools = [("10.0.0.0/8", 24), unique_local_pool("bench")]
    taken: list[str] = []
    times = []
    for number in range(count):
        wanted = Network(f"{number:064x}", f"net{number}", "bridge", 1, ipv6=True)
        times.append(seconds(lambda wanted=wanted: taken.extend(_given(wanted, pools, taken))))
    tenth = max(1, count // 10)
    show(f"subnets of {count} networks", statistics.median(times[:tenth]), statistics.median(times[-tenth:]))


def show(title: str, first: float, last: float) -> None:
    """Print two times and their ratio."""
    print(f"{title:34} {first * 1e3:8.2f} ms -> {last * 1e3:8.2f} ms   ratio {last / first:.2f}", flush=True)


class Apart(EngineUnderTest):
    """An engine in a network namespace of its own: what one makes costs the other nothing."""

    def arguments(self) -> list[str]:
        """Return the daemon's command line."""
        return ["unshare", "-n", "sh", "-c", 'ip link set lo up; exec "$@"', "sh", *super().arguments()]


def measure(empty: Scene, full: Scene, options: argparse.Namespace) -> None:
    """Fill one of two engines and print what the next network, container and removal cost."""
    for scene in (empty, full):
        scene.add_network("first")
        for network in ("bridge", "first"):
            for _ in range(3):
                scene.start(network, keep=False)
    times = [seconds(lambda n=n: full.add_network(f"net{n}")) for n in range(options.networks)]
    show("make a network", statistics.median(times[:10]), statistics.median(times[-10:]))
    for network in ("bridge", "first"):
        compare("many networks", empty, full, network, options.rounds)
    for number in range(options.containers):
        full.start("first", *(["shared"] if number < options.aliased else []))
    for network in ("bridge", "first"):
        compare("many containers", empty, full, network, options.rounds)
    for identity in full.containers:
        full.caller.call("DELETE", f"/containers/{identity}?force=1")
    times = [seconds(lambda n=n: full.caller.call("DELETE", f"/networks/{n}")) for n in full.networks]
    if len(times) > 20:
        show("remove a network", statistics.median(times[-10:]), statistics.median(times[:10]))


def main() -> None:
    """Measure on two engines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=int, default=200)
    parser.add_argument("--containers", type=int, default=300)
    parser.add_argument("--aliased", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--subnets", type=int, default=1000)
    options = parser.parse_args()
    choose_subnets(options.subnets)
    root = Path(tempfile.mkdtemp(prefix="bqnet", dir="/var/tmp"))
    engines = []
    try:
        for name in ("empty", "full"):
            (root / name).mkdir()
            engine = Apart(root / name, "--default-address-pool=base=10.0.0.0/8,size=16")
            engine.start()
            engines.append(engine)
            engine.load_busybox()
        measure(*(Scene(Caller(engine.socket)) for engine in engines), options)
    finally:
        for engine in engines:
            engine.stop()
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
