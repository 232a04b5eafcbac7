"""The history of builds: what is recorded, for how long, and what other builders' clients ask of it."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from barque.builder.buildkit.pb import content_pb2, control_pb2
from barque.cli.building.link import CONTROL, Link
from barque.client.api import Api
from barque.client.endpoint import parse_host
from plugins import Run, docker_in
from under_test import EngineUnderTest, running_engine, until

SOURCE = Path(__file__).parents[2] / "src"
pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def recorder() -> Iterator[EngineUnderTest]:
    """Give an engine of these tests' own: others' builds would be listed."""
    for engine in running_engine():
        engine.load_busybox()
        yield engine


@pytest.fixture
def docker(recorder: EngineUnderTest, tmp_path: Path) -> Run:
    """Give the docker command with the plugins, in the folder `tmp_path`."""
    return docker_in(recorder, tmp_path)


def history(engine: EngineUnderTest, *words: str, code: int = 0) -> str:
    environment = {**engine.environment, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run([sys.executable, "-m", "barque", "buildx", "history", *words], env=environment, capture_output=True,
                          text=True, timeout=60)  # fmt: skip
    assert done.returncode == code, (words, done.stdout, done.stderr)
    return done.stdout if code == 0 else done.stderr


def listed(engine: EngineUnderTest, *words: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in history(engine, "ls", "--format", "json", *words).splitlines()]


def call(engine: EngineUnderTest, method: str, request: Any) -> list[Any]:
    """Call a method of Control or of the content store; return all answers."""

    async def run() -> list[Any]:
        async with Link(Api(parse_host(engine.host))) as link, link.stream(method) as stream:
            await stream.send_message(request, end=True)
            return [one async for one in stream]

    return asyncio.run(run())


def test_builds_are_recorded_and_outlive_the_daemon(docker: Run, recorder: EngineUnderTest, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nARG WORD\nRUN echo said $WORD; echo x > /x\n")
    docker("buildx", "build", "--build-arg", "WORD=loud", "-t", "recorded", ".")
    (tmp_path / "broken").write_text("FROM busybox\nRUN echo before; exit 5\n")
    docker("buildx", "build", "-f", "broken", ".", code=1)
    failed, good = listed(recorder)
    assert [failed["status"], good["status"]] == ["Error", "Completed"]
    assert (failed["name"], good["name"]) == ("broken", "Dockerfile")
    assert good["total_steps"] == good["completed_steps"] == 2
    table = history(recorder, "ls")
    assert re.search(rf"^{good['ref']}   Dockerfile   Completed   .* ago   +[\d.]+s$", table, re.MULTILINE), table
    for attempt in ("killed", "restarted"):
        if attempt == "killed":
            recorder.kill_daemon()
        else:
            recorder.stop()
            recorder.start()
        assert [one["ref"] for one in listed(recorder)] == [failed["ref"], good["ref"]], attempt
        shown = history(recorder, "logs", good["ref"])
        assert re.search(r"^#\d+ [\d.]+ said loud$", shown, re.MULTILINE), shown
        assert "RUN echo said loud" in shown
        whole = history(recorder, "inspect", good["ref"][:12])
        assert re.search(r"^WORD +loud$", whole, re.MULTILINE), whole
        assert re.search(r"^pkg:docker/busybox@latest\S* +sha256:[0-9a-f]{64}$", whole, re.MULTILINE), whole
        told = history(recorder, "inspect")
        assert "   2 | >>> RUN echo before; exit 5" in told, told
        assert "exit code: 5" in told
    assert json.loads(history(recorder, "inspect", "--format=json"))["ref"] == failed["ref"]
    assert "RUN echo said loud" in history(recorder, "logs", "--progress=rawjson", "^1")


def test_what_history_cannot_do_is_named(recorder: EngineUnderTest) -> None:
    done = recorder.run([sys.executable, "-m", "barque", "buildx", "history", "trace"])
    assert (done.returncode, done.stderr.splitlines()[0]) == (1, "barque: unknown command: barque buildx history trace")
    assert "logs" in recorder.barque("buildx", "history", "--help")


def test_records_are_found_pinned_and_removed(docker: Run, recorder: EngineUnderTest, tmp_path: Path) -> None:
    history(recorder, "rm", "--all")
    assert listed(recorder) == []
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    docker("buildx", "build", ".")
    docker("buildx", "build", "--target", "none", ".", code=1)
    bad, good = (one["ref"] for one in listed(recorder))
    assert [one["ref"] for one in listed(recorder, "--filter", "status==error")] == [bad]
    assert [one["ref"] for one in listed(recorder, "--filter", f"ref=={good}", "--filter", f"ref~=^{bad}")] == [bad, good]
    assert "unknown filter 'colour'" in history(recorder, "ls", "--filter", "colour==red", code=1)
    asked = control_pb2.BuildHistoryRequest(EarlyExit=True, Limit=1)
    events = call(recorder, f"{CONTROL}/ListenBuildHistory", asked)
    assert [(one.type, one.record.Ref) for one in events] == [(control_pb2.COMPLETE, bad)]
    call(recorder, f"{CONTROL}/UpdateBuildHistory", control_pb2.UpdateBuildHistoryRequest(Ref=good, Pinned=True))
    call(recorder, f"{CONTROL}/UpdateBuildHistory", control_pb2.UpdateBuildHistoryRequest(Ref=good, Finalize=True))
    recorder.kill_daemon()
    record = call(recorder, f"{CONTROL}/ListenBuildHistory", control_pb2.BuildHistoryRequest(EarlyExit=True, Ref=good))[0].record
    assert record.pinned
    assert [one.Type for one in record.Exporters] in (["image"], ["moby"], [])
    size = call(recorder, "containerd.services.content.v1.Content/Info", content_pb2.InfoRequest(digest=record.logs.digest))[0].info.size
    assert size == record.logs.size > 0
    assert history(recorder, "rm", bad) == f"{bad}\n"
    assert [one["ref"] for one in listed(recorder)] == [good]
    assert "no build zzz is recorded" in history(recorder, "rm", "zzz", code=1)
    assert "name the builds to remove" in history(recorder, "rm", code=1)
    history(recorder, "rm", "--all")
    until(lambda: not os.listdir(recorder.root / "data/builder/history"), "nothing is left on disk")


def test_a_build_that_is_cancelled_is_recorded_so(recorder: EngineUnderTest, docker: Run, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN echo begun; sleep 1000\n")
    environment = {**recorder.environment, "DOCKER_CONFIG": str(tmp_path / ".docker"), "BUILDKIT_PROGRESS": "plain"}
    build = subprocess.Popen(["docker", "buildx", "build", "."], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        assert build.stderr is not None
        for line in build.stderr:
            if re.search(r"\d begun$", line.strip()):
                break
        row = listed(recorder)[0]
        assert row["status"] == "Running"
        build.send_signal(signal.SIGINT)
        build.wait(30)
    finally:
        build.kill()
        build.wait()
        if build.stderr is not None:
            build.stderr.close()
    until(lambda: listed(recorder)[0]["status"] == "Canceled", "it is told to be cancelled", 30)
    assert "begun" in history(recorder, "logs", row["ref"])


def test_records_are_bounded(docker: Run, recorder: EngineUnderTest, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nARG N\nRUN head -c 300000 /dev/urandom | od -x; echo $N\n")
    configuration = recorder.root / "daemon.json"
    try:
        configuration.write_text(json.dumps({"builder": {"history": {"maxEntries": 2}}}))
        os.kill(recorder.pid, signal.SIGHUP)
        until(lambda: len(listed(recorder)) <= 2, "the daemon keeps two records")
        for number in range(3):
            docker("buildx", "build", "--build-arg", f"N={number}", ".")
        assert len(listed(recorder)) == 2
        assert "ARG" not in history(recorder, "logs", "^0")
        # Each has more than half a megabyte of output.
        configuration.write_text(json.dumps({"builder": {"history": {"maxSize": "1MB"}}}))
        os.kill(recorder.pid, signal.SIGHUP)
        until(lambda: len(listed(recorder)) == 1, "one record fits")
        configuration.write_text(json.dumps({"builder": {"history": {"maxAge": "1ms"}}}))
        os.kill(recorder.pid, signal.SIGHUP)
        until(lambda: not listed(recorder), "all are too old")
    finally:
        configuration.write_text("{}")
        os.kill(recorder.pid, signal.SIGHUP)
