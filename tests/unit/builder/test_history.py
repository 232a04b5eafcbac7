"""What is recorded of builds, and what is not."""

import asyncio
import json
from pathlib import Path

from barque.builder.buildkit.builds import Build
from barque.builder.buildkit.history_records import LARGEST_LOG, blobs_of, recorded, row_of
from barque.builder.buildkit.history_store import HistoryStore
from barque.builder.buildkit.pb import control_pb2


def built(**options: str) -> Build:
    async def make() -> Build:
        return Build("ref", None)

    build = asyncio.run(make())
    build.created_ns, build.completed_ns, build.options = 1, 2, options
    return build


def test_passwords_and_tokens_are_left_out():
    caches = json.dumps([{"Type": "gha", "Attrs": {"token": "t0k", "url": "u"}}])
    build = built(**{"context": "https://user:pa55@host/x.git", "cache-imports": caches, "build-arg:U": "http://:p4@h"})
    text = str(recorded(build))
    for secret in ("t0k", "pa55", "p4@"):
        assert secret not in text
    assert "https://user:xxxxx@host/x.git" in text
    assert "cache-imports" in text
    assert recorded(built(**{"cache-imports": "[7]"})).FrontendAttrs["cache-imports"] == ""


def test_states_are_told_from_errors():
    build = built(context="https://host/a.git")
    assert row_of(recorded(build)) == {"ref": "ref", "status": "completed", "repository": "https://host/a.git"}
    build.error = "exit code: 1"
    assert row_of(recorded(build))["status"] == "error"
    build.error = "context canceled"
    assert row_of(recorded(build))["status"] == "canceled"
    build.completed_ns = 0
    assert row_of(recorded(build))["status"] == "running"


def test_output_beyond_the_limit_is_clipped_and_steps_are_not():
    piece = b"x" * (1 << 20)
    said = [control_pb2.StatusResponse(logs=[control_pb2.VertexLog(vertex="v", msg=piece)]) for _ in range(20)]
    said.append(control_pb2.StatusResponse(vertexes=[control_pb2.Vertex(digest="v", name="the end")]))
    record = recorded(built())
    logs = blobs_of(record, said, {})[0]
    assert LARGEST_LOG < len(logs) < LARGEST_LOG + (2 << 20)
    assert logs.count(b"output clipped") == 1
    assert b"the end" in logs


def test_records_come_back_and_broken_ones_go(tmp_path: Path):
    store = HistoryStore(str(tmp_path))
    record = recorded(built())
    blobs = blobs_of(record, [], {"": [("kind", {"a": 1})]})
    kept = store.add(record, blobs)
    (tmp_path / "new-1").mkdir()
    (tmp_path / "0-broken").mkdir()
    (tmp_path / "0-broken/record").write_bytes(b"\xff\xff")
    again = HistoryStore(str(tmp_path)).load()
    assert [(one.record.Ref, one.folder, one.size) for one in again] == [("ref", kept.folder, kept.size)]
    assert len(list(tmp_path.iterdir())) == 1
    file = store.open(record.Result.Attestations[0].digest)
    assert file is not None
    with file:
        assert json.loads(file.read()) == {"a": 1}
    for digest in ("", "sha256:", f"sha256:{'0' * 64}", "sha256:../record", "md5:x"):
        assert store.open(digest) is None
    store.remove(kept)
    assert list(tmp_path.iterdir()) == []
