"""A soak of a minute: nothing is left over, no line is lost; `make soak` takes an hour, or as long as it is told."""

import os
import random
import subprocess
from pathlib import Path

import pytest

from soak import Soak, engine_to_soak, settled
from under_test import until

pytestmark = [pytest.mark.system, pytest.mark.slow]


@pytest.mark.timeout(400)
def test_nothing_is_left_over_after_a_minute_in_which_containers_came_and_went_at_random():
    seed = random.randrange(1 << 30)
    for engine in engine_to_soak():
        _soak(Soak(engine, seed))


def _soak(soak):
    print(f"seed {soak.seed}")
    soak.run(10, kill_every_s=1000)
    soak.clear()
    before, memory = soak.left(), soak.memory()
    soak.run(60, kill_every_s=6)
    soak.clear()
    assert not settled(soak, before), soak.counts
    assert not soak.problems, soak.counts
    assert soak.counts["make"] > 300, soak.counts
    assert soak.grown(memory) == [], soak.counts
    print(soak.counts, memory, soak.memory())


def test_a_control_group_that_a_killed_keeper_left_goes_with_its_container(engine):
    identity = engine.docker("run", "-d", "busybox", "sleep", "1000")
    pid = engine.docker("inspect", "-f", "{{.State.Pid}}", identity)
    paths = {line.rsplit(":", 1)[1] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines() if identity in line}
    engine.docker("kill", identity)
    folders = [Path(f"/sys/fs/cgroup/{kind}{path}") for path in paths for kind in ("pids", "memory", ".")]
    folders = [folder for folder in folders if folder.parent.is_dir() and folder.parent.name == "barque"]
    until(lambda: not any(folder.exists() for folder in folders), "the keeper has removed it")
    for folder in folders:
        folder.mkdir(exist_ok=True)
    left = subprocess.Popen(["sleep", "1000"])
    (folders[0] / "cgroup.procs").write_text(str(left.pid))
    try:
        engine.docker("rm", identity)
        assert left.wait(20) == -9
        until(lambda: not any(folder.exists() for folder in folders), "all of it is gone")
    finally:
        left.kill()
        for folder in folders:
            if folder.exists():
                os.rmdir(folder)
