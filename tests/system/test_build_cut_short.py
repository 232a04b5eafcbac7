"""Clients of BuildKit's API that go away in the middle of a build: what they began stops, and nothing of it stays."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from plugins import plugin_config
from under_test import EngineUnderTest, running, traces, until

SOURCE = Path(__file__).parents[2] / "src"

pytestmark = pytest.mark.system


@pytest.mark.parametrize("client", ["buildx", "barque"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_client_that_goes_away_while_a_command_runs_stops_it(
    own_engine: EngineUnderTest, tmp_path: Path, client: str, how: signal.Signals
) -> None:
    config = plugin_config(tmp_path / ".docker") if client == "buildx" else tmp_path
    context = tmp_path / "context"
    context.mkdir()
    number = 7_000_000 + os.getpid()
    # Two at once, and a third that waits for both.
    (context / "Dockerfile").write_text(
        f"FROM busybox AS a\nRUN echo a > /a; sleep {number}1\nFROM busybox AS b\nRUN echo b > /b; sleep {number}2\n"
        "FROM busybox\nCOPY --from=a /a /\nCOPY --from=b /b /\n"
    )
    before = traces(own_engine)
    words = ["docker", "buildx"] if client == "buildx" else [sys.executable, "-m", "barque"]
    environment = {**own_engine.environment, "DOCKER_CONFIG": str(config), "PYTHONPATH": str(SOURCE)}
    # What runs in a shell's background does not hear of SIGINT, nor do its children.
    words = ["env", "--default-signal=INT", *words]
    process = subprocess.Popen(
        [*words, "build", "-t", "cut", str(context)], env=environment, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        for end in "12":
            until(lambda end=end: running(f"sleep {number}{end}"), "the commands run", 40)  # type: ignore[misc]
        # As a terminal does: the docker command and its plugin both hear of it.
        os.killpg(process.pid, how)
        for end in "12":
            until(lambda end=end: not running(f"sleep {number}{end}"), "the commands have ended", 5)  # type: ignore[misc]
    finally:
        process.kill()
        process.wait()
    until(lambda: traces(own_engine) == before, "nothing is left", 10)
    assert own_engine.docker("images", "-q", "cut") == ""
