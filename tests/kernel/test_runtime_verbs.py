"""Verbs of `barque runtime` in the corners that other engines and administrators meet."""

import json
import os
import socket
import subprocess
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes containers"),
    pytest.mark.skipif(not Path("/bin/busybox").exists(), reason="busybox-static is not installed"),
]

FREEZER = Path("/sys/fs/cgroup/freezer")


@pytest.mark.parametrize("wrong", ["a/b", "a b", ".", "..", ".hidden", "", "x\n"])
def test_ids_that_could_leave_the_folder_are_refused(runtime: Any, wrong: str) -> None:
    result = runtime.run("run", "-b", str(runtime.bundle), wrong)
    assert result.returncode == 1
    assert "container ID" in result.stderr
    assert runtime.run("list", "-q").stdout == ""


def test_each_verb_says_how_it_is_called(runtime: Any) -> None:
    for verb in ("create", "delete", "exec", "kill", "list", "ps", "run", "start", "state", "update"):
        result = runtime.run(verb, "--help")
        assert result.returncode == 0
        assert f"Usage: barque runtime [OPTION...] {verb}" in result.stdout


def test_a_log_that_cannot_be_written_is_told_at_once(runtime: Any) -> None:
    assert runtime.run("--log-format", "xml", "list").returncode == 1
    assert "/nowhere/log" in runtime.run("--log", "/nowhere/log", "list").stderr


def test_delete_and_kill_take_an_expression(runtime: Any) -> None:
    runtime.start("sleep", "100")
    assert runtime.run("kill", "--regex", f"{runtime.id[:9]}.*", "KILL").returncode == 0
    runtime.wait_status("stopped")
    assert runtime.run("delete", "--regex", "[").returncode == 1
    assert runtime.run("delete", "-f", "--regex", f"{runtime.id[:9]}.*").returncode == 0
    assert runtime.run("list", "-q").stdout == ""


def test_poststop_hooks_run_after_run_and_their_failure_is_only_told(runtime: Any) -> None:
    marker = runtime.folder / "marker"
    stop = [{"path": "/bin/false"}, {"path": "/bin/sh", "args": ["sh", "-c", f"cat > {marker}"]}]
    runtime.change(lambda config: config.update(hooks={"poststop": stop}))
    runtime.command("true")
    result = runtime.run("run", "-b", str(runtime.bundle), runtime.id)
    assert result.returncode == 0
    assert "poststop hook failed with exit code 1: /bin/false" in result.stderr
    assert json.loads(marker.read_text())["status"] == "stopped"


def test_poststart_hooks_come_after_the_program_has_begun(runtime: Any) -> None:
    runtime.command("sleep", "100")
    # What the hook is told names the process, whose program it looks at.
    look = 'pid=$(tr -d " " | sed "s/.*\\"pid\\":\\([0-9]*\\).*/\\1/"); cat /proc/$pid/cmdline >' + str(runtime.folder / "seen")
    hook = {"path": "/bin/sh", "args": ["sh", "-c", look]}
    runtime.change(lambda config: config.update(hooks={"poststart": [hook]}))
    for _ in range(5):
        runtime.start("sleep", "100")
        assert (runtime.folder / "seen").read_text() == "sleep\x00100\x00"
        runtime.run("delete", "-f", runtime.id)


def test_start_hooks_run_inside_and_only_when_it_is_started(runtime: Any) -> None:
    hook = {"path": "/bin/sh", "args": ["sh", "-c", "cat >/tmp/seen"]}
    runtime.change(lambda config: config.update(hooks={"startContainer": [hook]}, root={"path": "rootfs"}))
    runtime.command("cat", "/tmp/seen")
    streams = dict.fromkeys(("stdout", "stderr", "stdin"), subprocess.DEVNULL)
    assert runtime.run("create", "-b", str(runtime.bundle), runtime.id, capture_output=False, **streams).returncode == 0
    seen = runtime.bundle / "rootfs/tmp/seen"
    assert not seen.exists()
    assert runtime.run("start", runtime.id).returncode == 0
    assert json.loads(seen.read_text())["status"] == "created"
    runtime.wait_status("stopped")
    runtime.run("delete", runtime.id)
    assert json.loads(runtime.run("run", "-b", str(runtime.bundle), runtime.id).stdout)["id"] == runtime.id


def test_closed_descriptors_among_preserved_ones_stay_closed(runtime: Any) -> None:
    runtime.command("ls", "/proc/self/fd")
    words = ["run", "-b", str(runtime.bundle), "--preserve-fds", "40", runtime.id]
    result = runtime.run(*words, shell="exec 5</dev/null")
    assert result.returncode == 0, result.stderr
    # ls itself has the folder open, on the lowest free number.
    assert result.stdout.split() == ["0", "1", "2", "3", "5"]


def test_socket_activation_names_the_first_process(runtime: Any) -> None:
    runtime.command("sh", "-c", "echo $LISTEN_FDS $LISTEN_PID $$")
    env = {**os.environ, "LISTEN_FDS": "1"}
    assert runtime.run("run", "-b", str(runtime.bundle), runtime.id, env=env).stdout == "1 1 1\n"


def test_unknown_capabilities_are_refused(runtime: Any) -> None:
    runtime.start("sleep", "100")
    assert "unknown capability 'CAP_NOSUCH'" in runtime.run("exec", "--cap", "NOSUCH", runtime.id, "true").stderr
    runtime.change(lambda config: config["process"]["capabilities"].update(bounding=["CAP_NOSUCH"]))
    result = runtime.run("run", "-b", str(runtime.bundle), f"{runtime.id}b")
    assert "process.capabilities.bounding: unknown capability 'CAP_NOSUCH'" in result.stderr


def test_an_annotation_refuses_filters_with_unknown_calls(runtime: Any) -> None:
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["no_such_call"], "action": "SCMP_ACT_ERRNO"}]}
    runtime.change(lambda config: config["linux"].update(seccomp=profile))
    runtime.command("true")
    assert runtime.run("run", "-b", str(runtime.bundle), runtime.id).returncode == 0
    runtime.change(lambda config: config.update(annotations={"run.oci.seccomp_fail_unknown_syscall": "1"}))
    result = runtime.run("run", "-b", str(runtime.bundle), runtime.id)
    assert "unknown system calls: no_such_call" in result.stderr


@pytest.mark.skipif(not FREEZER.is_dir(), reason="needs a freezer hierarchy of version 1")
def test_a_container_frozen_in_a_foreign_cgroup_is_deleted_at_once(runtime: Any) -> None:
    runtime.start("sleep", "100")
    pid = json.loads(runtime.run("state", runtime.id).stdout)["pid"]
    foreign = FREEZER / f"test-{uuid.uuid4().hex[:8]}"
    foreign.mkdir()
    try:
        (foreign / "tasks").write_text(str(pid))
        (foreign / "freezer.state").write_text("FROZEN")
        before = time.monotonic()
        assert runtime.run("delete", "-f", runtime.id).returncode == 0
        assert time.monotonic() - before < 5
    finally:
        (foreign / "freezer.state").write_text("THAWED")
        foreign.rmdir()


@pytest.mark.skipif(not FREEZER.is_dir(), reason="needs hierarchies of version 1")
def test_exec_into_a_cgroup_below_and_never_beside(runtime: Any) -> None:
    path = f"/test-{uuid.uuid4().hex[:8]}"
    runtime.change(lambda config: config["linux"].update(cgroupsPath=path))
    runtime.start("sleep", "100")
    below = Path(f"/sys/fs/cgroup/freezer{path}/sub")
    below.mkdir()
    # The container's namespace begins at its cgroup.
    inside = runtime.run("exec", "--cgroup", "sub", runtime.id, "cat", "/proc/self/cgroup").stdout
    assert "freezer:/sub\n" in inside
    assert "memory:/\n" in inside
    named = runtime.run("exec", "--cgroup", "freezer:sub", runtime.id, "cat", "/proc/self/cgroup").stdout
    assert named == inside
    for wrong in ("../x", "sub/..", "./sub/../.."):
        refused = runtime.run("exec", "--cgroup", wrong, runtime.id, "true")
        assert "`..` components are not allowed" in refused.stderr
        assert wrong in refused.stderr
    assert "no cgroup" in runtime.run("exec", "--cgroup", "nosuch", runtime.id, "true").stderr


def _ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


def test_a_network_device_moves_in_with_its_addresses(runtime: Any) -> None:
    host, peer = f"h{uuid.uuid4().hex[:8]}", f"p{uuid.uuid4().hex[:8]}"
    _ip("link", "add", host, "type", "veth", "peer", "name", peer)
    try:
        _ip("addr", "add", "192.0.2.7/24", "brd", "192.0.2.99", "dev", peer)
        _ip("addr", "add", "2001:db8::7/64", "dev", peer, "nodad")
        runtime.change(lambda config: config["linux"].update(netDevices={peer: {"name": "inner0"}}))
        runtime.command("busybox", "ip", "addr")
        result = runtime.run("run", "-b", str(runtime.bundle), runtime.id)
        assert result.returncode == 0, result.stderr
        assert "inner0" in result.stdout
        assert "inet 192.0.2.7/24 brd 192.0.2.99 scope global inner0" in result.stdout
        assert "inet6 2001:db8::7/64 scope global" in result.stdout
        assert "UP" in result.stdout.partition("inner0")[2].partition(">")[0]
    finally:
        subprocess.run(["ip", "link", "del", host], capture_output=True, check=False)


def test_network_devices_that_are_missing_or_misnamed_are_refused(runtime: Any) -> None:
    for devices, words in (
        ({"nosuch0": {}}, "cannot move network device nosuch0: no such device"),
        ({"lo": {"name": "a/b"}}, "invalid network device name 'a/b'"),
        ({"a": {"name": "x"}, "b": {"name": "x"}}, "two devices of the same name"),
    ):
        runtime.change(lambda config, devices=devices: config["linux"].update(netDevices=devices))
        result = runtime.run("run", "-b", str(runtime.bundle), runtime.id)
        assert words in result.stderr
        assert runtime.run("list", "-q").stdout == ""


def test_a_filter_with_a_listener_asks_it_for_processes_of_exec_too(runtime: Any) -> None:
    path = str(runtime.folder / "listener.sock")
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path, "listenerMetadata": "mine",
        "syscalls": [{"names": ["sethostname"], "action": "SCMP_ACT_NOTIFY"}],
    }  # fmt: skip
    runtime.change(lambda config: config["linux"].update(seccomp=profile))
    received: list[tuple[dict[str, Any], int]] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(4)

        def serve() -> None:
            for _ in range(2):
                end, _address = listener.accept()
                with end:
                    data, fds, _flags, _from = socket.recv_fds(end, 65536, 4)
                    received.append((json.loads(data), len(fds)))
                    for fd in fds:
                        os.close(fd)

        server = threading.Thread(target=serve, daemon=True)
        server.start()
        runtime.start("sleep", "100")
        result = runtime.run("exec", runtime.id, "echo", "inside")
        assert result.stdout == "inside\n", result.stderr
        server.join(10)
    assert [message["metadata"] for message, _ in received] == ["mine", "mine"]
    assert [count for _, count in received] == [1, 1]
    assert [message["state"]["status"] for message, _ in received] == ["creating", "running"]
    # Nobody listens any more: the process must not run without its supervisor.
    assert "seccomp listener" in runtime.run("exec", runtime.id, "true").stderr
