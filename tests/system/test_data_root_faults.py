"""A data root that fills up or turns read-only under a running daemon: told, nothing half made, and it goes on after."""

import json
import os
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from under_test import EngineUnderTest, needs_root, traces, until

pytestmark = pytest.mark.system
WRITES_LINES = "while :; do echo line; usleep 20000; done"


@pytest.fixture
def small_disk() -> Iterator[Path]:
    needs_root()
    folder = Path(tempfile.mkdtemp(prefix="bqsmall", dir="/var/tmp"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=755", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False)
    folder.rmdir()


def fill(folder: Path) -> Path:
    """Take all the room there is."""
    filler = folder / "filler"
    # Unbuffered: what a buffer could not write would be tried again, and refused again, on closing.
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 16))
        except OSError:
            pass
    return filler


def test_a_full_disk_is_told_and_the_engine_goes_on_when_there_is_room_again(small_disk: Path) -> None:
    engine = EngineUnderTest(small_disk)
    engine.start()
    try:
        engine.load_busybox()
        engine.docker("run", "-d", "--name", "running", "busybox", "sh", "-c", "while :; do echo line; usleep 20000; done")
        before = traces(engine)
        filler = fill(small_disk)
        created = engine.docker_result("create", "--name", "none", "busybox")
        committed = engine.docker_result("commit", "running", "none")
        loaded = engine.docker_result("import", "/bin/busybox")
        pushed = engine.docker_result("cp", "/bin/busybox", "running:/copy")
        for result in (committed, pushed):
            assert result.returncode != 0
        for result in (created, committed, loaded, pushed):
            assert result.returncode == 0 or result.stderr.strip()
            assert str(small_disk) not in result.stderr
        assert "no space left on device" in committed.stderr.lower()
        assert engine.docker("inspect", "-f", "{{.State.Status}}", "running") == "running"
        filler.unlink()
        engine.docker_result("rm", "none")
        assert engine.docker("run", "--rm", "busybox", "echo", "again") == "again"
        engine.docker("logs", "--tail", "3", "running")
        now = traces(engine)
        assert now["folders"] == before["folders"] and now["layers"] == before["layers"]
        engine.docker("rm", "-f", "running")
    finally:
        engine.stop()


def saved_state(engine: EngineUnderTest, identifier: str) -> dict[str, object]:
    """Return what is on disk of a container's state."""
    with sqlite3.connect(f"file:{engine.root}/data/state.db?mode=ro", uri=True) as database:
        row = database.execute("SELECT data FROM container WHERE key = ?", (identifier,)).fetchone()
    state: dict[str, object] = json.loads(row[0])["state"]
    return state


def test_what_a_full_disk_kept_from_the_state_is_written_when_there_is_room_again(small_disk: Path) -> None:
    engine = EngineUnderTest(small_disk)
    engine.start()
    try:
        engine.load_busybox()
        ended = engine.docker("run", "-d", "--name", "ended", "busybox", "sleep", "1000")
        gone = engine.docker("create", "--name", "gone", "busybox")
        filler = fill(small_disk)
        for number in range(3):
            # The log of what is committed has to grow at the latest with the second row.
            result = engine.docker_result("volume", "create", f"full-{number}")
            assert result.returncode == 0 or "full" in result.stderr.lower() or "no space" in result.stderr.lower()
        assert result.returncode != 0
        made = engine.docker("volume", "ls", "-q").split()
        assert "full-2" not in made
        engine.docker("kill", "ended")
        engine.docker("rm", "gone")
        filler.unlink()
        until(lambda: saved_state(engine, ended)["status"] == "exited", "the state is written")
        with sqlite3.connect(f"file:{engine.root}/data/state.db?mode=ro", uri=True) as database:
            assert database.execute("SELECT key FROM container WHERE key = ?", (gone,)).fetchone() is None
            assert {row[0] for row in database.execute("SELECT key FROM volume")} == set(made)
        engine.docker("rm", "ended")
    finally:
        engine.stop()


@pytest.fixture
def freezable(own_engine: EngineUnderTest) -> Iterator[EngineUnderTest]:
    yield own_engine
    while os.path.ismount(own_engine.root / "data"):
        subprocess.run(["umount", "-l", str(own_engine.root / "data")], check=True)


def test_a_data_root_that_turns_read_only_is_told_and_the_engine_goes_on_when_it_is_writable(
    freezable: EngineUnderTest,
) -> None:
    engine, data = freezable, str(freezable.root / "data")
    engine.docker("run", "-d", "--name", "running", "busybox", "sh", "-c", WRITES_LINES)
    engine.docker("create", "--name", "waiting", "busybox", "true")
    engine.docker("volume", "create", "old")
    before, daemon = traces(engine), engine.pid
    subprocess.run(["mount", "--bind", data, data], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", data], check=True)
    for command in (
        ("create", "--name", "none", "busybox"),
        ("run", "--name", "none", "busybox", "true"),
        ("start", "waiting"),
        ("commit", "running", "none"),
        ("import", "/bin/busybox", "none"),
        ("volume", "create", "none"),
    ):
        result = engine.docker_result(*command)
        assert result.returncode != 0, command
        assert "read-only file system" in result.stderr.lower(), (command, result.stderr)
        assert str(engine.root) not in result.stderr, (command, result.stderr)
    removed = engine.docker_result("volume", "rm", "old")
    assert removed.returncode != 0 and "read-only" in removed.stderr.lower(), removed
    assert engine.pid == daemon
    assert engine.docker("exec", "running", "echo", "alive") == "alive"
    assert engine.docker("inspect", "-f", "{{.State.Status}}", "waiting") == "created"
    assert "line" in engine.docker("logs", "--tail", "2", "running")
    assert sorted(engine.docker("ps", "-a", "--format", "{{.Names}}").split()) == ["running", "waiting"]
    assert engine.docker("volume", "ls", "-q").split() == ["old"]
    assert engine.docker("images", "-q", "none") == ""
    subprocess.run(["umount", data], check=True)
    until(lambda: traces(engine) == before, f"nothing is left of what failed: {traces(engine)} {before}")
    engine.docker("start", "-a", "waiting")
    assert engine.docker("run", "--rm", "busybox", "echo", "again") == "again"
    engine.docker("volume", "rm", "old")
    engine.docker("rm", "-f", "running", "waiting")
    assert engine.pid == daemon
