"""An engine of a benchmark's own, and requests to it on new connections."""

import contextlib
import http.client
import json
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
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


@contextlib.contextmanager
def engine_alone() -> Iterator[Caller]:
    """Give an engine with busybox, in a network namespace of its own; all containers go with it."""
    isolate_network()
    root = Path(tempfile.mkdtemp(prefix="bqbench", dir="/var/tmp"))
    engine = EngineUnderTest(root)
    engine.start()
    caller = Caller(engine.socket)
    try:
        engine.load_busybox()
        yield caller
    finally:
        for row in caller.call("GET", "/containers/json?all=1"):
            caller.call("DELETE", f"/containers/{row['Id']}?force=1")
        engine.stop()
        shutil.rmtree(root, ignore_errors=True)
