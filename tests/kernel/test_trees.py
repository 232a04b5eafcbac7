import os

import pytest

from barque.storage.trees import remove_below, remove_tree, tree_usage

pytestmark = pytest.mark.kernel


def nest(folder, depth):
    """Make folders nested deeper than any path is long, with a file in each hundredth."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    for level in range(depth):
        os.mkdir("d" * 20, dir_fd=fd)
        inner = os.open("d" * 20, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        if level % 100 == 0:
            os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=inner))
        os.close(fd)
        fd = inner
    os.close(fd)


def test_folders_nested_without_end_are_counted_and_removed(tmp_path):
    top = tmp_path / "top"
    top.mkdir()
    nest(top, 5000)
    assert tree_usage(str(top)).inodes == 5050
    remove_tree(str(top))
    assert not top.exists()


def test_hard_links_count_once_and_links_are_not_followed(tmp_path):
    top = tmp_path / "top"
    top.mkdir()
    (top / "a").write_bytes(b"x" * 1000)
    os.link(top / "a", top / "b")
    (tmp_path / "outside").write_bytes(b"y" * 5000)
    os.symlink(tmp_path / "outside", top / "link")
    assert tree_usage(str(top)).size == 1000 + len(str(tmp_path / "outside"))


def test_links_are_removed_and_not_what_they_lead_to(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    top = tmp_path / "top"
    (top / "folder").mkdir(parents=True)
    os.symlink(outside, top / "folder" / "link")
    os.symlink(outside, tmp_path / "way")
    remove_tree(str(top))
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        remove_below(fd, b"way")
        remove_below(fd, b"nothing")
    finally:
        os.close(fd)
    assert os.listdir(tmp_path) == ["outside"]
    assert (outside / "kept").read_text() == "kept"
    remove_tree(str(tmp_path / "nothing" / "at all"))
