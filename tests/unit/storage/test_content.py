"""The content store: leases beside the collector, blobs written in several goes, two algorithms."""

import asyncio
import errno
import fcntl
import hashlib
import os

import pytest

from barque.base.errors import ConflictError, InvalidInputError
from barque.oci import digest as digests
from barque.storage import content
from barque.storage.content import ContentStore


@pytest.fixture
def store(tmp_path):
    return ContentStore(str(tmp_path))


def test_what_nobody_refers_to_is_collected(store):
    kept, lost = store.put(b"kept"), store.put(b"lost")
    assert [b.digest for b in store.collect(lambda: {kept})] == [lost]
    assert store.has(kept)
    assert not store.has(lost)


def test_a_reader_goes_on_after_the_collector(store):
    digest = store.put(b"content")
    with store.open(digest) as file:
        store.collect(set)
        assert file.read() == b"content"


def test_blobs_of_a_lease_stay_until_it_ends(store):
    old = store.put(b"old")
    with store.lease() as lease:
        new = store.put(b"new")
        assert lease.has(old)
        assert not lease.has(digests.of(b"nowhere"))
        assert store.collect(set) == []
    assert sorted(b.digest for b in store.collect(set)) == sorted([old, new])


def test_a_lease_covers_threads_of_its_task(store):
    async def work():
        with store.lease():
            await asyncio.to_thread(store.put, b"from a thread")
            assert store.collect(set) == []

    asyncio.run(work())


def test_a_blob_that_is_referred_to_while_the_collector_looks_stays(store):
    rows = set()

    def referred():
        found = set(rows)
        with store.lease():
            rows.add(store.put(b"arrived meanwhile"))
        return found

    assert store.collect(referred) == []
    assert store.has(rows.pop())


def test_young_blobs_stay_for_the_grace(store):
    old, young = store.put(b"old"), store.put(b"young")
    os.utime(store.path(old), (1, 1))
    assert [b.digest for b in store.collect(set, older_than_s=60)] == [old]
    assert store.has(young)


def test_a_blob_is_written_in_several_goes(store, tmp_path):
    with store.writer("part") as writer:
        writer.write(b"one ")
    store = ContentStore(str(tmp_path))
    assert [u[:2] for u in store.unfinished()] == [("part", 4)]
    with store.writer("part") as writer:
        assert writer.size == 4
        writer.write(b"two")
        writer.commit(digests.of(b"one two"))
    assert store.read(digests.of(b"one two")) == b"one two"
    assert list(store.unfinished()) == []


def test_a_wrong_digest_keeps_what_was_written(store):
    with store.writer("part") as writer:
        writer.write(b"abc")
        with pytest.raises(InvalidInputError, match="unexpected digest"):
            writer.commit(digests.of(b"abd"))
    assert store.unfinished_size("part") == 3
    assert store.forget_unfinished("part")
    assert not store.forget_unfinished("part")


def test_one_writer_at_a_time(store):
    with store.writer("part"), pytest.raises(ConflictError):
        store.writer("part")


def test_what_another_writer_made_a_blob_meanwhile_is_not_written_to(store, monkeypatch):
    first = store.writer("part")
    first.write(b"whole")
    lock = fcntl.flock

    def finished_before(fd, how):
        monkeypatch.undo()
        first.commit(digests.of(b"whole"))
        lock(fd, how)

    monkeypatch.setattr(fcntl, "flock", finished_before)
    with pytest.raises(ConflictError, match="finished by another request"):
        store.writer("part")
    assert store.read(digests.of(b"whole")) == b"whole"


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".x", "a\0b"])
def test_names_of_unfinished_blobs_cannot_escape(store, name):
    with pytest.raises(InvalidInputError):
        store.writer(name)


def test_blobs_may_be_named_by_sha512(store):
    digest = "sha512:" + hashlib.sha512(b"long").hexdigest()
    assert store.ingest([b"long"], digest).digest == digest
    assert store.read(digest) == b"long"
    assert [b.digest for b in store.walk()] == [digest]
    with pytest.raises(InvalidInputError):
        store.ingest([b"other"], digest)


def test_unfinished_blobs_of_others_stay_in_a_shared_folder(tmp_path):
    os.makedirs(tmp_path / "ingest")
    (tmp_path / "ingest" / "abc").touch()
    ContentStore(str(tmp_path), shared=True)
    assert (tmp_path / "ingest" / "abc").exists()
    ContentStore(str(tmp_path))
    assert not (tmp_path / "ingest" / "abc").exists()


def test_a_disk_that_fails_after_the_renaming_is_told_as_such(store, monkeypatch):
    def broken(folder):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(content, "fsync_folder", broken)
    with pytest.raises(OSError, match="Input/output error"):
        store.put(b"data")
