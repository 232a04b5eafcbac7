"""Folders lie apart where ext4 keeps no journal, on file systems made for the test."""

import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

from barque.kernel import ext4
from barque.storage.drivers import open_snapshots
from under_test import needs_root

pytestmark = pytest.mark.kernel
_GROUPS = 8
_GROUP_BYTES = 8192 * 1024


@contextmanager
def mounted_ext4(folder, features):
    needs_root()
    if not shutil.which("mkfs.ext4"):
        pytest.skip("e2fsprogs is not installed")
    image, root = folder / "image", folder / "root"
    root.mkdir()
    with image.open("wb") as file:
        file.truncate(_GROUPS * _GROUP_BYTES)
    subprocess.run(["mkfs.ext4", "-q", "-b", "1024", "-O", f"^flex_bg,{features}", str(image)], check=True)
    mounted = subprocess.run(["mount", "-o", "loop", str(image), str(root)], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"an ext4 cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield root
    finally:
        subprocess.run(["umount", "-l", str(root)], check=True)


def groups(root, folders):
    """Return in which groups of numbers folders were put."""
    listed = subprocess.run(["stat", "-f", "-c", "%c", str(root)], check=True, capture_output=True, text=True)
    for_each_group = int(listed.stdout) // _GROUPS
    return {(folder.stat().st_ino - 1) // for_each_group for folder in folders}


@pytest.mark.parametrize(("features", "apart"), [("^has_journal", True), ("has_journal", False)])
def test_writable_layers_lie_apart_only_where_deleted_numbers_are_spared(tmp_path, features, apart):
    with mounted_ext4(tmp_path, features) as root:
        snapshots = open_snapshots(str(root / "snapshots"))
        for number in range(_GROUPS):
            snapshots.prepare(f"layer-{number}")
        layers = [Path(snapshots.layer_dir(f"layer-{number}")).parent for number in range(_GROUPS)]
        assert (len(groups(root, layers)) > 1) is apart
        assert ext4.spread(str(root)) is apart


def test_nothing_is_asked_of_other_file_systems(tmp_path):
    folder = tmp_path / "memory"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(folder)], check=True)
    try:
        assert ext4.spread(str(folder)) is False
    finally:
        subprocess.run(["umount", str(folder)], check=True)
