"""A container is never less confined than the same container of Podman on this machine."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from confinement import PROBE, sections, without_library_signals
from under_test import busybox_tar, needs_root

pytestmark = pytest.mark.conformance

# crun, and so Podman, refuses a version 2 tree beside version 1 hierarchies: it is unmounted for Podman alone.
_START = "if [ -e /sys/fs/cgroup/unified/cgroup.controllers ]; then umount /sys/fs/cgroup/unified; fi; exec \"$@\""
_CONF = '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
_NEEDLESS = {
    # Podman hides this one of its own accord; Docker does not, and nothing in it can be written.
    "/sys/dev/block",
}
# Docker lets programs be executed from /dev, and so do we.
_AS_DOCKER = {"/dev": {"noexec"}}
_RESTRICTIONS = {"ro", "nosuid", "nodev", "noexec"}
# What Podman has and we have not, or the other way round: files it is given, and its own ways.
_OWN_WAYS = ("/etc/", "/run", "/tmp", "/var/tmp", "/sys/fs/cgroup")
Podman = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def podman() -> Iterator[Podman]:
    needs_root()
    if shutil.which("podman") is None:
        pytest.skip("podman is not installed: nothing to compare with")
    root = Path(tempfile.mkdtemp(prefix="pd", dir="/var/tmp"))
    (root / "containers.conf").write_text(_CONF)

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        words = ["podman", "--root", f"{root}/storage", "--runroot", f"{root}/run", "--tmpdir", f"{root}/tmp", *arguments]
        return subprocess.run(
            ["unshare", "-m", "-n", "sh", "-c", _START, "sh", *words],
            env={**os.environ, "CONTAINERS_CONF": str(root / "containers.conf")}, capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    try:
        (root / "busybox.tar").write_bytes(busybox_tar())
        made = call("import", str(root / "busybox.tar"), "busybox:latest")
        if made.returncode:
            pytest.skip(f"podman does not run here: {made.stderr[-300:]}")
        yield call
    finally:
        call("rm", "-fa")
        subprocess.run(["rm", "-rf", str(root)], check=False)


def mounts(lines: list[str]) -> dict[str, set[str]]:
    """Return the mount options by mount point, without those that are each engine's own."""
    found = {line.split()[4]: set(line.split()[5].split(",")) for line in lines}
    return {point: options for point, options in found.items() if not point.startswith(_OWN_WAYS) and point != "/"}


RUNS = {
    "by default": [],
    "without capabilities": ["--cap-drop", "ALL"],
    "with one capability": ["--cap-drop", "ALL", "--cap-add", "net_raw"],
    "as a user by number": ["--user", "33:44"],
    "with a read-only root": ["--read-only"],
    "without new privileges": ["--security-opt", "no-new-privileges"],
    "unconfined": ["--security-opt", "seccomp=unconfined"],
    "with a score": ["--oom-score-adj", "500"],
    "privileged": ["--privileged"],
}  # fmt: skip


@pytest.mark.parametrize("flags", RUNS.values(), ids=RUNS.keys())
def test_a_container_is_confined_as_podmans_or_more(engine, podman, flags):
    common = ["run", "--rm", "--network", "none", "--hostname", "same", *flags]
    # Podman raises limits by default, which fails where CAP_SYS_RESOURCE is missing.
    limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]
    theirs = podman(*common, *limits, "busybox", "sh", "-c", PROBE)
    assert theirs.returncode == 0, theirs.stderr
    mine, reference = sections(engine.docker(*common, *limits, "busybox", "sh", "-c", PROBE)), sections(theirs.stdout)
    for name in ("descriptors", "umask", "score", "masked"):
        assert mine[name] == reference[name], name
    # As Docker, Podman hands on what its caller ignores of these signals; ours resets them.
    reference["status"] = [without_library_signals(line) for line in reference["status"]]
    status = [{line.split(":")[0]: line.split(":")[1].split() for line in one["status"]} for one in (mine, reference)]
    for field, value in status[1].items():
        if field.startswith("Cap"):
            assert int(status[0][field][0], 16) & ~int(value[0], 16) == 0, field
        elif field != "Groups":
            assert status[0][field] == value, field
    ours = mounts(mine["mounts"])
    hidden = {line.split()[0] for line in reference["masked"]}
    for point, options in mounts(reference["mounts"]).items():
        if point in _NEEDLESS:
            continue
        assert point in ours, point
        if point in hidden:
            # The null device or an empty folder, read-only or not.
            continue
        assert options & _RESTRICTIONS - _AS_DOCKER.get(point, set()) <= ours[point], (point, options, ours[point])
