"""The same bundle under our library, runc and crun: what the program sees must agree."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys

import pytest

pytestmark = pytest.mark.conformance

_spec = importlib.util.spec_from_file_location(
    "barque_launch_tests", os.path.join(os.path.dirname(__file__), "../kernel/test_launch.py")
)
assert _spec and _spec.loader
t = importlib.util.module_from_spec(_spec)
sys.modules["barque_launch_tests"] = t
_spec.loader.exec_module(t)
bundle = t.bundle

STATUS = ("Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs",
          "Seccomp", "SigIgn", "SigBlk", "Umask")  # fmt: skip

# crun refuses v1 hierarchies beside a v2 one that has controllers: it is not shown the latter.
HIDE = 'umount /sys/fs/cgroup/unified 2>/dev/null; exec "$@"'
BEFORE = {"crun": ["unshare", "-m", "sh", "-c", HIDE, "sh"]}


def theirs(runtime, folder, spec):
    if shutil.which(runtime) is None:
        pytest.skip(f"{runtime} is not installed")
    with open(f"{folder}/config.json", "w") as file:
        json.dump({**spec, "ociVersion": "1.0.2"}, file)
    name = f"barque-agree-{os.getpid()}"
    result = subprocess.run(
        [*BEFORE.get(runtime, []), runtime, "run", "--bundle", folder, name],
        capture_output=True, text=True, timeout=30, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result.stdout


def both(runtime, folder, *script, **fields):
    spec = t.config("sh", "-c", *script, **fields)
    _, code, ours = t.run(folder, spec)
    assert code == 0
    return ours, theirs(runtime, folder, spec)


@pytest.mark.parametrize("runtime", ["runc", "crun"])
def test_the_status_of_the_process_is_the_same(bundle, runtime):
    def fields(text):
        pairs = [line.split(":", 1) for line in text.splitlines() if ":" in line]
        found = {key: value.split() for key, value in pairs if key in STATUS}
        # The C library keeps 32 and 33 for itself; what runtimes leave of them differs by their language.
        found["SigIgn"] = [f"{int(found['SigIgn'][0], 16) & ~(0b11 << 31):x}"]
        return found

    user = {"uid": 33, "gid": 44, "additionalGids": [7, 8]}
    for chosen in ({"uid": 0, "gid": 0}, user):
        ours, other = both(runtime, bundle, "cat /proc/self/status", user=chosen)
        assert fields(ours) == fields(other)


@pytest.mark.parametrize("runtime", ["runc", "crun"])
def test_the_mounts_are_the_same(bundle, runtime):
    def table(text):
        found = {}
        for line in text.splitlines():
            before, _, after = line.partition(" - ")
            point, flags = before.split()[4:6]
            fstype = after.split()[0]
            if point != "/" and not point.startswith("/sys/fs/cgroup/"):
                found[point] = (fstype, flags)
        return found

    ours, other = both(runtime, bundle, "cat /proc/self/mountinfo")
    mine, reference = table(ours), table(other)
    # A masked file is the host's /dev/null here, and the container's with them.
    for tables in (mine, reference):
        tables.pop("/proc/keys", None)
    assert mine.keys() == reference.keys()
    for point, (fstype, flags) in reference.items():
        assert mine[point][0] == fstype
        # Read-only paths keep the flags of what they lie on, which old releases drop.
        missing = set(flags.split(",")) - set(mine[point][1].split(","))
        assert missing <= {"rw"}, point


@pytest.mark.parametrize("runtime", ["runc", "crun"])
def test_the_open_files_and_devices_are_the_same(bundle, runtime):
    ours, other = both(runtime, bundle, "ls /proc/self/fd; stat -c '%n %F %a %t:%T' /dev/*; tty || true")

    def lines(text):
        # Some runtimes make /dev/core only where /proc/kcore exists, others always.
        return [line for line in text.splitlines() if not line.startswith("/dev/core ")]

    assert lines(ours) == lines(other)


def test_the_cgroup_view_is_the_same(bundle):
    ours, other = both("runc", bundle, "ls /sys/fs/cgroup")
    assert set(ours.split()) == set(other.split())
