"""Times the OCI runtime alone: one container from its bundle to its end, beside crun and runc where they are installed.

    python bench/runtime.py [--rounds 30]

All get the same bundle: busybox's `true` in six new namespaces, Docker's seccomp profile, a control group with limits.
`barque` is what the engine does for each container: a fork of a process that has all it needs in memory, as the keeper
is, with the filter compiled once. `barque runtime run` is the command for others, with a Python interpreter's start.
"""

import argparse
import io
import json
import os
import select
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from run import own_mounts

from barque.engine import spec as engine_spec
from barque.engine.seccomp import SeccompPrograms
from barque.runtime import cgroups
from barque.runtime.child import Failed, Pending, Running, progress
from barque.runtime.launch import LaunchRequest, launch
from under_test import busybox_tar

COMMAND = [sys.executable, "-m", "barque", "runtime"]
RESOURCES = {"memory": {"limit": 64 << 20}, "pids": {"limit": 100}, "cpu": {"shares": 512}}


def make_bundle(folder: Path, programs: SeccompPrograms) -> dict[str, object]:
    """Write a bundle for all runtimes; return its configuration."""
    with tarfile.open(fileobj=io.BytesIO(busybox_tar())) as tar:
        tar.extractall(folder / "rootfs", filter="tar")
    subprocess.run([*COMMAND, "spec", "-b", str(folder)], check=True)
    config: dict[str, object] = json.loads((folder / "config.json").read_text())
    process, linux = config["process"], config["linux"]
    assert isinstance(process, dict) and isinstance(linux, dict)
    # Older runtimes refuse a later version.
    config["ociVersion"] = "1.0.2"
    process.update(terminal=False, args=["true"])
    process.pop("rlimits", None)
    linux["seccomp"] = programs.resolved(engine_spec.capabilities({}), "")
    linux["resources"] = {**linux.get("resources", {}), **RESOURCES}
    (folder / "config.json").write_text(json.dumps(config))
    return config


class Warm:
    """Our runtime as the keeper has it."""

    def __init__(self, folder: Path, config: dict[str, object], program: bytes | None) -> None:
        self._folder, self._config, self._program = folder, config, program
        self._null = os.open(os.devnull, os.O_RDWR)

    def run(self, name: str) -> None:
        """Run one container to its end."""
        group = cgroups.open_manager(f"/barque-bench/{name}")
        linux = self._config["linux"]
        assert isinstance(linux, dict)
        group.create(linux["resources"])
        child = launch(LaunchRequest(
            spec=self._config, bundle=str(self._folder), stdio=(self._null,) * 3, seccomp=self._program, cgroup=group,
            container_id=name,
        ))  # fmt: skip
        outcome: object = Pending()
        while isinstance(outcome, Pending):
            select.select([child.channel], [], [])
            outcome = progress(child)
        if isinstance(outcome, Failed):
            raise RuntimeError(outcome.message)
        assert isinstance(outcome, Running)
        _, status = os.waitpid(child.pid, 0)
        child.close()
        # The kernel tells nobody when a version 1 group whose last process ended may be removed.
        while not group.delete():
            time.sleep(0.0005)
        if status:
            raise RuntimeError(f"the container ended with {status}")


def command(words: list[str], folder: Path) -> Callable[[str], None]:
    """Return how a runtime's command runs one container to its end."""

    def run(name: str) -> None:
        subprocess.run([*words, "run", "-b", str(folder), name], check=True, stdin=subprocess.DEVNULL)

    return run


def main() -> None:
    """Time all runtimes in turn and print medians and their ratios to crun."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    own_mounts()
    folder = Path(tempfile.mkdtemp(prefix="bqruntime", dir="/var/tmp"))
    try:
        programs = SeccompPrograms("")
        config = make_bundle(folder, programs)
        warm = Warm(folder, config, programs.program(engine_spec.capabilities({}), ""))
        kinds: dict[str, Callable[[str], None]] = {"barque": warm.run, "barque runtime run": command(COMMAND, folder)}
        for name in ("crun", "runc"):
            if (path := shutil.which(name)) is not None:
                kinds[name] = command([path], folder)
        timing: dict[str, list[float]] = {name: [] for name in kinds}
        for number in range(options.rounds + 1):
            for name, run in kinds.items():
                begun = time.perf_counter()
                run(f"bench-{name.replace(' ', '-')}-{number}")
                # The first of each warms the caches.
                if number:
                    timing[name].append(time.perf_counter() - begun)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for parent in Path("/sys/fs/cgroup").glob("*/barque-bench"):
            parent.rmdir()
    crun = statistics.median(timing["crun"]) if "crun" in timing else None
    for name, values in timing.items():
        median = statistics.median(values)
        ratio = f"  {median / crun:7.3f} of crun" if crun else ""
        print(f"  {name:20} {median * 1000:10.1f} ms{ratio}")


if __name__ == "__main__":
    main()
