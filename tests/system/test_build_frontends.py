"""Frontends that are images: one made of this machine's Python, which speaks the gateway's protocol over its standard input."""

import io
import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from plugins import Run, docker_in
from under_test import EngineUnderTest, until

pytestmark = pytest.mark.system
SCRIPT = '''
import asyncio, json, os, socket, sys, threading
from barque.builder.buildkit.connection import GrpcClient
from barque.builder.buildkit.pb import gateway_pb2, ops_pb2, status_pb2
from barque.oci import digest as digests

BRIDGE = "moby.buildkit.v1.frontend.LLBBridge"
OPTIONS = dict(value.split("=", 1) for name, value in os.environ.items() if name.startswith("BUILDKIT_FRONTEND_OPT_"))


def pumped():
    ours, theirs = socket.socketpair()

    def inwards():
        while data := os.read(0, 65536):
            theirs.sendall(data)
        theirs.close()

    def outwards():
        while data := theirs.recv(65536):
            os.write(1, data)

    for work in (inwards, outwards):
        threading.Thread(target=work, daemon=True).start()
    return ours


def definition(*operations):
    raw = [one.SerializeToString(deterministic=True) for one in operations]
    last = ops_pb2.Op(inputs=[ops_pb2.Input(digest=digests.of(raw[-1]))]).SerializeToString()
    return ops_pb2.Definition(**{"def": [*raw, last]})


async def main():
    client = GrpcClient()
    await asyncio.get_running_loop().create_connection(lambda: client.protocol, sock=pumped())

    async def call(method, message):
        answer = getattr(gateway_pb2, {"Solve": "SolveResponse", "ReadFile": "ReadFileResponse", "Return": "ReturnResponse", "Ping": "PongResponse", "NewContainer": "NewContainerResponse"}[method])
        return await client.call(f"{BRIDGE}/{method}", message, answer)

    mode = OPTIONS.get("build-arg:MODE", "")
    print("working", mode, file=sys.stderr, flush=True)
    await call("Ping", gateway_pb2.PingRequest())
    if mode == "silent":
        sys.exit(3)
    if mode == "container":
        image = ops_pb2.Op(source=ops_pb2.SourceOp(identifier="docker-image://docker.io/library/busybox:latest"))
        made = await call("Solve", gateway_pb2.SolveRequest(Definition=definition(image), allowResultReturn=True))
        root = ops_pb2.Mount(dest="/", resultID=made.result.ref.id)
        await call("NewContainer", gateway_pb2.NewContainerRequest(ContainerID="mine", Mounts=[root]))
        async with client.stream(f"{BRIDGE}/ExecProcess") as stream:
            for name, command in (("left", "echo left; sleep 97531"), ("said", "ps | grep -c [9]7531")):
                init = gateway_pb2.InitMessage(ContainerID="mine", Meta=ops_pb2.Meta(args=["/bin/sh", "-c", command]), Fds=[1])
                await stream.send_message(gateway_pb2.ExecMessage(ProcessID=name, Init=init))
                message = await stream.recv_message()
                while message.ProcessID != name or not message.HasField("File"):
                    message = await stream.recv_message()
                print(name, message.File.Data, file=sys.stderr, flush=True)
            sys.exit(4)
    if mode == "greedy":
        kept = bytearray(os.urandom(1 << 20) * 300)
    if mode == "hang":
        await asyncio.sleep(1000)
    if mode == "fails":
        await call("Return", gateway_pb2.ReturnRequest(error=status_pb2.Status(code=3, message="I do not like it")))
        return
    if mode == "asks":
        asked = gateway_pb2.SolveRequest(Frontend="dockerfile.v0", FrontendOpt=OPTIONS, allowResultReturn=True)
        made = await call("Solve", asked)
        await call("Return", gateway_pb2.ReturnRequest(result=made.result))
        return
    local = ops_pb2.Op(source=ops_pb2.SourceOp(identifier="local://context"))
    found = await call("Solve", gateway_pb2.SolveRequest(Definition=definition(local), allowResultReturn=True))
    text = (await call("ReadFile", gateway_pb2.ReadFileRequest(Ref=found.result.ref.id, FilePath="words.txt"))).Data.decode()
    image = ops_pb2.Op(source=ops_pb2.SourceOp(identifier="docker-image://docker.io/library/busybox:latest"))
    below = digests.of(image.SerializeToString(deterministic=True))
    network = " ".join(sorted(os.listdir("/sys/class/net")))
    command = f"echo {text.strip()} {OPTIONS['cmdline'].split()[-1]} {network} > /said"
    meta = ops_pb2.Meta(args=["/bin/sh", "-c", command], cwd="/", env=["PATH=/bin"])
    run = ops_pb2.Op(inputs=[ops_pb2.Input(digest=below)], exec=ops_pb2.ExecOp(meta=meta, mounts=[ops_pb2.Mount(input=0, dest="/", output=0)]))
    made = await call("Solve", gateway_pb2.SolveRequest(Definition=definition(image, run), allowResultReturn=True))
    config = {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["cat", "/said"], "Env": ["PATH=/bin"]}}
    made.result.metadata["containerimage.config"] = json.dumps(config).encode()
    await call("Return", gateway_pb2.ReturnRequest(result=made.result))


asyncio.run(main())
'''
_LISTED = (
    "import asyncio, encodings.idna, json, multiprocessing, os, socket, sys, threading, barque.builder.buildkit.connection\n"
    "from barque.builder.buildkit.pb import gateway_pb2, ops_pb2, status_pb2\nimport barque.oci.digest\n"
    "barque.builder.buildkit.connection.method_of('moby.buildkit.v1.frontend.LLBBridge/Ping')\n"
    "print(json.dumps([os.path.realpath(sys.executable), sys.path, sorted({m.__file__ for m in sys.modules.values() if getattr(m, '__file__', None)})]))\n"
)


def machine_python() -> tuple[bytes, str, list[str]]:
    """Return an archive with this Python and what the frontend imports, the interpreter's path, and its search path."""
    listed = subprocess.run([sys.executable, "-c", _LISTED], capture_output=True, text=True, check=True, timeout=60)
    program, search, modules = json.loads(listed.stdout)
    wanted = {program, *(one for one in modules if os.path.exists(one))}
    objects = [one for one in wanted if one == program or ".so" in one]
    told = subprocess.run(["ldd", *objects], capture_output=True, text=True, timeout=60).stdout
    libraries = set(re.findall(r"(?:=> |^\s)(/\S+) \(", told, re.MULTILINE))
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path in sorted(wanted | libraries):
            tar.add(os.path.realpath(path), path)
        data = SCRIPT.encode()
        script = tarfile.TarInfo("frontend.py")
        script.size = len(data)
        tar.addfile(script, io.BytesIO(data))
    return out.getvalue(), program, [one for one in search if one]


@pytest.fixture(scope="module")
def frontend(engine: EngineUnderTest) -> str:
    """Give the name of a frontend's image."""
    archive, program, search = machine_python()
    entry = json.dumps([program, "/frontend.py"])
    words = ["docker", "import", "-c", f"ENTRYPOINT {entry}", "-c", f"ENV PYTHONPATH={':'.join(search)}", "-", "frontend:1"]
    done = subprocess.run(words, env=engine.environment, input=archive, capture_output=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return "frontend:1"


@pytest.fixture
def docker(engine: EngineUnderTest, tmp_path: Path) -> Run:
    """Give the docker command with the plugins, in the folder `tmp_path`."""
    return docker_in(engine, tmp_path)


def test_a_line_names_an_image_that_is_the_frontend(docker: Run, frontend: str, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"# syntax={frontend} last\nthis is no Dockerfile\n")
    (tmp_path / "words.txt").write_text("of the context\n")
    said = docker("buildx", "build", "-t", "by-frontend", ".").stderr
    assert f"[frontend] {frontend}" in said, said
    # It has the loopback device alone.
    assert docker("run", "--rm", "by-frontend").stdout == "of the context last lo\n"
    # It may ask for the built-in one.
    (tmp_path / "Dockerfile").write_text(f"# syntax={frontend}\nFROM busybox\nARG MODE\nRUN echo $MODE > /asked\n")
    docker("buildx", "build", "-t", "by-frontend", "--build-arg", "MODE=asks", ".")
    assert docker("run", "--rm", "by-frontend", "cat", "/asked").stdout == "asks\n"
    # A client may name it, too.
    (tmp_path / "Dockerfile").write_text("FROM busybox\n")
    docker("buildx", "build", "-t", "by-frontend", "--build-arg", f"BUILDKIT_SYNTAX={frontend}", ".")
    assert docker("run", "--rm", "by-frontend").stdout == "of the context frontend:1 lo\n"


def test_a_frontend_that_fails_is_told(docker: Run, engine: EngineUnderTest, frontend: str, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"# syntax={frontend}\nx\n")
    failed = docker("buildx", "build", "--build-arg", "MODE=fails", ".", code=1).stderr
    assert "I do not like it" in failed, failed
    failed = docker("buildx", "build", "--build-arg", "MODE=silent", ".", code=1).stderr
    assert "ended with exit code 3 and without a result: working silent" in failed, failed
    (tmp_path / "Dockerfile").write_text("# syntax=127.0.0.1:1/none\nx\n")
    failed = docker("buildx", "build", ".", code=1).stderr
    assert "127.0.0.1:1/none" in failed
    (tmp_path / "Dockerfile").write_text("# syntax=/:/\nx\n")
    failed = docker("buildx", "build", ".", code=1).stderr
    assert "invalid reference format" in failed or "/:/" in failed
    # Nothing of them is left.
    left = [name for name in os.listdir(engine.root / "exec/containers") if name] if (engine.root / "exec/containers").exists() else []
    assert left == []


def test_a_frontend_s_containers_end_with_it(docker: Run, engine: EngineUnderTest, frontend: str, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"# syntax={frontend}\nx\n")
    failed = docker("buildx", "build", "--build-arg", "MODE=container", ".", code=1).stderr
    assert r"without a result: working container" in failed, failed
    assert r"left b'left\n'" in failed, failed
    assert r"said b'1\n'" in failed, failed
    folder = engine.root / "exec/containers"
    until(lambda: os.listdir(folder) == [], "its containers are gone")


def test_a_frontend_ends_with_its_build(docker: Run, engine: EngineUnderTest, frontend: str, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"# syntax={frontend}\nx\n")
    environment = {**engine.environment, "DOCKER_CONFIG": str(tmp_path / ".docker"), "BUILDKIT_PROGRESS": "plain"}
    words = ["docker", "buildx", "build", "--build-arg", "MODE=hang", "."]

    def running() -> list[int]:
        found = []
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                command = Path(f"/proc/{name}/cmdline").read_bytes()
                variables = Path(f"/proc/{name}/environ").read_bytes()
            except OSError:
                continue
            if b"/frontend.py" in command and b"build-arg:MODE=hang" in variables:
                found.append(int(name))
        return found

    build = subprocess.Popen(words, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
    try:
        until(running, "the frontend runs", 60)
    finally:
        build.kill()
        build.wait()
    until(lambda: not running(), "the frontend has ended", 30)


def test_a_frontend_that_asks_for_nothing_or_takes_too_much_is_ended(
    docker: Run, engine: EngineUnderTest, frontend: str, tmp_path: Path
) -> None:
    (tmp_path / "Dockerfile").write_text(f"# syntax={frontend}\nFROM busybox\n")

    def limited(**limits: str) -> None:
        (engine.root / "daemon.json").write_text(json.dumps({"builder": {"frontends": limits}} if limits else {}))
        engine.stop()
        engine.start()

    try:
        limited(maxSilence="3s")
        failed = docker("buildx", "build", "--build-arg", "MODE=hang", ".", code=1).stderr
        assert f"the frontend {frontend} was ended: it asked for nothing for 3 s" in failed
        limited(maxMemory="200MB")
        failed = docker("buildx", "build", "--build-arg", "MODE=greedy", ".", code=1).stderr
        assert f"the frontend {frontend} was ended: it used more than 209715200 bytes of memory" in failed
        docker("buildx", "build", "--build-arg", "MODE=asks", ".")
    finally:
        limited()
