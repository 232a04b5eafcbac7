"""The contract of every snapshotter; another one is added to the fixture's params."""

import os
import sys

import pytest

from barque.base.errors import ConflictError, NotFoundError
from barque.storage import archive
from barque.storage.erofs.snapshotter import ErofsSnapshotter
from barque.storage.mounts import mounted
from barque.storage.snapshots import ACTIVE, COMMITTED, VIEW, DirectorySnapshotter

pytestmark = pytest.mark.kernel


@pytest.fixture(params=[DirectorySnapshotter, ErofsSnapshotter], ids=["directory", "erofs"])
def make(request, tmp_path):
    return lambda: request.param(str(tmp_path / "snapshots"))


def write(root, path, data):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644, dir_fd=root)
    os.write(fd, data)
    os.close(fd)


def read(root, path):
    fd = os.open(path, os.O_RDONLY, dir_fd=root)
    with os.fdopen(fd, "rb") as file:
        return file.read()


def layer(snapshots, name, parent, files):
    with mounted(snapshots.prepare("k-" + name, parent)) as root:
        for path, data in files.items():
            write(root, path, data)
    snapshots.commit(name, "k-" + name)


def test_two_snapshots_of_one_parent_do_not_see_each_other(make):
    snapshots = make()
    layer(snapshots, "base", "", {"a": b"1"})
    with mounted(snapshots.prepare("one", "base")) as one, mounted(snapshots.prepare("two", "base")) as two:
        write(one, "a", b"changed")
        os.unlink("a", dir_fd=two)
        assert read(one, "a") == b"changed"
        assert os.listdir(two) == []
    with mounted(snapshots.view("look", "base")) as root:
        assert read(root, "a") == b"1"
        with pytest.raises(OSError, match="Read-only"):
            write(root, "b", b"")


def test_changes_survive_reopening_and_unfinished_ones_vanish(make, tmp_path):
    snapshots = make()
    layer(snapshots, "base", "", {"a": b"1"})
    with mounted(snapshots.prepare("c", "base")) as root:
        write(root, "b", b"2")
    (tmp_path / "snapshots" / "zz" / "f").mkdir(parents=True)
    snapshots = make()
    assert sorted(i.name for i in snapshots.walk()) == ["base", "c"]
    assert snapshots.stat("base").kind == COMMITTED
    assert snapshots.stat("c") == ("c", ACTIVE, "base")
    with mounted(snapshots.mounts("c")) as root:
        assert read(root, "b") == b"2"


def test_names_and_parents_are_guarded(make):
    snapshots = make()
    layer(snapshots, "base", "", {})
    snapshots.prepare("c", "base")
    with pytest.raises(ConflictError):
        snapshots.prepare("c", "base")
    with pytest.raises(ConflictError):
        snapshots.prepare("d", "c")
    with pytest.raises(NotFoundError):
        snapshots.prepare("d", "nothing")
    with pytest.raises(ConflictError):
        snapshots.remove("base")
    with pytest.raises(ConflictError):
        snapshots.commit("base", "c")
    snapshots.remove("c")
    snapshots.remove("base")
    with pytest.raises(NotFoundError):
        snapshots.mounts("c")
    assert list(snapshots.walk()) == []


def test_usage_is_the_own_layers(make):
    snapshots = make()
    layer(snapshots, "base", "", {"a": b"x" * 1000})
    with mounted(snapshots.prepare("c", "base")) as root:
        write(root, "b", b"x" * 300)
    assert snapshots.usage("base").size == 1000
    assert snapshots.usage("c").size == 300
    snapshots.view("v", "base")
    assert snapshots.stat("v").kind == VIEW


def test_a_hundred_and_twenty_seven_layers_are_mounted(make):
    snapshots = make()
    parent = ""
    for number in range(127):
        key = f"k{number}"
        snapshots.prepare(key, parent)
        parent = f"layer-{number}"
        snapshots.commit(parent, key)
        with open(f"{snapshots.layer_dir(parent)}/f{number}", "w"):
            pass
    with mounted(snapshots.prepare("c", parent)) as root:
        assert len(os.listdir(root)) == 127


def test_the_hosts_mount_table_stays_as_it_is(make):
    with open("/proc/self/mountinfo") as file:
        before = file.read()
    snapshots = make()
    with mounted(snapshots.prepare("c")), open("/proc/self/mountinfo") as file:
        assert file.read() == before


def test_changes_are_listed_as_added_changed_deleted(make):
    snapshots = make()
    with mounted(snapshots.prepare("k")) as root:
        for folder in ("d", "e", "same"):
            os.mkdir(folder, dir_fd=root)
        for path in ("d/kept", "d/gone", "e/old", "a"):
            write(root, path, b"1")
    snapshots.commit("base", "k")
    with mounted(snapshots.prepare("c", "base")) as root:
        write(root, "a", b"22")
        os.unlink("d/gone", dir_fd=root)
        os.mkdir("new", dir_fd=root)
        write(root, "new/f", b"1")
        os.unlink("e/old", dir_fd=root)
        os.rmdir("e", dir_fd=root)
        os.mkdir("e", dir_fd=root)
        write(root, "e/fresh", b"")
    found = archive.changes(snapshots.layer_dir("c"), snapshots.lower_dirs("c"))
    assert found == [
        ("/a", archive.MODIFIED),
        ("/d", archive.MODIFIED),
        ("/d/gone", archive.DELETED),
        ("/e", archive.MODIFIED),
        ("/e/fresh", archive.ADDED),
        ("/e/old", archive.DELETED),
        ("/new", archive.ADDED),
        ("/new/f", archive.ADDED),
    ]


def test_changes_follow_no_link_that_a_container_puts_in_a_folders_place(tmp_path, monkeypatch):
    upper, elsewhere = tmp_path / "upper", tmp_path / "elsewhere"
    for folder in (upper / "d" / "inner", upper / "gone", elsewhere / "inner"):
        folder.mkdir(parents=True)
    for file in (elsewhere / "secret", elsewhere / "inner" / "secret", upper / "file"):
        file.touch()
    module = sys.modules["barque.storage.archive.differences"]
    compare_folder = module._compare_folder

    def then_swapped(fd, path, below, found):
        folders = compare_folder(fd, path, below, found)
        if not path:
            (upper / "d").rename(upper / "away")
            (upper / "d").symlink_to(elsewhere)
            (upper / "gone").rmdir()
            # As if it had been seen already.
            folders.append("/d/inner")
        return folders

    monkeypatch.setattr(module, "_compare_folder", then_swapped)
    found = {change.path for change in archive.changes(str(upper), [])}
    assert found == {"/d", "/gone", "/file"}
