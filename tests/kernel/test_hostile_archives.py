"""Archives for `load` and `import` that lie, expand, nest or point outside: refused in words, and nothing is left."""

import gzip
import io
import json
import os
import tarfile

import pytest
import zstandard

from barque.base.errors import BarqueError, InvalidInputError
from barque.images import load as loading
from barque.images.store import ImageStore
from barque.storage import bounds
from barque.storage.content import ContentStore
from barque.storage.snapshots import DirectorySnapshotter
from fake_registry import digest_of, tar_of

pytestmark = pytest.mark.kernel
LAYER = tar_of({"file": b"content" * 200})
HIDDEN = "ends here"


@pytest.fixture
def store(tmp_path):
    (tmp_path / "secret").write_text(HIDDEN)
    opened = ImageStore(f"{tmp_path}", ContentStore(f"{tmp_path}/content"), DirectorySnapshotter(f"{tmp_path}/snapshots"))
    yield opened
    assert (tmp_path / "secret").read_text() == HIDDEN
    opened.close()


def refused(store, data, message, kind=InvalidInputError):
    with pytest.raises(kind, match=message) as told:
        loading.load(store, [data[at : at + 50_000] for at in range(0, len(data), 50_000)])
    assert HIDDEN not in str(told.value)
    assert store.images() == []
    assert list(store.content.walk()) == []
    assert [i for i in store.snapshots.walk() if i.kind == "committed"] == []


def config_of(*layers):
    return json.dumps({"os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest_of(x) for x in layers]}}).encode()


def docker_archive(layers, *, config=None, links=(), **item):
    """Return an archive as Docker's: names and bytes of layers, links by name, and facts of the manifest's one item."""
    out = io.BytesIO()
    told = {"Config": "c.json", "RepoTags": ["hostile:1"], "Layers": list(layers), **item}
    files = {**layers, "c.json": config or config_of(*layers.values()), "manifest.json": json.dumps([told]).encode()}
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind, target in links:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            tar.addfile(info)
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def layout(*blobs, manifests):
    out = io.BytesIO()
    files = {f"blobs/sha256/{digest_of(b)[7:]}": b for b in blobs}
    files |= {"oci-layout": b"{}", "index.json": json.dumps({"schemaVersion": 2, "manifests": manifests}).encode()}
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def described(data, kind):
    return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": digest_of(data), "size": len(data)}


def test_names_with_dots_and_from_the_root_mean_names_in_the_archive(store, tmp_path):
    for name in ("../secret", f"..{tmp_path}/secret", "x/../../secret"):
        refused(store, docker_archive({name: LAYER}), "no such file or directory")
    for name in ("/secret", f"{tmp_path}/secret", "x/../secret"):
        loaded = loading.load(store, [docker_archive({name: LAYER}, RepoTags=[])])
        assert loaded[0][0].diff_ids == [digest_of(LAYER)]
        store.delete(loaded[0][0].id)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE], ids=["link", "hard link"])
def test_links_never_lead_to_files_of_the_host(store, tmp_path, kind):
    for target in ("../" * 40 + str(tmp_path / "secret"), str(tmp_path / "secret"), "/etc/passwd"):
        links = [("l.tar", kind, target), ("conf", kind, target)]
        hostile = docker_archive({}, config=config_of(LAYER), links=links, Layers=["l.tar"])
        refused(store, hostile, "no such file or directory")
        refused(store, docker_archive({}, links=links, Config="conf"), "no such file or directory")
    refused(store, docker_archive({}, links=[("a", kind, "b"), ("b", kind, "a")], Config="a"), "too many levels|no such file")


def test_a_file_over_a_link_is_not_written_through_it(store, tmp_path):
    links = [("l.tar", tarfile.SYMTYPE, str(tmp_path / "secret")), ("d", tarfile.SYMTYPE, str(tmp_path))]
    loading.load(store, [docker_archive({"l.tar": LAYER, "d/secret": LAYER}, links=links)])
    assert store.resolve("hostile:1").diff_ids == [digest_of(LAYER)] * 2


def test_what_is_cut_off_anywhere_leaves_nothing(store):
    whole = docker_archive({"l.tar": LAYER})
    for cut in (1, 511, 700, len(whole) // 2, len(LAYER) + 600):
        refused(store, whole[:cut], None)
    packed = gzip.compress(whole)
    refused(store, packed[: len(packed) // 2], "EOF|invalid")


def test_wrong_digests_sizes_and_kinds_are_refused(store):
    refused(store, docker_archive({"l.tar": LAYER}, config=config_of(b"other")), "unexpected digest")
    refused(store, docker_archive({"l.tar": LAYER}, config=config_of(LAYER, LAYER)), "layers length mismatch")
    config = config_of(LAYER)
    manifest = json.dumps({"config": described(config, "config.v1+json"), "layers": [described(LAYER, "layer.v1.tar")]}).encode()
    entry = described(manifest, "manifest.v1+json")
    good = layout(LAYER, config, manifest, manifests=[entry])
    place = good.index(LAYER)
    refused(store, good[: place + 600] + b"X" + good[place + 601 :], "unexpected digest")
    refused(store, layout(config, manifest, manifests=[entry]), "no such file or directory")
    refused(store, docker_archive({"l.tar": LAYER}, RepoTags=["../../x:1"]), "invalid reference")
    assert loading.load(store, [good])[0][0].id == digest_of(config)


def test_indexes_that_nest_too_deep_or_hold_too_many_layers_are_refused(store):
    inner = json.dumps({"manifests": []}).encode()
    blobs = [inner]
    for _ in range(12):
        blobs.append(json.dumps({"manifests": [described(blobs[-1], "index.v1+json")]}).encode())
    refused(store, layout(*blobs, manifests=[described(blobs[-1], "index.v1+json")]), "invalid archive: index")
    refused(store, layout(manifests=json.loads("[" * 900 + "]" * 900)), "not an object")
    many = docker_archive({"l.tar": LAYER}, config=config_of(*[LAYER] * 100_000), Layers=["l.tar"] * 100_000)
    refused(store, many, "max depth exceeded: the image has 100000 layers")


def bomb(size):
    packer = zstandard.ZstdCompressor(level=3).compressobj()
    piece = bytes(1 << 20)
    return b"".join(packer.compress(piece) for _ in range(size >> 20)) + packer.flush()


def test_a_layer_that_expands_beyond_measure_is_refused(store):
    data = bomb(100 << 20)
    refused(store, docker_archive({"l.tar": data}), f"decompression bomb: a layer of {len(data)} bytes expands")
    manifest = json.dumps({"config": described(b"{}", "config.v1+json"), "layers": [described(data, "layer.v1.tar")]}).encode()
    refused(store, layout(data, b"{}", manifest, manifests=[described(manifest, "manifest.v1+json")]), "decompression bomb")


def test_what_expands_does_not_fill_the_disk(store, monkeypatch):
    # As if nearly all of the disk were taken.
    free = os.statvfs(store.content.folder)
    monkeypatch.setitem(bounds.inflated.__kwdefaults__, "free_min", free.f_bavail * free.f_frsize * 2)
    with pytest.raises(BarqueError, match="no space left on device: a layer expands to more than"):
        store.import_tar([bomb(100 << 20)])
    archive = docker_archive({"l.tar": bytes(100 << 20)})
    refused(store, zstandard.compress(archive), "no space left on device", BarqueError)
    # What does not expand is taken as long as there is room.
    assert store.import_tar([tar_of({"f": os.urandom(40 << 20)})]).size == 40 << 20
