import contextlib
import errno
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile

import pytest

from barque.base.errors import BarqueError, ConflictError, InvalidInputError, NotFoundError
from barque.images import load as loading, removal, save as saving, views
from barque.images.removal import User
from barque.images.store import ImageStore
from barque.oci.media import OCI_INDEX, OCI_MANIFEST
from barque.oci.reference import parse
from barque.storage.content import ContentStore
from barque.storage.erofs.snapshotter import ErofsSnapshotter
from barque.storage.mounts import mounted
from barque.storage.snapshots import DirectorySnapshotter

pytestmark = pytest.mark.kernel


def open_at(path):
    content = ContentStore(f"{path}/content")
    return ImageStore(str(path), content, DirectorySnapshotter(f"{path}/snapshots"))


@pytest.fixture
def store(tmp_path):
    (tmp_path / "data").mkdir()
    opened = open_at(tmp_path / "data")
    yield opened
    opened.close()


def rootfs(data=b"hello", mode="w"):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as tar:
        info = tarfile.TarInfo("file")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def imported(store, name, data=b"hello", **options):
    return store.import_tar([rootfs(data)], reference=parse(name), **options)


def committed(store, parent, name, key):
    with mounted(store.snapshots.prepare(key, parent.top)) as root:
        os.unlink("file", dir_fd=root)
        os.mkdir("new-" + key, dir_fd=root)
    image = store.commit(parent, key, config=parent.run_config, comment="c", created_by="sh", reference=parse(name))
    store.snapshots.remove(key)
    return image


def saved(store, *refs):
    return b"".join(saving.save(store, saving.select(store, refs)))


def everything(store):
    return sorted(b.digest for b in store.content.walk()), sorted(i.name for i in store.snapshots.walk())


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz", "zst"])
def test_a_root_file_system_is_imported_however_it_is_compressed(store, mode):
    data = rootfs(mode="w" if mode == "zst" else mode)
    if mode == "zst":
        import zstandard

        data = zstandard.compress(data)
    halves = [data[:3], data[3:100], data[100:]]
    image = store.import_tar(halves, reference=parse("a:1"), changes=['CMD ["x"]'], message="m")
    assert image.run_config == {"Cmd": ["x"]}
    assert image.size == 5
    with mounted(store.snapshots.view("v", image.top)) as root:
        assert os.listdir(root) == ["file"]


@pytest.mark.parametrize("data", [b"", b"\x1f\x8bnothing", rootfs(mode="w:gz")[:-20], b"x" * 2000])
def test_what_is_no_archive_leaves_nothing(store, data):
    if data == b"":
        return
    with pytest.raises(InvalidInputError):
        store.import_tar([data], reference=parse("a"))
    assert everything(store) == ([], [])


def test_images_are_found_by_name_and_by_id(store):
    image = imported(store, "a:1")
    for ref in ("a:1", "docker.io/library/a:1", image.id, image.id[7:], image.id[7:19], image.id[:15]):
        assert store.resolve(ref).id == image.id
    with pytest.raises(NotFoundError, match=r"^No such image: x:latest$"):
        store.resolve("x")
    with pytest.raises(InvalidInputError, match="invalid reference format"):
        store.resolve("x y")
    imported(store, "b:1", b"2")
    with pytest.raises(BarqueError):
        store.resolve("sha256:")


def test_a_moved_name_leaves_the_old_image_dangling(store):
    first = imported(store, "a")
    second = imported(store, "a", b"other")
    assert store.resolve("a").id == second.id
    assert [i.id for i in views.select(store, {"dangling": ["true"]}, everything=False)] == [first.id]


def test_a_commit_adds_one_layer_and_keeps_the_parent(store):
    base = imported(store, "base")
    child = committed(store, base, "child", "k1")
    assert child.diff_ids[:-1] == base.diff_ids
    assert child.parent == base.id
    rows = views.history(store, child)
    assert [r["Id"] for r in rows] == [child.id, base.id]
    assert rows[1]["Tags"] == ["base:latest"]
    with mounted(store.snapshots.view("v", child.top)) as root:
        assert os.listdir(root) == ["new-k1"]


def test_a_parent_goes_with_its_last_child(store):
    base = imported(store, "base")
    child = committed(store, base, "child", "k1")
    rows = removal.remove(store, "base", force=False, prune=True, users=[])
    assert rows == [{"Untagged": "base:latest"}]
    with pytest.raises(ConflictError, match=r"cannot be forced.*dependent child images"):
        removal.remove(store, base.id, force=True, prune=True, users=[])
    rows = removal.remove(store, "child", force=False, prune=True, users=[])
    assert rows == [
        {"Untagged": "child:latest"},
        {"Deleted": child.id},
        {"Deleted": child.chain[1]},
        {"Deleted": base.id},
        {"Deleted": base.chain[0]},
    ]
    assert everything(store) == ([], [])


def test_parents_without_a_layer_of_their_own_are_pruned_at_once(store):
    base = imported(store, "base")
    made = [base]
    for number in range(3):
        config = {**json.loads(base.raw), "author": str(number)}
        made.append(store.register(json.dumps(config).encode(), parent=made[-1].id))
    store.untag("docker.io/library/base:latest")
    rows, _ = removal.prune(store, [store.resolve(i.id) for i in made], [])
    assert [row["Deleted"] for row in rows if row.get("Deleted") in {i.id for i in made}] == [i.id for i in reversed(made)]
    assert store.images() == []


@pytest.mark.parametrize("dry", [False, True])
def test_an_image_that_was_pulled_by_an_index_is_pruned_with_its_other_platforms(store, dry):
    images = [imported(store, "pulled", b"one"), imported(store, "other", b"two")]
    members = []
    for image, architecture in zip(images, ("amd64", "arm64"), strict=True):
        manifest = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": {"digest": image.id}}).encode()
        digest = store.keep_manifest(manifest, image.id)
        platform = {"os": "linux", "architecture": architecture}
        members.append({"mediaType": OCI_MANIFEST, "digest": digest, "size": len(manifest), "platform": platform})
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": members}
    store.untag("docker.io/library/other:latest")
    store.set_name(parse("pulled").with_default_tag(), images[0].id, store.keep_manifest(json.dumps(index).encode(), ""))
    prune = removal.would_prune if dry else removal.prune
    unused = [store.resolve(image.id) for image in images]
    assert prune(store, unused, [User("c" * 64, images[1].id, running=True)]) == ([], 0)
    rows, won = prune(store, unused, [])
    assert {row["Untagged"] for row in rows if "Untagged" in row} == {"pulled:latest"}
    assert {image.id for image in images} <= {row.get("Deleted") for row in rows}
    assert won == 6
    assert len(store.images()) == (2 if dry else 0)


def test_an_image_in_use_is_only_untagged_by_force(store):
    image = imported(store, "a:1")
    store.tag(image.id, "a", "2")
    users = [User("c" * 64, image.id, running=True)]
    assert removal.remove(store, "a:2", force=False, prune=True, users=users) == [{"Untagged": "a:2"}]
    with pytest.raises(ConflictError) as caught:
        removal.remove(store, "a:1", force=False, prune=True, users=users)
    assert str(caught.value) == (
        "conflict: unable to delete a:1 (must be forced) - container cccccccccccc is using its "
        f"referenced image {image.id[7:19]}"
    )
    with pytest.raises(ConflictError, match=r"cannot be forced.*running container cccccccccccc"):
        removal.remove(store, image.id, force=True, prune=True, users=users)
    assert removal.remove(store, "a:1", force=True, prune=True, users=users) == [{"Untagged": "a:1"}]
    assert store.resolve(image.id).names == ()
    rows, won = removal.prune(store, [store.resolve(image.id)], [])
    assert rows[0] == {"Deleted": image.id}
    assert won == 5


def test_what_is_asked_for_while_a_lease_ends_or_an_image_goes_stays(store, monkeypatch):
    asked = []

    def used_blobs():
        found = real()
        # Another action comes between the look and the removal.
        lease = holders.enter_context(store.content.lease())
        asked.append(lease.has(digest))
        return found

    real = store.used_blobs
    monkeypatch.setattr(store, "used_blobs", used_blobs)
    with contextlib.ExitStack() as holders:
        with store.lease():
            digest = store.content.put(b"x")
        assert asked == [True]
        assert store.content.has(digest)
    with monkeypatch.context() as patch:
        patch.setattr(store, "used_blobs", real)
        image = imported(store, "x:1")
    digest = image.diff_ids[0]
    store.untag("docker.io/library/x:1")
    with contextlib.ExitStack() as holders:
        store.delete(image.id)
        assert asked[1:] == [True]
        assert store.content.has(digest)
    store.sweep()


def test_a_layer_that_comes_again_is_kept_once(tmp_path):
    content = ContentStore(f"{tmp_path}/content")
    store = ImageStore(str(tmp_path), content, ErofsSnapshotter(f"{tmp_path}/snapshots"))
    for name in ("x:1", "x:2"):
        image = imported(store, name)
        tar, blob = store.snapshots.kept_tar(image.top), content.path(image.diff_ids[0])
        assert os.path.samefile(tar, blob)
    store.close()


def test_an_id_with_several_names_needs_force(store):
    image = imported(store, "a:1")
    store.tag(image.id, "b", "")
    with pytest.raises(ConflictError, match=r"must be forced.*multiple repositories"):
        removal.remove(store, image.id, force=False, prune=True, users=[])
    rows = removal.remove(store, image.id, force=True, prune=True, users=[])
    assert rows[:3] == [{"Untagged": "a:1"}, {"Untagged": "b:latest"}, {"Deleted": image.id}]


def test_saved_images_come_back_with_their_ids(store, tmp_path):
    base = imported(store, "base:1")
    child = committed(store, base, "child", "k1")
    data = saved(store, "base:1", "child")
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        names = tar.getnames()
    assert len(names) == len(set(names))
    (tmp_path / "other").mkdir()
    other = open_at(tmp_path / "other")
    messages = [*loading.messages(loading.load(other, [data]))]
    assert messages == [
        {"stream": "Loaded image: base:1\n"},
        {"stream": "Loaded image: child:latest\n"},
    ]
    assert other.resolve("base:1").id == base.id
    assert other.resolve("child").id == child.id
    assert saved(other, "base:1", "child") == data
    other.close()
    again = open_at(tmp_path / "other")
    assert again.resolve("child").chain == child.chain
    again.close()


@pytest.mark.parametrize("kind", ["docker-archive", "oci-archive"])
def test_skopeo_reads_what_is_saved_and_its_copies_load(store, tmp_path, kind):
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed")
    image = committed(store, imported(store, "base:1"), "a:1", "k1")
    (tmp_path / "in.tar").write_bytes(saved(store, "a:1"))
    subprocess.run(
        ["skopeo", "--insecure-policy", "copy", f"docker-archive:{tmp_path}/in.tar:a:1",
         f"{kind}:{tmp_path}/out.tar:a:2"],
        check=True, capture_output=True,
    )  # fmt: skip
    (tmp_path / "other").mkdir()
    other = open_at(tmp_path / "other")
    ((loaded, _),) = loading.load(other, [(tmp_path / "out.tar").read_bytes()])
    assert loaded.diff_ids == image.diff_ids
    if kind == "docker-archive":
        assert loaded.id == image.id
    other.close()


def test_podman_loads_what_is_saved_under_the_same_id(store, tmp_path):
    if shutil.which("podman") is None:
        pytest.skip("podman is not installed")
    image = committed(store, imported(store, "base:1"), "a:1", "k1")
    (tmp_path / "in.tar").write_bytes(saved(store, "a:1"))
    # Podman wants short folders, shorter than a test's own.
    with tempfile.TemporaryDirectory(prefix="p", dir="/tmp") as short:
        podman = ["podman", "--root", f"{short}/p", "--runroot", f"{short}/r", "--storage-driver", "vfs"]
        load = [*podman, "load", "-i", f"{tmp_path}/in.tar"]
        result = subprocess.run(load, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        look = [*podman, "images", "-q", "--no-trunc", "a:1"]
        shown = subprocess.run(look, check=True, capture_output=True, text=True)
        subprocess.run([*podman, "rmi", "-af"], check=True, capture_output=True)
    assert shown.stdout.strip() == image.id


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"manifest.json": b"nonsense"},
        {"manifest.json": b'[{"Config":"../../etc/passwd","Layers":[]}]'},
        {"manifest.json": b'[{"Config":"c","Layers":["l"]}]', "c": b"{}"},
        {"index.json": b'{"manifests":[{"digest":"sha256:../../x"}]}'},
        {"index.json": b'{"manifests":[{"digest":"sha256:' + b"0" * 64 + b'"}]}'},
    ],
)
def test_a_broken_image_archive_is_refused_and_leaves_nothing(store, files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    with pytest.raises(InvalidInputError):
        loading.load(store, [out.getvalue()])
    assert everything(store) == ([], [])


def test_a_layer_with_another_digest_is_refused(store):
    layer = rootfs()
    config = json.dumps({"rootfs": {"type": "layers", "diff_ids": ["sha256:" + "0" * 64]}, "os": "linux"}).encode()
    manifest = b'[{"Config":"c","RepoTags":["a:1"],"Layers":["l"]}]'
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in {"manifest.json": manifest, "c": config, "l": layer}.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    with pytest.raises(InvalidInputError, match="digest"):
        loading.load(store, [out.getvalue()])
    assert everything(store) == ([], [])


def test_a_full_disk_leaves_nothing_half_made(tmp_path):
    point = tmp_path / "small"
    point.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", point], check=True)
    try:
        store = open_at(point)
        small = imported(store, "a")
        before = everything(store)
        for size in (1 << 20, 8 << 20):
            with pytest.raises(OSError) as caught:
                imported(store, "big", os.urandom(size) * 2)
            assert caught.value.errno == errno.ENOSPC
            store.snapshots.wait_deleted()
            assert everything(store) == before
        assert store.resolve("a").id == small.id
        store.close()
    finally:
        subprocess.run(["umount", point], check=True)


def test_a_read_only_data_root_is_a_clear_error(tmp_path):
    point = tmp_path / "ro"
    point.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", point], check=True)
    try:
        open_at(point).close()
        subprocess.run(["mount", "-o", "remount,ro", point], check=True)
        with pytest.raises(BarqueError, match="read-only file system"):
            open_at(point)
    finally:
        subprocess.run(["umount", point], check=True)


def test_filters_of_lists(store):
    first = imported(store, "a/b:1", changes=["LABEL k=v"])
    second = imported(store, "c:1", b"2")

    def ids(**filters):
        return {i.id for i in views.select(store, filters, everything=False)}

    assert ids(label=["k"]) == ids(label=["k=v"]) == {first.id}
    assert ids(label=["k=x"]) == set()
    assert ids(reference=["c"]) == ids(reference=["c:*"]) == {second.id}
    assert ids(reference=["*"]) == {second.id}
    assert ids(before=["c:1"]) == {first.id}
    assert ids(since=["a/b:1"]) == {second.id}
    assert ids(until=["1h"]) == set()
    assert ids(dangling=["false"]) == {first.id, second.id}
    with pytest.raises(InvalidInputError, match="invalid filter"):
        ids(nonsense=["1"])
