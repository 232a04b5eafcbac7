"""What is known of a kept folder's files: good as long as a file is as it was."""

import os
from pathlib import Path

from barque.builder.file_digests import FileDigests
from barque.builder.folder_tree import FolderTree


class Reads(FolderTree):
    """A folder that tells how often its files are read."""

    count = 0

    def read(self, path: str):
        self.count += 1
        return super().read(path)


def opened(folder: Path, digests: FileDigests) -> Reads:
    return Reads(os.open(folder, os.O_RDONLY | os.O_DIRECTORY), digests=digests)


def test_a_file_is_read_again_only_when_it_has_changed(tmp_path: Path) -> None:
    for name in ("same", "written", "replaced"):
        (tmp_path / name).write_text(name)
    digests = FileDigests(bytes)
    tree = opened(tmp_path, digests)
    before = {name: tree.digest(name) for name in ("same", "written", "replaced")}
    again = opened(tmp_path, FileDigests(digests.packed))
    assert {name: again.digest(name) for name in before} == before
    assert again.count == 0
    times = (tmp_path / "written").stat()
    while (tmp_path / "written").stat().st_ctime_ns == times.st_ctime_ns:
        (tmp_path / "written").write_text("WRITTEN")
        # A time that was set says nothing: the kernel keeps one of its own.
        os.utime(tmp_path / "written", ns=(times.st_atime_ns, times.st_mtime_ns))
    (tmp_path / "new").write_text("replaced")
    os.replace(tmp_path / "new", tmp_path / "replaced")
    assert again.digest("same") == before["same"]
    assert again.digest("written") != before["written"]
    assert again.digest("replaced") == before["replaced"]
    assert again.count == 2
    for one in (tree, again):
        os.close(one.root)


def test_files_with_attributes_are_always_looked_at(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("f")
    os.setxattr(tmp_path / "f", "user.a", b"1")
    digests = FileDigests(bytes)
    tree = opened(tmp_path, digests)
    tree.digest("f")
    assert tree.xattrs("f") == {b"user.a": b"1"}
    assert digests.packed() == b""
    os.close(tree.root)


def test_what_is_gone_is_forgotten(tmp_path: Path) -> None:
    digests = FileDigests(bytes)
    kept = {}
    for name in "ab":
        (tmp_path / name).write_text(name)
        kept[name] = (tmp_path / name).stat()
        digests.put(kept[name], name.encode() * 32)
    digests.keep_only([kept["b"].st_ino])
    assert digests.get(kept["a"]) is None
    assert digests.get(kept["b"]) == b"b" * 32
