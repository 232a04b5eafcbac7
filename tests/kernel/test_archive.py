import io
import os
import stat
import struct
import tarfile

import pytest

from barque.base.errors import InvalidInputError
from barque.runtime.live_mounts import inside
from barque.storage import archive
from barque.storage.archive.write import tree
from barque.storage.mounts import root_of_process

pytestmark = pytest.mark.kernel


@pytest.fixture
def root(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "outside").write_text("untouched")
    fd = os.open(tmp_path / "root", os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)
    assert (tmp_path / "outside").read_text() == "untouched"
    assert sorted(os.listdir(tmp_path)) == ["outside", "root"]
    assert not (tmp_path / "outside").stat().st_nlink > 1


def member(name, *, kind=tarfile.REGTYPE, data=b"", link="", **fields):
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, len(data), link
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def packed(*members, **options):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", **options) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return memoryview(out.getvalue())


@pytest.mark.parametrize(
    "members",
    [
        [member("../outside", data=b"x")],
        [member("a/../../outside", data=b"x")],
        [member("l", kind=tarfile.LNKTYPE, link="../outside")],
        [member("l", kind=tarfile.LNKTYPE, link="missing")],
        [member("l", kind=tarfile.LNKTYPE, link="/outside")],
        [member("f", data=b"x"), member("f/g", data=b"x")],
        [member(".wh...")],
        [member("d", kind=tarfile.CHRTYPE, devmajor=0, devminor=0)],
        [member("s", kind=tarfile.SYMTYPE)],
    ],
)
def test_a_hostile_archive_is_refused(root, members):
    with pytest.raises(InvalidInputError):
        archive.unpack(packed(*members), root, layer=True)


@pytest.mark.parametrize("target", ["..", "/..", "../../..", "/", "../outside"])
def test_a_link_is_never_followed_out_of_the_root(root, target):
    data = packed(member("link", kind=tarfile.SYMTYPE, link=target), member("link/outside", data=b"evil"))
    try:
        archive.unpack(data, root, layer=True)
    except InvalidInputError:
        pass


def test_a_file_replaces_a_link_of_its_name_and_not_what_it_leads_to(root):
    data = packed(member("link", kind=tarfile.SYMTYPE, link="../outside"), member("link", data=b"evil"))
    archive.unpack(data, root)
    assert stat.S_ISREG(os.stat("link", dir_fd=root, follow_symlinks=False).st_mode)


@pytest.mark.parametrize("cut", [100, 512, 600, 1024 + 10])
def test_a_truncated_archive_is_refused(root, cut):
    data = packed(member("a", data=b"x" * 900))
    with pytest.raises(InvalidInputError):
        archive.unpack(data[:cut] if cut != 1034 else data[: len(data) - 9 * 1024 - 400][:1034], root)


def test_a_size_beyond_the_archive_is_refused(root):
    info = tarfile.TarInfo("a")
    info.size = 1 << 60
    with pytest.raises(InvalidInputError, match="EOF"):
        archive.unpack(memoryview(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024)), root)


def test_noise_is_no_archive(root):
    with pytest.raises(InvalidInputError, match="invalid tar header"):
        archive.unpack(memoryview(os.urandom(2048)), root)


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_owners_modes_times_links_and_devices_survive(root, form):
    long = "d/" + "n" * 200
    data = packed(
        member("d", kind=tarfile.DIRTYPE, mode=0o1750, mtime=12345, uid=3_000_000, gid=7),
        member(long, data=b"hello", mode=0o4711, mtime=99, uid=5, gid=6),
        member("hard", kind=tarfile.LNKTYPE, link=long),
        member("soft", kind=tarfile.SYMTYPE, link="/etc/" + "t" * 150),
        member("null", kind=tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666),
        member("pipe", kind=tarfile.FIFOTYPE),
        member("é", data=b"x"),
        format=form,
    )
    archive.unpack(data, root, layer=True)
    folder = os.stat("d", dir_fd=root)
    assert (folder.st_mode, folder.st_uid, folder.st_gid, folder.st_mtime) == (
        stat.S_IFDIR | 0o1750,
        3_000_000,
        7,
        12345,
    )
    file = os.stat(long, dir_fd=root)
    assert (file.st_mode, file.st_uid, file.st_nlink, file.st_mtime) == (
        stat.S_IFREG | 0o4711,
        5,
        2,
        99,
    )
    assert os.readlink("soft", dir_fd=root) == "/etc/" + "t" * 150
    assert os.stat("null", dir_fd=root).st_rdev == os.makedev(1, 3)
    assert stat.S_ISFIFO(os.stat("pipe", dir_fd=root).st_mode)
    assert "é" in os.listdir(root)


def test_what_is_packed_unpacks_to_the_same(root, tmp_path):
    capability = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
    data = packed(member("d/f", data=b"x", mtime=1.25, mode=0o755), format=tarfile.PAX_FORMAT)
    archive.unpack(data, root)
    os.setxattr(f"/proc/self/fd/{root}/d/f", "security.capability", capability)
    os.utime("d/f", ns=(5, 1_234_567_891), dir_fd=root)
    again = memoryview(b"".join(archive.export(root)))
    os.mkdir("copy", dir_fd=root)
    fd = os.open("copy", os.O_RDONLY, dir_fd=root)
    archive.unpack(again, fd)
    found = os.stat("d/f", dir_fd=fd)
    assert found.st_mtime_ns == 1_234_567_891
    assert os.getxattr(f"/proc/self/fd/{fd}/d/f", "security.capability") == capability
    os.close(fd)


def test_sparse_files_keep_their_holes(root, tmp_path):
    import subprocess

    work = tmp_path / "root" / "src"
    work.mkdir()
    with open(work / "s", "wb") as file:
        file.truncate(10 << 20)
        file.seek(5 << 20)
        file.write(b"middle")
    for form in ("gnu", "posix"):
        out = subprocess.run(
            ["tar", "-cS", f"--format={form}", "-C", work, "s"], check=True, capture_output=True
        ).stdout
        archive.unpack(memoryview(out), root)
        found = os.stat("s", dir_fd=root)
        assert found.st_size == 10 << 20
        assert found.st_blocks * 512 < 1 << 20
        assert (tmp_path / "root" / "s").read_bytes() == (work / "s").read_bytes()


def test_whiteouts_become_overlays(root):
    data = packed(
        member("d/.wh..wh..opq"),
        member("d/new", data=b"x"),
        member(".wh.gone"),
        member(".wh.d2"),
        member("d2", kind=tarfile.DIRTYPE),
        member(".wh..wh.plnk"),
    )
    archive.unpack(data, root, layer=True)
    assert sorted(os.listdir(root)) == ["d", "d2", "gone"]
    gone = os.stat("gone", dir_fd=root)
    assert stat.S_ISCHR(gone.st_mode) and gone.st_rdev == 0
    for name in ("d", "d2"):
        assert os.getxattr(f"/proc/self/fd/{root}/{name}", "trusted.overlay.opaque") == b"y"


def test_overlays_own_marks_cannot_come_from_an_archive(root):
    info, _ = member("d", kind=tarfile.DIRTYPE, mode=0o755)
    info.pax_headers = {"SCHILY.xattr.trusted.overlay.redirect": "/etc", "SCHILY.xattr.user.a": "b"}
    archive.unpack(packed((info, b""), format=tarfile.PAX_FORMAT), root, layer=True)
    names = os.listxattr(f"/proc/self/fd/{root}/d")
    assert "trusted.overlay.redirect" not in names
    assert "user.a" in names


def test_copying_in_stays_inside_and_may_refuse_another_kind(root):
    os.mkdir("in", dir_fd=root)
    os.symlink("/in", "abs", dir_fd=root)
    os.symlink("../../../..", "up", dir_fd=root)
    archive.put(root, "/abs", packed(member("f", data=b"1")), owner=(7, 8))
    assert os.stat("in/f", dir_fd=root).st_uid == 7
    archive.put(root, "/up", packed(member("outside", data=b"2")))
    assert os.stat("outside", dir_fd=root).st_size == 1
    with pytest.raises(InvalidInputError, match="cannot overwrite"):
        folder = packed(member("f", kind=tarfile.DIRTYPE))
        archive.put(root, "/in", folder, keep_kind=True)
    with pytest.raises(InvalidInputError, match="not a directory"):
        archive.put(root, "/in/f", packed())


def test_copying_out_names_entries_after_the_last_part(root):
    os.mkdir("a", dir_fd=root)
    os.symlink("f", "a/l", dir_fd=root)
    os.close(os.open("a/f", os.O_CREAT | os.O_WRONLY, 0o640, dir_fd=root))

    def names(path):
        return tarfile.open(fileobj=io.BytesIO(b"".join(archive.pack(root, path)))).getnames()

    assert names("/a") == ["a", "a/f", "a/l"]
    assert names("/a/") == ["a", "a/f", "a/l"]
    assert names("/a/.") == [".", "./f", "./l"]
    assert names("/a/f") == ["f"]
    assert {"", "/a", "/a/f"} <= set(names("/"))
    assert archive.path_stat(root, "/a/l")["linkTarget"] == "/a/f"
    assert archive.path_stat(root, "/a")["mode"] == (1 << 31) | stat.S_IMODE(os.stat("a", dir_fd=root).st_mode)
    assert [archive.path_stat(root, path)["name"] for path in ("/", "/a/", "/a/.", ".")] == ["/", "a", ".", "."]


def test_a_link_put_in_the_place_of_what_was_just_made_is_not_followed(root, tmp_path, monkeypatch):
    (tmp_path / "outside").chmod(0o600)
    chown = os.chown

    def exchanged(name, *ids, **where):
        chown(name, *ids, **where)
        (os.rmdir if name == b"folder" else os.unlink)(name, dir_fd=where["dir_fd"])
        os.symlink(tmp_path / "outside", name, dir_fd=where["dir_fd"])

    monkeypatch.setattr(os, "chown", exchanged)
    for name in ("pipe", "folder/below"):
        with pytest.raises(OSError, match="not supported"):
            archive.unpack(packed(member(name, kind=tarfile.FIFOTYPE, mode=0o666)), root)
    assert stat.S_IMODE((tmp_path / "outside").stat().st_mode) == 0o600


def test_a_pipe_put_in_the_place_of_a_file_that_is_packed_is_left_out(root, monkeypatch):
    os.close(os.open("a", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=root))
    look = os.stat

    def exchanged(name, **where):
        found = look(name, **where)
        if name == b"a" and stat.S_ISREG(found.st_mode):
            os.unlink("a", dir_fd=root)
            os.mkfifo("a", dir_fd=root)
        return found

    monkeypatch.setattr(os, "stat", exchanged)
    assert b"".join(tree(root)) == b""


def test_the_machines_own_processes_are_no_containers():
    # The number of a process that has ended may be any other one's by now.
    with pytest.raises(ProcessLookupError), root_of_process(os.getpid()):
        pass
    with pytest.raises(OSError, match="No such process"):
        inside(os.getpid(), lambda _: None)
