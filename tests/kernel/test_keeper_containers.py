"""The keeper with real containers, by our runtime and by others."""

import asyncio
import json
import os
import resource
import shutil
import signal
import sys

import pytest

import control_groups
from barque.keeper import client
from barque.keeper.client import Keeper, KeeperError

BUSYBOX = shutil.which("busybox") or "/bin/busybox"
pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.getuid() != 0, reason="needs root"),
    pytest.mark.skipif(not os.path.exists(BUSYBOX), reason="needs busybox-static"),
]
MOUNTS = [
    {"destination": "/proc", "type": "proc", "source": "proc"},
    {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
    {
        "destination": "/dev/pts",
        "type": "devpts",
        "source": "devpts",
        "options": ["newinstance", "ptmxmode=0666", "mode=0620"],
    },
]
ENV = ["PATH=/bin"]
CAPS = ["CAP_KILL", "CAP_CHOWN"]
PARENT = f"barque-test-{os.getpid()}"


class Box:
    """A keeper on a root of its own, and containers on one busybox root."""

    def __init__(self, root):
        self.root = str(root)
        self.events = []
        self.news = asyncio.Event()
        self.spaces = ("pid", "mount", "uts", "ipc", "network")
        self.layer = f"{root}/layer"
        os.makedirs(f"{self.layer}/bin")
        for folder in ("proc", "dev", "tmp"):
            os.mkdir(f"{self.layer}/{folder}")
        shutil.copy(BUSYBOX, f"{self.layer}/bin/busybox")
        for name in ("sh", "cat", "sleep", "echo", "id", "stty", "seq", "kill", "test", "dd", "tail", "readlink"):
            os.symlink("busybox", f"{self.layer}/bin/{name}")

    async def connect(self):
        self.keeper = await Keeper.connect_or_spawn(self.root, on_event=self._event)

    def _event(self, event):
        self.events.append(event)
        self.news.set()

    async def event(self, kind, **fields):
        async with asyncio.timeout(20):
            while True:
                for event in self.events:
                    if event["event"] == kind and all(event.get(k) == v for k, v in fields.items()):
                        return event
                self.news.clear()
                await self.news.wait()

    def process(self, *args, tty=False, uid=0):
        caps = dict.fromkeys(("bounding", "effective", "permitted"), CAPS)
        user = {"uid": uid, "gid": uid}
        return {
            "args": list(args), "env": ENV, "cwd": "/", "terminal": tty, "user": user,
            "capabilities": caps,
        }  # fmt: skip

    async def start(self, name, *args, uid=0, resources=None, hooks=None, **options):
        bundle = f"{self.root}/containers/{name}"
        for folder in ("rootfs", "upper", "work"):
            os.makedirs(f"{bundle}/{folder}", exist_ok=True)
        spaces = [{"type": t} for t in self.spaces]
        path = f"/{PARENT}/{name}"
        linux = {"namespaces": spaces, "resources": resources or {}, "cgroupsPath": path}
        spec = {
            "ociVersion": "1.0.2", "process": self.process(*args, tty=options.get("tty", False), uid=uid),
            "root": {"path": "rootfs"}, "mounts": MOUNTS, "linux": linux, "hooks": hooks or {},
        }  # fmt: skip
        with open(f"{bundle}/config.json", "w") as file:
            json.dump(spec, file)
        overlay = [f"lowerdir={self.layer}", f"upperdir={bundle}/upper", f"workdir={bundle}/work"]
        mount = {"type": "overlay", "source": "overlay", "options": overlay, "cwd": ""}
        log = {"driver": "json-file", "path": f"{self.root}/{name}.log"}
        cgroup = None if options.get("runtime") else {"path": path, "resources": resources or {}}
        return await self.keeper.start(name, bundle=bundle, root_mounts=[mount], log=log, cgroup=cgroup, **options)

    def log(self, name):
        with open(f"{self.root}/{name}.log") as file:
            return "".join(json.loads(line)["log"] for line in file)


@pytest.fixture
async def box(tmp_path):
    made = Box(tmp_path)
    await made.connect()
    yield made
    for row in await made.keeper.list():
        if "exit" not in row and row["exec_id"] is None:
            await made.keeper.signal(row["id"], None, signal.SIGKILL)
            await made.event("exit", id=row["id"], exec_id=None)
    try:
        await until(lambda: not cgroups_left())
    finally:
        await made.keeper.close(shutdown=True)
        control_groups.remove(PARENT)
    with open("/proc/self/mounts") as file:
        assert str(tmp_path) not in file.read()


def cgroups_left():
    return [folder for folder in control_groups.folders(PARENT) if folder.name != PARENT]


async def until(condition):
    async with asyncio.timeout(15):
        while not condition():
            await asyncio.sleep(0.005)


async def read_all(sock):
    data = b""
    while chunk := await asyncio.get_running_loop().sock_recv(sock, 65536):
        data += chunk
    sock.close()
    return data


def works(name):
    """Tell whether the runtime is installed and takes the machine's cgroups (crun: no hybrid ones)."""
    hybrid = "/sys/fs/cgroup/unified/cgroup.controllers"
    if name == "crun" and os.path.exists(hybrid) and os.path.getsize(hybrid) == 0:
        with open(hybrid) as file:
            return not file.read().strip() and shutil.which(name) is not None
    return shutil.which(name) is not None


RUNTIMES = [
    None,
    *(pytest.param(shutil.which(name), id=name) for name in ("runc", "crun") if works(name)),
]


@pytest.mark.parametrize("runtime", RUNTIMES)
async def test_a_container_runs_and_its_code_and_output_are_known(box, runtime):
    await box.start("one", "sh", "-c", "echo hello; exit 7", runtime=runtime)
    assert (await box.event("exit", id="one"))["exit_code"] == 7
    assert box.log("one") == "hello\n"
    await until(lambda: str(box.root) not in open("/proc/self/mounts").read())  # noqa: SIM115


@pytest.mark.parametrize("runtime", RUNTIMES)
async def test_an_exec_joins_the_container_and_has_a_code_of_its_own(box, runtime):
    await box.start("one", "sleep", "100", runtime=runtime)
    sock = await box.keeper.attach("one", "e1", stdin=True)
    await box.keeper.exec("one", "e1", process=box.process("sh", "-c", "echo $$; cat; exit 5"), open_stdin=True)
    await asyncio.get_running_loop().sock_sendall(sock, b"typed")
    sock.shutdown(1)
    data = await read_all(sock)
    assert b"typed" in data
    assert (await box.event("exit", exec_id="e1"))["exit_code"] == 5


@pytest.mark.parametrize("runtime", RUNTIMES)
async def test_a_terminal_has_its_size_from_the_start(box, runtime):
    sock = await box.keeper.attach("one", None, stdin=True)
    await box.start(
        "one", "sh", "-c", "read a; stty size", tty=True, open_stdin=True, console_size=(33, 99),
        runtime=runtime,
    )  # fmt: skip
    await asyncio.get_running_loop().sock_sendall(sock, b"\n")
    assert b"33 99" in await read_all(sock)


@pytest.mark.parametrize("runtime", RUNTIMES)
async def test_a_missing_program_is_a_clear_error_and_leaves_nothing(box, runtime):
    with pytest.raises(KeeperError, match=r"executable file|no such file|not found"):
        await box.start("one", "nosuch", runtime=runtime)
    assert await box.keeper.list() == []
    await box.start("two", "sleep", "100")
    with pytest.raises(KeeperError, match="nosuch"):
        await box.keeper.exec("two", "e1", process=box.process("nosuch"))


async def test_a_plain_user_may_open_its_output_anew(box):
    await box.start("one", "sh", "-c", "echo again > /proc/self/fd/1; id -u", uid=1000)
    await box.event("exit", id="one")
    assert box.log("one") == "again\n1000\n"


async def test_being_killed_for_memory_is_told(box):
    limits = {"memory": {"limit": 16 << 20, "swap": 16 << 20}}
    await box.start("one", "sh", "-c", "exec tail /dev/zero", resources=limits)
    event = await box.event("exit", id="one")
    assert event["exit_code"] == 137
    assert event["oom_killed"] is True


async def test_containers_outlive_the_keeper_and_are_told_with_their_codes(box):
    for number in range(5):
        script = f"for i in $(seq 100); do echo $i; sleep 0.01; done; exit {number}"
        await box.start(f"c{number}", "sh", "-c", script)
    pid = box.keeper.pid
    os.kill(pid, signal.SIGKILL)
    await until(lambda: box.keeper.pid != pid)
    sock = await box.keeper.attach("c0", "e1")
    await box.keeper.exec("c0", "e1", process=box.process("echo", "alive"))
    assert b"alive" in await read_all(sock)
    for number in range(5):
        event = await box.event("exit", id=f"c{number}", exec_id=None)
        assert event["exit_code"] == number
        assert box.log(f"c{number}") == "".join(f"{n}\n" for n in range(1, 101))


async def test_many_processes_see_no_descriptor_of_the_keeper(box):
    await box.start("one", "sh", "-c", "echo /proc/self/fd/*")
    await box.event("exit", id="one")
    # Expanded by the shell itself, whose listing is open for that time.
    names = box.log("one").split()
    assert {int(os.path.basename(name)) for name in names} <= {0, 1, 2, 3}


async def test_a_log_that_cannot_be_written_fails_the_start_and_leaves_nothing(box):
    os.mkdir(f"{box.root}/one.log")
    with pytest.raises(KeeperError, match="is a directory"):
        await box.start("one", "sleep", "100")
    assert await box.keeper.list() == []
    os.rmdir(f"{box.root}/one.log")
    await box.start("one", "echo", "now")
    await box.event("exit", id="one")
    assert box.log("one") == "now\n"


@pytest.mark.parametrize("runtime", RUNTIMES)
async def test_a_namespace_is_shared_with_its_own_process_and_with_no_later_one_of_its_number(box, runtime, monkeypatch):
    pid = (await box.start("one", "sleep", "100", runtime=runtime))["pid"]
    fd = box.keeper.open_namespace("one", "net")
    try:
        assert os.path.samestat(os.fstat(fd), os.stat(f"/proc/{pid}/ns/net"))
        await box.start("two", "readlink", "/proc/self/ns/net", runtime=runtime, namespace_fds={"network": fd})
        assert (await box.event("exit", id="two"))["exit_code"] == 0
        assert box.log("two").strip() == os.readlink(f"/proc/{pid}/ns/net")
    finally:
        os.close(fd)
    await box.keeper.signal("one", None, signal.SIGKILL)
    await box.event("exit", id="one")
    # As if another process had got the number.
    monkeypatch.setattr(client.strays, "pid_behind", lambda pidfd: os.getpid())
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError):
        box.keeper.open_namespace("one", "net")
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("tty", [False, True])
async def test_a_start_that_fails_half_way_through_its_streams_leaves_nothing_open(box, runtime, tty):
    await box.start("one", "echo", runtime=runtime, tty=tty)
    await box.event("exit", id="one")
    await box.keeper.forget("one")
    folder, fds = f"{box.root}/containers/one", f"/proc/{box.keeper.pid}/fd"
    # The last that is opened: the spool of errors, or the record.
    blocked = f"{folder}/state.json.tmp" if tty else f"{folder}/spool.2"
    os.makedirs(folder, exist_ok=True)
    if os.path.exists(blocked):
        os.unlink(blocked)
    os.mkdir(blocked)
    await until(lambda: not cgroups_left())
    before = len(os.listdir(fds))
    for _ in range(3):
        with pytest.raises(KeeperError, match="is a directory"):
            await box.start("one", "sleep", "100", runtime=runtime, tty=tty)
    await until(lambda: not cgroups_left())
    await until(lambda: len(os.listdir(fds)) == before)
    os.rmdir(blocked)


async def test_nothing_is_left_open_by_containers_that_have_ended(box):
    async def run(name):
        await box.start(name, "echo", "hi")
        await box.event("exit", id=name)
        with pytest.raises(KeeperError):
            await box.start(name, "nosuch")
        await box.keeper.forget(name)

    def open_fds():
        return len(os.listdir(f"/proc/{box.keeper.pid}/fd")), len(os.listdir("/proc/self/fd"))

    await run("first")
    await until(lambda: not cgroups_left())
    before = open_fds()
    for number in range(10):
        await run(f"c{number}")
    assert open_fds() == before


DAEMON = """
import asyncio, json, os, sys
sys.path.insert(0, sys.argv[2])
from barque.keeper.client import Keeper
async def main():
    keeper = await Keeper.connect_or_spawn(sys.argv[1], on_event=lambda event: None)
    print(keeper.pid, flush=True)
    for name in sys.argv[3:]:
        print((await keeper.start(name, bundle=f"{sys.argv[1]}/containers/{name}",
            log={"path": f"{sys.argv[1]}/{name}.log"}))["pid"], flush=True)
    await asyncio.sleep(1000)
asyncio.run(main())
"""


async def test_both_killed_at_once_containers_run_on_and_are_adopted_by_new_ones(box):
    names = [f"b{number}" for number in range(3)]
    for number, name in enumerate(names):
        bundle = f"{box.root}/containers/{name}"
        os.makedirs(bundle)
        spec = {
            "ociVersion": "1.0.2",
            "process": box.process("sh", "-c", f"seq 50; sleep 1; seq 51 100; exit {number + 3}"),
            "root": {"path": box.layer, "readonly": True}, "mounts": MOUNTS,
            "linux": {"namespaces": [{"type": t} for t in ("pid", "mount", "uts", "ipc", "network")]},
        }  # fmt: skip
        with open(f"{bundle}/config.json", "w") as file:
            json.dump(spec, file)
    await box.keeper.close(shutdown=True)
    source = os.path.join(os.path.dirname(__file__), "../../src")
    daemon = await asyncio.create_subprocess_exec(
        sys.executable, "-c", DAEMON, box.root, source, *names, stdout=asyncio.subprocess.PIPE
    )
    keeper_pid, *_ = [int(await daemon.stdout.readline()) for _ in range(4)]
    os.kill(daemon.pid, signal.SIGKILL)
    os.kill(keeper_pid, signal.SIGKILL)
    await daemon.wait()
    await until(lambda: not is_running(keeper_pid))
    await box.connect()
    for number, name in enumerate(names):
        assert (await box.event("adopted", id=name))["lost"] == []
        assert (await box.event("exit", id=name))["exit_code"] == number + 3
        assert box.log(name) == "".join(f"{n}\n" for n in range(1, 101))


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_signals_and_the_file_limit_are_as_the_keeper_found_them(box):
    await box.start("one", "cat", "/proc/self/status", "/proc/self/limits")
    await box.event("exit", id="one")
    rows = {line.split(":")[0]: line.split() for line in box.log("one").splitlines() if ":" in line}
    assert int(rows["SigIgn"][1], 16) == 0
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert f"{soft} {hard}" in " ".join(box.log("one").split())


@pytest.mark.parametrize("runtime", RUNTIMES)
async def test_a_container_starts_again_right_after_its_end(box, runtime):
    for number in range(8):
        box.events.clear()
        await box.start("one", "sh", "-c", f"exit {number}", runtime=runtime)
        assert (await box.event("exit", id="one"))["exit_code"] == number


@pytest.mark.parametrize("runtime", RUNTIMES)
async def test_a_network_namespace_is_handed_over_as_a_descriptor(box, runtime):
    with open("/proc/self/ns/net") as netns:
        mine = os.readlink("/proc/self/ns/net")
        box.spaces = ("pid", "mount", "uts", "ipc")
        await box.start("one", "readlink", "/proc/self/ns/net", netns_fd=netns.fileno(), runtime=runtime)
    await box.event("exit", id="one")
    assert box.log("one").strip() == mine


async def test_hooks_of_one_container_hold_up_no_other(box):
    slow = {"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", f"cat >{box.root}/seen; sleep 2"]}]}
    starting = asyncio.create_task(box.start("slow", "echo", "later", hooks=slow))
    await until(lambda: os.path.exists(f"{box.root}/seen"))
    before = asyncio.get_running_loop().time()
    await box.start("quick", "echo", "now")
    await box.event("exit", id="quick")
    assert asyncio.get_running_loop().time() - before < 1.5
    assert not starting.done()
    await starting
    await box.event("exit", id="slow")
    assert box.log("slow") == "later\n"
    with open(f"{box.root}/seen") as file:
        assert json.load(file)["status"] == "creating"


async def test_a_failing_hook_is_named_and_nothing_is_left(box):
    with pytest.raises(KeeperError, match="error running createRuntime hook #0: exit status 3"):
        await box.start("one", "true", hooks={"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", "exit 3"]}]})
    await until(lambda: not cgroups_left())
    await box.start("one", "echo", "again")
    await box.event("exit", id="one")


async def test_a_container_starts_again_at_once_after_its_end(box):
    for _ in range(5):
        await box.start("one", "echo", "x")
        await box.event("exit", id="one")
        box.events.clear()


def private_kib(pid):
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith("Private_Dirty"))


async def test_a_container_costs_the_keeper_few_kilobytes(box):
    for number in range(10):
        await box.start(f"first{number}", "sleep", "1000")
    before = private_kib(box.keeper.pid)
    for number in range(40):
        await box.start(f"more{number}", "sleep", "1000")
    assert private_kib(box.keeper.pid) - before < 40 * 6
