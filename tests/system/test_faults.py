"""What goes wrong around an engine: clocks that jump, processes that no signal reaches, fork bombs, want of memory."""

import contextlib
import http.client
import json
import os
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest

from slow_disk import SilentDisk
from under_test import EngineUnderTest, needs_root, running_engine, until

pytestmark = pytest.mark.system
DAY_S = 86400
FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"


class Asker:
    """Asks the engine for its list again and again; `slowest_s` is the time that 99 of 100 answers stay below."""

    def __init__(self, engine):
        self.times = []
        self._engine, self._ended = engine, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        while not self._ended.is_set():
            began = time.perf_counter()
            connection = http.client.HTTPConnection("localhost", timeout=30)
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.connect(str(self._engine.socket))
            connection.request("GET", "/containers/json?all=1")
            assert connection.getresponse().read()
            connection.close()
            self.times.append(time.perf_counter() - began)
            self._ended.wait(0.005)

    @property
    def slowest_s(self):
        return statistics.quantiles(self.times, n=100)[98]

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._ended.set()
        self._thread.join()


@contextlib.contextmanager
def stays_responsive(engine):
    """Hold that 99 of 100 answers come within 100 ms, or on a machine that is busy anyway not much slower than before."""
    with Asker(engine) as before:
        until(lambda: len(before.times) >= 150, "the engine has answered in peace")
    with Asker(engine) as during:
        yield during
        until(lambda: len(during.times) >= 150, "the engine has answered")
    assert during.slowest_s < max(0.1, 5 * before.slowest_s), (during.slowest_s, before.slowest_s)


def state(engine, name, what="Status"):
    return engine.docker("inspect", "-f", f"{{{{.State.{what}}}}}", name)


def test_a_fork_bomb_ends_at_its_limit_and_only_its_container_suffers(engine):
    engine.docker("run", "-d", "--name", "calm", "busybox", "sleep", "1000")
    with stays_responsive(engine):
        engine.docker("run", "-d", "--name", "bomb", "-i", "--pids-limit", "60", "busybox", "sh", "-c",
                      "sh -c 'while :; do sleep 1000 & done'; while :; do read x; done")  # fmt: skip
        pids = "{{.PIDs}}"
        until(lambda: int(engine.docker("stats", "--no-stream", "--format", pids, "bomb")) >= 50, "the limit is reached")
        assert state(engine, "bomb") == "running"
        assert int(engine.docker("stats", "--no-stream", "--format", pids, "bomb")) <= 60
        assert engine.docker("exec", "calm", "echo", "fine") == "fine"
        engine.docker("rm", "-f", "bomb")
    engine.docker("rm", "-f", "calm")


def test_want_of_memory_ends_the_one_container_and_is_told(engine):
    engine.docker("run", "-d", "--name", "modest", "busybox", "sleep", "1000")
    with stays_responsive(engine):
        began = time.time()
        for number in range(3):
            result = engine.docker_result("run", "--name", f"greedy{number}", "-m", "16m", "busybox", "sh", "-c",
                                          "x=$(yes | head -c 200000000)")  # fmt: skip
            assert result.returncode == 137
            assert state(engine, f"greedy{number}", "OOMKilled") == "true"
    told = engine.docker("events", "--since", str(began), "--until", str(time.time() + 1), "--filter", "event=oom", "--format", "{{.Actor.Attributes.name}}")
    assert {"greedy0", "greedy1", "greedy2"} <= set(told.split())
    assert state(engine, "modest") == "running"
    engine.docker("rm", "-f", "modest", "greedy0", "greedy1", "greedy2")


def test_hundreds_of_health_checks_leave_the_engine_responsive_and_every_state_right(engine):
    count, checks = 20, 15
    words = ["--health-interval", "200ms", "--health-retries", "1", "busybox", "sh", "-c", "sleep 1000"]
    for number in range(count):
        command = "true" if number % 2 else "test ! -e /ill"
        engine.docker("run", "-d", "--name", f"checked{number}", "--health-cmd", f"echo x >> /n; {command}", *words)
    with stays_responsive(engine):
        until(lambda: all(int(engine.docker("exec", f"checked{n}", "wc", "-l", "/n").split()[0]) >= checks
                          for n in range(count)), "all were checked often", 60)  # fmt: skip
        engine.docker("exec", "checked0", "touch", "/ill")
        until(lambda: state(engine, "checked0", "Health.Status") == "unhealthy", "the failure is seen")
    found = {n: state(engine, f"checked{n}", "Health.Status") for n in range(count)}
    assert found == {n: "healthy" if n else "unhealthy" for n in range(count)}
    engine.docker("rm", "-f", *[f"checked{n}" for n in range(count)])


@pytest.fixture
def silent_disk(tmp_path):
    needs_root()
    place = tmp_path / "disk"
    place.mkdir()
    try:
        disk = SilentDisk(place)
    except OSError as error:
        pytest.skip(f"file systems in user space cannot be mounted here: {error}")
    yield disk
    disk.end()


def sleeps_deeply(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "D"


def test_a_process_that_no_signal_reaches_is_told_and_removed_once_it_can_be(own_engine, silent_disk):
    engine = own_engine
    engine.docker("run", "-d", "--name", "deep", "-v", f"{silent_disk.place}:/m", "busybox", "sh", "-c",
                  "until test -e /go; do usleep 10000; done; exec ls /m/file")  # fmt: skip
    pid = int(state(engine, "deep", "Pid"))
    silent_disk.silent.set()
    engine.docker("exec", "deep", "touch", "/go")
    assert silent_disk.asked.wait(20)
    with stays_responsive(engine):
        refused = engine.docker_result("rm", "-f", "deep")
        assert refused.returncode == 1
        assert "tried to kill container, but did not receive an exit event" in refused.stderr
        assert state(engine, "deep") == "running" and sleeps_deeply(pid)
        assert engine.docker("run", "--rm", "busybox", "echo", "others") == "others"
        # A new container on that disk waits for it, and nobody else does.
        waiting = subprocess.Popen(["docker", "run", "--rm", "--name", "waits", "-v", f"{silent_disk.place}/sub:/m", "busybox", "true"],
                                   env=engine.environment, stderr=subprocess.DEVNULL)  # fmt: skip
        assert engine.docker("run", "--rm", "busybox", "echo", "others") == "others"
    silent_disk.end()
    waiting.wait(30)
    until(lambda: engine.docker_result("rm", "-f", "deep").returncode == 0, "it is removed")
    until(lambda: not engine.docker("ps", "-aq"), "nothing is left")


@pytest.fixture
def moved_clock(tmp_path):
    """Give an engine whose clock jumps when the file beside it says so."""
    if not os.path.exists(FAKETIME):
        pytest.skip("libfaketime is not installed")
    needs_root()
    offset = tmp_path / "offset"
    offset.write_text("+0")
    for engine in running_engine(variables={
        "LD_PRELOAD": FAKETIME, "FAKETIME_TIMESTAMP_FILE": str(offset), "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }):  # fmt: skip
        yield engine, offset


def daemon_time(engine):
    told = engine.docker("info", "-f", "{{.SystemTime}}")
    return time.mktime(time.strptime(told[:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone


@pytest.mark.parametrize("jump", ["+1d", "-1d"])
def test_a_clock_that_jumps_by_a_day_ends_no_grace_no_limit_and_no_interval(moved_clock, jump):
    engine, offset = moved_clock
    checked = ["--health-cmd", "echo x >> /n; test -e /ready", "--health-interval", "100ms", "--health-retries", "1"]
    engine.docker("run", "-d", "--name", "young", *checked, "--health-start-period", "60s", "--health-start-interval", "100ms",
                  "busybox", "sleep", "1000")  # fmt: skip
    engine.docker("run", "-d", "--name", "old", *checked, "--health-start-period", "200ms", "busybox", "sleep", "1000")
    engine.barque("run", "-d", "--name", "long", "--ttl", "1h", "busybox", "sleep", "1000")
    engine.barque("run", "-d", "--name", "short", "--ttl", "4s", "--stop-timeout", "0", "busybox", "sleep", "1000")
    engine.docker("run", "-d", "--name", "again", "--restart", "always", "busybox", "sh", "-c", "sleep 0.3; echo line; exit 1")
    before = daemon_time(engine)
    offset.write_text(jump)
    passed = daemon_time(engine) - before
    assert abs(abs(passed) - DAY_S) < 600, "the daemon's clock has jumped"
    checks = int(engine.docker("exec", "young", "wc", "-l", "/n").split()[0])
    until(lambda: int(engine.docker("exec", "young", "wc", "-l", "/n").split()[0]) >= checks + 5, "checks go on")
    assert state(engine, "young", "Health.Status") == "starting"
    until(lambda: state(engine, "old", "Health.Status") == "unhealthy", "grace ends in its time")
    restarts = int(engine.docker("inspect", "-f", "{{.RestartCount}}", "again"))
    until(lambda: int(engine.docker("inspect", "-f", "{{.RestartCount}}", "again")) > restarts, "restarts go on")
    engine.kill_daemon()
    assert state(engine, "young", "Health.Status") == "starting"
    until(lambda: state(engine, "short") == "exited", "its time is over")
    assert state(engine, "long") == "running"
    shown = engine.docker("ps", "--filter", "name=long", "--format", "{{.Status}}")
    assert shown == ("Up 24 hours" if jump == "+1d" else "Up Less than a second")
    said = engine.docker("logs", "again").splitlines()
    assert set(said) == {"line"} and len(said) >= restarts
    engine.docker("exec", "young", "touch", "/ready")
    until(lambda: state(engine, "young", "Health.Status") == "healthy", "it is seen to be ready")
    assert json.loads(engine.docker("inspect", "-f", "{{json .State.Health.FailingStreak}}", "young")) == 0


@pytest.fixture
def few_inodes():
    needs_root()
    folder = Path(tempfile.mkdtemp(prefix="bqinodes", dir="/var/tmp"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m,nr_inodes=700,mode=755", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False)
    folder.rmdir()


def test_a_disk_without_inodes_is_told_and_the_engine_goes_on_when_there_are_some(few_inodes):
    engine = EngineUnderTest(few_inodes)
    engine.start()
    filler = few_inodes / "filler"
    filler.mkdir()
    try:
        engine.load_busybox()
        engine.docker("run", "-d", "--name", "running", "busybox", "sh", "-c", "while :; do echo line; usleep 20000; done")
        with contextlib.suppress(OSError):
            for number in range(1000):
                (filler / str(number)).touch()
        with stays_responsive(engine):
            for words in (["create", "--name", "none", "busybox"], ["volume", "create", "none"], ["commit", "running", "none"]):
                result = engine.docker_result(*words)
                assert result.returncode == 1 and "no space left on device" in result.stderr.lower(), (words, result)
            assert state(engine, "running") == "running"
            refused = engine.docker_result("exec", "running", "true")
            assert refused.returncode == 126 and str(few_inodes) not in refused.stdout + refused.stderr
            assert "no space left on device" in refused.stdout + refused.stderr
        subprocess.run(["rm", "-r", str(filler)], check=True)
        assert engine.docker("run", "--rm", "busybox", "echo", "again") == "again"
        engine.docker("volume", "create", "none")
        seen = len(engine.docker("logs", "running").splitlines())
        until(lambda: len(engine.docker("logs", "running").splitlines()) > seen, "the log goes on")
        engine.docker("rm", "-f", "running")
    finally:
        engine.stop()
