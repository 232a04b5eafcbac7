"""Whether the API stays quick while many containers are checked for their health.

    python bench/checks.py [--containers 1000] [--interval 30] [--seconds 60]

Starts the containers, each with a health check every so many seconds, and asks for one container and for the list of ten
all the while; prints how many checks ran and the medians and 99th percentiles of the answers' times, before and during.
"""

import argparse
import os
import statistics
import sys
import time

from caller import Caller, engine_alone


def ask(caller: Caller, name: str, seconds: float) -> list[float]:
    """Ask again and again for so long; return how long each answer took, in ms."""
    times, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        for path in (f"/containers/{name}/json", "/containers/json?limit=10"):
            begun = time.perf_counter()
            caller.call("GET", path)
            times.append((time.perf_counter() - begun) * 1000)
        # The pace of a client that watches: without it the questions themselves would be the load.
        time.sleep(0.02)
    return times


def show(title: str, times: list[float]) -> float:
    """Print percentiles; return the 99th."""
    worst = statistics.quantiles(times, n=100)[98]
    print(f"{title:28} {statistics.median(times):8.2f} ms median {worst:8.2f} ms p99 of {len(times)}", flush=True)
    return worst


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--containers", type=int, default=1000)
    parser.add_argument("--interval", type=float, default=30)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    with engine_alone() as caller:
        made = []
        check = {"Test": ["CMD", "true"], "Interval": int(options.interval * 1e9)}
        for _ in range(options.containers):
            spec = {"Image": "busybox", "Cmd": ["sleep", "100000"], "Healthcheck": check, "HostConfig": {"NetworkMode": "none"}}
            made.append(caller.call("POST", "/containers/create", spec)["Id"])
        show("no container runs", ask(caller, made[0], 5))
        for identity in made:
            caller.call("POST", f"/containers/{identity}/start")
        worst = show(f"{options.containers} are checked", ask(caller, made[0], options.seconds))
        healthy = sum(1 for row in caller.call("GET", "/containers/json") if "(healthy)" in row["Status"])
        print(f"{healthy} healthy, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    sys.exit(worst >= 100)


if __name__ == "__main__":
    main()
