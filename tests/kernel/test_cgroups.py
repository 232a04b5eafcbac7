"""Control groups on the real kernel: made, limited, joined, removed."""

import os
import signal
import uuid
from collections.abc import Iterator

import pytest

from barque.kernel import bpf_devices
from barque.runtime import cgroups
from barque.runtime.cgroups import v1, v2

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes cgroups"),
]


@pytest.fixture
def cgroup() -> Iterator[cgroups.Cgroup]:
    made = cgroups.open_manager(f"/barque-test-{uuid.uuid4().hex}")
    yield made
    made.kill(signal.SIGKILL)
    assert made.delete()


def _child_inside(cgroup: cgroups.Cgroup) -> int:
    ready, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        cgroup.join_self()
        os.write(tell, b"1")
        signal.pause()
        os._exit(0)
    assert os.read(ready, 1) == b"1"
    os.close(ready)
    os.close(tell)
    return pid


def test_a_process_joins_is_frozen_and_thawed_and_killed(cgroup: cgroups.Cgroup) -> None:
    cgroup.create({"pids": {"limit": 50}})
    pid = _child_inside(cgroup)
    assert cgroup.processes() == [pid]
    cgroup.freeze()
    assert cgroup.is_frozen()
    cgroup.thaw()
    assert not cgroup.is_frozen()
    assert not cgroup.delete()
    cgroup.kill(signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


@pytest.mark.skipif(not v1.hierarchies(), reason="this machine has no version 1 hierarchies")
def test_limits_are_what_the_kernels_files_say(cgroup: cgroups.Cgroup) -> None:
    mib = 1 << 20
    cgroup.create({
        "memory": {"limit": 64 * mib, "swap": 96 * mib, "reservation": 32 * mib},
        "cpu": {"shares": 512, "period": 50_000, "quota": 25_000, "cpus": "0", "mems": "0"},
        "pids": {"limit": 33},
    })  # fmt: skip
    points = v1.hierarchies()

    def value(controller: str, key: str) -> str:
        with open(f"{points[controller]}{cgroup.path}/{key}") as file:
            return file.read().strip()

    assert value("memory", "memory.limit_in_bytes") == str(64 * mib)
    assert value("memory", "memory.memsw.limit_in_bytes") == str(96 * mib)
    assert value("memory", "memory.soft_limit_in_bytes") == str(32 * mib)
    assert value("cpu", "cpu.shares") == "512"
    assert (value("cpu", "cpu.cfs_period_us"), value("cpu", "cpu.cfs_quota_us")) == ("50000", "25000")
    assert value("cpuset", "cpuset.cpus") == "0"
    assert value("pids", "pids.max") == "33"
    cgroup.update({"memory": {"limit": 128 * mib, "swap": 128 * mib}})
    assert value("memory", "memory.memsw.limit_in_bytes") == str(128 * mib)
    cgroup.update({"memory": {"limit": 16 * mib, "swap": 16 * mib}})
    assert value("memory", "memory.limit_in_bytes") == str(16 * mib)


def test_a_refused_limit_names_its_key_and_leaves_nothing(cgroup: cgroups.Cgroup) -> None:
    with pytest.raises(cgroups.CgroupError, match=r"cpuset\.cpus"):
        cgroup.create({"cpu": {"cpus": "9999"}})
    assert not cgroup.exists()


@pytest.mark.skipif(not v1.hierarchies(), reason="this machine has no version 1 hierarchies")
def test_denied_devices_cannot_be_opened(cgroup: cgroups.Cgroup) -> None:
    rules = [{"allow": False, "access": "rwm"}, {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rw"}]
    cgroup.create({"devices": rules})
    _assert_only_null_opens(cgroup)


@pytest.mark.skipif(v2.mount_point() is None, reason="no version 2 tree is mounted")
def test_the_device_program_of_version_2_admits_what_its_rules_say() -> None:
    path = f"/barque-test-{uuid.uuid4().hex}"
    made = v2.CgroupV2(path, v2.mount_point() or "")
    rules = [{"allow": False, "access": "rwm"}, {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rw"}]
    made.create({"devices": rules})
    try:
        _assert_only_null_opens(made)
        made.update({"devices": [{"allow": True, "access": "rwm"}]})
        assert _open_inside(made, "/dev/zero") == 0
    finally:
        assert made.delete()


def _open_inside(cgroup: cgroups.Cgroup, device: str) -> int:
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            cgroup.join_self()
            os.open(device, os.O_RDONLY)
            code = 0
        except OSError as error:
            code = error.errno or 98
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _assert_only_null_opens(cgroup: cgroups.Cgroup) -> None:
    assert _open_inside(cgroup, "/dev/null") == 0
    assert _open_inside(cgroup, "/dev/zero") == 1


def test_a_program_ends_at_the_rule_that_names_everything() -> None:
    rules = [{"allow": True, "type": "c", "major": 1, "minor": 5}, {"allow": False}]
    everything = bpf_devices.compile_rules(rules)
    assert everything == bpf_devices.compile_rules(rules[1:])


@pytest.mark.parametrize("path", ["/", "", "/a/../b", "..", "/a\0b"])
def test_a_path_outside_the_hierarchy_is_refused(path: str) -> None:
    with pytest.raises(cgroups.CgroupError):
        cgroups.open_manager(path)


def test_shares_and_swap_convert_as_other_runtimes_do() -> None:
    assert [v2.weight_of_shares(shares) for shares in (2, 1024, 262144)] == [1, 39, 10000]
    assert v2.swap_alone(100, 150) == 50
    assert v2.swap_alone(100, -1) == "max"
    assert v2.swap_alone(None, 0) == 0
    with pytest.raises(cgroups.CgroupError):
        v2.swap_alone(None, 100)
