"""Runs inside a machine with version 2 control groups alone; prints a JSON line a check. See test_cgroup_v2.py."""

import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import NamedTuple

from barque.kernel import process, quota
from barque.runtime.command import execute, lifecycle, main as runtime_command, making, queries, updating  # noqa: F401

CGROUPS = Path("/sys/fs/cgroup")
BUNDLE = Path("/tmp/bundle")
MEBI = 1 << 20


class Done(NamedTuple):
    """What a command said, and its exit status."""

    returncode: int
    stdout: str
    stderr: str


def runtime(*words, check=True, input="", quiet=False):
    """Call `barque runtime` in a fork of this process, which has all it needs in memory."""
    files = [tempfile.TemporaryFile() for _ in range(3)]  # noqa: SIM115
    files[0].write(input.encode())
    files[0].seek(0)
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            null = os.open(os.devnull, os.O_RDWR)
            for number, file in enumerate(files):
                os.dup2(null if quiet else file.fileno(), number)
            code = runtime_command.main(list(words))
            sys.stdout.flush()
            sys.stderr.flush()
        except BaseException:
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    for file in files:
        file.seek(0)
    done = Done(code, *(file.read().decode() for file in files[1:]))
    assert not check or code == 0, (words, done)
    return done


def wait_until(condition, what):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.02)


def make_bundle():
    (BUNDLE / "rootfs/bin").mkdir(parents=True)
    for name in ("proc", "dev", "sys", "tmp", "etc"):
        (BUNDLE / "rootfs" / name).mkdir()
    shutil.copy("/bin/busybox", BUNDLE / "rootfs/bin/busybox")
    for applet in ("sh", "cat", "echo", "sleep", "true", "dd", "tail", "head", "mkdir", "usleep", "mknod", "rm"):
        (BUNDLE / "rootfs/bin" / applet).symlink_to("busybox")
    runtime("spec", "-b", str(BUNDLE))


def configure(args, path, resources=None, **linux):
    file = BUNDLE / "config.json"
    config = json.loads(file.read_text())
    config["process"].update(terminal=False, args=args)
    config["root"]["readonly"] = False
    config["linux"].pop("devices", None)
    rules = [{"allow": False, "access": "rwm"}]
    config["linux"].update(cgroupsPath=path, resources={"devices": rules, **(resources or {})}, **linux)
    file.write_text(json.dumps(config))
    return config


def start(name, args, resources=None, **linux):
    """Create and start a container in /<name>; return its cgroup's folder."""
    configure(args, f"/{name}", resources, **linux)
    runtime("create", "-b", str(BUNDLE), name, quiet=True)
    runtime("start", name)
    return CGROUPS / name


def value(folder, name):
    return (folder / name).read_text().strip()


def status(name):
    return json.loads(runtime("state", name).stdout)


def controllers_are_enabled_for_containers():
    start("first", ["sleep", "1000"])
    runtime("delete", "-f", "first")
    enabled = set(value(CGROUPS, "cgroup.subtree_control").split())
    assert {"cpu", "cpuset", "io", "memory", "pids"} <= enabled, enabled


def a_process_is_born_in_its_cgroup():
    from barque.runtime import cgroups, child, launch
    from barque.runtime.cgroups import v2

    def never(_):
        raise AssertionError("the process moved itself")

    spec = configure(["sleep", "1000"], "/born")
    group = cgroups.open_manager("/born")
    assert group.version == 2
    group.create({})
    joined, v2.CgroupV2.join_self = v2.CgroupV2.join_self, never
    try:
        born = launch.launch(launch.LaunchRequest(spec=spec, bundle=str(BUNDLE), cgroup=group, container_id="born"))
        outcome = child.Pending()
        while isinstance(outcome, child.Pending):
            select.select([born.channel], [], [])
            outcome = child.progress(born)
    finally:
        v2.CgroupV2.join_self = joined
    assert isinstance(outcome, child.Running), outcome
    assert value(CGROUPS / "born", "cgroup.procs") == str(born.pid)
    group.kill(9)
    os.waitpid(born.pid, 0)
    born.close()
    wait_until(group.delete, "the cgroup goes")


def no_descriptor_leads_a_program_to_the_host():
    """What an image names as its program is looked up while the runtime still holds descriptors of its own."""
    Path("/outside").write_text("#!/proc/self/cwd/bin/sh\necho outside\n")
    Path("/outside").chmod(0o755)
    for number in range(3, 13):
        program = f"/proc/self/fd/{number}/../../../../outside"
        configure([program], "/led")
        done = runtime("run", "-b", str(BUNDLE), "led", check=False)
        assert f'exec: \\"{program}' in done.stderr, done


def limits_are_what_the_kernels_files_say():
    rate = {"major": 254, "minor": 0, "rate": 1000}
    folder = start("limits", ["sleep", "1000"], {
        "memory": {"limit": 64 * MEBI, "swap": 96 * MEBI, "reservation": 32 * MEBI},
        "cpu": {"shares": 512, "quota": 50000, "period": 200000, "burst": 20000, "cpus": "0-1", "mems": "0"},
        "pids": {"limit": 77},
        "blockIO": {"weight": 500, "throttleReadBpsDevice": [{**rate, "rate": MEBI}], "throttleWriteIOPSDevice": [rate]},
        "unified": {"memory.high": str(48 * MEBI), "cpu.weight": "33"},
    })  # fmt: skip
    expected = {
        "memory.max": str(64 * MEBI), "memory.swap.max": str(32 * MEBI), "memory.low": str(32 * MEBI),
        "memory.high": str(48 * MEBI), "cpu.weight": "33", "cpu.max": "50000 200000", "cpu.max.burst": "20000",
        "cpuset.cpus": "0-1", "cpuset.mems": "0", "pids.max": "77",
        "io.max": f"254:0 rbps={MEBI} wbps=max riops=max wiops=1000",
    }  # fmt: skip
    found = {name: value(folder, name) for name in expected}
    assert found == expected, found
    weights = [value(folder, name) for name in ("io.bfq.weight", "io.weight") if (folder / name).exists()]
    assert not weights or weights[0] in ("default 500", "500", "default 4950"), weights


def limits_change_while_it_runs():
    folder = CGROUPS / "limits"
    runtime("update", "--memory", str(80 * MEBI), "--memory-swap", "-1", "--pids-limit", "88", "--cpu-quota", "70000",
            "--cpu-share", "2048", "--cpuset-cpus", "1", "limits")  # fmt: skip
    found = [value(folder, name) for name in ("memory.max", "memory.swap.max", "pids.max", "cpu.max", "cpuset.cpus")]
    assert found == [str(80 * MEBI), "max", "88", "70000 200000", "1"], found
    resources = {"unified": {"memory.high": "max"}, "cpu": {"idle": 1}}
    runtime("update", "-r", "-", "limits", input=json.dumps(resources))
    assert (value(folder, "memory.high"), value(folder, "cpu.idle")) == ("max", "1")
    wrong = runtime("update", "-r", "-", "limits", input='{"unified": {"nosuch.file": "1"}}', check=False)
    assert wrong.returncode == 1
    assert "nosuch.file" in wrong.stderr


def no_swap_is_a_limit_of_its_own():
    folder = start("unswapped", ["sleep", "1000"], {"memory": {"swap": 0}})
    assert [value(folder, name) for name in ("memory.swap.max", "memory.max")] == ["0", "max"]
    runtime("delete", "-f", "unswapped")


def what_the_tree_has_not_is_named():
    said = {}
    for key in ("memory.DOESNTEXIST", "foo.bar", "NOT-A-VALID-KEY"):
        configure(["true"], "/absent", {"unified": {key: "1"}})
        done = runtime("run", "-b", str(BUNDLE), "absent", check=False)
        assert done.returncode == 1
        said[key] = done.stderr
    assert "no such file or directory" in said["memory.DOESNTEXIST"], said
    assert "the requested cgroup controller `foo` is not available" in said["foo.bar"], said
    assert "the specified key has not the form CONTROLLER.VALUE `NOT-A-VALID-KEY`" in said["NOT-A-VALID-KEY"], said


def the_tree_is_mounted_with_no_option_that_it_has_not():
    file = BUNDLE / "config.json"
    text = file.read_text()
    for namespaced in (True, False):
        kinds = [{"type": kind} for kind in ("pid", "uts", "mount", *(["cgroup"] if namespaced else []))]
        config = configure(["true"], "/optional", namespaces=kinds)
        for mount in config["mounts"]:
            if mount["destination"] == "/sys/fs/cgroup":
                mount["options"] = [*mount["options"], "nosuchoption"]
        file.write_text(json.dumps(config))
        done = runtime("run", "-b", str(BUNDLE), "optional", check=False)
        file.write_text(text)
        assert done.returncode == 1, namespaced
        assert "/sys/fs/cgroup" in done.stderr, done
        assert "invalid argument" in done.stderr, done


def statistics_come_from_the_files():
    told = json.loads(runtime("events", "--stats", "limits").stdout)["data"]
    assert told["memory"]["usage"]["limit"] == 80 * MEBI
    assert 0 < told["memory"]["usage"]["usage"] < 80 * MEBI
    assert told["pids"] == {"current": 1, "limit": 88}
    assert told["cpu"]["usage"]["total"] > 0
    assert "anon" in told["memory"]["raw"]


def a_refused_limit_leaves_nothing():
    configure(["true"], "/refused", {"pids": {"limit": 5}, "unified": {"cgroup.nosuch": "1"}})
    refused = runtime("run", "-b", str(BUNDLE), "refused", check=False)
    assert refused.returncode == 1
    assert "cgroup.nosuch" in refused.stderr
    assert not (CGROUPS / "refused").exists()
    assert "refused" not in runtime("list", "-q").stdout


def the_device_program_admits_only_what_the_rules_say():
    nodes = [{"path": "/dev/disk", "type": "b", "major": 254, "minor": 0}]
    script = "for d in null zero disk; do head -c 1 /dev/$d >/dev/null 2>&1 && echo $d yes || echo $d no; done"
    configure(["sh", "-c", script], "/devices", devices=nodes)
    closed = runtime("run", "-b", str(BUNDLE), "devices").stdout.split("\n")
    rules = [{"allow": False, "access": "rwm"}, {"allow": True, "type": "b", "major": 254, "access": "r"}]
    configure(["sh", "-c", script + "; echo x 2>/dev/null >/dev/disk || echo unwritable"], "/devices",
              {"devices": rules}, devices=nodes)  # fmt: skip
    opened = runtime("run", "-b", str(BUNDLE), "devices").stdout.split("\n")
    # What every container needs is open whatever the rules say.
    assert closed[:3] == ["null yes", "zero yes", "disk no"], closed
    assert opened[:4] == ["null yes", "zero yes", "disk yes", "unwritable"], opened


def pausing_stops_all_processes():
    folder = start("paused", ["sh", "-c", "while :; do echo x >>/tmp/ticks; usleep 20000; done"])
    ticks = BUNDLE / "rootfs/tmp/ticks"
    wait_until(ticks.exists, "the container writes")
    runtime("pause", "paused")
    assert "frozen 1" in value(folder, "cgroup.events")
    assert status("paused")["status"] == "paused"
    before = ticks.stat().st_size
    # Fifteen of its ticks: that nothing happens shows only in time.
    time.sleep(0.3)
    assert ticks.stat().st_size == before
    runtime("resume", "paused")
    assert status("paused")["status"] == "running"
    wait_until(lambda: ticks.stat().st_size > before, "it goes on")
    runtime("pause", "paused")
    # A frozen process of version 2 dies at once.
    runtime("delete", "-f", "paused")
    assert not folder.exists()


def running_out_of_memory_is_seen():
    from barque.runtime import cgroups

    folder = start("greedy", ["sh", "-c", "tail /dev/zero; echo $? >/tmp/status; sleep 1000"],
                   {"memory": {"limit": 16 * MEBI, "swap": 16 * MEBI}})  # fmt: skip
    told = BUNDLE / "rootfs/tmp/status"
    wait_until(lambda: told.exists() and told.read_text(), "tail is killed")
    assert told.read_text().strip() == "137"
    assert cgroups.open_manager("/greedy").oom_kills() == 1
    assert "oom_kill 1" in value(folder, "memory.events")
    runtime("delete", "-f", "greedy")


def all_processes_are_killed_in_one_step():
    # Without a pid namespace of its own the first process's death ends no other.
    config_kinds = [{"type": kind} for kind in ("network", "ipc", "uts", "mount", "cgroup")]
    script = "for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done; wait"
    folder = start("many", ["sh", "-c", script], namespaces=config_kinds)
    wait_until(lambda: value(folder, "pids.current") == "9", "nine processes")
    runtime("kill", "--all", "many", "KILL")
    wait_until(lambda: "populated 0" in value(folder, "cgroup.events"), "all are gone")
    runtime("delete", "many")
    assert not folder.exists()


def exec_works_where_the_container_moved_its_processes_down():
    kinds = [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup")]
    script = (
        "mkdir /sys/fs/cgroup/inner && echo $$ >/sys/fs/cgroup/inner/cgroup.procs"
        " && echo +pids >/sys/fs/cgroup/cgroup.subtree_control && echo done >/tmp/moved; sleep 1000; true"
    )
    file = BUNDLE / "config.json"
    config = configure(["sh", "-c", script], "/nested", namespaces=kinds)
    for mount in config["mounts"]:
        if mount["destination"] == "/sys/fs/cgroup":
            mount["options"] = [option for option in mount["options"] if option != "ro"]
    saved = config["mounts"]
    file.write_text(json.dumps(config))
    runtime("run", "-d", "-b", str(BUNDLE), "nested", quiet=True)
    wait_until((BUNDLE / "rootfs/tmp/moved").exists, "the container delegates its cgroup")
    assert runtime("exec", "nested", "cat", "/proc/self/cgroup").stdout == "0::/inner\n"
    assert runtime("exec", "--cgroup", "inner", "nested", "cat", "/proc/self/cgroup").stdout == "0::/inner\n"
    assert "not allowed" in runtime("exec", "--cgroup", "../limits", "nested", "true", check=False).stderr
    assert len(json.loads(runtime("ps", "-f", "json", "nested").stdout)) == 2
    runtime("delete", "-f", "nested")
    assert not (CGROUPS / "nested").exists()
    config["mounts"] = saved


def deleting_leaves_no_cgroup():
    runtime("delete", "-f", "limits")
    assert not (CGROUPS / "limits").exists()


def start_engine():
    (Path("/tmp/engine")).mkdir()
    where = "/tmp/engine"
    with Path(__file__).with_name("disk.img").open("rb") as image, open("/dev/vda", "r+b") as disk:
        shutil.copyfileobj(image, disk)
    os.mkdir(f"{where}/data")
    subprocess.run(["mount", "-t", "ext4", "-o", "prjquota", "/dev/vda", f"{where}/data"], check=True)
    engine = subprocess.Popen(
        [sys.executable, "-m", "barque", "daemon", "-H", f"unix://{where}/s.sock", "--data-root", f"{where}/data",
         "--exec-root", f"{where}/exec", "--pidfile", f"{where}/pid", "--config-file", f"{where}/none.json"],
        stdout=os.open(f"{where}/log", os.O_WRONLY | os.O_CREAT), stderr=subprocess.STDOUT,
    )  # fmt: skip
    os.environ["DOCKER_HOST"] = f"unix://{where}/s.sock"
    wait_until(lambda: Path(f"{where}/s.sock").exists() or engine.poll() is not None, "the engine listens")
    assert engine.poll() is None, Path(f"{where}/log").read_text()
    return engine


def barque(*words, check=True, **options):
    done = subprocess.run([sys.executable, "-m", "barque", *words], capture_output=True, timeout=90, check=False, **options)
    assert not check or done.returncode == 0, (words, done.stderr.decode(), Path("/tmp/engine/log").read_text()[-3000:])
    return done.stdout.decode().strip()


def an_engine_limits_containers():
    start_engine()
    layer = subprocess.run(["tar", "-c", "-C", str(BUNDLE / "rootfs"), "."], capture_output=True, check=True).stdout
    barque("import", "-", "box", input=layer)
    assert barque("info", "--format", "{{.CgroupVersion}} {{.CgroupDriver}}") == "2 cgroupfs"
    identifier = barque("run", "-d", "--name", "one", "-m", "64m", "--cpus", "0.5", "--pids-limit", "50", "--cpuset-cpus",
                        "1", "--memory-reservation", "32m", "--cpu-shares", "512", "box", "sleep", "1000")  # fmt: skip
    pid = barque("inspect", "-f", "{{.State.Pid}}", "one")
    path = Path(f"/proc/{pid}/cgroup").read_text().strip().removeprefix("0::")
    folder = CGROUPS / path.strip("/")
    assert identifier in path
    found = [value(folder, name) for name in ("memory.max", "memory.swap.max", "memory.low", "cpu.max", "pids.max",
                                              "cpuset.cpus", "cpu.weight")]  # fmt: skip
    weight = found.pop()
    assert found == [str(64 * MEBI), str(64 * MEBI), str(32 * MEBI), "50000 100000", "50", "1"], found
    assert 1 < int(weight) < 100
    assert barque("exec", "one", "cat", "/proc/self/cgroup") == "0::/"
    barque("update", "--pids-limit", "60", "-m", "70m", "--memory-swap", "70m", "one")
    assert [value(folder, name) for name in ("pids.max", "memory.max", "memory.swap.max")] == ["60", str(70 * MEBI), "0"]
    barque("pause", "one")
    assert "frozen 1" in value(folder, "cgroup.events")
    barque("unpause", "one")
    told = json.loads(barque("stats", "--no-stream", "--format", "{{json .}}", "one"))
    assert told["PIDs"] == "1", told
    assert told["MemUsage"].endswith("/ 70MiB"), told
    barque("rm", "-f", "one")
    wait_until(lambda: not folder.exists(), "the cgroup goes")


def an_engine_sees_containers_run_out_of_memory():
    barque("run", "--name", "oom", "-m", "16m", "--memory-swap", "16m", "box", "tail", "/dev/zero", check=False)
    assert barque("inspect", "-f", "{{.State.OOMKilled}} {{.State.ExitCode}}", "oom") == "true 137"


def an_engine_gives_a_running_container_a_device_and_takes_it():
    barque("run", "-d", "--name", "plugged", "box", "sleep", "1000")
    dd = ["exec", "plugged", "dd", "if=/dev/new", "of=/dev/null", "bs=512", "count=1"]
    barque("device", "add", "plugged", "/dev/vda:/dev/new:r")
    barque(*dd)
    refused = subprocess.run([sys.executable, "-m", "barque", "exec", "plugged", "dd", "if=/dev/zero", "of=/dev/new", "count=1"],
                             capture_output=True, text=True, timeout=90, check=False)  # fmt: skip
    assert "not permitted" in refused.stderr, refused
    barque("exec", "plugged", "dd", "if=/dev/zero", "of=/dev/null", "bs=1", "count=1")
    barque("device", "rm", "plugged", "/dev/new")
    barque("exec", "plugged", "mknod", "/dev/own", "b", *map(str, divmod(os.stat("/dev/vda").st_rdev, 256)))
    refused = subprocess.run([sys.executable, "-m", "barque", "exec", "plugged", "dd", "if=/dev/own", "of=/dev/null", "count=1"],
                             capture_output=True, text=True, timeout=90, check=False)  # fmt: skip
    assert "not permitted" in refused.stderr, refused
    barque("exec", "plugged", "dd", "if=/dev/zero", "of=/dev/null", "bs=1", "count=1")
    barque("rm", "-f", "plugged")


def an_engine_holds_containers_to_their_size():
    write = "dd if=/dev/zero of=/{} bs=64k count={} 2>&1 && echo fits; rm /{}; "
    script = write.format("a", 100, "a") + write.format("b", 16, "b") + "echo x >> /etc/mine && echo copied"
    told = barque("run", "--name", "small", "--storage-opt", "size=4m", "box", "sh", "-c", script)
    assert full(told) and told.count("fits") == 1 and told.endswith("copied"), told
    project = project_of(Path("/tmp/engine/data/snapshots"), 4 * MEBI)
    assert barque("inspect", "-f", "{{.HostConfig.StorageOpt.size}}", "small") == "4m"
    barque("rm", "small")
    assert quota.limits("/tmp/engine/data", project)[0] == 0
    assert barque("run", "--rm", "box", "sh", "-c", write.format("a", 100, "a")).endswith("fits")


def an_engine_holds_volumes_to_their_size():
    write = "dd if=/dev/zero of=/v/{} bs=64k count={} 2>&1 && echo fits"
    barque("volume", "create", "-o", "size=3m", "narrow")
    project = project_of(Path("/tmp/engine/data/volumes"), 3 * MEBI)
    assert full(barque("run", "--rm", "-v", "narrow:/v", "box", "sh", "-c", "mkdir /v/d; " + write.format("d/a", 60), check=False))
    assert full(barque("run", "--rm", "-v", "narrow:/v", "box", "sh", "-c", write.format("b", 60), check=False))
    assert barque("run", "--rm", "-v", "narrow:/v", "box", "sh", "-c", "rm -r /v/*; " + write.format("c", 32)).endswith("fits")
    barque("volume", "rm", "narrow")
    assert quota.limits("/tmp/engine/data", project) == (0, 0)


def full(text):
    return "No space left" in text or "quota exceeded" in text


def project_of(folder, size):
    """Return the number of the one project below a folder with that limit."""
    found = set()
    for path in folder.glob("*/*"):
        if path.is_dir() and not path.is_symlink():
            project = quota.project_of(str(path))
            if project and quota.limits(str(path), project)[0] == size:
                found.add(project)
    assert len(found) == 1, found
    return found.pop()


CHECKS = (
    controllers_are_enabled_for_containers, a_process_is_born_in_its_cgroup,
    no_descriptor_leads_a_program_to_the_host, limits_are_what_the_kernels_files_say, limits_change_while_it_runs,
    no_swap_is_a_limit_of_its_own, what_the_tree_has_not_is_named,
    the_tree_is_mounted_with_no_option_that_it_has_not, statistics_come_from_the_files,
    a_refused_limit_leaves_nothing, the_device_program_admits_only_what_the_rules_say, pausing_stops_all_processes,
    running_out_of_memory_is_seen, all_processes_are_killed_in_one_step,
    exec_works_where_the_container_moved_its_processes_down, deleting_leaves_no_cgroup, an_engine_limits_containers,
    an_engine_sees_containers_run_out_of_memory, an_engine_gives_a_running_container_a_device_and_takes_it,
    an_engine_holds_containers_to_their_size, an_engine_holds_volumes_to_their_size,
)  # fmt: skip

if __name__ == "__main__":
    # Else each verb would start another interpreter, which takes seconds where the processor is emulated.
    assert process.interpreter_is_protected()
    make_bundle()
    for check in CHECKS:
        failure, before = "", time.monotonic()
        try:
            check()
        except Exception:
            failure = traceback.format_exc()
        took = time.monotonic() - before
        print(json.dumps({"check": check.__name__, "failure": failure, "seconds": round(took, 1)}), flush=True)
