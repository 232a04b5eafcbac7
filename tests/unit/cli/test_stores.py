"""The folders of blobs that a build's client offers: what an engine may read and write there."""

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from barque.base.errors import InvalidInputError, NotFoundError
from barque.builder.buildkit.pb import content_pb2
from barque.cli.building.request import Wishes
from barque.cli.building.stores import Store, Stores, layout_of

DATA = b"0123456789"
DIGEST = f"sha256:{hashlib.sha256(DATA).hexdigest()}"
Write = content_pb2.WriteContentRequest


class FakeStream:
    """A call with given messages."""

    def __init__(self, name: str, *messages: Any) -> None:
        self.metadata = {"buildkit-attachable-store-id": name}
        self._messages = [*messages]
        self.sent: list[Any] = []

    async def recv_message(self) -> Any:
        return self._messages.pop(0) if self._messages else None

    async def send_message(self, message: Any) -> None:
        self.sent.append(message)


def served(folder: Path, method: str, *messages: Any, name: str = "s", writable: bool = True) -> list[Any]:
    stream = FakeStream(name, *messages)
    stores = Stores({"s": Store(str(folder), writable=writable)})
    asyncio.run(getattr(stores, method)(stream))
    return stream.sent


def refused(folder: Path, method: str, *messages: Any, **options: Any) -> Status:
    with pytest.raises(GRPCError) as caught:
        served(folder, method, *messages, **options)
    return caught.value.status


def pieces(expected: str = DIGEST, total: int = len(DATA)) -> list[Any]:
    return [
        Write(action=content_pb2.STAT, ref="r", expected=expected, total=total),
        Write(action=content_pb2.WRITE, ref="r", offset=0, data=DATA[:4]),
        Write(action=content_pb2.COMMIT, ref="r", offset=4, data=DATA[4:]),
    ]


def put(folder: Path) -> Path:
    blob = folder / "blobs/sha256" / DIGEST[7:]
    blob.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(DATA)
    return blob


def test_a_blob_is_written_in_pieces_and_read_in_parts(tmp_path: Path) -> None:
    answers = served(tmp_path, "write", *pieces())
    assert [one.offset for one in answers] == [0, 4, 10]
    assert answers[-1].digest == DIGEST
    assert served(tmp_path, "info", content_pb2.InfoRequest(digest=DIGEST))[0].info.size == 10
    read = content_pb2.ReadContentRequest
    assert b"".join(one.data for one in served(tmp_path, "read", read(digest=DIGEST))) == DATA
    assert b"".join(one.data for one in served(tmp_path, "read", read(digest=DIGEST, offset=3, size=2))) == b"34"
    assert refused(tmp_path, "write", *pieces()) is Status.ALREADY_EXISTS
    assert list((tmp_path / "ingest").iterdir()) == []


@pytest.mark.parametrize(("messages", "status"), [
    (pieces(expected=f"sha256:{'0' * 64}"), Status.FAILED_PRECONDITION),
    (pieces(total=11), Status.FAILED_PRECONDITION),
    ([Write(action=content_pb2.WRITE, offset=5, data=b"x")], Status.OUT_OF_RANGE),
    (pieces(expected="sha256:../../../x"), Status.INVALID_ARGUMENT),
])  # fmt: skip
def test_what_is_not_what_it_should_be_leaves_nothing(tmp_path: Path, messages: list[Any], status: Status) -> None:
    assert refused(tmp_path, "write", *messages) is status
    assert list((tmp_path / "ingest").iterdir()) == []
    assert not (tmp_path / "blobs").exists()


def test_only_what_is_offered_is_read_and_only_caches_are_written(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    read = content_pb2.ReadContentRequest
    assert refused(tmp_path, "read", read(digest="sha256:../../secret")) is Status.INVALID_ARGUMENT
    assert refused(tmp_path, "read", read(digest=f"sha256:{'0' * 64}")) is Status.NOT_FOUND
    assert refused(tmp_path, "info", content_pb2.InfoRequest(digest=DIGEST), name="other") is Status.NOT_FOUND
    assert refused(tmp_path, "write", *pieces(), writable=False) is Status.PERMISSION_DENIED
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


def test_tags_are_put_beside_others_and_found_again(tmp_path: Path) -> None:
    for tag in ("one", "two", "one"):
        Store(str(tmp_path), tag=tag).put({"mediaType": "m", "digest": f"sha256:{'12'[tag == 'two'] * 64}", "size": 1})
    assert len(json.loads((tmp_path / "index.json").read_text())["manifests"]) == 2
    assert layout_of(f"{tmp_path}:two")[1:] == ("two", f"sha256:{'2' * 64}")
    assert layout_of(f"{tmp_path}@{DIGEST}")[1:] == ("latest", DIGEST)
    with pytest.raises(NotFoundError, match="no manifest with the tag latest"):
        layout_of(str(tmp_path))
    with pytest.raises(InvalidInputError, match="is no folder"):
        layout_of(f"{tmp_path}/none:1")
    with pytest.raises(InvalidInputError):
        layout_of(f"{tmp_path}@sha256:x")
    (tmp_path / "index.json").write_text("{")
    with pytest.raises(InvalidInputError, match="is broken"):
        layout_of(str(tmp_path))


def test_the_only_manifest_needs_no_tag(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text(json.dumps({"manifests": [{"digest": DIGEST}]}))
    assert layout_of(str(tmp_path))[2] == DIGEST


def test_a_cache_that_is_not_there_yet_is_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wishes = Wishes({})
    wishes.caches([f"type=local,src={tmp_path}/none"], [f"type=local,dest={tmp_path}/made,tag=t"])
    assert "cache-imports" not in wishes.options
    assert "the local cache is passed over" in capsys.readouterr().err
    store = wishes.stores[f"local:{tmp_path}/made"]
    assert (store.writable, store.tag) == (True, "t")
    for texts in (["type=local"], []), ([], ["type=local"]):
        with pytest.raises(InvalidInputError, match="the name of a folder"):
            Wishes({}).caches(*texts)
