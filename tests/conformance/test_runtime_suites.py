"""Other projects' tests of OCI runtimes, where a checkout of theirs is named; docs/conformance.md says what they count.

BARQUE_CRUN_CHECKOUT names a clone of containers/crun, BARQUE_RUNTIME_TOOLS_CHECKOUT one of
opencontainers/runtime-tools.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.conformance, pytest.mark.slow]

TOOL = Path(__file__).parents[2] / "tools/conformance"
# Those that no runtime passes, here or anywhere, and those that ask for crun's own name or files.
NAMED_FOR_CRUN = {
    "commands/version-command", "delete/test_help_delete", "exec/exec-help", "start/help", "start/start",
    "oci_features/crun-features",
}  # fmt: skip
BROKEN_IN_CRUN = {
    "terminal/terminal-allocation", "terminal/console-socket", "terminal/terminal-detach", "terminal/terminal-exec",
    "terminal/terminal-exec-no-tty", "tty/test-detach-tty",
}  # fmt: skip
DECIDED_OTHERWISE = {"exec/exec_add_no_new_privileges"}
# What the machine may lack: controllers, a kind of device, a budget for realtime, its first process's network.
NEEDS_MORE = {
    "cgroup_setup/cgroup-hugetlb", "devices/net-devices", "exec/exec-root-netns-with-userns",
    "scheduler/scheduler-fifo", "scheduler/scheduler-rr", "scheduler/scheduler-flags",
}  # fmt: skip
TOOLS_AGAINST_PRACTICE = {"delete", "poststart_fail", "prestart", "hooks_stdin"}
TOOLS_BROKEN = {
    "delete_resources", "hooks", "linux_cgroups_pids", "linux_cgroups_relative_pids", "misc_props", "pidfile",
    "process_rlimits", "start",
}  # fmt: skip
TOOLS_NEED_MORE = {
    "linux_cgroups_blkio", "linux_cgroups_relative_blkio", "linux_cgroups_hugetlb", "linux_cgroups_relative_hugetlb",
    "linux_cgroups_memory", "linux_cgroups_relative_memory", "linux_cgroups_network", "linux_cgroups_relative_network",
    "linux_process_apparmor_profile", "process_capabilities",
}  # fmt: skip


def failures(suite: str, variable: str, folder: Path) -> set[str]:
    """Run a suite; return what did not pass."""
    checkout = os.environ.get(variable)
    if not checkout:
        pytest.skip(f"{variable} names no checkout")
    if os.geteuid() != 0:
        pytest.skip("needs root: containers are made by real system calls")
    results = folder / "results"
    words = [sys.executable, str(TOOL), suite, checkout, "barque", "--json", str(results)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=1500, check=False)
    if done.returncode and "needs Go" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(results.read_text())["barque"]
    assert len(told) > 50
    return {name for name, verdict in told.items() if verdict == "fail"}


@pytest.mark.timeout(1600)
def test_cruns_own_tests_pass_but_for_known_ones(tmp_path: Path) -> None:
    if shutil.which("cc") is None:
        pytest.skip("a C compiler is not installed")
    known = NAMED_FOR_CRUN | BROKEN_IN_CRUN | DECIDED_OTHERWISE | NEEDS_MORE
    assert failures("crun", "BARQUE_CRUN_CHECKOUT", tmp_path) - known == set()


@pytest.mark.timeout(1600)
def test_the_validation_programs_pass_but_for_known_ones(tmp_path: Path) -> None:
    known = TOOLS_AGAINST_PRACTICE | TOOLS_BROKEN | TOOLS_NEED_MORE
    assert failures("runtime-tools", "BARQUE_RUNTIME_TOOLS_CHECKOUT", tmp_path) - known == set()
