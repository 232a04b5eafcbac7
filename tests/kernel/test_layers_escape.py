"""Archives whose names, links and devices want to leave the layer: neither snapshotter touches what is outside."""

import os
import tarfile

import pytest

from barque.base.errors import InvalidInputError, UnsupportedError
from barque.storage.erofs import mounts
from barque.storage.erofs.snapshotter import ErofsSnapshotter
from barque.storage.mounts import mounted
from barque.storage.snapshots import DirectorySnapshotter
from kernel.test_layers import add, archive, entry, folder, view

pytestmark = pytest.mark.kernel

# Stands for the folder outside in names and links; "UP" for a relative way there.
OUT, UP = "OUTSIDE", "UPWARDS"
LINK = {"kind": tarfile.SYMTYPE, "linkname": OUT}
HARD = tarfile.LNKTYPE
WRITTEN = b"written through"

REFUSED = {
    "dots": [[entry("../outside/new", data=WRITTEN)]],
    "dots behind a folder": [[folder("a"), entry("a/../../outside/new", data=WRITTEN)]],
    "dots upwards": [[entry(f"{UP}/new", data=WRITTEN)]],
    "dots of a folder": [[folder("../outside", mode=0o777)]],
    "a whiteout of dots": [[entry(".wh...")]],
    "a whiteout behind dots": [[entry(f"{UP}/.wh.secret")]],
    "a hard link by dots": [[entry("h", HARD, linkname=f"{UP}/secret"), entry("h", data=WRITTEN)]],
    "a hard link by an absolute name": [[entry("h", HARD, linkname=f"{OUT}/secret")]],
    "a hard link through a link": [[entry("l", **LINK), entry("h", HARD, linkname="l/secret")]],
    "a hard link through a lower link": [[entry("l", **LINK)], [entry("h", HARD, linkname="l/secret")]],
    "overlay's own mark": [[entry("d", tarfile.CHRTYPE, devmajor=0, devminor=0)]],
    "a file below a file": [[entry("f", data=b"x"), entry("f/new", data=WRITTEN)]],
}
HARMLESS = {
    "an absolute name": [[entry(f"{OUT}/new", data=WRITTEN)]],
    "an absolute folder": [[folder(OUT, mode=0o777, uid=5)]],
    "a file through a link": [[entry("l", **LINK), entry("l/new", data=WRITTEN)]],
    "a file through a relative link": [[entry("l", tarfile.SYMTYPE, linkname=UP), entry("l/new", data=WRITTEN)]],
    "a file through two links": [
        [entry("l", **LINK), entry("m", tarfile.SYMTYPE, linkname="l"), entry("m/new", data=WRITTEN)]
    ],
    "a file through a lower link": [[entry("l", **LINK)], [entry("l/new", data=WRITTEN)]],
    "a file over a link": [[entry("l", tarfile.SYMTYPE, linkname=f"{OUT}/secret"), entry("l", data=WRITTEN)]],
    "a file over a lower link": [[entry("l", tarfile.SYMTYPE, linkname=f"{OUT}/secret")], [entry("l", data=WRITTEN)]],
    "a file over a hard link to a link": [
        [entry("l", tarfile.SYMTYPE, linkname=f"{OUT}/secret"), entry("h", HARD, linkname="l"), entry("h", data=WRITTEN)]
    ],
    "a folder over a link": [[entry("l", **LINK), folder("l", mode=0o777, uid=5)]],
    "a whiteout through a link": [[entry("l", **LINK)], [entry("l/.wh.secret"), entry("l/.wh..wh..opq")]],
    "xattrs of a link": [[entry("l", **LINK, pax_headers={"SCHILY.xattr.user.k": "v"})]],
    "a file over a device": [
        [entry("d", tarfile.BLKTYPE, devmajor=7, devminor=200), entry("h", HARD, linkname="d"), entry("h", data=WRITTEN)]
    ],
}


@pytest.fixture
def outside(tmp_path):
    """Give a folder of the host's, and prove at the end that nobody was in it."""
    made = tmp_path / "outside"
    made.mkdir(mode=0o751)
    (made / "secret").write_text("untouched")

    def facts():
        return [
            (path.name, path.stat().st_mode, path.stat().st_uid, path.stat().st_nlink, path.stat().st_mtime_ns,
             os.listxattr(path))
            for path in (made, *sorted(made.iterdir()))
        ]  # fmt: skip

    before = facts()
    yield made
    assert facts() == before
    assert (made / "secret").read_text() == "untouched"
    assert not {"new", "h"}.intersection(os.listdir(tmp_path))


def placed(members, outside):
    """Return the members with the folder outside for the words that stand for it."""
    ways = {OUT: str(outside), UP: "/".join([".."] * 40) + str(outside)}
    for info, data in members:
        copied = tarfile.TarInfo()
        for name in ("name", "type", "linkname", "size", "mode", "mtime", "uid", "devmajor", "devminor", "pax_headers"):
            setattr(copied, name, getattr(info, name))
        for word, way in ways.items():
            copied.name, copied.linkname = copied.name.replace(word, way), copied.linkname.replace(word, way)
        yield copied, data


def stacked(kind, root, layers, outside):
    """Return a snapshotter with the layers of archives on one another, and the highest one's name."""
    if kind is ErofsSnapshotter:
        try:
            mounts.probe(str(root))
        except UnsupportedError as error:
            pytest.skip(str(error))
    snapshots, parent = kind(str(root / "snapshots")), ""
    for number, members in enumerate(layers):
        add(snapshots, f"l{number}", parent, archive(*placed(members, outside)))
        parent = f"l{number}"
    return snapshots, parent


kinds = pytest.mark.parametrize("kind", [DirectorySnapshotter, ErofsSnapshotter], ids=["directory", "erofs"])


@kinds
@pytest.mark.parametrize("layers", REFUSED.values(), ids=REFUSED.keys())
def test_what_names_something_outside_is_refused(kind, layers, tmp_path, outside):
    with pytest.raises(InvalidInputError):
        stacked(kind, tmp_path, layers, outside)


@kinds
@pytest.mark.parametrize("layers", HARMLESS.values(), ids=HARMLESS.keys())
def test_what_leads_outside_stays_inside(kind, layers, tmp_path, outside):
    try:
        snapshots, top = stacked(kind, tmp_path, layers, outside)
    except InvalidInputError as error:
        # A name through a link to nothing has no place inside.
        assert "l/new" in str(error) or "not a directory" in str(error), error
        return
    found = view(snapshots, top)
    places = [path for path, facts in found.items() if facts[5] == WRITTEN]
    if any(data == WRITTEN for members in layers for _, data in members):
        assert len(places) == 1, sorted(found)
    assert not any(path == ".." or path.startswith("../") for path in found)
    if "d" in found:
        assert (found["d"][0][:4], found["d"][4]) == ("0o60", os.makedev(7, 200))


@kinds
def test_a_link_that_is_written_through_leads_to_the_layers_own_files(kind, tmp_path, outside):
    inside = str(outside)[1:]
    members = [folder(inside), entry(f"{inside}/secret", data=b"inside"), entry("l", **LINK), entry("l/more", data=b"m")]
    snapshots, top = stacked(kind, tmp_path, [members], outside)
    found = view(snapshots, top)
    assert found[f"{inside}/secret"][5] == b"inside"
    assert found[f"{inside}/more"][5] == b"m"
    with mounted(snapshots.prepare("work", top)) as root:
        assert os.readlink("l", dir_fd=root) == str(outside)
        assert sorted(os.listdir(os.open(inside, os.O_RDONLY, dir_fd=root))) == ["more", "secret"]
    snapshots.remove("work")
