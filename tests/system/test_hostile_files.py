"""Containers and archives that try to lead the engine out of their roots or to wear it out."""

import http.client
import io
import json
import os
import socket
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from under_test import EngineUnderTest, until

pytestmark = pytest.mark.system

Member = tuple[str, bytes, str, bytes]


def member(tar: tarfile.TarFile, name: str, kind: bytes = tarfile.REGTYPE, link: str = "", data: bytes = b"evil") -> None:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, 0o755
    info.size = len(data) if kind == tarfile.REGTYPE else 0
    if kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
        info.devmajor, info.devminor = 1, 11
    tar.addfile(info, io.BytesIO(data) if info.size else None)


# What is in the archive; {out} is a folder on the host with the file `secret`.
HOSTILE: dict[str, list[Member]] = {
    "climbing": [("../../../../../../../../{out}/evil", tarfile.REGTYPE, "", b"evil")],
    "climbing behind a folder": [("a/../../../../../../../{out}/evil", tarfile.REGTYPE, "", b"evil")],
    "a write through an absolute link": [("way", tarfile.SYMTYPE, "{out}", b""), ("way/evil", tarfile.REGTYPE, "", b"evil")],
    "a write through a climbing link": [("way", tarfile.SYMTYPE, "../../../../../../../../{out}", b""), ("way/evil", tarfile.REGTYPE, "", b"evil")],
    "a write over a link": [("way", tarfile.SYMTYPE, "{out}/secret", b""), ("way", tarfile.REGTYPE, "", b"evil")],
    "a write through links in turn": [
        ("one", tarfile.SYMTYPE, "two", b""), ("two", tarfile.SYMTYPE, "{out}", b""), ("one/evil", tarfile.REGTYPE, "", b"evil")],
    "a hard link to outside": [("copy", tarfile.LNKTYPE, "{out}/secret", b"")],
    "a hard link that climbs": [("copy", tarfile.LNKTYPE, "../../../../../../../../{out}/secret", b"")],
    "a hard link through a link": [("way", tarfile.SYMTYPE, "{out}", b""), ("copy", tarfile.LNKTYPE, "way/secret", b"")],
    "a folder over a link, with a mode": [("way", tarfile.SYMTYPE, "{out}", b""), ("way", tarfile.DIRTYPE, "", b"")],
    "a device": [("device", tarfile.CHRTYPE, "", b"")],
    "a loop of links": [("a", tarfile.SYMTYPE, "b", b""), ("b", tarfile.SYMTYPE, "a", b""), ("a/x", tarfile.REGTYPE, "", b"evil")],
    "a folder that hides another layer's": [("dev/.wh..wh..opq", tarfile.REGTYPE, "", b""), (".wh..", tarfile.REGTYPE, "", b"")],
    "a name with a zero": [("a\0b", tarfile.REGTYPE, "", b"evil")],
}  # fmt: skip


def tar_of(members: list[Member], out: Path) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind, link, data in members:
            member(tar, name.format(out=str(out).lstrip("/")), kind, link.format(out=str(out)), data)
    return file.getvalue()


@pytest.fixture
def outside(engine: EngineUnderTest) -> Iterator[Path]:
    folder = engine.root / "outside"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o700)
    (folder / "secret").write_text("secret")
    yield folder
    assert sorted(os.listdir(folder)) == ["secret"], "something was written outside"
    assert (folder / "secret").read_text() == "secret"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "secret").stat().st_nlink == 1


def image_of(layer: bytes) -> bytes:
    """Return a docker-archive of one layer."""
    import hashlib

    config = json.dumps({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]},
    }).encode()  # fmt: skip
    manifest = json.dumps([{"Config": "config.json", "RepoTags": ["hostile:latest"], "Layers": ["layer.tar"]}]).encode()
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, data in (("config.json", config), ("manifest.json", manifest), ("layer.tar", layer)):
            member(tar, name, data=data)
    return file.getvalue()


def by_import(engine: EngineUnderTest, archive: Path) -> int:
    return engine.docker_result("import", str(archive), "hostile").returncode


def by_load(engine: EngineUnderTest, archive: Path) -> int:
    image = archive.with_suffix(".image")
    image.write_bytes(image_of(archive.read_bytes()))
    result = engine.docker_result("load", "-i", str(image))
    assert result.returncode == 0 or result.stderr.strip()
    return result.returncode


def by_copy(engine: EngineUnderTest, archive: Path) -> int:
    engine.docker("create", "--name", "target", "busybox")
    with archive.open("rb") as file:
        return engine.docker_result("cp", "-", "target:/tmp", stdin=file).returncode


def by_copy_while_it_runs(engine: EngineUnderTest, archive: Path) -> int:
    engine.docker("run", "-d", "--name", "target", "busybox", "sleep", "100")
    with archive.open("rb") as file:
        return engine.docker_result("cp", "-", "target:/tmp", stdin=file).returncode


@pytest.mark.parametrize("way", [by_import, by_load, by_copy, by_copy_while_it_runs])
@pytest.mark.parametrize("members", HOSTILE.values(), ids=HOSTILE.keys())
def test_no_archive_leads_out_of_its_root(
    engine: EngineUnderTest, outside: Path, members: list[Member], way: Callable[[EngineUnderTest, Path], int]
) -> None:
    archive = engine.root / "hostile.tar"
    archive.write_bytes(tar_of(members, outside))
    before = engine.docker("images", "-aq").split()
    try:
        failed = way(engine, archive)
        if failed:
            assert engine.docker("images", "-aq").split() == before
    finally:
        for name in engine.docker("ps", "-aq").split():
            engine.docker_result("rm", "-f", name)
        engine.docker_result("rmi", "-f", "hostile")


@pytest.mark.parametrize("cut", [1, 511, 700, 1600])
def test_a_truncated_archive_is_refused_and_leaves_nothing(engine: EngineUnderTest, cut: int) -> None:
    whole = image_of(tar_of([("file", tarfile.REGTYPE, "", b"x" * 900)], Path("/nowhere")))
    archive = engine.root / "cut.tar"
    archive.write_bytes(whole[:cut])
    before = engine.docker("images", "-aq").split()
    for command in (["load", "-i", str(archive)], ["import", str(archive), "cut"]):
        result = engine.docker_result(*command)
        assert result.returncode != 0
        assert result.stderr.strip()
    assert engine.docker("images", "-aq").split() == before


def test_an_archive_in_an_archive_stays_a_file(engine: EngineUnderTest, outside: Path) -> None:
    inner = tar_of(HOSTILE["climbing"], outside)
    outer = engine.root / "outer.tar"
    outer.write_bytes(tar_of([("inner.tar", tarfile.REGTYPE, "", inner)], outside))
    engine.docker("create", "--name", "target", "busybox")
    try:
        with outer.open("rb") as file:
            engine.docker("cp", "-", "target:/tmp", stdin=file)
        engine.docker("cp", "target:/tmp/inner.tar", str(engine.root / "back.tar"))
        assert (engine.root / "back.tar").read_bytes() == inner
    finally:
        engine.docker("rm", "-f", "target")


def test_a_copy_out_of_a_link_gives_what_it_means_inside(engine: EngineUnderTest, outside: Path) -> None:
    engine.docker("run", "--name", "target", "busybox", "ln", "-s", f"{outside}/secret", "/tmp/way")
    try:
        result = engine.docker_result("cp", "-L", "target:/tmp/way", str(engine.root / "stolen"))
        assert result.returncode != 0
        assert not (engine.root / "stolen").exists()
        assert engine.docker_result("cp", "target:/tmp/way/.", str(engine.root / "stolen")).returncode != 0
    finally:
        engine.docker("rm", "-f", "target")


NEST = "i=0; while [ $i -lt {depth} ]; do mkdir d && cd d || break; i=$((i+1)); done; echo x >file; ln -s / link"


def test_folders_nested_very_deep_neither_break_the_engine_nor_stay(engine: EngineUnderTest) -> None:
    engine.docker("run", "--name", "deep", "-v", "deep-volume:/v", "busybox", "sh", "-c",
                  NEST.format(depth=1900) + "; cd /v; " + NEST.format(depth=1900))  # fmt: skip
    assert "deep" in engine.docker("ps", "-as", "--format", "{{.Names}}")
    engine.docker("system", "df")
    engine.docker("inspect", "-s", "deep")
    assert engine.docker("diff", "deep").count("\n") > 1500
    exported = engine.root / "deep.tar"
    engine.docker("export", "-o", str(exported), "deep")
    assert exported.stat().st_size > 1_000_000
    engine.docker("commit", "deep", "deep-image")
    assert engine.docker("run", "--rm", "deep-image", "ls", "/d") == "d"
    engine.docker("rm", "-v", "deep")
    engine.docker("rmi", "deep-image")
    engine.docker("volume", "rm", "deep-volume")
    assert not (engine.root / "data" / "volumes" / "deep-volume").exists()
    until(lambda: not os.listdir(engine.root / "data" / "snapshots" / "trash"))


def _request(engine: EngineUnderTest, method: str, path: str, body: bytes, kind: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("localhost", timeout=20)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(20)
    connection.sock.connect(str(engine.socket))
    connection.request(method, path, body, {"Content-Type": kind})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def test_a_bomb_of_compressed_zeros_is_stopped_by_the_end_of_its_archive(engine: EngineUnderTest) -> None:
    import gzip

    bomb = gzip.compress(bytes(64 << 20))
    before = engine.docker("images", "-aq").split()
    status, text = _request(engine, "POST", "/images/load", bomb, "application/x-tar")
    assert "error" in text or status >= 400
    assert engine.docker("images", "-aq").split() == before


def test_a_copy_of_a_running_root_leaves_the_kernels_file_systems_alone(engine: EngineUnderTest) -> None:
    engine.docker("run", "-d", "--name", "whole", "-v", "whole-volume:/v", "busybox", "sh", "-c", "echo kept >/v/file; sleep 1000")
    try:
        until(lambda: engine.docker_result("exec", "whole", "cat", "/v/file").returncode == 0)
        target = engine.root / "whole.tar"
        with target.open("wb") as file:
            assert engine.docker_result("cp", "whole:/", "-", stdout=file, capture_output=False, text=False).returncode == 0
        with tarfile.open(target) as tar:
            names = [name.removeprefix("./").strip("/") for name in tar.getnames()]
        assert "v/file" in names and "bin/busybox" in names and "proc" in names
        assert [name for name in names if name.startswith(("proc/", "sys/", "dev/"))] == []
        for path in ("/proc/version", "/sys/kernel", "/dev/null"):
            assert "Could not find the file" in engine.docker_result("cp", f"whole:{path}", "-").stderr
    finally:
        engine.docker("rm", "-fv", "whole")
        engine.docker("volume", "rm", "whole-volume")
