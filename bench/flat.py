"""Whether cost stays flat: a start and the list of containers in an empty and in a full engine.

    python bench/flat.py [--created 1000] [--running 300] [--rounds 30]

Times are of the API alone, on new connections: create, start and wait of a container that does nothing, and the
list divided by the number of containers that it shows.
"""

import argparse
import http.client
import json
import shutil
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from under_test import EngineUnderTest, isolate_network


class Caller:
    """Requests to one engine, each on a connection of its own."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def call(self, method: str, target: str, body: Any = None) -> Any:
        """Send a request and return the JSON of its answer."""
        connection = http.client.HTTPConnection("localhost", timeout=60)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(self.path)
        text = None if body is None else json.dumps(body)
        connection.request(method, target, text, {"Content-Type": "application/json"} if text else {})
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        if answer.status >= 400:
            raise RuntimeError(f"{method} {target}: {content!r}")
        return json.loads(content) if content else None

    def create(self, name: str, *command: str) -> str:
        """Create a container and return its id."""
        made = self.call("POST", f"/containers/create?name={name}", {"Image": "busybox", "Cmd": list(command)})
        return str(made["Id"])

    def once(self) -> float:
        """Return the seconds of one whole container that does nothing; its removal is not counted."""
        begun = time.perf_counter()
        identity = self.create("once", "true")
        self.call("POST", f"/containers/{identity}/start")
        self.call("POST", f"/containers/{identity}/wait")
        taken = time.perf_counter() - begun
        self.call("DELETE", f"/containers/{identity}")
        return taken


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
    isolate_network()
    root = Path(tempfile.mkdtemp(prefix="bqflat", dir="/var/tmp"))
    engine = EngineUnderTest(root)
    engine.start()
    caller = Caller(engine.socket)
    made: list[str] = []
    try:
        engine.load_busybox()
        for number in range(10):
            made.append(caller.create(f"first-{number}", "true"))
        caller.once()
        before = timed(caller, options.rounds)
        for number in range(options.created):
            made.append(caller.create(f"created-{number}", "true"))
        for number in range(options.running):
            identity = caller.create(f"running-{number}", "sleep", "100000")
            made.append(identity)
            caller.call("POST", f"/containers/{identity}/start")
        after = timed(caller, options.rounds)
        for title, first, second in zip(("start", "list, per container"), before, after, strict=True):
            print(f"{title:20} {first * 1e3:8.3f} ms -> {second * 1e3:8.3f} ms   ratio {second / first:.2f}")
    finally:
        for identity in made:
            caller.call("DELETE", f"/containers/{identity}?force=1")
        engine.stop()
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
