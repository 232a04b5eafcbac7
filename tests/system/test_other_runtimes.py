"""Containers by runc, crun, and `barque runtime` as a command, all through the real docker client."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from under_test import EngineUnderTest, until

pytestmark = [pytest.mark.system, pytest.mark.conformance]


@pytest.fixture(params=["runc", "crun", "ours"])
def runtime(request: pytest.FixtureRequest, engine: EngineUnderTest) -> Iterator[str]:
    """Give a runtime's name; `ours` is the command of this project, registered as a stranger."""
    name = str(request.param)
    if name != "ours" and shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    refusal = engine.docker_result("run", "--rm", "--runtime", name, "busybox", "true").stderr if name == "crun" else ""
    if "hybrid mode not supported" in refusal:
        pytest.skip("crun refuses machines with controllers in both versions of control groups")
    if name == "ours":
        wrapper = engine.root / "ours"
        wrapper.write_text(f'#!/bin/sh\nexec {sys.executable} -m barque.runtime.command.main "$@"\n')
        wrapper.chmod(0o755)
        (engine.root / "daemon.json").write_text(json.dumps({"runtimes": {"ours": {"path": str(wrapper)}}}))
        os.kill(engine.pid, signal.SIGHUP)
        until(lambda: "ours" in engine.docker("info", "--format", "{{json .Runtimes}}"), "the runtime is known")
    yield name


def test_output_exit_codes_and_errors(engine: EngineUnderTest, runtime: str) -> None:
    run = ("run", "--rm", "--runtime", runtime, "busybox")
    done = engine.docker_result(*run, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")
    # The docker command knows the words of crun, which begin with a capital letter, no better from Docker.
    assert engine.docker_result(*run, "nosuch").returncode == (125 if runtime == "crun" else 127)
    assert engine.docker_result(*run, "/etc/passwd").returncode == 126


def test_the_life_of_a_container(engine: EngineUnderTest, runtime: str) -> None:
    name = f"other{time.monotonic_ns()}"
    script = "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.05; done"
    limits = ["-m", "64m", "--cpus", "0.5", "--pids-limit", "40", "--cap-drop", "NET_RAW", "-p", "0:80"]
    engine.docker("run", "-d", "--name", name, "--runtime", runtime, *limits, "busybox", "sh", "-c", script)
    try:
        assert engine.docker("inspect", "-f", "{{.HostConfig.Runtime}} {{.State.Status}}", name) == f"{runtime} running"
        assert engine.docker("exec", "-e", "A=b", name, "sh", "-c", "echo $A; exit 0") == "b"
        assert engine.docker_result("exec", name, "sh", "-c", "exit 5").returncode == 5
        stats = json.loads(engine.docker("stats", "--no-stream", "--format", "{{json .}}", name))
        assert stats["MemUsage"].endswith("/ 64MiB"), stats
        engine.docker("pause", name)
        assert engine.docker("inspect", "-f", "{{.State.Status}}", name) == "paused"
        engine.docker("unpause", name)
        engine.docker("update", "-m", "80m", "--memory-swap", "80m", name)
        stats = json.loads(engine.docker("stats", "--no-stream", "--format", "{{json .}}", name))
        assert stats["MemUsage"].endswith("/ 80MiB"), stats
        assert "sh -c trap" in engine.docker("top", name)
        assert engine.docker("port", name, "80").startswith("0.0.0.0:")
        engine.docker("stop", name)
        assert engine.docker("logs", name) == "ready\nbye"
        assert engine.docker("inspect", "-f", "{{.State.ExitCode}} {{.State.OOMKilled}}", name) == "3 false"
        engine.docker("start", name)
        engine.docker("kill", name)
        assert engine.docker("wait", name) == "137"
    finally:
        engine.docker("rm", "-f", name, check=False)


def test_input_and_a_terminal(engine: EngineUnderTest, runtime: str) -> None:
    done = engine.docker_result("run", "--rm", "-i", "--runtime", runtime, "busybox", "wc", "-c", input="x" * 100_000)
    assert done.stdout.strip() == "100000"
    words = ["docker", "run", "--rm", "-t", "--runtime", runtime, "busybox", "tty"]
    shown = subprocess.run(["script", "-qec", " ".join(words), "/dev/null"], env=engine.environment, text=True,
                           capture_output=True, timeout=60, stdin=subprocess.DEVNULL, check=False)  # fmt: skip
    assert "/dev/pts/0" in shown.stdout or "/dev/console" in shown.stdout


def test_running_out_of_memory_is_told(engine: EngineUnderTest, runtime: str) -> None:
    name = f"oom{time.monotonic_ns()}"
    engine.docker_result("run", "--name", name, "--runtime", runtime, "-m", "16m", "busybox", "tail", "/dev/zero")
    try:
        assert engine.docker("inspect", "-f", "{{.State.OOMKilled}} {{.State.ExitCode}}", name) == "true 137"
    finally:
        engine.docker("rm", "-f", name, check=False)


def test_nothing_of_it_is_left(engine: EngineUnderTest, runtime: str) -> None:
    identifier = engine.docker("run", "-d", "--runtime", runtime, "busybox", "sleep", "1000")
    engine.docker("rm", "-f", identifier)
    state = engine.root / "exec/runtimes" / runtime / identifier
    until(lambda: not state.exists() and identifier not in Path("/proc/self/mountinfo").read_text(), "all is gone")
