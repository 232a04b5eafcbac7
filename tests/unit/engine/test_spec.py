"""The OCI specification made of a request."""

import pytest

from barque.base.errors import InvalidInputError
from barque.engine import resources, spec
from barque.runtime.users import ExecUser


def surroundings(**changes):
    values = {
        "container_id": "c" * 64, "hostname": "cccccccccccc", "user": ExecUser(0, 0, (0,), "/root"),
        "etc_files": (("/data/hosts", "/etc/hosts"),), "points": (), "joined": {}, "network_path": "",
        "shm_source": "", "init_source": "", "cgroups_v2": False, "default_shm": 64 << 20,
    }  # fmt: skip
    return spec.Surroundings(**{**values, **changes})


def build(config=None, host=None, **changes):
    return spec.build(config or {}, host or {}, "sh", ["-c", "true"], surroundings(**changes))


def by_target(made):
    return {mount["destination"]: mount for mount in made["mounts"]}


def test_a_plain_container_has_dockers_fourteen_capabilities_and_nothing_inheritable():
    sets = build()["process"]["capabilities"]
    assert set(sets["bounding"]) == set(spec.DEFAULT_CAPABILITIES)
    assert len(sets["bounding"]) == 14
    assert sets["effective"] == sets["permitted"] == sets["bounding"]
    assert "inheritable" not in sets and "ambient" not in sets


def test_a_user_other_than_root_keeps_the_bounding_set_alone():
    sets = build(user=ExecUser(33, 33, (33,), "/"))["process"]["capabilities"]
    assert list(sets) == ["bounding"]


@pytest.mark.parametrize(
    ("add", "drop", "has", "lacks"),
    [
        (["net_admin"], [], "CAP_NET_ADMIN", "CAP_SYS_ADMIN"),
        ([], ["ALL"], None, "CAP_CHOWN"),
        (["CHOWN"], ["ALL"], "CAP_CHOWN", "CAP_KILL"),
        (["ALL"], ["SYS_ADMIN"], "CAP_SYS_PTRACE", "CAP_SYS_ADMIN"),
    ],
)
def test_capabilities_are_added_and_dropped_as_docker_does(add, drop, has, lacks):
    names = spec.capabilities({"CapAdd": add, "CapDrop": drop})
    assert has is None or has in names
    assert lacks not in names


def test_default_mounts_have_dockers_flags():
    mounts = by_target(build())
    assert mounts["/proc"]["options"] == ["nosuid", "noexec", "nodev"]
    assert "ro" in mounts["/sys"]["options"] and "ro" in mounts["/sys/fs/cgroup"]["options"]
    assert "size=67108864" in mounts["/dev/shm"]["options"]
    assert {"/dev", "/dev/pts", "/dev/mqueue", "/etc/hosts"} <= set(mounts)


def test_a_privileged_container_has_no_masked_paths_and_a_writable_sys():
    made = build(host={"Privileged": True})
    assert "maskedPaths" not in made["linux"] and "readonlyPaths" not in made["linux"]
    assert "rw" in by_target(made)["/sys"]["options"]
    assert resources.resources({"Privileged": True})["devices"] == [{"allow": True, "access": "rwm"}]
    assert spec.seccomp_choice({"Privileged": True}) == "unconfined"


def test_environment_starts_with_path_and_hostname_and_the_config_wins():
    env = spec.environment({"Env": ["A=1", "PATH=/x", "GONE"]}, "web", "/root", tty=True)
    assert env == ["PATH=/x", "HOSTNAME=web", "TERM=xterm", "A=1", "HOME=/root"]


def test_a_mount_inside_another_comes_after_it():
    points = tuple(
        {"Type": "bind", "Source": "/s", "Destination": d, "RW": True, "Propagation": "rprivate"}
        for d in ("/a/b/c", "/a", "/a/b")
    )
    targets = [m["destination"] for m in build(points=points)["mounts"]]
    assert targets.index("/a") < targets.index("/a/b") < targets.index("/a/b/c")


def test_a_volume_over_a_default_mount_replaces_it():
    point = {"Type": "bind", "Source": "/s", "Destination": "/dev/shm", "RW": False, "Propagation": ""}
    mounts = [m for m in build(points=(point,))["mounts"] if m["destination"] == "/dev/shm"]
    assert [m["type"] for m in mounts] == ["bind"]
    assert "ro" in mounts[0]["options"]


def test_namespaces_of_the_host_are_not_made():
    kinds = {n["type"] for n in build(host={"NetworkMode": "host", "PidMode": "host", "IpcMode": "host",
                                            "UTSMode": "host"})["linux"]["namespaces"]}  # fmt: skip
    assert kinds == {"mount", "cgroup"}


def test_namespaces_of_another_container_are_joined_by_its_pid():
    made = build(host={"PidMode": "container:x"}, joined={"pid": 42})
    assert {"type": "pid", "path": "/proc/42/ns/pid"} in made["linux"]["namespaces"]


def test_limits_become_oci_resources():
    found = resources.limits({"Memory": 8 << 20, "NanoCpus": 1_500_000_000, "PidsLimit": 5, "CpusetCpus": "0"})
    assert found == {
        "memory": {"limit": 8 << 20, "swap": 16 << 20},
        "cpu": {"cpus": "0", "period": 100_000, "quota": 150_000},
        "pids": {"limit": 5},
    }


def test_an_unlimited_ulimit_is_the_largest_number():
    (limit,) = resources.rlimits({"Ulimits": [{"Name": "core", "Soft": -1, "Hard": -1}]})
    assert limit["soft"] == limit["hard"] == (1 << 64) - 1


def test_a_soft_ulimit_above_the_hard_one_is_refused():
    with pytest.raises(InvalidInputError, match="soft limit must be less than"):
        resources.rlimits({"Ulimits": [{"Name": "nofile", "Soft": 2, "Hard": 1}]})


def test_a_missing_device_is_refused():
    with pytest.raises(InvalidInputError, match="no such file"):
        resources.devices_of({"Devices": [{"PathOnHost": "/dev/no-such-device"}]})


def test_tmpfs_options_take_the_place_of_their_opposites():
    mount = by_target(build(host={"Tmpfs": {"/t": "exec,size=1m"}}))["/t"]
    assert mount["options"] == ["nosuid", "nodev", "exec", "size=1m"]
