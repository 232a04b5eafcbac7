"""Atomic files and identifiers."""

import errno
import os
from pathlib import Path

import pytest

from barque.base import errors, files, ids


def test_a_file_is_replaced_whole_with_its_mode(tmp_path: Path) -> None:
    target = tmp_path / "state"
    target.write_bytes(b"old")
    files.write_atomic(str(target), b"new", mode=0o640)
    assert target.read_bytes() == b"new"
    assert target.stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["state"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "state"
    target.write_bytes(b"old")

    def full_disk(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        files.write_atomic(str(target), b"new")
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["state"]


def test_the_mode_of_a_link_s_target_stays(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"")
    target.chmod(0o600)
    (tmp_path / "link").symlink_to("file")
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(OSError, match="not supported"):
            files.set_mode("link", 0o777, dir_fd=fd)
        assert target.stat().st_mode & 0o7777 == 0o600
        files.set_mode("file", 0o4755, dir_fd=fd)
        assert target.stat().st_mode & 0o7777 == 0o4755
    finally:
        os.close(fd)


def test_ids_are_64_digits_and_never_look_like_numbers() -> None:
    for _ in range(200):
        identifier = ids.new_id()
        assert ids.is_full_id(identifier)
        assert not ids.short(identifier).isdecimal()
    assert ids.short("sha256:" + "ab" * 32) == "ab" * 6


def test_a_kernel_error_names_the_call_and_its_target() -> None:
    error = errors.KernelError(errno.EPERM, "mount", "/proc")
    assert str(error) == "mount /proc: Operation not permitted"
    assert error.errno == errno.EPERM
