"""What `kill -9` of the engine's processes costs: nothing."""

import json
import os
import select
import signal
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from under_test import EngineUnderTest, running_engine, until, wait_gone

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]
_WRITER = 'i=0; while [ $i -lt 400 ]; do i=$((i+1)); echo "line $i"; usleep 10000; done; exit {code}'


def _lines(engine: EngineUnderTest, name: str) -> list[str]:
    return engine.docker("logs", name).splitlines()


def _assert_whole(engine: EngineUnderTest, names: dict[str, int]) -> None:
    for name, code in names.items():
        assert engine.docker("wait", name) == str(code)
        assert _lines(engine, name) == [f"line {number}" for number in range(1, 401)], name


def _start_writers(engine: EngineUnderTest, count: int) -> dict[str, int]:
    names = {f"writer{number}": number % 5 for number in range(count)}
    for name, code in names.items():
        engine.docker("run", "-d", "--name", name, "busybox", "sh", "-c", _WRITER.format(code=code))
    return names


def _ask_list(engine: EngineUnderTest) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(20)
    client.connect(str(engine.socket))
    client.sendall(b"GET /containers/json HTTP/1.0\r\n\r\n")
    return client


def _told(client: socket.socket) -> list[dict[str, object]]:
    with client, client.makefile("rb") as answer:
        rows = json.loads(answer.read().partition(b"\r\n\r\n")[2])
    # It tells the time.
    return [{key: value for key, value in row.items() if key != "Status"} for row in rows]


def _keeper_pid(engine: EngineUnderTest) -> int:
    return int((engine.root / "exec" / "keeper.pid").read_text().split()[0])


def test_killing_the_daemon_costs_no_container_no_line_and_no_exit_code(own_engine: EngineUnderTest) -> None:
    own_engine.docker("run", "-d", "--name", "stays", "busybox", "sleep", "1000")
    names = _start_writers(own_engine, 20)
    own_engine.kill_daemon()
    assert own_engine.docker("exec", "stays", "echo", "here") == "here"
    _assert_whole(own_engine, names)


def test_killing_the_keeper_costs_no_container_no_line_and_no_exit_code(own_engine: EngineUnderTest) -> None:
    own_engine.docker("run", "-d", "--name", "stays", "busybox", "sleep", "1000")
    names = _start_writers(own_engine, 20)
    keeper = _keeper_pid(own_engine)
    ended = os.pidfd_open(keeper)
    os.kill(keeper, signal.SIGKILL)
    # On a busy machine a process dies some time after it was killed.
    assert select.select([ended], [], [], 20)[0]
    os.close(ended)
    assert own_engine.docker("exec", "stays", "echo", "here") == "here"
    _assert_whole(own_engine, names)


def test_containers_run_on_without_the_daemon_under_live_restore_and_the_keeper_ends_after_the_last(tmp_path: Path) -> None:
    for engine in running_engine("--live-restore"):
        script = "echo before; until [ -e /go/now ]; do usleep 20000; done; echo after; exit 3"
        engine.docker("run", "-d", "--name", "on", "-v", f"{tmp_path}:/go", "busybox", "sh", "-c", script)
        keeper, process = _keeper_pid(engine), int(engine.docker("inspect", "-f", "{{.State.Pid}}", "on"))
        engine.stop()
        os.kill(process, 0)
        engine.start()
        assert engine.docker("inspect", "-f", "{{.State.Pid}} {{.RestartCount}}", "on") == f"{process} 0"
        assert _keeper_pid(engine) == keeper
        engine.stop()
        (tmp_path / "now").touch()
        wait_gone(keeper)
        engine.start()
        assert engine.docker("wait", "on") == "3"
        assert _lines(engine, "on") == ["before", "after"]
        keeper = _keeper_pid(engine)
        engine.stop()
        wait_gone(keeper)
        engine.start()


@pytest.fixture
def live_restoring() -> Iterator[EngineUnderTest]:
    yield from running_engine("--live-restore")


def test_who_asks_while_the_engine_takes_over_waits_and_is_then_told_all(live_restoring: EngineUnderTest) -> None:
    engine = live_restoring
    names = {engine.docker("run", "-d", "--name", f"on{number}", "busybox", "sleep", "1000") for number in range(12)}
    before = _told(_ask_list(engine))
    keeper = _keeper_pid(engine)
    engine.stop()
    engine.log.write_bytes(b"")
    # It is asked what runs, and does not answer for now.
    os.kill(keeper, signal.SIGSTOP)
    try:
        engine.launch()
        assert engine.process is not None
        mapped = Path(f"/proc/{engine.process.pid}/maps")
        until(lambda: "state.db" in mapped.read_text(), "rows are read")
        client = _ask_list(engine)
        assert not select.select([client], [], [], 0.5)[0], "an answer before the engine knows what runs"
    finally:
        os.kill(keeper, signal.SIGCONT)
    told = _told(client)
    assert {row["Id"] for row in told} == names and told == before
    # It was asked for copies of what it holds before the second of these, and gives answers in order.
    for _ in range(2):
        assert engine.docker("exec", "on0", "echo", "here") == "here"
    os.kill(keeper, signal.SIGKILL)
    until(lambda: _keeper_pid(engine) != keeper, "another keeper")
    assert engine.docker("exec", "on11", "echo", "here") == "here"
    assert "lost while the keeper was away" not in engine.log.read_text()


def test_killing_both_leaves_containers_running_and_says_what_was_lost(own_engine: EngineUnderTest) -> None:
    own_engine.docker("run", "-d", "--name", "stays", "busybox", "sleep", "1000")
    pid = int(own_engine.docker("inspect", "-f", "{{.State.Pid}}", "stays"))
    assert own_engine.process is not None
    keeper = _keeper_pid(own_engine)
    os.kill(keeper, signal.SIGSTOP)
    os.kill(own_engine.pid, signal.SIGKILL)
    own_engine.process.wait()
    own_engine.process = None
    os.kill(keeper, signal.SIGKILL)
    os.kill(pid, 0)
    own_engine.start()
    assert own_engine.docker("inspect", "-f", "{{.State.Status}} {{.State.Pid}}", "stays") == f"running {pid}"
    assert own_engine.docker("exec", "stays", "echo", "here") == "here"
    own_engine.docker("stop", "-t", "1", "stays")


def test_after_a_restart_of_the_machine_policies_bring_containers_back(own_engine: EngineUnderTest) -> None:
    for policy in ("always", "unless-stopped", "no"):
        own_engine.docker("run", "-d", "--name", policy, "--restart", policy, "busybox", "sleep", "1000")
    own_engine.docker("run", "-d", "--name", "stopped", "--restart", "unless-stopped", "busybox", "sleep", "1000")
    own_engine.docker("stop", "-t", "0", "stopped")
    own_engine.lose_machine()
    own_engine.start()

    def statuses() -> dict[str, str]:
        rows = own_engine.docker("ps", "-a", "--format", "{{json .}}").splitlines()
        return {row["Names"]: row["State"] for row in map(json.loads, rows)}

    wanted = {"always": "running", "unless-stopped": "running", "no": "exited", "stopped": "exited"}
    until(lambda: statuses() == wanted, f"{wanted}, not {statuses()}")


def test_folders_of_volumes_whose_removal_or_making_was_cut_short_go_at_the_next_start(own_engine):
    engine = own_engine
    engine.docker("volume", "create", "kept")
    engine.docker("run", "--rm", "-v", "kept:/v", "busybox", "touch", "/v/file")
    engine.stop()
    folder = engine.root / "data" / "volumes"
    for name in ("halfmade", "removed", "foreign"):
        (folder / name / "_data").mkdir(parents=True)
    (folder / "removed/_data/file").touch()
    (folder / "foreign/_data/file").touch()
    with sqlite3.connect(engine.root / "data" / "state.db") as database:
        for name in ("removed", "kept"):
            database.execute("INSERT INTO engine VALUES (?, '{}')", (f"removing volume {name}",))
    database.close()
    engine.start()
    # A folder with data of which nothing is known is somebody's.
    assert sorted(path.name for path in folder.iterdir()) == ["foreign", "kept"]
    assert (folder / "kept/_data/file").exists()
    engine.docker("volume", "rm", "kept")
