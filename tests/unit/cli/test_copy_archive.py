"""Archives of a hostile engine never write outside of where `cp` puts them."""

import io
import os
import tarfile

import pytest

from barque.base.errors import InvalidInputError
from barque.cli.copy_archive import Counter, extract, packed

SYM, LNK, DIR, REG = tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.REGTYPE


def tar_of(members):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind, link in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.mode = kind, link, 0o777
            info.size = 4 if kind == REG else 0
            tar.addfile(info, io.BytesIO(b"evil") if info.size else None)
    return file.getvalue()


@pytest.fixture
def places(tmp_path):
    (tmp_path / "outside").mkdir(mode=0o700)
    (tmp_path / "outside" / "secret").write_text("secret")
    (tmp_path / "target").mkdir()
    yield tmp_path / "target", tmp_path / "outside"
    assert os.listdir(tmp_path / "outside") == ["secret"]
    assert (tmp_path / "outside" / "secret").read_text() == "secret"
    assert (tmp_path / "outside").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "outside" / "secret").stat().st_nlink == 1


def take(data, target):
    extract(Counter(iter([data])), str(target), name="d", folder=True, contents=False, owners=False)


@pytest.mark.parametrize("members", [
    [("d", DIR, ""), ("d/../../outside/evil", REG, "")],
    [("d", DIR, ""), ("d/way", SYM, "{out}"), ("d/way/evil", REG, "")],
    [("d", DIR, ""), ("d/way", SYM, "{out}/deep"), ("d/way/../evil", REG, "")],
    [("d", DIR, ""), ("d/copy", LNK, "d/../../outside/secret")],
    [("d", DIR, ""), ("d/way", SYM, "{out}"), ("d/copy", LNK, "d/way/secret")],
])  # fmt: skip
def test_a_member_that_leaves_the_target_is_refused(places, members):
    target, outside = places
    data = tar_of([(name, kind, link.format(out=outside)) for name, kind, link in members])
    with pytest.raises(InvalidInputError, match="lies outside of"):
        take(data, target)


def test_a_folder_or_file_over_a_link_replaces_the_link(places):
    target, outside = places
    take(tar_of([("d", DIR, ""), ("d/a", SYM, str(outside)), ("d/a", DIR, ""), ("d/b", SYM, f"{outside}/secret"), ("d/b", REG, "")]), target)
    assert not os.path.islink(target / "d" / "a")
    assert (target / "d" / "b").read_text() == "evil"


def test_what_is_packed_is_extracted_again(places, tmp_path):
    target, _ = places
    source = tmp_path / "source"
    (source / "inner").mkdir(parents=True)
    (source / "inner" / "file").write_bytes(b"x" * 100_000)
    os.symlink("inner/file", source / "link")
    os.link(source / "inner" / "file", source / "same")
    extract(Counter(packed(str(source), "d", follow=False)), str(target), name="d", folder=True, contents=False, owners=False)
    assert (target / "d" / "link").read_bytes() == b"x" * 100_000
    assert os.readlink(target / "d" / "link") == "inner/file"
    assert (target / "d" / "same").read_bytes() == b"x" * 100_000
