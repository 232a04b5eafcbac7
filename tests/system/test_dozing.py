"""A daemon without anything to do gives its memory back, and nobody notices but by looking at its memory."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

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
