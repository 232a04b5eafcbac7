"""`barque runtime` from outside, as another engine calls it."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes containers"),
    pytest.mark.skipif(not Path("/bin/busybox").exists(), reason="busybox-static is not installed"),
]


def test_run_gives_output_and_exit_code_and_leaves_nothing(runtime: Any) -> None:
    runtime.command("sh", "-c", "echo out; echo err >&2; exit 7")
    result = runtime.run("run", "-b", str(runtime.bundle), runtime.id)
    assert (result.returncode, result.stdout, result.stderr) == (7, "out\n", "err\n")
    assert runtime.run("list", "-q").stdout == ""


def test_a_container_goes_through_its_states(runtime: Any) -> None:
    runtime.command("sleep", "1000")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "stdin": subprocess.DEVNULL}
    pid_file = runtime.folder / "pid"
    arguments = ("create", "-b", str(runtime.bundle), "--pid-file", str(pid_file), runtime.id)
    assert runtime.run(*arguments, capture_output=False, **quiet).returncode == 0
    assert runtime.status() == "created"
    assert int(pid_file.read_text()) == json.loads(runtime.run("state", runtime.id).stdout)["pid"]
    assert runtime.run("start", runtime.id).returncode == 0
    assert runtime.status() == "running"
    assert "already running" in runtime.run("start", runtime.id).stderr
    assert runtime.run("pause", runtime.id).returncode == 0
    assert runtime.status() == "paused"
    assert "paused" in runtime.run("exec", runtime.id, "true").stderr
    assert runtime.run("resume", runtime.id).returncode == 0
    refused = runtime.run("delete", runtime.id)
    assert refused.returncode == 1
    assert "not stopped: running" in refused.stderr
    assert runtime.run("kill", runtime.id, "KILL").returncode == 0
    runtime.wait_status("stopped")
    assert "container not running" in runtime.run("kill", runtime.id).stderr
    assert runtime.run("delete", runtime.id).returncode == 0
    assert "does not exist" in runtime.run("state", runtime.id).stderr


def test_exec_joins_with_its_own_user_directory_and_environment(runtime: Any) -> None:
    runtime.start("sleep", "1000")
    script = 'echo "$(id -u):$(id -g) $PWD $KEY"; exit 5'
    arguments = ("exec", "--user", "33:44", "--cwd", "/tmp", "-e", "KEY=value", runtime.id, "sh", "-c", script)
    result = runtime.run(*arguments)
    assert (result.returncode, result.stdout) == (5, "33:44 /tmp value\n")
    missing = runtime.run("exec", runtime.id, "nosuch")
    assert missing.returncode == 1
    assert 'exec: "nosuch": executable file not found in $PATH' in missing.stderr.replace('\\"', '"')


def test_update_changes_the_kernels_limits(runtime: Any) -> None:
    runtime.start("sleep", "1000")
    assert runtime.run("update", "--pids-limit", "21", runtime.id).returncode == 0
    stats = json.loads(runtime.run("events", "--stats", runtime.id).stdout)
    assert stats["data"]["pids"] == {"current": 1, "limit": 21}
    wrong = runtime.run("update", "--pids-limit", "many", runtime.id)
    assert wrong.returncode == 1
    assert "--pids-limit" in wrong.stderr


def test_a_terminal_goes_over_the_console_socket(runtime: Any) -> None:
    runtime.change(lambda config: config["process"].update(terminal=True))
    runtime.command("tty")
    path = str(runtime.folder / "console")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
        arguments = ("run", "-d", "-b", str(runtime.bundle), "--console-socket", path, runtime.id)
        made = runtime.run(*arguments, capture_output=False, **quiet)
        assert made.returncode == 0, made.stderr
        end, _ = listener.accept()
        with end:
            _, fds, _, _ = socket.recv_fds(end, 4096, 1)
    seen = b""
    try:
        while b"/dev/" not in seen:
            seen += os.read(fds[0], 4096)
    finally:
        os.close(fds[0])
    assert seen.startswith(b"/dev/")


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda config: config["process"].update(args=["nosuch"]), "executable file not found in $PATH"),
        (lambda config: config["process"].update(args=[]), "args"),
        (lambda config: config["process"].update(cwd="relative"), "cwd"),
        (lambda config: config["root"].update(path="nowhere"), "nowhere"),
        (lambda config: config["linux"].update(namespaces=[{"type": "nonsense"}]), "nonsense"),
        (lambda config: config["linux"].update(seccomp={"defaultAction": "SCMP_ACT_X"}), "SCMP_ACT_X"),
        (lambda config: config["linux"].update(resources={"cpu": {"cpus": "9999"}}), "cpuset.cpus"),
    ],
)
def test_a_wrong_configuration_is_named_and_leaves_nothing(runtime: Any, edit: Any, words: str) -> None:
    runtime.command("true")
    runtime.change(edit)
    log = runtime.folder / "log"
    result = runtime.run("--log", str(log), "--log-format", "json", "run", "-b", str(runtime.bundle), runtime.id)
    assert result.returncode == 1
    assert words in result.stderr
    assert words in json.loads(log.read_text().splitlines()[-1])["msg"]
    assert runtime.run("list", "-q").stdout == ""


def test_unknown_options_and_ids_are_refused(runtime: Any) -> None:
    assert "flag provided but not defined: --nosuch" in runtime.run("run", "--nosuch", "x").stderr
    assert "invalid character" in runtime.run("state", "../x").stderr
    assert "unknown command" in runtime.run("frobnicate").stderr
    assert runtime.run("--systemd-cgroup", "list").returncode == 1


def test_features_are_json_that_names_what_there_is(runtime: Any) -> None:
    features = json.loads(runtime.run("features").stdout)
    assert features["linux"]["seccomp"]["enabled"]
    assert {"rbind", "ro", "rro", "idmap"} <= {*features["mountOptions"]}
    assert "CAP_SYS_ADMIN" in features["linux"]["capabilities"]


@pytest.mark.conformance
def test_podman_runs_a_container_with_it(runtime: Any) -> None:
    if shutil.which("podman") is None:
        pytest.skip("podman is not installed")
    wrapper = runtime.folder / "barque-runtime"
    wrapper.write_text(f'#!/bin/sh\nexec {sys.executable} -m barque.runtime.command.main "$@"\n')
    wrapper.chmod(0o755)
    # Podman takes no long path for its run root.
    folder = Path(tempfile.mkdtemp(prefix="bq", dir="/var/tmp"))
    podman = ["podman", "--root", f"{folder}/storage", "--runroot", f"{folder}/run", "--tmpdir", f"{folder}/tmp",
              "--cgroup-manager", "cgroupfs", "--events-backend", "file", "--runtime", str(wrapper)]  # fmt: skip
    arguments = ["run", "--rm", "--network", "none", "--rootfs", str(runtime.bundle / "rootfs"), "sh", "-c"]
    result = subprocess.run(
        [*podman, *arguments, "echo from podman; exit 9"], capture_output=True, text=True, timeout=60, check=False
    )
    subprocess.run(["umount", "-l", f"{folder}/storage/overlay"], capture_output=True, check=False)
    shutil.rmtree(folder, ignore_errors=True)
    assert (result.returncode, result.stdout) == (9, "from podman\n"), result.stderr
