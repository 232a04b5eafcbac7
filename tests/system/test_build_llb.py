"""Definitions of BuildKit's own language, solved by a real engine without a frontend: merges, diffs, commands."""

import asyncio
import json
import secrets
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from barque.builder.buildkit.pb import control_pb2, ops_pb2
from barque.cli.building.link import CONTROL, Link
from barque.client.api import Api
from barque.client.endpoint import parse_host
from barque.oci import digest as digests
from under_test import EngineUnderTest, running_engine

pytestmark = pytest.mark.system


class Definition:
    """Collects operations; each call returns the input that names an operation's first output."""

    def __init__(self) -> None:
        self.raw: list[bytes] = []

    def add(self, **parts: object) -> ops_pb2.Input:
        data = ops_pb2.Op(**parts).SerializeToString(deterministic=True)  # type: ignore[arg-type]
        self.raw.append(data)
        return ops_pb2.Input(digest=digests.of(data), index=0)

    def image(self) -> ops_pb2.Input:
        return self.add(source=ops_pb2.SourceOp(identifier="docker-image://docker.io/library/busybox:latest"))

    def run(self, base: ops_pb2.Input, command: str) -> ops_pb2.Input:
        meta = ops_pb2.Meta(args=["/bin/sh", "-c", command], cwd="/", env=["PATH=/bin"])
        return self.add(inputs=[base], exec=ops_pb2.ExecOp(meta=meta, mounts=[ops_pb2.Mount(input=0, dest="/", output=0)]))

    def merge(self, *layers: ops_pb2.Input) -> ops_pb2.Input:
        inputs = [ops_pb2.MergeInput(input=number) for number in range(len(layers))]
        return self.add(inputs=list(layers), merge=ops_pb2.MergeOp(inputs=inputs))

    def diff(self, lower: ops_pb2.Input, upper: ops_pb2.Input) -> ops_pb2.Input:
        operation = ops_pb2.DiffOp(lower=ops_pb2.LowerDiffInput(input=0), upper=ops_pb2.UpperDiffInput(input=1))
        return self.add(inputs=[lower, upper], diff=operation)

    def end(self, last: ops_pb2.Input) -> ops_pb2.Definition:
        tail = ops_pb2.Op(inputs=[last]).SerializeToString()
        return ops_pb2.Definition(**{"def": [*self.raw, tail]})


def solve(engine: EngineUnderTest, definition: ops_pb2.Definition, name: str, entitlements: Sequence[str] = ()) -> None:
    """Solve a definition and let the engine keep the outcome as an image."""

    async def run() -> None:
        async with Link(Api(parse_host(engine.host))) as link:
            request = control_pb2.SolveRequest(
                Ref=secrets.token_hex(8), Definition=definition, Entitlements=entitlements,
                Exporters=[control_pb2.Exporter(Type="image", Attrs={"name": name})],
            )  # fmt: skip
            await link.call(f"{CONTROL}/Solve", request, control_pb2.SolveResponse)

    asyncio.run(run())


def test_merged_steps_lie_on_top_of_each_other(engine: EngineUnderTest) -> None:
    made = Definition()
    base = made.image()
    one = made.run(base, "echo one > /one; echo one > /both")
    two = made.run(base, "echo two > /two; echo two > /both; rm /etc/group")
    last = made.merge(one, made.diff(base, two))
    solve(engine, made.end(last), "merged")
    assert engine.docker("run", "--rm", "merged", "cat", "/one", "/two", "/both") == "one\ntwo\ntwo"
    assert "group" not in engine.docker("run", "--rm", "merged", "ls", "/etc")
    layers = engine.docker("image", "inspect", "-f", "{{len .RootFS.Layers}}", "merged").strip()
    assert layers == "3"
    engine.docker("rmi", "merged")


def test_a_diff_of_steps_that_have_nothing_in_common_is_what_differs(engine: EngineUnderTest) -> None:
    made = Definition()
    base = made.image()
    lower = made.run(base, "mkdir /d /gone; echo same > /d/same; echo old > /d/file; ln -s /x /turned; touch -d '2001-01-01 00:00:00' /d/same")
    upper = made.run(base, "mkdir -m 700 /d /turned; echo same > /d/same; echo newer > /d/file; echo a > /turned/a; touch -d '2001-01-01 00:00:00' /d/same")
    last = made.diff(lower, upper)
    # What both have is not in the diff, so a file of the base below it shows through.
    other = made.run(base, "mkdir /d /gone; echo mine > /d/same; echo stays > /d/mine; echo old > /d/file")
    solve(engine, made.end(made.merge(other, last)), "differs")
    said = engine.docker("run", "--rm", "differs", "sh", "-c", "cat /d/same /d/mine /d/file /turned/a; stat -c %a /d; ls -d /gone 2>/dev/null; true")
    assert said == "mine\nstays\nnewer\na\n700"
    engine.docker("rmi", "differs")


def test_files_of_a_context_are_refused_where_there_is_no_client(engine: EngineUnderTest) -> None:
    made = Definition()
    local = made.add(source=ops_pb2.SourceOp(identifier="local://context"))
    with pytest.raises(Exception, match=r"client session|build context"):
        solve(engine, made.end(made.merge(made.image(), local)), "never")


def command(made: Definition, base: ops_pb2.Input, text: str, mounts: "list[ops_pb2.Mount] | None" = None, **more: object) -> ops_pb2.Input:
    """Add a command with a meta of its own; the root is its first output unless mounts say otherwise."""
    devices = more.pop("devices", [])
    meta = ops_pb2.Meta(args=["/bin/sh", "-c", text], cwd="/", env=["PATH=/bin"], **more)  # type: ignore[arg-type]
    mounts = mounts or [ops_pb2.Mount(input=0, dest="/", output=0)]
    return made.add(inputs=[base], exec=ops_pb2.ExecOp(meta=meta, mounts=mounts, cdiDevices=devices))


def output(of: ops_pb2.Input, number: int) -> ops_pb2.Input:
    return ops_pb2.Input(digest=of.digest, index=number)


def shown(engine: EngineUnderTest, name: str, *words: str) -> str:
    said = engine.docker("run", "--rm", name, *words)
    engine.docker("rmi", name)
    return said


def test_a_command_has_limits_of_its_own(engine: EngineUnderTest) -> None:
    for limit in (64, 77):
        made = Definition()
        ulimit = [ops_pb2.Ulimit(Name="nofile", Soft=limit, Hard=limit + 1)]
        solve(engine, made.end(command(made, made.image(), "(ulimit -Sn; ulimit -Hn) > /n", ulimit=ulimit)), "limited")
        assert shown(engine, "limited", "cat", "/n") == f"{limit}\n{limit + 1}"


def test_a_command_may_end_with_the_codes_that_are_given(engine: EngineUnderTest) -> None:
    for codes, ends, well in (([3, 4], 4, True), ([3], 0, False), ([], 3, False), ([0, 3], 0, True)):
        made = Definition()
        last = command(made, made.image(), f"echo {ends} > /made; exit {ends}", validExitCodes=codes)
        if well:
            solve(engine, made.end(last), "ended")
            assert shown(engine, "ended", "cat", "/made") == str(ends)
        else:
            with pytest.raises(Exception, match=f"exit code: {ends}"):
                solve(engine, made.end(last), "never")


def test_what_a_command_leaves_in_its_mounts_are_results_of_their_own(engine: EngineUnderTest) -> None:
    def definition(wanted: int) -> ops_pb2.Definition:
        made = Definition()
        base = made.image()
        mounts = [
            ops_pb2.Mount(input=0, dest="/", output=-1, readonly=True), ops_pb2.Mount(input=-1, dest="/new", output=0),
            ops_pb2.Mount(input=0, dest="/more", output=1), ops_pb2.Mount(input=0, dest="/thrown", output=-1),
        ]  # fmt: skip
        text = "set -e; ! touch /root; echo a > /new/a; echo b > /more/b; rm /more/etc/group; echo c > /thrown/c; cat /proc/sys/kernel/random/uuid > /new/id"
        run = command(made, base, text, mounts)
        return made.end(made.merge(base, output(run, 0)) if wanted == 0 else output(run, 1))

    solve(engine, definition(0), "left")
    first = shown(engine, "left", "cat", "/a", "/id")
    assert first.startswith("a\n")
    # The command ran once, whichever of its results is wanted.
    solve(engine, definition(1), "left")
    assert shown(engine, "left", "sh", "-c", "cat /b; ls /c /etc/group /a 2>&1; true").count("No such file") == 3
    solve(engine, definition(0), "left")
    assert shown(engine, "left", "cat", "/a", "/id") == first

    async def forget() -> None:
        async with Link(Api(parse_host(engine.host))) as link, link.stream(f"{CONTROL}/Prune") as stream:
            await stream.send_message(control_pb2.PruneRequest(all=True, filter=['description~="[(]/new[)]$"']), end=True)
            assert [one async for one in stream]

    asyncio.run(forget())
    # What the cache has lost is made again, though the command's own result is still known.
    solve(engine, definition(0), "left")
    again = shown(engine, "left", "cat", "/a", "/id")
    assert again.startswith("a\n")
    assert again != first


@pytest.mark.parametrize(("mounts", "message"), [
    ([ops_pb2.Mount(input=0, dest="/", output=0), ops_pb2.Mount(input=0, dest="/a", output=2)], "not numbered from 0"),
    ([ops_pb2.Mount(input=0, dest="/", output=1), ops_pb2.Mount(input=0, dest="/a", output=1)], "two mounts are the output 1"),
    ([ops_pb2.Mount(input=0, dest="/", output=0), ops_pb2.Mount(input=0, dest="/a", output=1, readonly=True)], "can be written to"),
    ([ops_pb2.Mount(input=0, dest="/", output=0), ops_pb2.Mount(dest="/a", output=1, mountType=ops_pb2.TMPFS)], "can be written to"),
    ([ops_pb2.Mount(input=0, dest="/", output=0), ops_pb2.Mount(input=0, dest="/a", output=1, selector="/etc")], "selector"),
])  # fmt: skip
def test_outputs_that_cannot_be_are_refused(engine: EngineUnderTest, mounts: list[ops_pb2.Mount], message: str) -> None:
    made = Definition()
    with pytest.raises(Exception, match=message):
        solve(engine, made.end(command(made, made.image(), "true", mounts)), "never")


def test_a_control_group_above_all_is_refused(engine: EngineUnderTest) -> None:
    made = Definition()
    with pytest.raises(Exception, match="invalid cgroup parent"):
        solve(engine, made.end(command(made, made.image(), "true", cgroupParent="../x")), "never")


@pytest.fixture
def equipped(tmp_path: Path) -> Iterator[EngineUnderTest]:
    """Give an engine with two devices by CDI."""
    devices = [{"name": name, "containerEdits": {"env": [f"HAS_{name.upper()}=1"]}} for name in ("one", "two")]
    (tmp_path / "cdi").mkdir()
    (tmp_path / "cdi/spec.json").write_text(json.dumps({"cdiVersion": "0.5.0", "kind": "vendor.com/thing", "devices": devices}))
    for made in running_engine("--cdi-spec-dir", str(tmp_path / "cdi")):
        made.load_busybox()
        yield made


def test_a_command_is_given_devices_that_the_build_may_use(equipped: EngineUnderTest, tmp_path: Path) -> None:
    def tried(name: str, *entitlements: str, optional: bool = False) -> str:
        made = Definition()
        device = [ops_pb2.CDIDevice(name=name, optional=optional)]
        solve(equipped, made.end(command(made, made.image(), "env | grep HAS_ | sort > /has; true", devices=device)), "has", entitlements)
        return shown(equipped, "has", "cat", "/has")

    assert tried("vendor.com/thing=two", "device") == "HAS_TWO=1"
    assert tried("vendor.com/thing=*", "device=vendor.com/thing") == "HAS_ONE=1\nHAS_TWO=1"
    assert tried("vendor.com/thing", "device=vendor.com/thing=one") == "HAS_ONE=1"
    assert tried("vendor.com/none=x", "device", optional=True) == ""
    with pytest.raises(Exception, match=r"vendor\.com/thing=one is not allowed to this build"):
        tried("vendor.com/thing=one", "device=vendor.com/thing=two")
    with pytest.raises(Exception, match="no CDI spec names it"):
        tried("vendor.com/none=x", "device")
    (tmp_path / "w").mkdir()
    (tmp_path / "w/Dockerfile").write_text("FROM busybox\nRUN --device=vendor.com/thing=one,required test $HAS_ONE = 1 && touch /seen\n")
    equipped.barque("build", "--allow", "device=vendor.com/thing=one", "-t", "seen", str(tmp_path / "w"))
    assert shown(equipped, "seen", "ls", "/seen") == "/seen"
    refused = equipped.run([sys.executable, "-m", "barque", "build", str(tmp_path / "w")])
    assert refused.returncode == 1
    assert "use --allow device" in refused.stderr
