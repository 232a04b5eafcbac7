"""Whether cost stays flat: a start and the list of containers in an empty and in a full engine.

    python bench/flat.py [--created 1000] [--running 300] [--rounds 30]

Times are of the API alone, on new connections: create, start and wait of a container that does nothing, and the
list divided by the number of containers that it shows.
"""

import argparse
import statistics
import time

from caller import Caller, engine_alone


def timed(caller: Caller, rounds: int) -> tuple[float, float]:
    """Return the medians of a whole container and of the list per container shown, in seconds."""
    starts = [caller.once() for _ in range(rounds)]
    lists = []
    shown = 1
    for _ in range(rounds):
        begun = time.perf_counter()
        shown = max(1, len(caller.call("GET", "/containers/json?all=1")))
        lists.append(time.perf_counter() - begun)
    return statistics.median(starts), statistics.median(lists) / shown


def main() -> None:
    """Measure, fill the engine, measure again, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--created", type=int, default=1000)
    parser.add_argument("--running", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    with engine_alone() as caller:
        for number in range(10):
            caller.create(f"first-{number}", "true")
        caller.once()
        before = timed(caller, options.rounds)
        for number in range(options.created):
            caller.create(f"created-{number}", "true")
        for number in range(options.running):
            identity = caller.create(f"running-{number}", "sleep", "100000")
            caller.call("POST", f"/containers/{identity}/start")
        after = timed(caller, options.rounds)
        for title, first, second in zip(("start", "list, per container"), before, after, strict=True):
            print(f"{title:20} {first * 1e3:8.3f} ms -> {second * 1e3:8.3f} ms   ratio {second / first:.2f}")


if __name__ == "__main__":
    main()
