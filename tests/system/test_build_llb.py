"""Definitions of BuildKit's own language, solved by a real engine without a frontend: merges and diffs."""

import asyncio
import secrets

import pytest

from barque.builder.buildkit.pb import control_pb2, ops_pb2
from barque.cli.building.link import CONTROL, Link
from barque.client.api import Api
from barque.client.endpoint import parse_host
from barque.oci import digest as digests
from under_test import EngineUnderTest

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


def solve(engine: EngineUnderTest, definition: ops_pb2.Definition, name: str) -> None:
    """Solve a definition and let the engine keep the outcome as an image."""

    async def run() -> None:
        async with Link(Api(parse_host(engine.host))) as link:
            request = control_pb2.SolveRequest(
                Ref=secrets.token_hex(8), Definition=definition,
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
