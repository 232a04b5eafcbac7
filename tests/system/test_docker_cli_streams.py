"""The docker command without a terminal: pipes, logs, cp, stats, events, wait, top, update."""

import io
import json
import os
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from under_test import EngineUnderTest, until

pytestmark = pytest.mark.system


@pytest.fixture
def sleeper(engine: EngineUnderTest) -> Iterator[str]:
    """Give a container that sleeps."""
    name = f"sleeper{time.monotonic_ns()}"
    engine.docker("run", "-d", "--name", name, "busybox", "sleep", "1000")
    yield name
    engine.docker("rm", "-f", name, check=False)


def test_the_exit_code_is_the_containers_own(engine: EngineUnderTest) -> None:
    assert engine.docker_result("run", "--rm", "busybox", "sh", "-c", "exit 7").returncode == 7
    assert engine.docker_result("run", "--rm", "busybox", "nosuch").returncode == 127
    assert engine.docker_result("run", "--rm", "busybox", "/etc/passwd").returncode == 126
    assert engine.docker_result("run", "--rm", "nosuch-image").returncode == 125


def test_output_and_errors_come_apart(engine: EngineUnderTest) -> None:
    result = engine.docker_result("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2")
    assert (result.stdout, result.stderr) == ("out\n", "err\n")


def test_much_input_goes_through_a_container_unchanged(engine: EngineUnderTest) -> None:
    data = os.urandom(5 << 20)
    result = subprocess.run(
        ["docker", "run", "--rm", "-i", "busybox", "cat"], input=data, env=engine.environment, capture_output=True, timeout=60
    )  # fmt: skip
    assert result.returncode == 0
    assert result.stdout == data


def test_input_ends_when_the_client_ends_it(engine: EngineUnderTest) -> None:
    result = engine.run(["docker", "run", "--rm", "-i", "busybox", "wc", "-c"], input="12345")
    assert result.stdout.strip() == "5"


def test_exec_carries_streams_and_exit_code(engine: EngineUnderTest, sleeper: str) -> None:
    result = engine.run(["docker", "exec", "-i", sleeper, "sh", "-c", "cat; echo err >&2; exit 6"], input="in\x10\x11")
    assert (result.returncode, result.stdout, result.stderr) == (6, "in\x10\x11", "err\n")
    assert engine.docker_result("exec", sleeper, "nosuch").returncode == 127
    assert engine.docker_result("exec", "-d", sleeper, "touch", "/made").returncode == 0


def test_logs_follow_until_the_container_ends(engine: EngineUnderTest) -> None:
    name = f"lines{time.monotonic_ns()}"
    engine.docker(
        "run", "-d", "--name", name, "busybox", "sh", "-c", "for i in 1 2 3 4 5; do echo $i; usleep 200000; done"
    )
    assert engine.docker("logs", "-f", name).split() == ["1", "2", "3", "4", "5"]
    assert engine.docker("logs", "--tail", "2", name).split() == ["4", "5"]
    assert engine.docker("logs", "--since", "1h", "-t", name).splitlines()[0].endswith(" 1")
    engine.docker("rm", name)


def test_files_are_copied_both_ways(engine: EngineUnderTest, sleeper: str, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a").write_text("A")
    (tmp_path / "tree" / "link").symlink_to("a")
    engine.docker("cp", str(tmp_path / "tree"), f"{sleeper}:/root/")
    assert engine.docker("exec", sleeper, "cat", "/root/tree/link") == "A"
    engine.docker("cp", f"{sleeper}:/root/tree", str(tmp_path / "back"))
    assert (tmp_path / "back" / "a").read_text() == "A"
    assert (tmp_path / "back" / "link").is_symlink()
    engine.docker("cp", f"{sleeper}:/etc/passwd", str(tmp_path / "passwd"))
    assert (tmp_path / "passwd").read_text().startswith("root:")
    assert "Could not find the file /nosuch" in engine.docker_result("cp", f"{sleeper}:/nosuch", str(tmp_path)).stderr


def test_a_tar_goes_in_and_out_by_pipes(engine: EngineUnderTest, sleeper: str) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        info = tarfile.TarInfo("f")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
    subprocess.run(
        ["docker", "cp", "-", f"{sleeper}:/tmp"],
        input=packed.getvalue(),
        env=engine.environment,
        check=True,
        timeout=30,
    )
    out = subprocess.run(
        ["docker", "cp", f"{sleeper}:/tmp/f", "-"], env=engine.environment, check=True, capture_output=True, timeout=30
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(out)) as tar:
        member = tar.extractfile("f")
        assert member is not None
        assert member.read() == b"abc"


def test_an_export_holds_the_containers_files(engine: EngineUnderTest, sleeper: str, tmp_path: Path) -> None:
    engine.docker("exec", sleeper, "touch", "/new-file")
    engine.docker("export", "-o", str(tmp_path / "x.tar"), sleeper)
    with tarfile.open(tmp_path / "x.tar") as tar:
        assert {"new-file", "bin/busybox"} <= set(tar.getnames())
    assert "A /new-file" in engine.docker("diff", sleeper).splitlines()


def test_stats_are_shown_once_and_as_a_stream(engine: EngineUnderTest, sleeper: str) -> None:
    row = json.loads(engine.docker("stats", "--no-stream", "--format", "json", sleeper))
    assert row["Name"] == sleeper
    assert int(row["PIDs"]) >= 1
    assert row["MemUsage"].partition(" / ")[0] not in ("", "0B")


def test_events_tell_of_a_containers_life(engine: EngineUnderTest) -> None:
    start = time.time()
    name = f"life{time.monotonic_ns()}"
    follower = subprocess.Popen(
        ["docker", "events", "--filter", f"container={name}", "--format", "{{.Action}}"],
        env=engine.environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        until(lambda: int(engine.docker("info", "-f", "{{.NEventsListener}}")) > 0)
        engine.docker("run", "--name", name, "busybox", "true")
        engine.docker("rm", name)
        assert follower.stdout is not None
        live = [follower.stdout.readline().strip()]
        while live[-1] != "destroy":
            live.append(follower.stdout.readline().strip())
    finally:
        follower.kill()
        follower.wait()
    past = engine.docker(
        "events",
        "--since",
        str(start),
        "--until",
        str(time.time()),
        "--filter",
        f"container={name}",
        "--format",
        "{{.Action}}",
    ).splitlines()
    for actions in (live, past):
        order = [action for action in actions if action in ("create", "start", "die", "destroy")]
        assert order == ["create", "start", "die", "destroy"]


def test_wait_kill_and_signals(engine: EngineUnderTest) -> None:
    name = f"waited{time.monotonic_ns()}"
    engine.docker(
        "run",
        "-d",
        "--name",
        name,
        "busybox",
        "sh",
        "-c",
        "trap 'exit 3' USR1; echo up; while :; do usleep 50000; done",
    )
    waiter = subprocess.Popen(["docker", "wait", name], env=engine.environment, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 10
    while engine.docker("logs", name) != "up":
        assert time.monotonic() < deadline
    engine.docker("kill", "-s", "USR1", name)
    assert waiter.communicate(timeout=20)[0].strip() == "3"
    engine.docker("rm", name)


def test_a_container_is_listed_inspected_renamed_updated_and_removed(engine: EngineUnderTest, sleeper: str) -> None:
    assert sleeper in engine.docker("ps", "-a", "--filter", f"name={sleeper}", "--format", "{{.Names}}")
    assert engine.docker("inspect", "-f", "{{.State.Status}} {{.Config.Cmd}}", sleeper) == "running [sleep 1000]"
    assert "sleep 1000" in engine.docker("top", sleeper)
    engine.docker("update", "--memory", "64m", "--memory-swap", "64m", sleeper)
    assert engine.docker("inspect", "-f", "{{.HostConfig.Memory}}", sleeper) == str(64 << 20)
    engine.docker("pause", sleeper)
    assert engine.docker("inspect", "-f", "{{.State.Status}}", sleeper) == "paused"
    engine.docker("unpause", sleeper)
    engine.docker("rename", sleeper, f"{sleeper}x")
    engine.docker("rm", "-f", f"{sleeper}x")
    assert engine.docker("ps", "-aq", "--filter", f"name={sleeper}") == ""


def test_a_commit_makes_an_image_that_runs(engine: EngineUnderTest, sleeper: str) -> None:
    engine.docker("exec", sleeper, "sh", "-c", "echo kept > /kept")
    engine.docker("commit", "-c", "CMD cat /kept", "-m", "message", sleeper, "committed:one")
    assert engine.docker("run", "--rm", "committed:one") == "kept"
    engine.docker("rmi", "committed:one")


def test_version_info_and_pull_say_what_is_so(engine: EngineUnderTest) -> None:
    assert engine.docker("version", "-f", "{{.Server.APIVersion}}") == "1.51"
    assert int(engine.docker("info", "-f", "{{.Images}}")) >= 1
    result = engine.docker_result("pull", "nosuch")
    assert result.returncode == 1
    # No registry can be reached from here.
    assert "registry-1.docker.io" in result.stderr
    assert "This node is not a swarm manager" in engine.docker_result("service", "ls").stderr
    assert engine.docker("system", "df")
