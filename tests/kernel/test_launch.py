"""Containers started by the library: what the program finds inside, and what it does not."""

import ctypes
import json
import os
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile

import pytest

from barque.kernel import libc, process, seccomp
from barque.runtime import launch as launch_module
from barque.runtime.channel import StepError
from barque.runtime.join import JoinRequest, join
from barque.runtime.launch import (
    Child,
    Failed,
    Held,
    LaunchRequest,
    Pending,
    Running,
    launch,
    progress,
    release,
)

pytestmark = pytest.mark.kernel

BUSYBOX = "/bin/busybox"
CAPS = ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW", "CAP_SETUID", "CAP_SETGID"]
NAMESPACES = ("mount", "pid", "uts", "ipc", "network", "cgroup")


@pytest.fixture
def bundle():
    if not os.path.exists(BUSYBOX):
        pytest.skip("busybox-static is not installed")
    folder = tempfile.mkdtemp(prefix="barque-test-")
    root = f"{folder}/rootfs"
    for name in ("bin", "etc", "tmp", "proc", "dev", "sys"):
        os.makedirs(f"{root}/{name}")
    shutil.copy(BUSYBOX, f"{root}/bin/busybox")
    for name in ("sh", "ls", "cat", "true", "id", "mount", "sleep", "echo", "stat", "touch", "tty"):
        os.symlink("busybox", f"{root}/bin/{name}")
    os.chmod(folder, 0o755)
    with open(f"{root}/etc/passwd", "w") as file:
        file.write("root:x:0:0::/root:/bin/sh\nweb:x:33:33::/srv:/bin/sh\n")
    yield folder
    shutil.rmtree(folder)


def config(*args, **process_fields):
    sets = dict.fromkeys(("bounding", "effective", "permitted"), CAPS)
    return {
        "ociVersion": "1.2.0",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": list(args),
            "env": ["PATH=/bin", "A=1"],
            "cwd": "/",
            "capabilities": sets,
            **process_fields,
        },
        "root": {"path": "rootfs"},
        "hostname": "box",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc",
             "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
             "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs",
             "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
             "options": ["nosuid", "noexec", "nodev", "ro"]},
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in NAMESPACES],
            "maskedPaths": ["/proc/keys", "/sys/firmware", "/proc/nothing"],
            "readonlyPaths": ["/proc/sys"],
        },
    }  # fmt: skip


def read(path):
    with open(path) as file:
        return file.read()


def follow(child: Child):
    while True:
        select.select([child.channel], [], [], 30)
        outcome = progress(child)
        if not isinstance(outcome, Pending):
            return outcome


def finish(child: Child) -> int:
    status = os.waitpid(child.pid, 0)[1]
    child.close()
    return os.waitstatus_to_exitcode(status)


def output(start, request):
    """Run a request to its end; return (outcome, exit code, what it wrote)."""
    read, write = os.pipe()
    null = os.open("/dev/null", os.O_RDONLY)
    try:
        child = start(request._replace(stdio=(null, write, write)))
    finally:
        os.close(write)
        os.close(null)
    outcome = follow(child)
    with open(read, "rb") as end:
        text = end.read().decode()
    return outcome, finish(child), text


def run(bundle, spec, **fields):
    return output(launch, LaunchRequest(spec=spec, bundle=bundle, container_id="t", **fields))


@pytest.fixture
def container(bundle):
    child = launch(LaunchRequest(spec=config("sleep", "1000"), bundle=bundle, container_id="t"))
    assert isinstance(follow(child), Running)
    yield child
    os.kill(child.pid, 9)
    finish(child)


def test_a_program_runs_and_its_exit_code_comes_back(bundle):
    outcome, code, text = run(bundle, config("sh", "-c", "echo hello; exit 7"))
    assert (outcome, code, text) == (Running(-1, ()), 7, "hello\n")


def test_only_stdio_is_open_inside(bundle):
    leak = os.open("/etc", os.O_RDONLY)
    os.set_inheritable(leak, True)
    try:
        _, _, text = run(bundle, config("sh", "-c", "for f in /proc/self/fd/*; do echo $f; done"))
    finally:
        os.close(leak)
    numbers = {line.rsplit("/", 1)[1] for line in text.split()}
    # The shell itself holds the folder it lists.
    assert numbers <= {"0", "1", "2", "3"}
    _, _, text = run(bundle, config("ls", "-l", "/proc/self/fd"))
    assert "/etc" not in text


def test_no_host_path_is_seen_in_mountinfo(bundle):
    _, _, text = run(bundle, config("cat", "/proc/self/mountinfo"))
    points = [line.split()[4] for line in text.splitlines()]
    assert points[0] == "/"
    allowed = ("/proc", "/dev", "/sys", "/")
    assert all(point == "/" or point.startswith(allowed[:3]) for point in points)


def test_host_name_pid_environment_and_home(bundle):
    script = "cat /proc/sys/kernel/hostname; echo $$ $A $HOME"
    assert run(bundle, config("sh", "-c", script))[2] == "box\n1 1 /root\n"


def test_of_two_variables_of_one_name_the_last_counts(bundle):
    spec = config("busybox", "env", env=["PATH=/bin", "A=1", "HOME=/x", "A=2=3", "B="])
    assert sorted(run(bundle, spec)[2].splitlines()) == ["A=2=3", "B=", "HOME=/x", "PATH=/bin"]


def test_capabilities_are_exactly_the_asked_ones(bundle):
    _, _, text = run(bundle, config("cat", "/proc/self/status"))
    values = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    wanted = f"{0b10000011100001:016x}"
    assert [values[k] for k in ("CapPrm", "CapEff", "CapBnd")] == [wanted] * 3
    assert values["CapInh"] == values["CapAmb"] == "0" * 16
    assert int(values["SigIgn"], 16) == int(values["SigBlk"], 16) == 0
    assert values["NoNewPrivs"] == "0"


def test_signals_that_the_caller_ignores_have_their_default_meaning(bundle):
    # 33 is the C library's own, and out of reach of its functions.
    ignoring = ctypes.create_string_buffer(struct.pack("=4Q", 1, 0, 0, 0))
    before = ctypes.create_string_buffer(32)
    for number in (33, signal.SIGUSR2):
        libc.invoke("rt_sigaction", number, ctypes.addressof(ignoring), ctypes.addressof(before), 8)
    launch_module._ignored.clear()
    try:
        text = run(bundle, config("cat", "/proc/self/status"))[2]
    finally:
        for number in (33, signal.SIGUSR2):
            process.default_signal(number)
        launch_module._ignored.clear()
    assert "SigIgn:\t0000000000000000" in text


def test_ambient_capabilities_reach_a_user(bundle):
    spec = config("cat", "/proc/self/status", user={"uid": 33, "gid": 33})
    spec["process"]["capabilities"] = {
        k: ["CAP_NET_RAW"] for k in ("bounding", "effective", "permitted", "inheritable", "ambient")
    }
    text = run(bundle, spec)[2]
    assert "CapEff:\t0000000000002000" in text
    assert "CapAmb:\t0000000000002000" in text


def test_unknown_capabilities_are_warned_of(bundle):
    spec = config("true")
    spec["process"]["capabilities"]["bounding"] = ["CAP_CHOWN", "CAP_OF_TEA"]
    outcome, code, _ = run(bundle, spec)
    assert code == 0
    assert "CAP_OF_TEA" in outcome.warnings[0]


def test_user_groups_umask_and_folder(bundle):
    user = {"uid": 33, "gid": 44, "additionalGids": [5, 6], "umask": 0o77}
    script = "id; umask; pwd; echo $HOME"
    _, code, text = run(bundle, config("sh", "-c", script, user=user, cwd="/made/here"))
    assert code == 0
    assert text == "uid=33(web) gid=44 groups=5,6\n0077\n/made/here\n/srv\n"


def test_no_new_privileges_is_set(bundle):
    _, _, text = run(bundle, config("cat", "/proc/self/status", noNewPrivileges=True))
    assert "NoNewPrivs:\t1" in text


@pytest.mark.parametrize(
    ("arg", "message"),
    [
        ("nosuch", 'exec: "nosuch": executable file not found in $PATH'),
        ("/x", 'exec: "/x": stat /x: no such file or directory'),
        ("/etc", 'exec: "/etc": is a directory'),
        ("/etc/passwd", 'exec: "/etc/passwd": permission denied'),
    ],
)
def test_programs_that_cannot_be_started_are_named(bundle, arg, message):
    outcome, code, _ = run(bundle, config(arg))
    assert isinstance(outcome, Failed)
    assert outcome.message == message
    assert code == 1


def test_masked_and_readonly_paths(bundle):
    script = "cat /proc/keys; ls /sys/firmware; touch /sys/firmware/x; echo 1 >/proc/sys/vm/swappiness"
    text = run(bundle, config("sh", "-c", script))[2]
    assert text.count("Read-only file system") == 2
    assert len(text.splitlines()) == 2


def test_a_read_only_root(bundle):
    spec = config("touch", "/x")
    spec["root"]["readonly"] = True
    _, code, text = run(bundle, spec)
    assert code == 1
    assert "Read-only file system" in text


def test_overlay_roots_are_mounted_only_inside(bundle):
    os.rename(f"{bundle}/rootfs", f"{bundle}/lower")
    for name in ("upper", "work", "rootfs"):
        os.mkdir(f"{bundle}/{name}")
    entry = {
        "type": "overlay",
        "source": "overlay",
        "options": ["lowerdir=lower", "upperdir=upper", "workdir=work"],
        "cwd": bundle,
    }
    _, code, _ = run(bundle, config("touch", "/made"), root_mounts=[entry])
    assert code == 0
    assert os.path.exists(f"{bundle}/upper/made")
    assert os.listdir(f"{bundle}/rootfs") == []
    assert bundle not in read("/proc/self/mountinfo")


def test_links_in_the_root_cannot_lead_a_mount_outside(bundle):
    victim = f"{bundle}/victim"
    os.mkdir(victim)
    os.symlink(victim, f"{bundle}/rootfs/abs")
    os.symlink("../../../../../.." + victim, f"{bundle}/rootfs/rel")
    spec = config("sh", "-c", "touch /abs/in /rel/in2; ls /abs/")
    for name in ("abs", "rel"):
        spec["mounts"].append({"destination": f"/{name}/deep", "type": "tmpfs", "source": "tmpfs"})
    _, code, text = run(bundle, spec)
    assert code == 0, text
    assert os.listdir(victim) == []
    assert os.path.isdir(f"{bundle}/rootfs{victim}/deep")


def test_bind_mounts_with_options(bundle):
    os.mkdir(f"{bundle}/data")
    open(f"{bundle}/data/file", "w").close()
    spec = config("sh", "-c", "touch /ro/x; touch /rw/y; cat /one; mount")
    spec["mounts"] += [
        {"destination": "/ro", "type": "bind", "source": "data", "options": ["rbind", "rro"]},
        {"destination": "/rw", "type": "bind", "source": f"{bundle}/data",
         "options": ["bind", "rw", "noexec", "rslave"]},
        {"destination": "one", "type": "bind", "source": "data/file", "options": ["bind", "ro"]},
    ]  # fmt: skip
    text = run(bundle, spec)[2]
    assert "/ro/x: Read-only file system" in text
    assert os.listdir(f"{bundle}/data") == ["file", "y"] or set(os.listdir(f"{bundle}/data")) == {
        "file",
        "y",
    }
    assert any(" /rw " in line and "noexec" in line for line in text.splitlines())


def test_a_missing_bind_source_is_named(bundle):
    spec = config("true")
    spec["mounts"].append({"destination": "/x", "type": "bind", "source": "/no/such", "options": ["bind"]})
    outcome, _, _ = run(bundle, spec)
    assert isinstance(outcome, Failed)
    assert '"/no/such" to rootfs at "/x"' in outcome.message
    assert outcome.message.endswith("no such file or directory")


def test_tmpcopyup_keeps_what_it_covers(bundle):
    spec = config("sh", "-c", "cat /etc/passwd && touch /etc/new")
    spec["mounts"].append({"destination": "/etc", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]})
    _, code, text = run(bundle, spec)
    assert code == 0
    assert text.startswith("root:")
    assert not os.path.exists(f"{bundle}/rootfs/etc/new")


def test_devices_and_links(bundle):
    spec = config("sh", "-c", "stat -c '%n %F %t:%T %a %u' /dev/null /dev/fuse; cat /dev/fd/0; ls -l /dev/ptmx")
    spec["linux"]["devices"] = [
        {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o600, "uid": 3}
    ]
    text = run(bundle, spec)[2]
    assert "/dev/null character special file 1:3 666 0" in text
    assert "/dev/fuse character special file a:e5 600 3" in text
    assert "/dev/ptmx -> pts/ptmx" in text


def test_sysctls_limits_and_oom_score(bundle):
    spec = config(
        "sh", "-c", "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/self/oom_score_adj; ulimit -n",
        rlimits=[{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}], oomScoreAdj=77,
    )  # fmt: skip
    spec["linux"]["sysctl"] = {"net.ipv4.ip_unprivileged_port_start": "5"}
    assert run(bundle, spec)[2] == "5\n77\n100\n"


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("uts", {}, "private UTS namespace"),
        ("network", {"net.ipv4.ip_forward": "1"}, "host network namespace"),
        ("ipc", {"kernel.shmmax": "1"}, "hosts ipc namespace"),
        ("time", {"vm.swappiness": "1"}, "not in a separate kernel namespace"),
    ],
)
def test_settings_of_the_host_are_refused(bundle, kind, change, message):
    spec = config("true")
    spec["linux"]["namespaces"] = [entry for entry in spec["linux"]["namespaces"] if entry["type"] != kind]
    spec["linux"]["sysctl"] = change
    with pytest.raises(StepError, match=message):
        run(bundle, spec)


@pytest.mark.parametrize(
    "key", ["net/../kernel/domainname", "net.//.kernel.domainname", "fs.mqueue.//.//.kernel.domainname", "net..x", "net/./x"]
)
def test_a_sysctl_does_not_lead_out_of_the_containers_own(bundle, key):
    spec = config("cat", "/proc/sys/kernel/domainname")
    spec["linux"]["sysctl"] = {key: "reached"}
    with pytest.raises(StepError, match="names no parameter"):
        run(bundle, spec)


@pytest.mark.parametrize("place", ["proc", "sys"])
def test_a_file_system_that_is_hidden_in_part_is_mounted_where_no_link_leads(bundle, place):
    os.rmdir(f"{bundle}/rootfs/{place}")
    os.symlink("tmp", f"{bundle}/rootfs/{place}")
    spec = config("true")
    kind = "proc" if place == "proc" else "sysfs"
    spec["mounts"] = [
        *(entry for entry in spec["mounts"] if entry["type"] != kind),
        {"destination": f"/{place}", "type": kind, "source": kind, "options": ["nosuid"]},
    ]
    outcome, _, _ = run(bundle, spec)
    assert isinstance(outcome, Failed)
    assert "must be mounted on an ordinary folder" in outcome.message


def test_limits_nobody_may_raise_are_cut_with_a_warning(bundle):
    spec = config("true", rlimits=[{"type": "RLIMIT_NOFILE", "soft": 64, "hard": 1 << 40}])
    outcome, code, _ = run(bundle, spec)
    assert code == 0 or isinstance(outcome, Failed)
    if isinstance(outcome, Running):
        assert not outcome.warnings or "RLIMIT_NOFILE" in outcome.warnings[0]


def test_user_and_time_namespaces(bundle):
    spec = config("sh", "-c", "id -u; cat /proc/self/uid_map; echo x >/dev/null; cat /proc/uptime")
    spec["linux"]["namespaces"] += [{"type": "user"}, {"type": "time"}]
    spec["linux"]["timeOffsets"] = {"boottime": {"secs": 1_000_000_000}}
    maps = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    spec["linux"]["uidMappings"] = spec["linux"]["gidMappings"] = maps
    outcome, code, text = run(bundle, spec)
    assert code == 0, outcome
    lines = text.splitlines()
    assert lines[0] == "0"
    assert lines[1].split() == ["0", "100000", "65536"]
    assert float(lines[2].split()[0]) > 1_000_000_000


def test_namespaces_are_joined_by_path(bundle, container):
    spec = config("cat", "/proc/sys/kernel/hostname")
    del spec["hostname"]
    for entry in spec["linux"]["namespaces"]:
        if entry["type"] in ("uts", "network", "pid", "ipc"):
            name = {"network": "net"}.get(entry["type"], entry["type"])
            entry["path"] = f"/proc/{container.pid}/ns/{name}"
    assert run(bundle, spec)[2] == "box\n"
    spec["linux"]["namespaces"][4] = {"type": "network"}
    fd = os.open("/proc/self/ns/net", os.O_RDONLY)
    try:
        spec["process"]["args"] = ["sh", "-c", "cat /proc/net/dev"]
        _, code, _ = run(bundle, spec, namespace_fds={"network": fd})
    finally:
        os.close(fd)
    assert code == 0


def test_devices_in_a_user_namespace_have_the_asked_owner_and_mode(bundle):
    spec = config("sh", "-c", "stat -c '%a %u:%g %F' /dev/foo; mount | grep /dev/null; echo >/dev/null")
    spec["linux"]["namespaces"].append({"type": "user"})
    maps = [{"containerID": 0, "hostID": 100000, "size": 4}, {"containerID": 10, "hostID": 7, "size": 9}]
    spec["linux"]["uidMappings"] = spec["linux"]["gidMappings"] = maps
    spec["mounts"][2]["options"].append("gid=5")
    spec["linux"]["devices"] = [
        {"path": "/dev/foo", "type": "b", "major": 1, "minor": 5, "uid": 10, "gid": 11, "fileMode": 0o157}
    ]  # fmt: skip
    outcome, code, text = run(bundle, spec)
    assert code == 0, outcome
    assert text.startswith("157 10:11 block special file")
    assert "nosuid" in text
    assert "noexec" in text


def test_a_dev_that_is_a_link_is_refused(bundle):
    os.rmdir(f"{bundle}/rootfs/dev")
    os.symlink("/etc", f"{bundle}/rootfs/dev")
    spec = config("true")
    spec["mounts"] = spec["mounts"][:1]
    outcome, _, _ = run(bundle, spec)
    assert isinstance(outcome, Failed)
    assert "symbolic link" in outcome.message


def test_a_user_namespace_is_joined_by_path(bundle):
    spec = config("sleep", "1000")
    spec["linux"]["namespaces"].append({"type": "user"})
    maps = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    spec["linux"]["uidMappings"] = spec["linux"]["gidMappings"] = maps
    first = launch(LaunchRequest(spec=spec, bundle=bundle, container_id="t"))
    assert isinstance(follow(first), Running)
    try:
        other = config("cat", "/proc/self/uid_map")
        other["linux"]["namespaces"].append({"type": "user", "path": f"/proc/{first.pid}/ns/user"})
        outcome, code, text = run(bundle, other)
    finally:
        os.kill(first.pid, 9)
        finish(first)
    assert code == 0, outcome
    assert text.split() == ["0", "100000", "65536"]


def test_without_pivot_root_the_root_is_moved(bundle):
    _, code, text = run(bundle, config("ls", "/"), pivot=False)
    assert code == 0
    assert set(text.split()) == {"bin", "dev", "etc", "proc", "sys", "tmp"}


def test_a_shared_root_stays_out_of_the_hosts_table(bundle):
    before = read("/proc/self/mountinfo")
    spec = config("cat", "/proc/self/mountinfo")
    spec["linux"]["rootfsPropagation"] = "shared"
    _, code, text = run(bundle, spec)
    assert code == 0
    assert "shared:" in text.splitlines()[0]
    assert read("/proc/self/mountinfo") == before


def test_cgroups_without_a_namespace_show_only_the_own_part(bundle):
    spec = config("sh", "-c", "mount | grep -c 'type cgroup'; touch /sys/fs/cgroup/x")
    spec["linux"]["namespaces"] = [entry for entry in spec["linux"]["namespaces"] if entry["type"] != "cgroup"]
    _, _, text = run(bundle, spec)
    assert int(text.split()[0]) > 0
    assert "Read-only" in text


def test_binds_over_the_root_and_copied_links(bundle):
    shutil.copytree(f"{bundle}/rootfs", f"{bundle}/other", symlinks=True)
    os.mkdir(f"{bundle}/other/only-here")
    os.symlink("nowhere", f"{bundle}/link")
    spec = config("ls", "-l", "/only-here", "/a/link")
    spec["mounts"].insert(0, {"destination": "/", "type": "bind", "source": "other", "options": ["bind"]})
    spec["mounts"].append(
        {
            "destination": "/a/link",
            "type": "bind",
            "source": "link",
            "options": ["bind", "copy-symlink"],
        }
    )
    _, code, text = run(bundle, spec)
    assert code == 0
    assert "-> nowhere" in text


def test_id_mapped_mounts_shift_owners(bundle):
    os.mkdir(f"{bundle}/data")
    os.chown(f"{bundle}/data", 3, 3)
    spec = config("stat", "-c", "%u:%g", "/data")
    maps = [{"containerID": 0, "hostID": 1000, "size": 100}]
    spec["mounts"].append(
        {
            "destination": "/data",
            "type": "bind",
            "source": "data",
            "options": ["bind", "idmap"],
            "uidMappings": maps,
            "gidMappings": maps,
        }
    )
    outcome, code, text = run(bundle, spec)
    if isinstance(outcome, Failed) and "IDMAP" in outcome.message:
        pytest.skip(outcome.message)
    assert (code, text) == (0, "1003:1003\n")


def test_personality_scheduler_and_io_priority(bundle):
    spec = config(
        "sh",
        "-c",
        "busybox uname -m; busybox ionice; cat /proc/self/personality",
        scheduler={"policy": "SCHED_BATCH", "nice": 5},
        ioPriority={"class": "IOPRIO_CLASS_BE", "priority": 6},
    )
    spec["process"]["capabilities"]["effective"] = CAPS
    spec["linux"]["personality"] = {"domain": "LINUX32"}
    _, _, text = run(bundle, spec)
    assert "best-effort: prio 6" in text
    assert "00000008" in text


def test_a_terminal_lies_in_the_containers_devpts(bundle):
    spec = config(
        "sh", "-c", "tty; stat -c %t /dev/console; read x; echo got $x", terminal=True,
        consoleSize={"height": 33, "width": 99},
    )  # fmt: skip
    child = launch(LaunchRequest(spec=spec, bundle=bundle, container_id="t"))
    outcome = follow(child)
    assert isinstance(outcome, Running)
    master = outcome.console_fd
    os.write(master, b"input\n")
    assert finish(child) == 0
    text = b""
    try:
        while piece := os.read(master, 4096):
            text += piece
    except OSError:
        pass
    os.close(master)
    assert b"/dev/pts/0" in text
    assert b"88" in text
    assert b"got input" in text


def test_a_held_container_starts_on_release(bundle):
    child = launch(LaunchRequest(spec=config("true"), bundle=bundle, container_id="t", hold=True))
    assert isinstance(follow(child), Held)
    release(child)
    assert isinstance(follow(child), Running)
    assert finish(child) == 0


def test_a_held_container_starts_on_a_byte_in_a_fifo(bundle):
    fifo = f"{bundle}/fifo"
    os.mkfifo(fifo)
    fd = os.open(fifo, os.O_RDWR)
    child = launch(LaunchRequest(spec=config("true"), bundle=bundle, container_id="t", hold=True, hold_fd=fd))
    os.close(fd)
    assert isinstance(follow(child), Held)
    child.close_channel()
    with open(fifo, "wb", buffering=0) as end:
        end.write(b"0")
    assert os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1]) == 0
    child.close()


def test_a_child_ends_when_its_parent_goes(bundle):
    child = launch(LaunchRequest(spec=config("true"), bundle=bundle, container_id="t", hold=True))
    assert isinstance(follow(child), Held)
    child.close_channel()
    assert os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1]) == 1
    child.close()


def test_kept_descriptors_start_at_three(bundle):
    read, write = os.pipe()
    os.write(write, b"kept")
    os.close(write)
    _, code, text = run(bundle, config("sh", "-c", "cat <&3"), keep_fds=(read,))
    os.close(read)
    assert (code, text) == (0, "kept")


def test_hooks_run_in_order_and_see_the_state(bundle):
    log = f"{bundle}/log"
    spec = config("true")

    def hook(name):
        return {"path": "/bin/sh", "args": ["sh", "-c", f"echo {name} $(cat) >> {log}"]}

    spec["hooks"] = {
        "prestart": [hook("one")],
        "createRuntime": [hook("two")],
        "createContainer": [hook("three")],
    }
    _, code, _ = run(bundle, spec)
    assert code == 0
    lines = read(log).splitlines()
    assert [line.split()[0] for line in lines] == ["one", "two", "three"]
    state = json.loads(lines[2].split(" ", 1)[1])
    assert (state["id"], state["status"]) == ("t", "creating")
    assert state["pid"] > 1


def test_a_failing_hook_ends_the_start(bundle):
    spec = config("true")
    spec["hooks"] = {"createRuntime": [{"path": "/bin/false"}]}
    outcome, _, _ = run(bundle, spec)
    assert isinstance(outcome, Failed)
    assert outcome.message == "error running createRuntime hook #0: exit status 1"


def test_a_seccomp_filter_is_in_force_with_and_without_new_privileges(bundle):
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}],
    }
    program = seccomp.compile_profile(profile)
    for no_new_privileges in (False, True):
        spec = config(
            "busybox",
            "sh",
            "-c",
            "busybox mkdir /x; cat /proc/self/status",
            noNewPrivileges=no_new_privileges,
            user={"uid": 33, "gid": 33},
        )
        _, _, text = run(bundle, spec, seccomp=program)
        assert "No space left" in text
        assert "Seccomp:\t2" in text
        assert "Seccomp_filters:\t1" in text
        assert "CapEff:\t0000000000000000" in text


def test_an_apparmor_profile_without_apparmor_is_refused(bundle):
    if os.path.exists("/sys/module/apparmor/parameters/enabled"):
        pytest.skip("this kernel has AppArmor")
    with pytest.raises(StepError, match="apparmor is not enabled"):
        run(bundle, config("true", apparmorProfile="docker-default"))


def test_another_process_joins_the_container(container):
    oci = config("sh", "-c", "cat /proc/sys/kernel/hostname /proc/1/comm; ls /proc/self/fd")["process"]
    outcome, code, text = output(join, JoinRequest(pid=container.pid, process=oci))
    assert isinstance(outcome, Running)
    assert code == 0
    assert text.split() == ["box", "sleep", "0", "1", "2", "3"]
    for kind in ("mnt", "pid", "uts", "ipc", "net", "cgroup"):
        oci["args"] = ["sh", "-c", f"ls -l /proc/self/ns/{kind}"]
        text = output(join, JoinRequest(pid=container.pid, process=oci))[2]
        assert os.readlink(f"/proc/{container.pid}/ns/{kind}") in text


def test_a_joining_process_that_cannot_start_is_named(container):
    oci = config("nosuch")["process"]
    outcome, _, _ = output(join, JoinRequest(pid=container.pid, process=oci))
    assert outcome.message == 'exec: "nosuch": executable file not found in $PATH'


def test_a_joining_process_in_a_user_namespace(bundle):
    spec = config("sleep", "1000")
    spec["linux"]["namespaces"].append({"type": "user"})
    maps = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    spec["linux"]["uidMappings"] = spec["linux"]["gidMappings"] = maps
    child = launch(LaunchRequest(spec=spec, bundle=bundle, container_id="t"))
    assert isinstance(follow(child), Running)
    try:
        oci = config("sh", "-c", "id -u; cat /proc/self/uid_map", user={"uid": 5, "gid": 5})["process"]
        outcome, code, text = output(join, JoinRequest(pid=child.pid, process=oci))
    finally:
        os.kill(child.pid, 9)
        finish(child)
    assert code == 0, outcome
    assert text.split() == ["5", "0", "100000", "65536"]


ATTACK = """
import os, select, sys
from barque.kernel import process, seccomp
process.protect_interpreter()
sys.path.insert(0, {tests!r})
import test_launch as t
child = t.launch(t.LaunchRequest(spec=t.config("sleep", "1000"), bundle={bundle!r}, container_id="a"))
t.follow(child)
spec = t.config("true")
caps = {caps!r}
joiner = t.join(t.JoinRequest(pid=child.pid, process=t.config("true")["process"], hold=True))
t.follow(joiner)
status = open(f"/proc/{{joiner.pid}}/status").read()
inner = status.split("NSpid:")[1].split()[1]
oci = t.config("sh", "-c", f"ls -l /proc/{{inner}}/exe; echo x > /proc/{{inner}}/exe; ls /proc/{{inner}}/fd")["process"]
oci["capabilities"] = {{k: t.CAPS + caps for k in ("bounding", "effective", "permitted")}}
print(t.output(t.join, t.JoinRequest(pid=child.pid, process=oci))[2])
t.release(joiner); t.follow(joiner); t.finish(joiner)
os.kill(child.pid, 9); t.finish(child)
"""


@pytest.mark.parametrize("caps", [[], ["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE"]])
def test_the_interpreter_of_a_joining_process_cannot_be_written(bundle, caps):
    code = ATTACK.format(tests=os.path.dirname(__file__), bundle=bundle, caps=caps)
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": ":".join(p for p in sys.path if p)},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    refused = "Read-only file system" if caps else "Permission denied"
    assert "create /proc/" in result.stdout
    assert refused in result.stdout


ENTRYPOINT = """
import os, sys
from barque.kernel import process, seccomp
process.protect_interpreter()
assert process.interpreter_is_protected()
sys.path.insert(0, {tests!r})
import test_launch as t
print(t.run({bundle!r}, t.config("/evil")))
flags = os.O_WRONLY | os.O_TRUNC
try:
    os.open("/proc/self/exe", flags)
except OSError as error:
    print(error.strerror)
"""


def test_an_entrypoint_of_proc_self_exe_gets_no_writable_interpreter(bundle):
    with open(f"{bundle}/rootfs/evil", "w") as file:
        file.write("#!/proc/self/exe\n")
    os.chmod(f"{bundle}/rootfs/evil", 0o755)
    code = ENTRYPOINT.format(tests=os.path.dirname(__file__), bundle=bundle)
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": ":".join(p for p in sys.path if p)},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "Read-only file system" in result.stdout


def test_a_process_on_its_way_is_not_dumpable(bundle):
    child = launch(LaunchRequest(spec=config("true"), bundle=bundle, container_id="t", hold=True))
    assert isinstance(follow(child), Held)
    owner = os.stat(f"/proc/{child.pid}/fd").st_uid
    assert owner == 0
    assert process.prctl(process.PR_GET_DUMPABLE) == 0
    release(child)
    follow(child)
    finish(child)
