"""BuildKit's definitions as vertices."""

import pytest
from hypothesis import given, strategies as st

from barque.base.errors import BarqueError, InvalidInputError, UnsupportedError
from barque.builder.buildkit.builds import References
from barque.builder.buildkit.llb import Translator, definition_of
from barque.builder.buildkit.pb import ops_pb2
from barque.builder.graph import CopyFiles, Exec, Files, MakeFolder, Scratch, Source
from barque.oci import digest as digests


class Definition:
    """Collects operations; each call returns the input that names the operation's first output."""

    def __init__(self) -> None:
        self.raw: list[bytes] = []
        self.names: dict[str, str] = {}

    def add(self, operation: ops_pb2.Op, name: str = "") -> ops_pb2.Input:
        data = operation.SerializeToString(deterministic=True)
        self.raw.append(data)
        digest = digests.of(data)
        if name:
            self.names[digest] = name
        return ops_pb2.Input(digest=digest, index=0)

    def end(self, last: ops_pb2.Input) -> ops_pb2.Definition:
        tail = ops_pb2.Op(inputs=[last]).SerializeToString()
        metadata = {d: ops_pb2.OpMetadata(description={"llb.customname": n}) for d, n in self.names.items()}
        return ops_pb2.Definition(**{"def": [*self.raw, tail]}, metadata=metadata)


def image(name: str = "docker-image://docker.io/library/busybox:latest") -> ops_pb2.Op:
    return ops_pb2.Op(source=ops_pb2.SourceOp(identifier=name), platform=ops_pb2.Platform(OS="linux", Architecture="amd64"))


def test_a_command_on_an_image_becomes_two_vertices() -> None:
    made = Definition()
    base = made.add(image())
    meta = ops_pb2.Meta(args=["sh", "-c", "true"], env=["A=b"], cwd="/w", user="7")
    mounts = [
        ops_pb2.Mount(input=0, dest="/", output=0),
        ops_pb2.Mount(input=-1, dest="/c", output=-1, mountType=ops_pb2.CACHE, cacheOpt=ops_pb2.CacheOpt(ID="c", sharing=ops_pb2.LOCKED)),
        ops_pb2.Mount(input=-1, dest="/s", output=-1, mountType=ops_pb2.SECRET, secretOpt=ops_pb2.SecretOpt(ID="s", optional=True)),
    ]
    last = made.add(ops_pb2.Op(inputs=[base], exec=ops_pb2.ExecOp(meta=meta, mounts=mounts, network=ops_pb2.NONE)), "[2/2] RUN true")
    vertex = Translator(References()).vertex(made.end(last))
    assert isinstance(vertex, Exec)
    assert (vertex.args, vertex.env, vertex.cwd, vertex.user, vertex.network) == (("sh", "-c", "true"), ("A=b",), "/w", "7", "none")
    assert [(m.type, m.id, m.sharing, m.required) for m in vertex.mounts] == [("cache", "c", "locked", False), ("secret", "s", "shared", False)]
    source = vertex.inputs[0]
    assert isinstance(source, Source)
    assert dict(source.attributes)["platform"] == "linux/amd64"
    assert vertex.name == "[2/2] RUN true"


def test_actions_that_follow_each_other_become_one_vertex() -> None:
    made = Definition()
    base, context = made.add(image()), made.add(ops_pb2.Op(source=ops_pb2.SourceOp(identifier="local://context")))
    actions = [
        ops_pb2.FileAction(input=0, secondaryInput=-1, output=-1, mkdir=ops_pb2.FileActionMkDir(path="/d", mode=0o755, timestamp=-1)),
        ops_pb2.FileAction(input=2, secondaryInput=1, output=0, copy=ops_pb2.FileActionCopy(src="/a", dest="/d/", mode=-1, timestamp=-1)),
    ]
    last = made.add(ops_pb2.Op(inputs=[base, context], file=ops_pb2.FileOp(actions=actions)))
    vertex = Translator(References()).vertex(made.end(last))
    assert isinstance(vertex, Files)
    assert [type(action) for action in vertex.actions] == [MakeFolder, CopyFiles]
    copy = vertex.actions[1]
    assert isinstance(copy, CopyFiles)
    assert (copy.input, copy.source, copy.target, copy.mode, copy.time_ns) == (1, "/a", "/d/", "", None)


def test_a_name_of_a_vertex_comes_back_as_the_vertex() -> None:
    references = References()
    vertex = Source("docker-image://x")
    assert Translator(references).vertex(definition_of(references.add(vertex))) is vertex
    assert references.add(Scratch()) == ""
    assert isinstance(Translator(references).vertex(definition_of("")), Scratch)


@pytest.mark.parametrize(
    ("operation", "kind"),
    [
        (ops_pb2.Op(inputs=[ops_pb2.Input(digest="sha256:" + "0" * 64)], source=ops_pb2.SourceOp(identifier="local://x")), InvalidInputError),
        (ops_pb2.Op(source=ops_pb2.SourceOp(identifier="oci-layout://x")), UnsupportedError),
        (ops_pb2.Op(build=ops_pb2.BuildOp(builder=0)), UnsupportedError),
        (ops_pb2.Op(exec=ops_pb2.ExecOp(meta=ops_pb2.Meta(args=["x"]))), InvalidInputError),
        (ops_pb2.Op(source=ops_pb2.SourceOp(identifier="barque-ref://nothing")), BarqueError),
    ],
)
def test_broken_definitions_are_refused(operation: ops_pb2.Op, kind: type[Exception]) -> None:
    made = Definition()
    last = made.add(operation)
    with pytest.raises(kind):
        Translator(References()).vertex(made.end(last))


@given(st.lists(st.binary(max_size=60), min_size=1, max_size=4))
def test_any_bytes_end_in_a_plain_error_or_a_vertex(raw: list[bytes]) -> None:
    try:
        Translator(References()).vertex(ops_pb2.Definition(**{"def": raw}))
    except BarqueError:
        pass
