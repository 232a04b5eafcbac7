"""Whether networks stay flat: making the next network, and starting the next container, where there are many.

    python bench/networks.py [--networks 200] [--containers 300] [--aliased 100] [--rounds 20]

Makes networks, runs containers on one of them, some of which share an alias, and prints the medians of the
first and the last of each kind with their ratio. Start times are of the API alone: POST /containers/<id>/start.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from flat import Caller

from under_test import EngineUnderTest, isolate_network


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

    def sample(self, network: str, rounds: int) -> float:
        """Return the median of starts of containers that end at once."""
        return statistics.median(self.start(network, keep=False) for _ in range(rounds))


def show(title: str, first: float, last: float) -> None:
    """Print two times and their ratio."""
    print(f"{title:34} {first * 1e3:8.2f} ms -> {last * 1e3:8.2f} ms   ratio {last / first:.2f}", flush=True)


def main() -> None:
    """Measure, fill, measure again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=int, default=200)
    parser.add_argument("--containers", type=int, default=300)
    parser.add_argument("--aliased", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    isolate_network()
    root = Path(tempfile.mkdtemp(prefix="bqnet", dir="/var/tmp"))
    engine = EngineUnderTest(root, "--default-address-pool=base=10.0.0.0/8,size=16")
    engine.start()
    scene = Scene(Caller(engine.socket))
    try:
        engine.load_busybox()
        scene.add_network("first")
        for network in ("bridge", "first"):
            scene.start(network, keep=False)
        before = {network: scene.sample(network, options.rounds) for network in ("bridge", "first")}
        print(f"start on bridge {before['bridge'] * 1e3:.2f} ms, on a user-defined network {before['first'] * 1e3:.2f} ms")
        times = [seconds(lambda n=n: scene.add_network(f"net{n}")) for n in range(options.networks)]
        show("make a network", statistics.median(times[:10]), statistics.median(times[-10:]))
        for network, value in before.items():
            show(f"start on {network}, many networks", value, scene.sample(network, options.rounds))
        for number in range(options.containers):
            scene.start("first", *(["shared"] if number < options.aliased else []))
        for network, value in before.items():
            show(f"start on {network}, many containers", value, scene.sample(network, options.rounds))
    finally:
        for identity in scene.containers:
            scene.caller.call("DELETE", f"/containers/{identity}?force=1")
        times = [seconds(lambda n=n: scene.caller.call("DELETE", f"/networks/{n}")) for n in scene.networks]
        if len(times) > 20:
            show("remove a network", statistics.median(times[-10:]), statistics.median(times[:10]))
        engine.stop()
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
