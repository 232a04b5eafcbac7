"""Fields of requests that few clients send: each does what it says, or is refused by name."""

import io
import json
import sys
import tarfile
import threading
import uuid
from pathlib import Path

import pytest

from raw_requests import ask
from under_test import EngineUnderTest, until

pytestmark = pytest.mark.system


def made(engine: EngineUnderTest, **fields: object) -> tuple[str, list[str]]:
    """Make a container by the API; return its id and the warnings."""
    body = {"Image": "busybox", "Cmd": ["sleep", "1000"], **fields}
    status, answer = ask(engine, "POST", "/containers/create", json.dumps(body).encode())
    assert status == 201, answer
    return answer["Id"], answer["Warnings"]


def test_a_container_whose_network_is_disabled_has_loopback_alone(engine: EngineUnderTest) -> None:
    name, _ = made(engine, NetworkDisabled=True, HostConfig={"NetworkMode": "bridge"})
    try:
        engine.docker("start", name)
        links = engine.docker("exec", name, "ls", "/sys/class/net").split()
        assert links == ["lo"]
    finally:
        engine.docker("rm", "-f", name)


@pytest.mark.skipif(
    not Path("/sys/fs/cgroup/memory/memory.kmem.tcp.limit_in_bytes").exists(), reason="the kernel has no such limit"
)
def test_memory_of_tcp_buffers_is_limited(engine: EngineUnderTest) -> None:
    name, warnings = made(engine, HostConfig={"KernelMemoryTCP": 8 << 20})
    try:
        engine.docker("start", name)
        (group,) = Path("/sys/fs/cgroup/memory").glob(f"*/{name}")
        assert int((group / "memory.kmem.tcp.limit_in_bytes").read_text()) == 8 << 20
        assert warnings == []
    finally:
        engine.docker("rm", "-f", name)


def test_labels_of_selinux_are_answered_by_a_warning(engine: EngineUnderTest) -> None:
    name, warnings = made(engine, HostConfig={"SecurityOpt": ["label=level:s0:c1"]})
    engine.docker("rm", "-f", name)
    assert "no effect" in warnings[0]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--security-opt", "proc-opts=hidepid=2"), "invalid --security-opt 2"),
        (("--security-opt", "apparmor=nosuch"), "apparmor profile nosuch"),
        (("--cpus", "0.001"), "range of CPUs is from 0.01"),
    ],
)
def test_flags_without_a_meaning_here_are_refused(engine: EngineUnderTest, flags: tuple[str, ...], words: str) -> None:
    refused = engine.docker_result("create", *flags, "busybox")
    assert refused.returncode == 1
    assert words in refused.stderr


def test_volumes_of_a_container_that_is_being_made_are_in_use(engine: EngineUnderTest) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for number in range(4000):
            tar.addfile(tarfile.TarInfo(f"data/{number}"))
    done = engine.run([sys.executable, "-m", "barque", "import", "-c", "VOLUME /data", "-c", "CMD x", "-", "many:1"],
                      input=out.getvalue(), text=False)  # fmt: skip
    assert done.returncode == 0
    names: list[str] = []
    thread = threading.Thread(target=lambda: names.append(made(engine, Image="many:1")[0]))
    thread.start()
    try:
        until(lambda: ask(engine, "GET", "/volumes")[1]["Volumes"], "its volume is there")
        assert ask(engine, "DELETE", "/images/many:1")[0] == 409
        while thread.is_alive():
            assert ask(engine, "POST", "/volumes/prune")[0] == 200
        volume = engine.docker("inspect", "-f", "{{(index .Mounts 0).Name}}", names[0])
        path = Path(engine.docker("volume", "inspect", "-f", "{{.Mountpoint}}", volume))
        assert len(list(path.iterdir())) == 4000
    finally:
        thread.join(60)
        engine.docker("rm", "-fv", *names, check=False)
        engine.docker("rmi", "many:1", check=False)


def test_of_containers_that_want_one_name_at_once_one_gets_it(engine: EngineUnderTest) -> None:
    wanted = f"wanted-{uuid.uuid4().hex[:8]}"
    names = [made(engine)[0] for _ in range(4)]
    answers: list[int] = []

    def rename(name: str) -> None:
        answers.append(ask(engine, "POST", f"/containers/{name}/rename?name={wanted}")[0])

    try:
        threads = [threading.Thread(target=rename, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert sorted(answers) == [204, 409, 409, 409]
        shown = engine.docker("ps", "-a", "--filter", f"name={wanted}", "--format", "{{.Names}}").split()
        assert shown == [wanted]
    finally:
        engine.docker("rm", "-f", *names)


def test_copies_reach_the_part_of_a_volume_that_a_stopped_container_has(engine: EngineUnderTest, tmp_path: Path) -> None:
    volume, name = f"parts-{uuid.uuid4().hex[:8]}", f"part-{uuid.uuid4().hex[:8]}"
    engine.docker("volume", "create", volume)
    try:
        engine.docker("run", "--rm", "-v", f"{volume}:/v", "busybox", "sh", "-c", "mkdir /v/part; echo here > /v/part/f; echo no > /v/f")
        engine.docker("create", "--name", name, "--mount", f"type=volume,src={volume},dst=/data,volume-subpath=part", "busybox")
        engine.docker("cp", f"{name}:/data/f", str(tmp_path / "f"))
        assert (tmp_path / "f").read_text() == "here\n"
        (tmp_path / "g").write_text("in")
        engine.docker("cp", str(tmp_path / "g"), f"{name}:/data/g")
        listed = engine.docker("run", "--rm", "-v", f"{volume}:/v", "busybox", "ls", "/v", "/v/part").split()
        assert listed == ["/v:", "f", "part", "/v/part:", "f", "g"]
    finally:
        engine.docker("rm", "-f", name, check=False)
        engine.docker("volume", "rm", volume)
