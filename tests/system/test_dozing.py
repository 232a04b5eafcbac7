"""A daemon without anything to do gives its memory back, and nobody notices but by looking at its memory."""

import contextlib
import http.client
import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from plugins import docker_in
from under_test import EngineUnderTest, running_engine, until, wait_gone

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]
_IDLE_S = 1


@pytest.fixture
def dozer() -> Iterator[EngineUnderTest]:
    yield from running_engine("--idle-timeout", str(_IDLE_S))


def _command_line(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")


def _dozes(engine: EngineUnderTest) -> bool:
    return any(word.endswith("asleep.py") for word in _command_line(engine.pid))


def _until_it_dozes(engine: EngineUnderTest) -> None:
    until(lambda: _dozes(engine), "the daemon dozes", 30)


def _private_kb(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def _keeper_pid(engine: EngineUnderTest) -> int:
    return int((engine.root / "exec" / "keeper.pid").read_text().split()[0])


def _actions(engine: EngineUnderTest, identifier: str) -> list[str]:
    """Return what happened to a container; the command counts in whole seconds."""
    until_s = str(int(time.time()) + 1)
    filters = ("--filter", f"container={identifier}", "--filter", "type=container")
    return engine.docker("events", "--since", "10m", "--until", until_s, *filters, "--format", "{{.Action}}").splitlines()


def _request(engine: EngineUnderTest, method: str, path: str, body: object = None) -> dict[str, Any]:
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(engine.socket))
    connection.request(method, path, json.dumps(body), {"Content-Type": "application/json", "Connection": "close"})
    answer = connection.getresponse()
    data = answer.read()
    assert answer.status < 300, data
    connection.close()
    return json.loads(data) if data else {}


def _state(engine: EngineUnderTest, name: str) -> str:
    # Looking would wake it.
    return Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[0]


def test_an_idle_daemon_shrinks_and_is_the_same_one_when_a_client_comes(dozer: EngineUnderTest) -> None:
    dozer.docker("run", "-d", "--name", "runs", "busybox", "sh", "-c", "while :; do echo line; sleep 1; done")
    stopped = dozer.docker("create", "--restart", "always", "--name", "stopped", "busybox", "true")
    dozer.docker("run", "--name", "always", "-d", "--restart", "always", "busybox", "sleep", "1000")
    dozer.docker("stop", "-t", "0", "always")
    before = dozer.docker("inspect", "runs")
    pid, large = dozer.pid, _private_kb(dozer.pid)
    _until_it_dozes(dozer)
    assert dozer.pid == pid
    assert _private_kb(pid) < 4096 < large
    assert dozer.docker("inspect", "runs") == before
    assert dozer.pid == pid and not _dozes(dozer)
    # It was not the start of an engine: what was stopped stays so.
    assert dozer.docker("inspect", "-f", "{{.State.Status}}", "always") == "exited"
    assert dozer.docker("exec", "runs", "echo", "here") == "here"
    assert _actions(dozer, stopped) == ["create"]
    assert dozer.docker("run", "--rm", "busybox", "echo", "new") == "new"
    assert "line" in dozer.docker("logs", "--tail", "1", "runs")


def test_the_end_of_a_container_wakes_it(dozer: EngineUnderTest) -> None:
    dozer.docker("run", "-d", "--name", "once", "busybox", "sh", "-c", "sleep 4; exit 7")
    again = dozer.docker("run", "-d", "--name", "again", "--restart", "always", "busybox", "sleep", "1000")
    dozer.docker("run", "-d", "--rm", "--name", "gone", "busybox", "sleep", "1000")
    pids = {name: dozer.docker("inspect", "-f", "{{.State.Pid}}", name) for name in ("once", "again", "gone")}
    _until_it_dozes(dozer)
    os.kill(int(pids["again"]), signal.SIGKILL)
    os.kill(int(pids["gone"]), signal.SIGKILL)
    until(lambda: not _dozes(dozer), "the daemon wakes")
    assert dozer.docker("wait", "once") == "7"
    until(lambda: dozer.docker("inspect", "-f", "{{.State.Pid}}", "again") not in ("0", pids["again"]), "it runs again")
    until(lambda: dozer.docker_result("inspect", "gone").returncode, "it is removed")
    assert _actions(dozer, again)[-2:] == ["die", "start"]
    keeper = _keeper_pid(dozer)
    for name in dozer.docker("ps", "-aq").split():
        dozer.docker("rm", "-f", name)
    dozer.stop()
    # The keeper did not think that its daemon was lost: none came beside it, none comes after it.
    wait_gone(keeper, 20)
    assert "in use by another daemon" not in dozer.log.read_text()
    dozer.start()


def test_killing_keeper_or_sleeper_costs_nothing(dozer: EngineUnderTest) -> None:
    script = 'i=0; while [ ! -e /end ]; do i=$((i+1)); echo "line $i"; usleep 10000; done; exit 3'
    dozer.docker("run", "-d", "--name", "writer", "busybox", "sh", "-c", script)
    _until_it_dozes(dozer)
    keeper = _keeper_pid(dozer)
    os.kill(keeper, signal.SIGKILL)
    until(lambda: _keeper_pid(dozer) != keeper, "another keeper comes")
    assert dozer.docker("exec", "writer", "echo", "here") == "here"
    _until_it_dozes(dozer)
    asleep = dozer.pid
    os.kill(asleep, signal.SIGKILL)
    assert dozer.process is not None
    dozer.process.wait()
    dozer.process = None
    until(lambda: dozer.docker_result("version").returncode == 0, "the keeper starts it again", 60)
    dozer.adopt()
    # Its parent is now whoever takes orphans here, which may never reap it.
    _until_it_dozes(dozer)
    process = dozer.docker("inspect", "-f", "{{.State.Pid}}", "writer")
    Path(f"/proc/{process}/root/end").touch()
    assert dozer.docker("wait", "writer") == "3"
    lines = dozer.docker("logs", "writer").splitlines()
    assert lines == [f"line {number}" for number in range(1, len(lines) + 1)] and len(lines) > 100


def test_an_orphan_that_ends_while_daemon_and_keeper_are_others_tells_its_own_code(dozer: EngineUnderTest) -> None:
    dozer.docker("run", "-d", "--name", "orphan", "--restart", "on-failure:2", "busybox", "sh", "-c",
                 "trap 'exit 7' TERM; while :; do usleep 10000; done")  # fmt: skip
    process = int(dozer.docker("inspect", "-f", "{{.State.Pid}}", "orphan"))
    keeper = _keeper_pid(dozer)
    os.kill(keeper, signal.SIGKILL)
    until(lambda: _keeper_pid(dozer) != keeper, "another keeper comes")
    # The daemon is its parent now, and dozes when it ends.
    _until_it_dozes(dozer)
    os.kill(process, signal.SIGTERM)
    until(lambda: dozer.docker("inspect", "-f", "{{.RestartCount}}", "orphan") == "1", "it runs again")
    filters = ("--filter", "container=orphan", "--filter", "event=die", "--format", "{{.Actor.Attributes.exitCode}}")
    assert dozer.docker("events", "--since", "10m", "--until", str(int(time.time()) + 1), *filters) == "7"
    # Nothing is left of it.
    wait_gone(process)


def _look(engine: EngineUnderTest, names: list[str]) -> list[object]:
    """Return all that can be seen of an engine's objects, but for what changes by itself."""
    found: list[object] = [json.loads(engine.docker("inspect", name)) for name in names]
    info = json.loads(engine.docker("info", "--format", "{{json .}}"))
    for name in ("SystemTime", "NFd", "NGoroutines", "NEventsListener"):
        info.pop(name, None)
    return [*found, info, engine.docker("ps", "-a", "--no-trunc", "--format", "{{.ID}} {{.Names}} {{.Ports}} {{.State}}"),
            engine.docker("images", "-aq", "--no-trunc"), engine.docker("network", "ls", "--no-trunc"),
            engine.docker("volume", "ls")]  # fmt: skip


def test_all_that_can_be_seen_is_the_same_afterwards(dozer: EngineUnderTest) -> None:
    sleep = ("busybox", "sleep", "1000")
    dozer.docker("volume", "create", "kept")
    dozer.docker("network", "create", "--label", "a=b", "beside")
    dozer.docker("run", "-d", "--name", "plain", "-v", "kept:/kept", *sleep)
    dozer.docker("run", "-d", "--name", "paused", *sleep)
    dozer.docker("pause", "paused")
    dozer.docker("run", "-d", "--name", "checked", "--health-cmd", "echo fine", "--health-interval", "0.2s", *sleep)
    until(lambda: dozer.docker("inspect", "-f", "{{.State.Health.Status}}", "checked") == "healthy", "it is healthy")
    dozer.docker("stop", "-t", "0", "checked")
    dozer.docker_result("run", "--name", "fails", "busybox", "sh", "-c", "exit 9")
    dozer.docker("create", "--name", "made", "--network", "beside", *sleep)
    names = ["plain", "paused", "checked", "fails", "made", "kept", "beside", "busybox"]
    before = _look(dozer, names)
    _until_it_dozes(dozer)
    assert _look(dozer, names) == before
    dozer.docker("unpause", "paused")


def test_an_exec_that_has_ended_is_known_afterwards(dozer: EngineUnderTest) -> None:
    dozer.docker("run", "-d", "--name", "runs", "busybox", "sleep", "1000")
    made = _request(dozer, "POST", "/containers/runs/exec", {"Cmd": ["sh", "-c", "exit 4"]})["Id"]
    _request(dozer, "POST", f"/exec/{made}/start", {"Detach": True})
    until(lambda: not _request(dozer, "GET", f"/exec/{made}/json")["Running"], "it has ended")
    before = _request(dozer, "GET", f"/exec/{made}/json")
    _until_it_dozes(dozer)
    assert _request(dozer, "GET", f"/exec/{made}/json") == before
    assert before["ExitCode"] == 4


def test_a_stop_whose_client_has_gone_is_brought_to_its_end(dozer: EngineUnderTest) -> None:
    script = "trap '' TERM; while :; do usleep 50000; done"
    dozer.docker("run", "-d", "--name", "stubborn", "busybox", "sh", "-c", script)
    process = int(dozer.docker("inspect", "-f", "{{.State.Pid}}", "stubborn"))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(dozer.socket))
        client.sendall(b"POST /containers/stubborn/stop?t=5 HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: _actions(dozer, "stubborn")[-1] == "kill", "it is told")
    # It would sleep before the five seconds are over, if it did not wait for this.
    wait_gone(process, 30)
    assert dozer.docker("wait", "stubborn") == "137"


def test_builds_of_buildkit_s_clients_are_remembered(dozer: EngineUnderTest, tmp_path: Path) -> None:
    docker = docker_in(dozer, tmp_path)
    (tmp_path / "Dockerfile").write_text("FROM busybox\nCOPY f /f\nRUN cat /f\n")
    (tmp_path / "f").write_text("copied\n")
    docker("buildx", "build", "-t", "built", ".")
    _until_it_dozes(dozer)
    said = docker("buildx", "build", "-t", "built", ".").stderr
    assert said.count("CACHED") == 3
    assert len(dozer.barque("buildx", "history", "ls", "--format", "json").splitlines()) == 2
    _until_it_dozes(dozer)


def test_what_daemon_json_says_meanwhile_waits_for_the_next_start(dozer: EngineUnderTest) -> None:
    _until_it_dozes(dozer)
    (dozer.root / "daemon.json").write_text('{"labels": ["a=b"], "no such": ')
    try:
        assert dozer.docker("info", "--format", "{{.Labels}}") == "[]"
        (dozer.root / "daemon.json").write_text('{"labels": ["a=b"]}')
        _until_it_dozes(dozer)
        # A signal wakes it, too, and is obeyed.
        os.kill(dozer.pid, signal.SIGHUP)
        until(lambda: "configuration read again" in dozer.log.read_text(), "it reads its file")
        _until_it_dozes(dozer)
        assert dozer.docker("info", "--format", "{{.Labels}}") == "[a=b]"
    finally:
        (dozer.root / "daemon.json").unlink()


def test_what_needs_the_process_keeps_it_awake_and_signals_reach_it(dozer: EngineUnderTest) -> None:
    for flags in (["-p", "127.0.0.1::80"], ["--health-cmd", "true"], ["--ttl", "1h"]):
        # Our own command: the other does not know all of these.
        dozer.barque("run", "-d", "--name", "busy", *flags, "busybox", "sleep", "1000")
        with pytest.raises(AssertionError, match="not within"):
            until(lambda: _dozes(dozer), "it dozes", _IDLE_S * 2)
        dozer.barque("rm", "-f", "busy")
    dozer.docker("run", "-d", "--name", "runs", "--stop-signal", "KILL", "busybox", "sleep", "1000")
    process = int(dozer.docker("inspect", "-f", "{{.State.Pid}}", "runs"))
    _until_it_dozes(dozer)
    assert _state(dozer, str(process)) in "SR"
    dozer.stop()
    # A service manager's signal ends the engine as it does when it is awake: its containers end with it.
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
    assert not dozer.socket.exists()
    dozer.start()


def test_no_signal_is_lost_whenever_it_comes(dozer: EngineUnderTest) -> None:
    told, moments = "configuration read again", random.Random(os.environ.get("BARQUE_MOMENTS", "7"))
    for number in range(1, 7):
        # While it gets up, works, or dozes off, and once in a while when it sleeps soundly.
        if number % 2:
            _until_it_dozes(dozer)
            _request(dozer, "GET", "/version")
        time.sleep(moments.uniform(0, 0.4) + (_IDLE_S if number % 3 else 0))
        os.kill(dozer.pid, signal.SIGHUP)
        until(lambda number=number: dozer.log.read_text().count(told) >= number, f"signal {number} is obeyed", 60)  # type: ignore[misc]
        assert dozer.log.read_text().count(told) == number
    # What asks an awake daemon where its threads are must not end one that sleeps.
    _until_it_dozes(dozer)
    os.kill(dozer.pid, signal.SIGUSR1)
    until(lambda: "most recent call first" in dozer.log.read_text(), "it tells where it is")
    assert dozer.docker("version")


@pytest.mark.parametrize("delay_ms", [-100, 0, 100, 300])
def test_a_signal_at_any_moment_ends_all(delay_ms: int) -> None:
    # Around the moment at which it dozes off.
    root = Path(tempfile.mkdtemp(prefix="bq", dir="/var/tmp"))
    engine = EngineUnderTest(root, "--idle-timeout", str(_IDLE_S))
    try:
        engine.start()
        keeper = _keeper_pid(engine)
        time.sleep(_IDLE_S + delay_ms / 1000)
        engine.stop()
        # One that was left without a word would start a daemon.
        wait_gone(keeper, 20)
        assert not engine.socket.exists()
    finally:
        subprocess.run(["rm", "-rf", str(root)], check=False)


def _spoil_file(database: Path) -> None:
    database.write_bytes(b"no database" * 1000)


def _spoil_row(database: Path) -> None:
    with contextlib.closing(sqlite3.connect(database)) as rows, rows:
        rows.execute("INSERT INTO container VALUES ('nobody', '{}')")


@pytest.mark.parametrize("spoil", [_spoil_file, _spoil_row], ids=["before the keeper is found", "after it"])
def test_a_signal_ends_all_also_where_waking_fails(spoil: Callable[[Path], None]) -> None:
    root = Path(tempfile.mkdtemp(prefix="bq", dir="/var/tmp"))
    engine = EngineUnderTest(root, "--idle-timeout", str(_IDLE_S))
    try:
        engine.start()
        keeper = _keeper_pid(engine)
        _until_it_dozes(engine)
        spoil(root / "data" / "state.db")
        engine.stop()
        # One that was left without a word would start a daemon.
        wait_gone(keeper, 20)
    finally:
        subprocess.run(["rm", "-rf", str(root)], check=False)


def _tables() -> list[str]:
    nft = shutil.which("nft")
    if nft is None:
        pytest.skip("nft is not installed")
    return subprocess.run([nft, "list", "tables"], check=True, capture_output=True, text=True).stdout.splitlines()


def test_rules_that_somebody_deletes_are_made_anew_at_once(dozer: EngineUnderTest) -> None:
    dozer.docker("run", "-d", "--name", "runs", "busybox", "sleep", "1000")
    tables = _tables()
    ours = [table for table in tables if " barque" in table]
    assert ours
    _until_it_dozes(dozer)
    subprocess.run(["nft", "delete", *ours[0].split()], check=True)
    until(lambda: _tables() == tables, "the table is there again")
    _until_it_dozes(dozer)


def test_a_disk_that_was_filled_meanwhile_keeps_nobody_from_waking() -> None:
    root = Path(tempfile.mkdtemp(prefix="bqsmall", dir="/var/tmp"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=90m,mode=755", "tmpfs", str(root)], check=True)
    engine = EngineUnderTest(root, "--idle-timeout", str(_IDLE_S))
    try:
        engine.start()
        _until_it_dozes(engine)
        _fill(root / "filler")
        assert engine.docker("ps", "--format", "{{.Names}}") == ""
        (root / "filler").unlink()
        _fill(root / "filler", leave=8 << 20)
        # There is no room to wake with: it stays awake.
        with pytest.raises(AssertionError, match="not within"):
            until(lambda: _dozes(engine), "it dozes", _IDLE_S * 3)
        (root / "filler").unlink()
        _until_it_dozes(engine)
        assert engine.docker("version")
    finally:
        (root / "filler").unlink(missing_ok=True)
        engine.stop()
        subprocess.run(["umount", "-l", str(root)], check=False)
        root.rmdir()


def _fill(path: Path, leave: int = 0) -> None:
    free = os.statvfs(path.parent)
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - leave)
