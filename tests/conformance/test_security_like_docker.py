"""What a container may do and see, field by field, beside the same container of a Docker daemon on this machine.

What differs on purpose is written in docs/security.md; nothing else may.
"""

import re

import pytest

from confinement import PROBE, sections, without_library_signals

pytestmark = pytest.mark.conformance

_CGROUPS = "/sys/fs/cgroup"


def mounts(lines):
    """Return (point, root, options, type) in order, and the same of the control groups' own mounts as a set."""
    ordered, groups = [], set()
    for line in lines:
        before, _, after = line.partition(" - ")
        root, point, options = before.split()[3:6]
        kind, _, superblock = after.split()
        root = re.sub(r"^.*/containers/[0-9a-f]{64}/", "OWN/", re.sub(r"^/[^/]*/[0-9a-f]{64}$", "GROUP", root))
        if point.startswith(_CGROUPS + "/"):
            groups.add((point, root, options, kind, superblock))
        elif point == _CGROUPS and kind == "tmpfs":
            # Docker leaves the tmpfs on which the hierarchies are mounted writable, we do not.
            ordered.append((point, root, options.replace("rw", "ro", 1), kind))
        elif point != "/proc/interrupts":
            # The one that Docker masks since 28, which the daemon here may not be.
            ordered.append((point, root, options, kind))
    return ordered, groups


def groups(lines):
    """Return the control groups; the tree without controllers is not joined by us."""
    return [re.sub(r":/[^:]*/([0-9a-f]{64})$", ":GROUP", line) for line in lines if not line.startswith("0::")]


def compare(ours, theirs):
    mine, reference = (sections(re.sub(r"HOSTNAME=[0-9a-f]{12}\n", "HOSTNAME=ID\n", text)) for text in (ours, theirs))
    assert mine.keys() == reference.keys(), (ours, theirs)
    # Docker hands on what its caller ignores of the two signals that the C library keeps for itself; ours resets them.
    reference["status"] = [without_library_signals(line) for line in reference["status"]]
    assert mounts(mine.pop("mounts")) == mounts(reference.pop("mounts"))
    assert groups(mine.pop("groups")) == groups(reference.pop("groups"))
    for name, lines in reference.items():
        assert mine[name] == lines, name


RUNS = {
    "by default": [],
    "with other capabilities": ["--cap-add", "NET_ADMIN", "--cap-drop", "CHOWN"],
    "without capabilities": ["--cap-drop", "ALL"],
    "with one capability": ["--cap-drop", "ALL", "--cap-add", "net_raw"],
    "as a user by number": ["--user", "33:44", "--group-add", "7"],
    "as a user by name": ["--user", "www"],
    "as a user with a capability added": ["--user", "www", "--cap-add", "NET_ADMIN"],
    "with a read-only root": ["--read-only"],
    "without new privileges": ["--security-opt", "no-new-privileges"],
    "unconfined": ["--security-opt", "seccomp=unconfined", "--security-opt", "systempaths=unconfined"],
    "with a terminal": ["-t"],
    "with limits": ["--ulimit", "nofile=100:200", "--oom-score-adj", "500", "--shm-size", "1m"],
    "with the host's names": ["--uts", "host", "--pid", "host", "--ipc", "host"],
    "with a private view of control groups": ["--cgroupns", "private"],
    "with a tmpfs, a folder and a parameter": ["--tmpfs", "/t:size=1m", "-v", "/var/empty:/v:ro", "--sysctl", "net.core.somaxconn=99"],
    "without a network": ["--network", "none"],
    "privileged": ["--privileged"],
}  # fmt: skip


@pytest.mark.parametrize("flags", RUNS.values(), ids=RUNS.keys())
def test_a_container_is_confined_as_dockers(engine, dockerd, flags):
    named = [] if "--uts" in flags else ["--hostname", "same"]
    command = ["run", "--rm", *named, *flags, "busybox", "sh", "-c", PROBE]
    theirs = dockerd.docker_result(*command)
    if "unable to apply caps" in theirs.stderr:
        pytest.skip("Docker cannot give all capabilities on a machine that lacks one")
    if "--pid" in flags:
        # The first process is the machine's.
        command[-1] = PROBE.replace("/proc/1/", "/proc/self/")
        theirs = dockerd.docker_result(*command)
    assert theirs.returncode == 0, theirs.stderr
    compare(engine.docker(*command), theirs.stdout)


EXECS = {
    "by default": ([], []),
    "as another user": ([], ["--user", "www", "-e", "A=b", "-w", "/tmp"]),
    "in a container of a user": (["--user", "www", "--group-add", "9", "--cap-add", "NET_ADMIN"], []),
    "as root in a container of a user": (["--user", "www"], ["--user", "root"]),
    "in a confined container": (["--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--read-only"], []),
    "with limits": (["--ulimit", "nofile=100:200", "--oom-score-adj", "500"], []),
    "with a terminal": ([], ["-t"]),
    "privileged": ([], ["--privileged"]),
}


@pytest.mark.parametrize(("flags", "exec_flags"), EXECS.values(), ids=EXECS.keys())
def test_a_process_in_a_container_is_confined_as_dockers(engine, dockerd, flags, exec_flags):
    said = []
    for docker, result in ((dockerd.docker, dockerd.docker_result), (engine.docker, engine.docker_result)):
        docker("run", "-d", "--name", "inner", "--hostname", "same", *flags, "busybox", "sleep", "100")
        try:
            said.append(result("exec", *exec_flags, "inner", "sh", "-c", PROBE.replace("/proc/1/", "/proc/self/")))
        finally:
            docker("rm", "-f", "inner")
    if "unable to apply caps" in said[0].stdout + said[0].stderr:
        pytest.skip("Docker cannot give all capabilities on a machine that lacks one")
    assert [result.returncode for result in said] == [0, 0], said
    compare(said[1].stdout, said[0].stdout)
