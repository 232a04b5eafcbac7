"""The contract of storages, and what repositories and the collector make of it."""

import asyncio
import hashlib
import json
import os
import time
import uuid
from contextlib import AsyncExitStack

import pytest

from barque.engine.buckets import ObjectStore
from barque.oci import digest as digests, media
from barque.registry import manifests
from barque.registry.cache import expire
from barque.registry.collect import Collector
from barque.registry.config import Collecting
from barque.registry.directory import DirectoryRecords, open_directory
from barque.registry.errors import RegistryError
from barque.registry.repositories import Repositories
from barque.registry.retention import parse_rule

NOW = Collecting(interval_s=0, grace_s=0, upload_expiry_s=3600, untagged=False)


@pytest.fixture(scope="module")
def object_store():
    """Give the address of an object store with a bucket."""
    pytest.importorskip("aiobotocore", reason="aiobotocore is not installed: no object store is tested")
    server_module = pytest.importorskip("moto.server", reason="moto is not installed: no object store is tested")
    import urllib.request

    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    urllib.request.urlopen(urllib.request.Request(f"{url}/images", method="PUT")).close()
    yield url
    server.stop()


@pytest.fixture(params=["directory", "s3"])
async def storage(request, tmp_path):
    if request.param == "directory":
        yield open_directory(str(tmp_path))
        return
    url = request.getfixturevalue("object_store")
    from barque.registry.s3 import open_object_store

    settings = ObjectStore("images", f"test/{uuid.uuid4()}", url, "", "key", "secret")
    async with AsyncExitStack() as stack:
        yield await open_object_store(settings, stack)


@pytest.fixture
def repositories(storage):
    return Repositories(storage)


async def stream(*chunks):
    for chunk in chunks:
        yield chunk


async def broken(chunk):
    yield chunk
    raise ConnectionResetError("gone")


async def everything(blobs):
    return [b.digest async for b in blobs.walk()]


async def test_records_are_read_back_listed_and_deleted(storage):
    records = storage.records
    assert await records.get("a/b") is None
    for name in ("b", "a", "C", "sha256:00"):
        await records.put(f"folder/{name}", name.encode())
    assert await records.get("folder/a") == b"a"
    assert [e.name for e in await records.entries("folder")] == ["C", "a", "b", "sha256:00"]
    assert [e.name for e in await records.entries("folder", after="C", most=2)] == ["a", "b"]
    assert await records.delete("folder/a")
    assert not await records.delete("folder/a")
    assert await records.entries("nowhere") == []


async def test_records_tell_their_time_and_are_renewed(storage):
    records = storage.records
    before = time.time() - 2
    await records.put("x/y", b"")
    assert await records.touch("x/y")
    assert not await records.touch("x/z")
    assert before <= await records.time("x/y") <= time.time() + 2
    assert await records.time("x/z") is None


async def test_uploads_become_blobs(storage):
    uploads, data = storage.uploads, os.urandom(3 << 20)
    upload = await uploads.create()
    assert await uploads.size(upload) == 0
    assert await uploads.append(upload, stream(data[:10], data[10 : 1 << 20]), start=0) == 1 << 20
    with pytest.raises(RegistryError) as caught:
        await uploads.append(upload, stream(b"x"), start=5)
    assert caught.value.status == 416
    assert await uploads.append(upload, stream(data[1 << 20 :]), start=None) == len(data)
    digest = digests.of(data)
    assert await uploads.finish(upload, digest) == len(data)
    assert await storage.blobs.size(digest) == len(data)
    assert b"".join([c async for c in storage.blobs.read(digest, 5, 2_000_000)]) == data[5:2_000_000]
    assert await uploads.size(upload) is None
    with pytest.raises(RegistryError):
        await uploads.append(upload, stream(b""), start=None)


async def test_a_big_blob_arrives_in_odd_pieces(storage):
    data, uploads = os.urandom(18 << 20), storage.uploads
    upload = await uploads.create()
    at = 0
    for length in (5 << 20, 1, 9 << 20, 100_000):
        await uploads.append(upload, stream(data[at : at + length]), start=at)
        at += length
    # The last piece comes at a server that has not seen the others.
    again = type(uploads)(uploads._bucket if hasattr(uploads, "_bucket") else uploads._content)
    assert await again.append(upload, stream(data[at:]), start=at) == len(data)
    assert await again.finish(upload, digests.of(data)) == len(data)
    assert b"".join([c async for c in storage.blobs.read(digests.of(data), 0, len(data))]) == data
    assert [u async for u in uploads.walk()] == []


async def test_another_algorithm_and_an_empty_blob(storage):
    for data, digest in ((b"", digests.of(b"")), (b"x", "sha512:" + hashlib.sha512(b"x").hexdigest())):
        upload = await storage.uploads.create()
        await storage.uploads.append(upload, stream(data), start=0)
        await storage.uploads.finish(upload, digest)
        assert await storage.blobs.size(digest) == len(data)


async def test_a_wrong_digest_ends_the_upload_without_a_blob(storage):
    upload = await storage.uploads.create()
    await storage.uploads.append(upload, stream(b"abc"), start=0)
    with pytest.raises(RegistryError) as caught:
        await storage.uploads.finish(upload, digests.of(b"abd"))
    assert caught.value.code == "DIGEST_INVALID"
    assert await everything(storage.blobs) == []
    assert await storage.uploads.size(upload) is None


async def test_what_came_before_an_interruption_stays(storage):
    upload = await storage.uploads.create()
    with pytest.raises(ConnectionResetError):
        await storage.uploads.append(upload, broken(b"one"), start=0)
    assert await storage.uploads.size(upload) == 3
    await storage.uploads.append(upload, stream(b"two"), start=3)
    await storage.uploads.finish(upload, digests.of(b"onetwo"))


async def test_uploads_are_cancelled_and_listed(storage):
    upload = await storage.uploads.create()
    assert [u.upload async for u in storage.uploads.walk()] == [upload]
    assert await storage.uploads.cancel(upload)
    assert not await storage.uploads.cancel(upload)
    assert [u.upload async for u in storage.uploads.walk()] == []


# Repositories and the collector.


async def blob(repositories, name, data):
    await repositories.storage.blobs.put(digests.of(data), data)
    assert await repositories.add_blob(name, digests.of(data))
    return {"mediaType": media.OCI_LAYER, "digest": digests.of(data), "size": len(data)}


async def image(repositories, name, *tags, layers=(b"layer",), subject=""):
    config = await blob(repositories, name, b"{}")
    content = {"schemaVersion": 2, "config": config, "layers": [await blob(repositories, name, d) for d in layers]}
    if subject:
        content["subject"] = {"mediaType": media.OCI_MANIFEST, "digest": subject, "size": 1}
    raw = json.dumps(content).encode()
    parsed = manifests.parse(raw, media.OCI_MANIFEST)
    return await repositories.put_manifest(name, raw, parsed, tags=tags, sparse=False)


async def test_the_collector_leaves_what_is_referred_to(repositories):
    await image(repositories, "a/b", "tag")
    other = await image(repositories, "a", layers=(b"other",))
    await blob(repositories, "a", b"lonely")
    report = await Collector(repositories, NOW).run()
    assert report.links == [f"a@{digests.of(b'lonely')}"]
    assert report.contents == [digests.of(b"lonely")]
    assert report.bytes == 6
    assert (await Collector(repositories, NOW).run()).contents == []
    await repositories.delete_manifest("a", other)
    report = await Collector(repositories, NOW).run()
    assert sorted(report.contents) == sorted([other, digests.of(b"other")])
    assert await repositories.blob_size("a/b", digests.of(b"layer")) == 5
    assert await repositories.catalog(after="", most=9) == ["a/b"]


async def test_untagged_manifests_go_when_asked_but_not_what_tags_lead_to(repositories):
    kept = await image(repositories, "a", "tag")
    about = await image(repositories, "a", layers=(b"signature",), subject=kept)
    lost = await image(repositories, "a", layers=(b"old",))
    about_lost = await image(repositories, "a", layers=(b"old signature",), subject=lost)
    report = await Collector(repositories, NOW._replace(untagged=True), dry_run=True).run()
    wanted = sorted([f"a@{lost}", f"a@{about_lost}"])
    assert sorted(report.manifests) == wanted
    assert await repositories.resolve("a", lost)
    assert sorted(report.contents) == sorted([lost, about_lost, digests.of(b"old"), digests.of(b"old signature")])
    report = await Collector(repositories, NOW._replace(untagged=True)).run()
    assert sorted(report.manifests) == wanted
    assert await repositories.resolve("a", about)
    with pytest.raises(RegistryError):
        await repositories.resolve("a", lost)


async def test_tags_go_by_rules_and_their_content_with_them(repositories):
    made = {f"pr-{n}": await image(repositories, "ci/app", f"pr-{n}", layers=(b"%d" % n,)) for n in range(4)}
    await image(repositories, "ci/app", "latest", layers=(b"3",))
    settings = NOW._replace(untagged=True, retained=(parse_rule("ci/*:pr-*=2"),))
    planned = await Collector(repositories, settings, dry_run=True).run()
    assert await repositories.tags("ci/app") == ["latest", *made]
    report = await Collector(repositories, settings).run()
    assert (sorted(report.tags), sorted(report.manifests)) == (sorted(planned.tags), sorted(planned.manifests))
    assert len(report.tags) == 2
    left = await repositories.tags("ci/app")
    assert len(left) == 3
    assert "latest" in left
    gone = {made[tag.partition(":")[2]] for tag in report.tags}
    # The digest of the last one is tagged twice.
    assert gone - {made["pr-3"]} <= set(report.contents)
    assert (await Collector(repositories, settings).run()).tags == []


async def test_a_tag_that_was_just_pushed_stays_whatever_the_rules(repositories):
    for number in range(3):
        await image(repositories, "a", f"t{number}")
    settings = NOW._replace(grace_s=3600, retained=(parse_rule("1"),))
    assert (await Collector(repositories, settings).run()).tags == []


async def test_a_tag_that_is_pushed_while_it_is_removed_stays(repositories, monkeypatch):
    await image(repositories, "a", "old", layers=(b"1",))
    await image(repositories, "a", "new", layers=(b"2",))
    records, real, pushes = repositories.storage.records, repositories.storage.records.delete, []

    async def delete(key):
        if key.endswith("/tags/old") and not pushes:
            # The collector has looked for the last time; the push is through before it removes the tag.
            pushes.append(asyncio.create_task(image(repositories, "a", "old", layers=(b"3",))))
            while await records.get(key) == before:
                await asyncio.sleep(0.01)
        return await real(key)

    before = await records.get("repositories/a/tags/old")
    monkeypatch.setattr(records, "delete", delete)
    rules = (parse_rule(":old=1ms"),)
    await asyncio.sleep(0.01)
    await Collector(repositories, NOW._replace(retained=rules)).run()
    digest = await pushes[0]
    assert (await repositories.resolve("a", "old")).digest == digest


async def test_the_grace_protects_a_push_in_progress(tmp_path):
    repositories = Repositories(open_directory(str(tmp_path)))
    await blob(repositories, "a", b"just pushed")
    old = await blob(repositories, "a", b"pushed long ago")
    path = repositories.storage.records._path(f"repositories/a/blobs/{old['digest']}")
    data = repositories.storage.blobs._content.path(old["digest"])
    for file in (path, data):
        os.utime(file, (1, 1))
    # A client is told that the blob is here, so it stays.
    await repositories.blob_size("a", old["digest"])
    settings = NOW._replace(grace_s=3600)
    assert (await Collector(repositories, settings).run()).links == []
    os.utime(path, (1, 1))
    report = await Collector(repositories, settings).run()
    assert report.contents == [old["digest"]]


async def test_pushes_beside_collectors_never_lose_a_blob(repositories):
    """The collectors have no grace at all: a push may be refused then, but what it was told is true."""
    stop = False
    pushes = 12 if isinstance(repositories.storage.records, DirectoryRecords) else 4

    async def collect():
        while not stop:
            await Collector(repositories, NOW).run()

    async def push(number):
        data = f"layer {number % 3}".encode()
        for _ in range(200):
            try:
                config, layer = await asyncio.gather(blob(repositories, "a", b"{}"), blob(repositories, "a", data))
                raw = json.dumps({"schemaVersion": 2, "config": config, "layers": [layer], "n": number}).encode()
                parsed = manifests.parse(raw, media.OCI_MANIFEST)
                return await repositories.put_manifest("a", raw, parsed, tags=(f"t{number}",), sparse=False)
            except (RegistryError, AssertionError):
                await asyncio.sleep(0.001)
        raise AssertionError("never got through")

    collectors = [asyncio.ensure_future(collect()) for _ in range(2)]
    pushed = await asyncio.gather(*(push(n) for n in range(pushes)))
    stop = True
    await asyncio.gather(*collectors)
    for digest in pushed:
        stored = await repositories.resolve("a", digest)
        parsed = manifests.parse(await repositories.read_manifest(digest), stored.media_type)
        for wanted in parsed.blobs:
            assert await repositories.blob_size("a", wanted) > 0


async def test_content_stays_while_another_collector_has_its_record_for_a_moment(repositories):
    digest = await image(repositories, "a", "tag", layers=(b"layer",))
    layer = digests.of(b"layer")
    assert await repositories.storage.records.delete(f"repositories/a/blobs/{layer}")
    assert (await Collector(repositories, NOW).run()).contents == []
    await repositories.storage.records.put(f"repositories/a/blobs/{layer}", b"")
    assert await repositories.resolve("a", digest)
    assert await repositories.blob_size("a", layer) > 0


async def test_a_collector_leaves_the_notices_of_others(repositories, monkeypatch):
    await blob(repositories, "a", b"nobody's")
    nobodys = digests.of(b"nobody's")
    await repositories.storage.records.put(f"deleting/{nobodys}/another", b"")
    assert (await Collector(repositories, NOW).run()).contents == [nobodys]
    assert [e.name for e in await repositories.storage.records.entries(f"deleting/{nobodys}")] == ["another"]
    waiting = asyncio.ensure_future(repositories.add_blob("a", nobodys))
    assert await asyncio.wait([waiting], timeout=0.2) == (set(), {waiting})
    await repositories.storage.records.delete(f"deleting/{nobodys}/another")
    assert await waiting is False
    # One that died is not waited for, and is forgotten.
    await repositories.storage.records.put(f"deleting/{nobodys}/dead", b"")
    monkeypatch.setattr("barque.registry.repositories.DELETING_S", -1)
    monkeypatch.setattr("barque.registry.collect.DELETING_S", -1)
    assert await repositories.add_blob("a", nobodys) is False
    await Collector(repositories, NOW).run()
    assert await repositories.storage.records.entries("deleting") == []


async def test_old_uploads_are_forgotten(repositories):
    upload = await repositories.storage.uploads.create()
    assert (await Collector(repositories, NOW).run()).uploads == []
    report = await Collector(repositories, NOW._replace(upload_expiry_s=-1)).run()
    assert report.uploads == [upload]


async def test_a_cache_lets_go_of_what_nobody_asks_for(tmp_path):
    repositories = Repositories(open_directory(str(tmp_path)))
    old = await image(repositories, "old", "tag")
    new = await image(repositories, "new", "tag", layers=(b"new",))
    for path in tmp_path.rglob("repositories/old/**/*"):
        os.utime(path, (1, 1))
    for data in (old, digests.of(b"layer")):
        os.utime(repositories.storage.blobs._content.path(data), (1, 1))
    await expire(repositories, NOW, 3600)
    assert await repositories.catalog(after="", most=9) == ["new"]
    assert (await repositories.resolve("new", "tag")).digest == new
    assert await repositories.storage.blobs.size(digests.of(b"layer")) is None
