"""Containers that clients make of what is built: buildx's debugger, and the calls of the protocol that it stands on."""

import asyncio
import os
import secrets
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from barque.base.errors import BarqueError
from barque.builder.buildkit.pb import control_pb2, gateway_pb2, ops_pb2
from barque.cli.building.link import CONTROL, Link
from barque.client.api import Api
from barque.client.endpoint import parse_host
from barque.oci import digest as digests
from plugins import Run, docker_in, plugin_config
from terminals import Terminal, terminal
from under_test import EngineUnderTest, until

pytestmark = pytest.mark.system
BRIDGE = "moby.buildkit.v1.frontend.LLBBridge"


# buildx's debugger.


def debugger(engine: EngineUnderTest, folder: Path, *flags: str) -> Any:
    config = plugin_config(folder / ".docker")
    environment = {**engine.environment, "DOCKER_CONFIG": str(config), "BUILDX_EXPERIMENTAL": "1", "BUILDKIT_PROGRESS": "plain"}
    return terminal(engine, "buildx", "debug", "--detach=false", *flags, "build", ".", cwd=folder, env=environment)


def leave(tty: Terminal) -> None:
    """Go from the process to the debugger's own prompt, and end it."""
    tty.type("\x01c")
    tty.expect(r"\(buildx\)")
    tty.type("exit\r")


def test_a_debugger_looks_into_what_was_built(engine: EngineUnderTest, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nENV KEPT=yes\nRUN echo built > /said\n")
    with debugger(engine, tmp_path, "--on=always", "--invoke=/bin/sh") as tty:
        tty.expect("Launching interactive container", 60)
        tty.type("echo it says $(cat /said), $KEPT, $((40+2))\n")
        tty.expect("it says built, yes, 42", 30)
        tty.type("echo of this container alone > /said; tty; echo done$((1+1))\n")
        tty.expect("/dev/(pts/0|console)")
        tty.expect("done2")
        leave(tty)
        tty.ends_with(0)


def test_a_debugger_looks_at_what_a_failed_command_left(engine: EngineUnderTest, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(
        "FROM busybox\nENV KEPT=yes\nRUN --mount=type=bind,target=/ctx echo before > /before && echo half > /half && cat /ctx/none\n"
    )
    with debugger(engine, tmp_path, "--invoke=/bin/sh") as tty:
        tty.expect("Launching interactive container", 60)
        tty.type("echo it has $(cat /before /half) $KEPT; ls /ctx\n")
        tty.expect("it has before half yes", 30)
        tty.expect("Dockerfile")
        tty.type("rm /half; echo gone$((1+1))\n")
        tty.expect("gone2")
        # A new container has again what the command left.
        tty.type("\x01c")
        tty.expect(r"\(buildx\)")
        tty.type("rollback /bin/sh\r")
        tty.expect("/ # ", 30)
        tty.type("echo and still has $(cat /half)\n")
        tty.expect("and still has half", 30)
        leave(tty)
        tty.ends_with(1)


def test_a_host_s_network_is_no_step_s_unless_it_is_allowed(engine: EngineUnderTest, tmp_path: Path) -> None:
    docker: Run = docker_in(engine, tmp_path)
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN --network=host ls /sys/class/net > /net\n")
    assert "network.host is not allowed" in docker("buildx", "build", ".", code=1).stderr
    docker("buildx", "build", "--allow=network.host", "-t", "hosted", ".")
    # Nor does it come out of the cache.
    assert "network.host is not allowed" in docker("buildx", "build", ".", code=1).stderr


# The calls themselves.


class Bridge:
    """One build of a client whose frontend is the test; `ref` names busybox."""

    def __init__(self, link: Link, build: str) -> None:
        self.link = link
        self.metadata = {"buildkit-controlapi-buildid": build}
        self.ref = ""

    async def call(self, method: str, **fields: Any) -> Any:
        request = getattr(gateway_pb2, {"StatFileContainer": "StatFileRequest", "ReadFileContainer": "ReadFileRequest",
                                        "ReadDirContainer": "ReadDirRequest"}.get(method, f"{method}Request"))
        answer = getattr(gateway_pb2, request.__name__.replace("Request", "Response"))
        return await self.link.call(f"{BRIDGE}/{method}", request(**fields), answer, metadata=self.metadata)

    async def container(self, *mounts: ops_pb2.Mount, **fields: Any) -> str:
        """Make a container of busybox with more mounts."""
        name = secrets.token_hex(8)
        root = ops_pb2.Mount(dest="/", resultID=self.ref)
        await self.call("NewContainer", ContainerID=name, Mounts=[root, *mounts], **fields)
        return name


class Processes:
    """A call of ExecProcess."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    async def begin(self, container: str, command: str, *, name: str = "p", tty: bool = False, **fields: Any) -> None:
        """Ask for a shell's command, and wait until it runs."""
        words = {"args": ["/bin/sh", "-c", command], "cwd": "/", **fields.pop("meta", {})}
        init = gateway_pb2.InitMessage(ContainerID=container, Meta=ops_pb2.Meta(**words), Fds=[0, 1, 2], Tty=tty, **fields)
        await self.say(name, Init=init)
        message = await self.hear()
        while message.ProcessID != name:
            # Another has last words.
            message = await self.hear()
        assert message.HasField("Started")

    async def say(self, name: str = "p", **fields: Any) -> None:
        await self.stream.send_message(gateway_pb2.ExecMessage(ProcessID=name, **fields))

    async def hear(self) -> Any:
        async with asyncio.timeout(30):
            return await self.stream.recv_message()

    async def heard(self, text: str) -> None:
        """Wait until a process has said something."""
        seen = b""
        while text.encode() not in seen:
            message = await self.hear()
            assert message.HasField("File") and message.File.Data, (seen, message)
            seen += message.File.Data

    async def end(self, name: str = "p") -> tuple[int, dict[int, str], str]:
        """Return a process's code, what it has said by descriptor, and its error."""
        said: dict[int, str] = {1: "", 2: ""}
        code, error = -1, ""
        while True:
            message = await self.hear()
            if message.ProcessID != name:
                continue
            if message.HasField("File"):
                said[message.File.Fd] += message.File.Data.decode()
            elif message.HasField("Exit"):
                code, error = message.Exit.Code, message.Exit.Error.message
            elif message.HasField("Done"):
                return code, said, error

    async def run(self, container: str, command: str, **fields: Any) -> tuple[int, dict[int, str], str]:
        """Run a command to its end."""
        await self.begin(container, command, **fields)
        return await self.end(fields.get("name", "p"))


@asynccontextmanager
async def bridge(engine: EngineUnderTest) -> AsyncIterator[tuple[Bridge, Callable[[], Any]]]:
    """Give a build under way, and what opens a call of ExecProcess."""
    async with Link(Api(parse_host(engine.host))) as link:
        build = secrets.token_hex(8)
        request = control_pb2.SolveRequest(Ref=build)
        solving = asyncio.create_task(link.call(f"{CONTROL}/Solve", request, control_pb2.SolveResponse))
        made = Bridge(link, build)
        image = ops_pb2.Op(source=ops_pb2.SourceOp(identifier="docker-image://docker.io/library/busybox:latest"))
        raw = image.SerializeToString(deterministic=True)
        last = ops_pb2.Op(inputs=[ops_pb2.Input(digest=digests.of(raw))]).SerializeToString()
        solved = await made.call("Solve", Definition=ops_pb2.Definition(**{"def": [raw, last]}), Evaluate=True)
        made.ref = solved.result.ref.id

        @asynccontextmanager
        async def processes() -> AsyncIterator[Processes]:
            async with link.stream(f"{BRIDGE}/ExecProcess", metadata=made.metadata) as stream:
                await stream.send_request()
                yield Processes(stream)
                await stream.end()

        try:
            yield made, processes
        finally:
            await made.call("Return", result=gateway_pb2.Result())
            await solving


def with_bridge(engine: EngineUnderTest, work: Callable[[Bridge, Callable[[], Any]], Awaitable[None]]) -> None:
    async def run() -> None:
        async with bridge(engine) as (made, processes):
            await work(made, processes)

    asyncio.run(run())
    # Nothing of them outlives the build.
    folder = engine.root / "exec/containers"
    until(lambda: not folder.exists() or os.listdir(folder) == [], "all containers are gone")


def test_processes_run_beside_the_first_and_end_with_it(engine: EngineUnderTest) -> None:
    async def work(made: Bridge, processes: Callable[[], Any]) -> None:
        container = await made.container(hostname="named")
        async with processes() as calls:
            await calls.begin(container, "echo $A; hostname; read line; echo heard $line >&2; sleep 100", meta={"env": ["A=1"]})
            await calls.heard("1\nnamed\n")
            code, said, _ = await calls.run(container, 'echo "${A:-none}"; id -u; pwd; touch /made', name="q", meta={"user": "www", "cwd": "/tmp"})
            assert (code, said) == (1, {1: "none\n33\n/tmp\n", 2: "touch: /made: Permission denied\n"})
            await calls.say(File=gateway_pb2.FdMessage(Fd=0, Data=b"words\n"))
            await calls.heard("heard words")
            await calls.begin(container, "sleep 100", name="r")
            await calls.say(Signal=gateway_pb2.SignalMessage(Name="KILL"))
            ends = {}
            while len(ends) < 2:
                message = await calls.hear()
                if message.HasField("Exit"):
                    ends[message.ProcessID] = message.Exit.Code
            assert ends == {"p": 137, "r": 137}
            code, _, error = await calls.run(container, "true", name="s")
            assert code == 255
            assert "first process has ended" in error
        await made.call("ReleaseContainer", ContainerID=container)

    with_bridge(engine, work)


def test_a_terminal_has_a_size_and_input_has_an_end(engine: EngineUnderTest) -> None:
    async def work(made: Bridge, processes: Callable[[], Any]) -> None:
        container = await made.container()
        async with processes() as calls:
            await calls.begin(container, "cat; echo over", meta={"env": ["PATH=/bin"]})
            await calls.begin(container, "trap 'stty size; exit 3' WINCH; echo up; while :; do usleep 10000; done", name="t", tty=True)
            await calls.heard("up")
            await calls.say("t", Resize=gateway_pb2.ResizeMessage(Rows=33, Cols=99))
            code, said, error = await calls.end("t")
            assert (code, said[1], error) == (3, "33 99\r\n", "exit code: 3")
            # What a process does not read does not stop the others' messages once it has ended.
            await calls.say(File=gateway_pb2.FdMessage(Fd=0, Data=b"x" * 100_000))
            await calls.say(File=gateway_pb2.FdMessage(Fd=0, EOF=True))
            code, said, _ = await calls.end()
            assert (code, said[1]) == (0, "x" * 100_000 + "over\n")
            await calls.say(File=gateway_pb2.FdMessage(Fd=0, Data=b"late"))

    with_bridge(engine, work)


def test_mounts_are_the_container_s_alone(engine: EngineUnderTest) -> None:
    async def work(made: Bridge, processes: Callable[[], Any]) -> None:
        mounts = [
            ops_pb2.Mount(dest="/copy", resultID=made.ref), ops_pb2.Mount(dest="/fixed", resultID=made.ref, selector="/etc", readonly=True),
            ops_pb2.Mount(dest="/empty"), ops_pb2.Mount(dest="/shm", mountType=ops_pb2.TMPFS),
            ops_pb2.Mount(dest="/kept", mountType=ops_pb2.CACHE, cacheOpt=ops_pb2.CacheOpt(ID="of-containers")),
        ]  # fmt: skip
        for turn in range(2):
            container = await made.container(*mounts)
            if not turn:
                found = await made.call("StatFileContainer", Ref=container, Path="passwd", MountIndex=2)
                assert found.stat.path == "passwd"
                with pytest.raises(BarqueError, match="no process runs"):
                    await made.call("ReadDirContainer", Ref=container, DirPath="/", MountIndex=3)
            async with processes() as calls:
                code, said, _ = await calls.run(
                    container,
                    "ls /empty /shm; cat /kept/* 2>/dev/null; ls /copy | grep made; ls /fixed | grep passwd; grep -c ' /shm tmpfs' /proc/mounts;"
                    f"echo {turn} > /kept/{turn}; touch /copy/made /empty/made /shm/made /made; touch /fixed/made",
                )
                # Only the cache has kept what the container before wrote.
                expected = "/empty:\n\n/shm:\n" + ("0\n" if turn else "") + "passwd\n1\n"
                assert (code, said) == (1, {1: expected, 2: "touch: /fixed/made: Read-only file system\n"})
            await made.call("ReleaseContainer", ContainerID=container)

    with_bridge(engine, work)


def test_files_are_looked_at_before_while_and_after_a_process_runs(engine: EngineUnderTest) -> None:
    async def work(made: Bridge, processes: Callable[[], Any]) -> None:
        container = await made.container(ops_pb2.Mount(dest="/shm", mountType=ops_pb2.TMPFS))
        found = await made.call("StatFileContainer", Ref=container, Path="/etc/passwd")
        assert stat.S_ISREG(found.stat.mode) or found.stat.mode & 0o644
        with pytest.raises(BarqueError, match="no such file"):
            await made.call("ReadFileContainer", Ref=container, FilePath="/made")
        async with processes() as calls:
            await calls.begin(container, "echo of the root > /made; ln -s /../../../etc/shadow /out; echo of the mount > /shm/made; echo up; cat")
            await calls.heard("up")
            data = await made.call("ReadFileContainer", Ref=container, FilePath="/made")
            assert data.Data == b"of the root\n"
            data = await made.call("ReadFileContainer", Ref=container, FilePath="made", MountIndex=1, Range=gateway_pb2.FileRange(Offset=3, Length=3))
            assert data.Data == b"the"
            listed = await made.call("ReadDirContainer", Ref=container, DirPath="/", MountIndex=1)
            assert [one.path for one in listed.entries] == ["made"]
            # A link out of the root leads to the root's own.
            with pytest.raises(BarqueError, match="no such file"):
                await made.call("ReadFileContainer", Ref=container, FilePath="/out")
            await calls.say(File=gateway_pb2.FdMessage(Fd=0, EOF=True))
            assert (await calls.end())[0] == 0
        data = await made.call("ReadFileContainer", Ref=container, FilePath="/made")
        assert data.Data == b"of the root\n"
        with pytest.raises(BarqueError, match="out of bounds"):
            await made.call("ReadFileContainer", Ref=container, FilePath="/made", MountIndex=2)
        # It was the container's alone.
        other = await made.container()
        with pytest.raises(BarqueError, match="no such file"):
            await made.call("ReadFileContainer", Ref=other, FilePath="/made")

    with_bridge(engine, work)


def test_what_cannot_be_is_refused(engine: EngineUnderTest) -> None:
    async def work(made: Bridge, processes: Callable[[], Any]) -> None:
        for fields, message in (
            ({"ContainerID": ""}, "needs an id"),
            ({"ContainerID": "a"}, "needs a mount on /"),
            ({"ContainerID": "a", "Mounts": [ops_pb2.Mount(dest="/", resultID="none")]}, "no such ref none"),
            ({"ContainerID": "a", "Mounts": [ops_pb2.Mount(dest="/"), ops_pb2.Mount(dest="/s", mountType=ops_pb2.SECRET, secretOpt=ops_pb2.SecretOpt(ID="s"))]},
             "secret s: not found"),
        ):  # fmt: skip
            with pytest.raises(BarqueError, match=message):
                await made.call("NewContainer", **fields)
        container = await made.container(Network=ops_pb2.HOST)
        with pytest.raises(BarqueError, match="already exists"):
            await made.call("NewContainer", ContainerID=container, Mounts=[ops_pb2.Mount(dest="/")])
        async with processes() as calls:
            code, _, error = await calls.run(container, "true")
            assert (code, error) == (255, "network.host is not allowed")
        container = await made.container()
        async with processes() as calls:
            code, _, error = await calls.run(container, "true", Security=ops_pb2.INSECURE)
            assert (code, error) == (255, "security.insecure is not allowed")
            code, _, error = await calls.run(container, "", name="q", meta={"args": ["/none"]})
            assert code == 255
            assert "no such file or directory" in error
        with pytest.raises(BarqueError, match="not found"):
            await made.call("ReleaseContainer", ContainerID="none")
        for name, fields, message in (
            ("", {"Started": gateway_pb2.StartedMessage()}, "ProcessID required"),
            ("p", {"Signal": gateway_pb2.SignalMessage(Name="KILL")}, "IO for process 'p' not found"),
            ("p", {"Init": gateway_pb2.InitMessage(ContainerID="none")}, "previously released or not created"),
        ):  # fmt: skip
            with pytest.raises(Exception, match=message):
                async with processes() as calls:
                    await calls.say(name, **fields)
                    await calls.hear()

    with_bridge(engine, work)


def test_a_released_container_s_processes_are_ended(engine: EngineUnderTest) -> None:
    async def work(made: Bridge, processes: Callable[[], Any]) -> None:
        container = await made.container()
        async with processes() as calls:
            await calls.begin(container, "sleep 1000")
            await calls.begin(container, "sleep 1000", name="q")
            await made.call("ReleaseContainer", ContainerID=container)
            ends = {}
            while len(ends) < 2:
                message = await calls.hear()
                if message.HasField("Exit"):
                    ends[message.ProcessID] = message.Exit.Error.message
            assert ends == {"p": "the container was released", "q": "the container was released"}
        # One that nobody releases ends with the build.
        container = await made.container()
        async with processes() as calls:
            await calls.begin(container, "sleep 1000")
            await made.call("Return", result=gateway_pb2.Result())
            assert (await calls.end())[0] == 255

    with_bridge(engine, work)
