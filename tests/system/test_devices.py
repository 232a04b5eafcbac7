"""Devices of running containers, devices by CDI names, GPUs; by the docker command and ours."""

import json
import os
import stat
import sys

import pytest

from under_test import running_engine, until

pytestmark = pytest.mark.system
BARQUE = [sys.executable, "-m", "barque"]
# The numbers of /dev/fuse: among no container's default devices.
FUSE = "10:229"


@pytest.fixture(scope="module")
def specs(tmp_path_factory):
    """Give the folders of CDI specs, the second of which wins."""
    made = tmp_path_factory.mktemp("cdi")
    (made / "etc").mkdir()
    (made / "run").mkdir()
    return made


@pytest.fixture(scope="module")
def engine(specs):
    """Give an engine that knows these folders."""
    yield from running_engine("--cdi-spec-dir", str(specs / "etc"), "--cdi-spec-dir", str(specs / "run"))


@pytest.fixture
def device(tmp_path):
    """Give the path of a node with the numbers of /dev/fuse."""
    path = tmp_path / "node"
    try:
        os.mknod(path, stat.S_IFCHR | 0o640, os.makedev(*map(int, FUSE.split(":"))))
    except PermissionError:
        pytest.skip("device nodes cannot be made here")
    return path


def can_open(engine, name, path):
    """Tell whether a container may open a device: the filter says "Operation not permitted" where it may not."""
    return "not permitted" not in engine.docker_result("exec", name, "sh", "-c", f": < {path}").stderr


def test_a_device_is_given_to_a_running_container_and_taken_again(engine, device):
    engine.docker("run", "-d", "--name", "plugged", "busybox", "sleep", "1000")
    engine.docker("exec", "plugged", "mknod", "/dev/own", "c", *FUSE.split(":"))
    assert not can_open(engine, "plugged", "/dev/own")
    engine.barque("device", "add", "plugged", f"{device}:/dev/new/node:rw")
    assert can_open(engine, "plugged", "/dev/new/node")
    assert engine.docker("exec", "plugged", "stat", "-c", "%t:%T %a", "/dev/new/node") == "a:e5 640"
    shown = json.loads(engine.docker("inspect", "-f", "{{json .HostConfig.Devices}}", "plugged"))
    assert shown == [{"PathOnHost": str(device), "PathInContainer": "/dev/new/node", "CgroupPermissions": "rw"}]
    assert "/dev/new/node" in engine.barque("device", "ls", "plugged")
    twice = engine.run([*BARQUE, "device", "add", "plugged", f"{device}:/dev/new/node"])
    assert "has a device at /dev/new/node already" in twice.stderr
    engine.docker("restart", "-t", "0", "plugged")
    assert can_open(engine, "plugged", "/dev/new/node")
    engine.barque("device", "rm", "plugged", "/dev/new/node")
    assert engine.docker("exec", "plugged", "ls", "/dev/new") == ""
    engine.docker("exec", "plugged", "mknod", "/dev/own", "c", *FUSE.split(":"))
    assert not can_open(engine, "plugged", "/dev/own")
    gone = engine.run([*BARQUE, "device", "rm", "plugged", "/dev/new/node"])
    assert "was given no device at /dev/new/node" in gone.stderr
    engine.docker("rm", "-f", "plugged")


def test_taking_a_device_leaves_the_default_ones_and_another_name_of_it_alone(engine, device):
    engine.docker("run", "-d", "--name", "shares", "busybox", "sleep", "1000")
    engine.barque("device", "add", "shares", "/dev/null:/dev/mynull", f"{device}:/dev/one", f"{device}:/dev/two")
    engine.barque("device", "rm", "shares", "/dev/mynull", "/dev/one")
    assert can_open(engine, "shares", "/dev/null") and can_open(engine, "shares", "/dev/two")
    engine.docker("rm", "-f", "shares")


def test_what_cannot_be_given_is_refused_and_leaves_nothing(engine, device):
    engine.docker("run", "-d", "--name", "refuses", "busybox", "sleep", "1000")
    for word, message in (("/dev/no-such", "no such file or directory"), (f"{device}:/dev/null", "file exists"),
                          ("vendor.com/class=x", "a CDI device cannot be added later"), (f"{device}:rel", "not an absolute path")):  # fmt: skip
        result = engine.run([*BARQUE, "device", "add", "refuses", word])
        assert result.returncode == 1 and message in result.stderr
    assert engine.docker("inspect", "-f", "{{json .HostConfig.Devices}}", "refuses") == "[]"
    engine.docker("exec", "refuses", "mknod", "/dev/own", "c", *FUSE.split(":"))
    assert not can_open(engine, "refuses", "/dev/own")
    engine.docker("rm", "-f", "refuses")


def test_a_container_cannot_bend_a_device_to_a_place_of_the_host(engine, device, tmp_path):
    engine.docker("run", "-d", "--name", "bends", "busybox", "sleep", "1000")
    engine.docker("exec", "bends", "ln", "-s", f"../../../../../..{tmp_path}", "/dev/out")
    engine.barque("device", "add", "bends", f"{device}:/dev/out/leak")
    assert not (tmp_path / "leak").exists()
    engine.docker("rm", "-f", "bends")


def hook(folder, name):
    """Write a program that appends its name and the container's status to a file; return its path."""
    path = folder / name
    path.write_text(f"#!/bin/sh\ncat >> {folder}/states; echo {name} $WORD >> {folder}/called\n")
    path.chmod(0o755)
    return str(path)


def write(path, spec):
    path.write_text(spec if isinstance(spec, str) else json.dumps(spec))


def test_a_cdi_device_brings_its_nodes_variables_mounts_groups_and_hooks(engine, specs, device, tmp_path):
    (tmp_path / "lib").write_text("library")
    write(specs / "etc" / "vendor.json", {
        "cdiVersion": "0.6.0", "kind": "vendor.com/device",
        "containerEdits": {"env": ["FOO=spec", "BAR=kept"], "mounts": [
            {"hostPath": str(tmp_path / "lib"), "containerPath": "/usr/lib/lib.so", "options": ["ro", "bind"]}]},
        "devices": [
            {"name": "first", "containerEdits": {
                "env": ["FOO=device"], "deviceNodes": [{"path": "/dev/card", "hostPath": str(device), "permissions": "r"}],
                "additionalGids": [4321], "hooks": [
                    {"hookName": "createRuntime", "path": hook(tmp_path, "creates"), "env": ["WORD=w"]},
                    {"hookName": "poststart", "path": hook(tmp_path, "started"), "env": []},
                    {"hookName": "poststop", "path": hook(tmp_path, "stopped")}]}},
            {"name": "second", "containerEdits": {"env": ["SECOND=2"]}}],
    })  # fmt: skip
    script = "echo $FOO $BAR $SECOND; cat /usr/lib/lib.so; stat -c ' %t:%T' /dev/card; id -G; touch /usr/lib/lib.so"
    words = ["--device", "vendor.com/device=first", "--device", "vendor.com/device=second", "busybox", "sh", "-c", script]
    result = engine.docker_result("run", "--name", "carded", *words)
    assert result.stdout.splitlines() == ["device kept 2", "library a:e5", "0 4321"]
    assert "Read-only" in result.stderr
    until(lambda: (tmp_path / "called").read_text().split("\n")[:3] == ["creates w", "started", "stopped"], "the hooks were called")
    identity = engine.docker("inspect", "-f", "{{.Id}}", "carded")
    assert (tmp_path / "states").read_text().count(identity) >= 3
    engine.docker("rm", "carded")
    assert engine.barque("run", "--rm", *words[:-1], "echo $FOO $SECOND") == "device 2"


def test_cdi_devices_are_listed_and_the_later_folder_wins(engine, specs):
    write(specs / "etc" / "a.yaml", "cdiVersion: 0.5.0\nkind: other.com/thing\ndevices:\n- name: able\n  containerEdits:\n    env: [WHO=etc]\n")
    write(specs / "run" / "b.yml", "cdiVersion: 0.5.0\nkind: other.com/thing\ndevices:\n- name: able\n  containerEdits:\n    env: [WHO=run]\n")
    write(specs / "run" / "bad.json", '{"cdiVersion": "0.5.0"')
    listed = json.loads(engine.barque("info", "-f", "{{json .DiscoveredDevices}}"))
    assert {"Source": "cdi", "ID": "other.com/thing=able"} in listed
    folders = [str(specs / "etc"), str(specs / "run")]
    assert json.loads(engine.docker("info", "-f", "{{json .CDISpecDirs}}")) == folders
    shown = engine.barque("info")
    assert " CDI spec directories:\n" + "".join(f"  {folder}\n" for folder in folders) in shown
    assert "  cdi: other.com/thing=able\n" in shown
    run = ["run", "--rm", "--device", "other.com/thing=able", "busybox", "sh", "-c", "echo $WHO"]
    assert engine.docker(*run) == "run"
    write(specs / "run" / "c.json", {"cdiVersion": "0.5.0", "kind": "other.com/thing", "devices": [
        {"name": "able", "containerEdits": {"env": ["WHO=again"]}}]})  # fmt: skip
    refused = engine.docker_result(*run)
    assert refused.returncode == 125
    assert "CDI device injection failed: unresolvable CDI devices other.com/thing=able" in refused.stderr


def test_gpus_are_cdi_devices_or_dockers_refusal(engine, specs):
    missing = engine.docker_result("run", "--name", "gpuless", "--gpus", "all", "busybox", "true")
    assert missing.returncode == 125
    assert 'Error response from daemon: could not select device driver "" with capabilities: [[gpu]]' in missing.stderr
    assert engine.docker("inspect", "-f", "{{.State.Status}}", "gpuless") == "created"
    devices = [{"name": name, "containerEdits": {"env": [f"GPU{name}=1"]}} for name in ("0", "1", "all")]
    write(specs / "run" / "nvidia.json", {"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": devices})
    try:
        engine.docker("start", "gpuless")

        def seen(*flags):
            return engine.docker("run", "--rm", *flags, "busybox", "sh", "-c", "env | grep ^GPU | sort | tr -d '\\n'")

        assert seen("--gpus", "all") == "GPUall=1"
        assert seen("--gpus", "2") == "GPU0=1GPU1=1"
        assert seen("--gpus", "device=1") == "GPU1=1"
        assert "nvidia.com/gpu=2" in engine.docker_result("run", "--rm", "--gpus", "3", "busybox", "true").stderr
        other = engine.docker_result("run", "--rm", "--gpus", "driver=amd,count=1", "busybox", "true").stderr
        assert 'could not select device driver "amd" with capabilities: [[gpu]]' in other
    finally:
        (specs / "run" / "nvidia.json").unlink()
        engine.docker("rm", "-f", "gpuless")


def test_nvidias_hook_is_called_where_it_is_installed(tmp_path, monkeypatch):
    path = tmp_path / "nvidia-container-runtime-hook"
    path.write_text(f'#!/bin/sh\necho "$0 $*" > {tmp_path}/called; cat >> {tmp_path}/called\n')
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for engine in running_engine():
        shown = engine.docker("run", "--rm", "--gpus", "device=0,capabilities=utility", "busybox", "env")
    assert "NVIDIA_VISIBLE_DEVICES=0" in shown.splitlines() and "NVIDIA_DRIVER_CAPABILITIES=utility" in shown.splitlines()
    called = (tmp_path / "called").read_text()
    assert called.startswith(f"{path} prestart\n") and '"pid"' in called
