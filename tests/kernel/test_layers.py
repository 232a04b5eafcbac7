"""Layers of archives: every snapshotter shows what is in them, exactly and the same."""

import copy
import hashlib
import io
import os
import shutil
import stat
import tarfile
import tempfile

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from barque.base.errors import ConflictError, InvalidInputError, UnsupportedError
from barque.storage.erofs import mounts
from barque.storage.erofs.snapshotter import ErofsSnapshotter
from barque.storage.mounts import mounted
from barque.storage.snapshots import DirectorySnapshotter

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module", autouse=True)
def kernel(tmp_path_factory):
    try:
        mounts.probe(str(tmp_path_factory.mktemp("probe")))
    except UnsupportedError as error:
        pytest.skip(str(error))


@pytest.fixture(params=[DirectorySnapshotter, ErofsSnapshotter], ids=["directory", "erofs"])
def snapshots(request, tmp_path):
    return request.param(str(tmp_path / "snapshots"))


def entry(name, kind=tarfile.REGTYPE, data=b"", **facts):
    info = tarfile.TarInfo(name)
    info.type, info.size, info.mode, info.mtime = kind, len(data), 0o644, 1_000_000_000
    for key, value in facts.items():
        setattr(info, key, value)
    return info, data


def folder(name, **facts):
    return entry(name, tarfile.DIRTYPE, **{"mode": 0o755, **facts})


def archive(*members, form=tarfile.PAX_FORMAT):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def add(snapshots, name, parent, data):
    path = f"{snapshots._root}/../{hashlib.sha256(data).hexdigest()}.tar"
    with open(path, "wb") as file:
        file.write(data)
    snapshots.add_layer(name, parent, path)


def shown(root):
    """Return all that can be known of every file below a descriptor."""
    found, inodes = {}, {}
    for path, names, files, fd in os.fwalk(".", dir_fd=root):
        for name in [".", *names, *files] if path == "." else [*names, *files]:
            try:
                facts = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                # Overlay lists a whiteout that hides nothing.
                continue
            whole = os.path.normpath(f"{path}/{name}")
            kind = stat.S_IFMT(facts.st_mode)
            more = b""
            if kind == stat.S_IFLNK:
                more = os.readlink(name, dir_fd=fd)
            elif kind == stat.S_IFREG and facts.st_size < 1 << 24:
                with open(os.open(name, os.O_RDONLY, dir_fd=fd), "rb") as file:
                    more = file.read()
            xattrs = ()
            if kind in (stat.S_IFREG, stat.S_IFDIR):
                own = os.open(name, os.O_RDONLY, dir_fd=fd)
                xattrs = tuple(sorted((x, os.getxattr(own, x)) for x in os.listxattr(own)))
                os.close(own)
            # Layers are file systems of their own, which may have equal inodes.
            same = (facts.st_dev, facts.st_ino) if kind == stat.S_IFREG else whole
            inodes[same] = min(whole, inodes.get(same, whole))
            found[whole] = (
                oct(facts.st_mode), facts.st_uid, facts.st_gid, facts.st_mtime_ns, facts.st_rdev, more, xattrs, same,
                facts.st_size if kind != stat.S_IFDIR else 0, facts.st_nlink if kind != stat.S_IFDIR else 0,
            )  # fmt: skip
    return {path: (*facts[:7], inodes[facts[7]], *facts[8:]) for path, facts in found.items()}


def view(snapshots, parent):
    key = f"view-{os.urandom(4).hex()}"
    with mounted(snapshots.view(key, parent)) as root:
        found = shown(root)
    snapshots.remove(key)
    return found


def timeless(found):
    """Return it without the times of folders: those that no archive describes have that at which they were made."""
    return {path: facts[:3] + facts[3 + facts[0].startswith("0o4") :] for path, facts in found.items()}


LONG = "/".join("d" * 200 for _ in range(3))
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")
EVERYTHING = [
    folder("./", mode=0o751, uid=3, gid=4, pax_headers={"mtime": "1234567890.123456789"}),
    folder("etc", mode=0o1777, uid=70_000, gid=80_000),
    entry("etc/file", data=b"hello" * 1000, pax_headers={"mtime": "1700000000.987654321"}),
    entry("etc/empty"),
    entry("etc/set", data=b"x", mode=0o6755, uid=1, gid=2),
    entry("etc/capable", data=b"x", pax_headers={
        "SCHILY.xattr.security.capability": CAPABILITY.decode("latin-1"), "SCHILY.xattr.user.color": "blue" * 100}),
    folder("etc/marked", pax_headers={"SCHILY.xattr.user.kind": "folder", "SCHILY.xattr.trusted.overlay.opaque": "y"}),
    entry("etc/link", tarfile.SYMTYPE, linkname="file", mode=0o777),
    entry("etc/far", tarfile.SYMTYPE, linkname="x" * 3000, mode=0o777),
    entry("etc/nowhere", tarfile.SYMTYPE, linkname="../../../../etc/passwd"),
    entry("etc/hard", tarfile.LNKTYPE, linkname="etc/file"),
    entry("etc/hard-link-of-link", tarfile.LNKTYPE, linkname="etc/link"),
    folder("dev"),
    entry("dev/null", tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666),
    entry("dev/big", tarfile.BLKTYPE, devmajor=259, devminor=300_000),
    entry("dev/pipe", tarfile.FIFOTYPE, mode=0o600),
    folder(LONG),
    entry(f"{LONG}/{'n' * 255}", data=b"long"),
    folder("many"),
    *(entry(f"many/file-{n:04}-{'x' * (n % 60)}", data=b"%d" % n) for n in range(1500)),
    entry("old", mtime=-86_400, data=b"before 1970"),
    entry("implied/by/name", data=b"parents are not in the archive"),
    entry("sp ace\nline", data=b"odd"),
    entry("bytes-\udcff", data=b"not text"),
    entry("twice", data=b"first"),
    entry("twice", data=b"second"),
]  # fmt: skip


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT], ids=["pax", "gnu"])
def test_everything_in_an_archive_is_shown_exactly(snapshots, form):
    members = EVERYTHING
    if form == tarfile.GNU_FORMAT:
        members = [(copy.copy(info), data) for info, data in EVERYTHING]
        for info, _ in members:
            info.pax_headers = {}
    add(snapshots, "one", "", archive(*members, form=form))
    found = view(snapshots, "one")
    assert found["etc"][:4] == ("0o41777", 70_000, 80_000, 10**18)
    assert found["etc/nowhere"][5] == "../../../../etc/passwd"
    assert found["dev/big"][4] == os.makedev(259, 300_000)
    assert found["dev/null"][0] == "0o20666"
    assert stat.S_ISFIFO(int(found["dev/pipe"][0], 8))
    assert found[f"{LONG}/{'n' * 255}"][5] == b"long"
    assert found["many/file-1499-" + "x" * (1499 % 60)][5] == b"1499"
    assert sum(path.startswith("many/") for path in found) == 1500
    assert found["old"][3] == -86_400 * 10**9
    assert found["twice"][5] == b"second"
    assert found["etc/far"][5] == "x" * 3000
    assert found["implied/by/name"][5].startswith(b"parents")
    assert "bytes-\udcff" in found
    assert "sp ace\nline" in found
    if form == tarfile.PAX_FORMAT:
        assert found["."][:4] == ("0o40751", 3, 4, 1234567890123456789)
        assert found["etc/file"][3] == 1700000000987654321
        assert found["etc/file"][7] == found["etc/hard"][7]
        assert found["etc/file"][9] == 2
        xattrs = dict(found["etc/capable"][6])
        assert xattrs["user.color"] == b"blue" * 100
        assert dict(found["etc/marked"][6]) == {"user.kind": b"folder"}
    if isinstance(snapshots, ErofsSnapshotter):
        assert snapshots.places("one")[0].endswith("/i")


def test_layers_hide_and_replace_what_is_below(snapshots):
    lower = [
        folder("a", mode=0o700, uid=5), entry("a/1", data=b"1"), entry("a/2", data=b"2"), folder("a/deep"),
        entry("a/deep/x", data=b"x"), folder("b"), entry("b/1"), entry("c", data=b"file"), folder("d"), entry("d/1"),
        entry("e", tarfile.SYMTYPE, linkname="a"),
    ]  # fmt: skip
    upper = [
        entry("a/.wh.1"), folder("b"), entry("b/.wh..wh..opq"), entry("b/new", data=b"n"), entry(".wh.c"),
        entry("d", data=b"now a file"), entry(".wh.e"), folder("e"), entry("e/in", data=b"i"),
        entry("a/deep/y", data=b"y"), entry(".wh.never-was"), entry("x/.wh..wh.aufs"),
    ]  # fmt: skip
    add(snapshots, "low", "", archive(*lower))
    add(snapshots, "high", "low", archive(*upper))
    found = view(snapshots, "high")
    assert sorted(found) == sorted(
        [".", "a", "a/2", "a/deep", "a/deep/x", "a/deep/y", "b", "b/new", "d", "e", "e/in", "x"]
    )
    # A folder that the upper archive only implies is as it was.
    assert found["a"][:2] == ("0o40700", 5)
    assert found["d"][5] == b"now a file"
    with mounted(snapshots.prepare("work", "high")) as root:
        os.mkdir("c", dir_fd=root)
        assert os.listdir(os.open("c", os.O_RDONLY, dir_fd=root)) == []


def test_a_sparse_file_keeps_its_size_and_holes(snapshots, tmp_path):
    if shutil.which("tar") is None:
        pytest.skip("GNU tar is not installed")
    source = tmp_path / "sparse"
    with open(source, "wb") as file:
        file.truncate(10 << 30)
        for offset, data in ((4096, b"a" * 4096), (5 << 30, b"b" * 8192), ((10 << 30) - 5, b"end!!")):
            file.seek(offset)
            file.write(data)
    for number, form in enumerate(("gnu", "posix")):
        path = tmp_path / f"{form}.tar"
        assert os.system(f"tar -C {tmp_path} -S --format={form} -cf {path} sparse") == 0
        name = f"layer{number}"
        snapshots.add_layer(name, "", str(path))
        with mounted(snapshots.view(f"v{number}", name)) as root:
            fd = os.open("sparse", os.O_RDONLY, dir_fd=root)
            assert os.fstat(fd).st_size == 10 << 30
            assert os.pread(fd, 8192, 0) == bytes(4096) + b"a" * 4096
            assert os.pread(fd, 10000, (5 << 30) - 100) == bytes(100) + b"b" * 8192 + bytes(1708)
            assert os.pread(fd, 100, (10 << 30) - 10) == bytes(5) + b"end!!"
            os.close(fd)


def test_a_hard_link_may_lead_to_a_lower_layer(snapshots):
    add(snapshots, "low", "", archive(
        folder("d", mode=0o711, uid=7), entry("d/a", data=b"shared", mode=0o751, uid=9, pax_headers={
            "mtime": "5.5", "SCHILY.xattr.user.k": "v"}), entry("gone", data=b"x"), entry("s", tarfile.SYMTYPE, linkname="t")))
    add(snapshots, "mid", "low", archive(entry(".wh.gone"), entry("other", data=b"o")))
    add(snapshots, "high", "mid", archive(
        entry("b", tarfile.LNKTYPE, linkname="d/a"), entry("t", tarfile.LNKTYPE, linkname="s")))
    found = view(snapshots, "high")
    assert found["b"][1:7] == (9, 0, 5_500_000_000, 0, b"shared", (("user.k", b"v"),))
    assert found["b"][7:] == found["d/a"][7:]
    assert (found["b"][0], found["b"][9], found["d"][:2]) == ("0o100751", 2, ("0o40711", 7))
    assert found["t"][5] == "t"
    for number, hidden in enumerate(("gone", "d", "nothing", "s/x")):
        with pytest.raises(InvalidInputError, match="invalid hard link"):
            add(snapshots, f"no{number}", "mid", archive(entry("x", tarfile.LNKTYPE, linkname=hidden)))


def test_what_an_index_cannot_express_is_unpacked(snapshots):
    through_a_link = archive(folder("usr"), folder("usr/lib"), entry("lib", tarfile.SYMTYPE, linkname="usr/lib"),
                             entry("lib/file", data=b"below a link"))  # fmt: skip
    add(snapshots, "one", "", through_a_link)
    assert view(snapshots, "one")["usr/lib/file"][5] == b"below a link"
    assert snapshots.places("one")[0].endswith("/f")
    # An indexed layer above an unpacked one, and the other way round.
    add(snapshots, "two", "one", archive(entry("usr/.wh.lib"), entry("two", data=b"2")))
    add(snapshots, "three", "two", archive(folder("usr"), entry("usr/lib", tarfile.SYMTYPE, linkname="/two"),
                                           folder("bin"), entry("sbin", tarfile.SYMTYPE, linkname="bin"),
                                           entry("sbin/x", data=b"3")))  # fmt: skip
    found = view(snapshots, "three")
    assert found["usr/lib"][5] == "/two"
    assert found["bin/x"][5] == b"3"
    assert "usr/lib/file" not in found


@pytest.mark.parametrize(
    "broken",
    [
        archive(entry("a", data=b"x" * 2000))[:1500],
        archive(entry("../../escape", data=b"x")),
        archive(entry("a", tarfile.LNKTYPE, linkname="nothing")),
        archive(entry("zero", tarfile.CHRTYPE, devmajor=0, devminor=0)),
        b"no tar at all" * 100,
    ],
)
def test_broken_archives_leave_nothing(snapshots, broken):
    with pytest.raises(InvalidInputError):
        add(snapshots, "one", "", broken)
    assert list(snapshots.walk()) == []
    snapshots.wait_deleted()
    assert sorted(os.listdir(snapshots._root)) == ["empty", "trash"]


def test_names_are_guarded_and_layers_survive_reopening(snapshots):
    data = archive(*EVERYTHING)
    add(snapshots, "one", "", data)
    with pytest.raises(ConflictError):
        add(snapshots, "one", "", data)
    before, usage = view(snapshots, "one"), snapshots.usage("one")
    again = type(snapshots)(snapshots._root)
    assert view(again, "one") == before
    assert again.usage("one") == usage
    assert usage.inodes > 1500
    again.remove("one")
    assert list(type(snapshots)(snapshots._root).walk()) == []


def test_either_reads_a_store_of_the_other(tmp_path):
    root = str(tmp_path / "snapshots")
    data = archive(*EVERYTHING)
    first = ErofsSnapshotter(root)
    add(first, "indexed", "", data)
    wanted = view(first, "indexed")
    second = DirectorySnapshotter(root)
    assert view(second, "indexed") == wanted
    add(second, "unpacked", "indexed", archive(entry("etc/.wh.file"), entry("top", data=b"t")))
    third = ErofsSnapshotter(root)
    found = view(third, "unpacked")
    assert found.pop("top")[5] == b"t"
    assert set(wanted) - set(found) == {"etc/file"}
    # A kernel that cannot mount the index gets the files unpacked.
    fourth = DirectorySnapshotter(root, mountable=False)
    assert timeless(view(fourth, "unpacked")) == timeless(view(third, "unpacked"))
    assert fourth.layer_dir("indexed").endswith("/f")
    assert fourth.usage("indexed") == third.usage("indexed")


def test_a_mounted_layer_outlives_its_removal(tmp_path):
    snapshots = ErofsSnapshotter(str(tmp_path / "snapshots"))
    add(snapshots, "one", "", archive(entry("file", data=b"still here" * 500)))
    key = "work"
    with mounted(snapshots.prepare(key, "one")) as root:
        snapshots.remove(key)
        snapshots.remove("one")
        snapshots.wait_deleted()
        with open(os.open("file", os.O_RDONLY, dir_fd=root), "rb") as file:
            assert file.read() == b"still here" * 500
    assert snapshots._mounted._open == {}


def test_a_hundred_and_twenty_seven_indexed_layers_are_mounted(tmp_path):
    snapshots = ErofsSnapshotter(str(tmp_path / "snapshots"))
    parent = ""
    for number in range(127):
        name = f"layer-{number}"
        add(snapshots, name, parent, archive(entry(f"f{number}", data=b"%d" % number)))
        parent = name
    with mounted(snapshots.prepare("c", parent)) as root:
        assert len(os.listdir(root)) == 127


NAMES = st.sampled_from(
    ["a", "b", "a/x", "a/y", "a/x/z", "b/x", ".wh.a", ".wh.b", "a/.wh.x", "a/.wh..wh..opq", "b/.wh.x"]
)
KINDS = st.sampled_from(
    [tarfile.REGTYPE, tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE]
)
MEMBERS = st.builds(
    lambda name, kind, link, data, mode: entry(
        name,
        tarfile.REGTYPE if ".wh." in name else kind,
        data if kind == tarfile.REGTYPE and ".wh." not in name else b"",
        linkname=link,
        mode=mode,
    ),
    NAMES,
    KINDS,
    st.sampled_from(["a", "b", "a/x", "a/y", "a/x/z", "nowhere"]),
    st.binary(max_size=1200),
    st.integers(0, 0o7777),
)


@settings(max_examples=int(os.environ.get('EXAMPLES', '80')), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.lists(MEMBERS, max_size=8), min_size=1, max_size=3))
def test_any_layers_are_shown_alike_by_both(layers):
    results = []
    root = tempfile.mkdtemp(prefix="bqlayers", dir="/var/tmp")
    try:
        for kind in (DirectorySnapshotter, ErofsSnapshotter):
            snapshots = kind(f"{root}/{kind.driver}/s")
            parent, outcome = "", []
            for number, members in enumerate(layers):
                try:
                    add(snapshots, f"l{number}", parent, archive(*members))
                    parent = f"l{number}"
                    outcome.append("made")
                except InvalidInputError as error:
                    outcome.append(str(error))
            found = view(snapshots, parent) if parent else {}
            results.append((outcome, timeless(found)))
            snapshots.wait_deleted()
        assert results[0] == results[1]
    finally:
        shutil.rmtree(root)
