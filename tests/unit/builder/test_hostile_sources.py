"""Definitions and images that would have the builder write to what is not their own."""

import os

import pytest

from barque.base.errors import InvalidInputError
from barque.builder import sources
from barque.builder.copying import Copier, CopyOptions
from barque.builder.folder_tree import FolderTree
from barque.builder.solver import Session


@pytest.mark.parametrize("name", ["../../../escaped", "/escaped", "..", ".", "a/b", "a\0b", "n" * 256])
async def test_a_download_has_no_name_that_leads_out_of_its_folder(tmp_path, monkeypatch, name):
    async def fetch(url, path, authorization):
        with open(path, "x") as file:
            file.write("evil")
        return {}, "text/plain"

    monkeypatch.setattr(sources, "fetch", fetch)
    session = Session()
    with pytest.raises(InvalidInputError, match="cannot determine filename"):
        await sources.Sources(None, str(tmp_path / "a/b"))._download("http://h/x", {"filename": name}, session)
    assert [files for _, _, files in os.walk(tmp_path) if files] == [["body"]]


@pytest.mark.parametrize("path", ["/pipe", "/link", "/folder/../pipe"])
def test_a_file_is_not_written_to_what_is_no_file(tmp_path, path):
    os.mkdir(tmp_path / "folder")
    os.mkfifo(tmp_path / "pipe")
    os.symlink("/pipe", tmp_path / "link")
    root = os.open(tmp_path, os.O_RDONLY)
    # Without a reader an opened pipe would hold the builder for ever.
    copier = Copier(root, CopyOptions())
    try:
        with pytest.raises(InvalidInputError, match="/pipe, which is no regular file"):
            copier.make_file(path, b"data", 0o644)
    finally:
        copier.close()
        os.close(root)


def test_only_files_are_read(tmp_path):
    (tmp_path / "file").write_bytes(b"data")
    os.mkfifo(tmp_path / "pipe")
    os.symlink("file", tmp_path / "link")
    root = os.open(tmp_path, os.O_RDONLY)
    tree = FolderTree(root)
    try:
        assert b"".join(tree.read("file")) == b"data"
        for name in ("pipe", "link", ""):
            with pytest.raises(InvalidInputError, match="is no regular file"):
                next(iter(tree.read(name)))
    finally:
        tree.close()
        os.close(root)
