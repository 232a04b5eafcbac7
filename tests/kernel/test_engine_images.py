import asyncio
import io
import tarfile

import pytest

from barque.base.errors import InvalidInputError
from barque.engine import archives
from barque.engine.images import Images
from barque.images.store import open_store
from barque.kernel.private_mounts import Bind
from barque.storage.snapshots import DirectorySnapshotter

pytestmark = pytest.mark.kernel


def archive_of(name, data):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def reader(data, size=1000):
    pieces = [data[i : i + size] for i in range(0, len(data), size)]

    async def read():
        return pieces.pop(0) if pieces else b""

    return read


@pytest.fixture
def store(tmp_path):
    opened = open_store(str(tmp_path), DirectorySnapshotter(f"{tmp_path}/snapshots"))
    yield opened
    opened.close()


async def imported(images, data, **options):
    given = {"repo": "a", "tag": "1", "message": "", "changes": [], "platform": ""}
    return [m async for m in await images.import_(reader(data), **(given | options))]


async def test_images_go_in_and_out_with_dockers_messages_and_events(store):
    events = []
    images = Images(store, list, lambda *event: events.append(event))
    (answer,) = await imported(images, archive_of("f", b"x" * 100_000))
    image_id = answer["status"]
    data = b"".join([chunk async for chunk in await images.save(["a:1"], platforms=[])])
    assert (await images.remove("a:1", force=False, noprune=False, platforms=[]))[0] == {"Untagged": "a:1"}
    messages = [m async for m in images.load(reader(data), quiet=True, platforms=[])]
    assert messages == [{"stream": "Loaded image: a:1\n"}]
    (row,) = await images.list(all=False, filters={}, shared_size=True, digests=False, manifests=False)
    assert (row["Id"], row["RepoTags"], row["SharedSize"]) == (image_id, ["a:1"], 0)
    assert (await images.inspect("a:1", platform="", manifests=False))["Id"] == image_id
    pruned = await images.prune({"dangling": ["false"]})
    assert pruned["SpaceReclaimed"] == 100_000
    await asyncio.sleep(0)
    assert [e[1] for e in events] == [
        "import", "tag", "save", "untag", "delete", "tag", "load", "untag", "delete", "prune",
    ]  # fmt: skip


async def test_a_body_that_is_no_archive_or_breaks_off_leaves_nothing(store):
    images = Images(store, list, lambda *event: None)
    with pytest.raises(InvalidInputError):
        await imported(images, b"noise" * 5000)

    async def broken():
        raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError):
        async for _ in images.load(broken, quiet=False, platforms=[]):
            pass
    assert list(store.content.walk()) == []


async def test_a_saved_stream_that_is_closed_early_ends(store):
    images = Images(store, list, lambda *event: None)
    await imported(images, archive_of("f", b"x" * 5_000_000))
    stream = await images.save(["a:1"], platforms=[])
    async for _ in stream:
        break
    await stream.aclose()


async def test_files_are_copied_into_and_out_of_a_container_that_does_not_run(store, tmp_path):
    images = Images(store, list, lambda *event: None)
    await imported(images, archive_of("etc/f", b"1"))
    volume = tmp_path / "volume"
    volume.mkdir()
    mounts = store.snapshots.prepare("c", store.resolve("a:1").top)
    root = archives.Root(0, mounts, [Bind(str(volume), "/data", read_only=False)])
    archives.put(root, "/data", [archive_of("in", b"2")], content=store.content)
    archives.put(root, "/etc", [archive_of("g", b"3")], content=store.content)
    assert (volume / "in").read_bytes() == b"2"
    with tarfile.open(fileobj=io.BytesIO(b"".join(archives.get(root, "/etc")))) as tar:
        assert tar.getnames() == ["etc", "etc/f", "etc/g"]
    with tarfile.open(fileobj=io.BytesIO(b"".join(archives.export(mounts)))) as tar:
        assert "data/in" not in tar.getnames()
    found = archives.changes(store.snapshots, "c")
    assert {"Path": "/etc/g", "Kind": 1} in found
    assert archives.stat(root, "/etc/g")["size"] == 1
