"""Sizes of volumes and layers where the data root's file system keeps no project quotas: each has a disk in a file."""

import shutil
import tarfile
from pathlib import Path

import pytest

from barque.kernel import quota
from under_test import running_engine, until

pytestmark = pytest.mark.system
WRITE = "dd if=/dev/zero of={} bs=64k count={} 2>&1"


@pytest.fixture(scope="module")
def engine():
    """Give an engine whose data root keeps no quotas."""
    if not shutil.which("mkfs.ext4") or not Path("/dev/loop-control").exists():
        pytest.skip("e2fsprogs is not installed, or this machine has no loop devices")
    for made in running_engine():
        if quota.supported(str(made.root)):
            pytest.skip("the file system of /var/tmp keeps project quotas")
        yield made


def mounts_of(engine, volume):
    table = Path(f"/proc/{engine.pid}/mountinfo").read_text()
    return [line for line in table.splitlines() if f"/volumes/{volume}/" in line]


def devices_of(engine):
    found = []
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            found += [backing] if str(engine.root) in backing.read_text() else []
        except OSError:
            continue
    return found


def test_a_volume_takes_no_more_than_its_size_and_is_mounted_while_it_is_used(engine):
    engine.docker("volume", "create", "-o", "size=8m", "narrow")
    assert not mounts_of(engine, "narrow")
    until(lambda: not devices_of(engine), "its device is free")
    folder = Path(engine.docker("volume", "inspect", "-f", "{{.Mountpoint}}", "narrow")).parent
    assert (folder / "disk").stat().st_size == 8 << 20
    engine.docker("run", "-d", "--name", "one", "-v", "narrow:/v", "busybox", "sleep", "1000")
    assert engine.docker("exec", "one", "ls", "-a", "/v").split() == [".", ".."]
    assert "No space left" in engine.docker_result("exec", "one", "sh", "-c", WRITE.format("/v/a", 200)).stdout
    engine.docker("exec", "one", "sh", "-c", "rm /v/a; echo kept > /v/b")
    assert engine.docker("run", "--rm", "-v", "narrow:/v", "busybox", "cat", "/v/b") == "kept"
    assert len(mounts_of(engine, "narrow")) == 1
    engine.kill_daemon()
    assert engine.docker("exec", "one", "cat", "/v/b") == "kept"
    engine.docker("rm", "-f", "one")
    until(lambda: not mounts_of(engine, "narrow") and not devices_of(engine), "its device is free again")
    assert engine.docker("run", "--rm", "-v", "narrow:/v", "busybox", "cat", "/v/b") == "kept"
    engine.docker("volume", "rm", "narrow")
    assert not folder.exists()
    until(lambda: not devices_of(engine), "no device is left")


def test_what_an_image_has_is_copied_into_a_volume_with_a_size(engine):
    engine.docker("volume", "create", "-o", "size=4m", "filled")
    assert "passwd" in engine.docker("run", "--rm", "-v", "filled:/etc", "busybox", "ls", "/etc")
    assert "root:x:0:0" in engine.docker("run", "--rm", "-v", "filled:/v", "busybox", "cat", "/v/passwd")
    engine.docker("volume", "rm", "filled")


@pytest.mark.parametrize(("options", "words"), [
    (["-o", "size=1000"], "a volume in a file of its own takes at least 1m"),
    (["-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "size=4m"], "quota size requested but no quota support"),
])  # fmt: skip
def test_a_size_that_cannot_be_kept_is_refused(engine, options, words):
    result = engine.docker_result("volume", "create", *options, "cannot")
    assert result.returncode == 1 and words in result.stderr
    assert engine.docker("volume", "ls", "-q", "--filter", "name=cannot") == ""


def layers_of(engine):
    return sorted(Path(f"{engine.root}/data/snapshots").glob("*/disk"))


def test_a_container_writes_no_more_over_its_image_than_it_may(engine):
    limited = ["run", "-d", "--name", "small", "--storage-opt", "size=8m", "busybox", "sleep", "1000"]
    engine.docker(*limited)
    (disk,) = layers_of(engine)
    assert disk.stat().st_size == 8 << 20
    assert engine.docker("inspect", "-f", "{{.HostConfig.StorageOpt.size}}", "small") == "8m"
    assert "/r/f " in engine.docker("inspect", "-f", "{{.GraphDriver.Data.UpperDir}} ", "small") + " "
    result = engine.docker_result("exec", "small", "sh", "-c", f"{WRITE.format('/a', 200)}; rm /a; echo x >> /etc/group; df -k /")
    assert "No space left" in result.stdout and 4096 < int(result.stdout.splitlines()[-1].split()[1]) <= 8192, result
    engine.docker("exec", "small", "sh", "-c", "echo kept > /b; rm /bin/vi")
    changed = {"C /etc", "C /etc/group", "D /bin/vi", "A /b"}
    assert changed <= set(engine.docker("diff", "small").splitlines())
    engine.kill_daemon()
    assert engine.docker("exec", "small", "cat", "/b") == "kept"
    engine.docker("stop", "-t", "0", "small")
    # As after a start of the machine: nothing is mounted, no device is attached.
    engine.stop()
    assert not mounts_of_layers(engine)
    until(lambda: not devices_of(engine), "its device is free")
    engine.start()
    assert changed <= set(engine.docker("diff", "small").splitlines())
    engine.docker("start", "small")
    assert engine.docker("exec", "small", "cat", "/b") == "kept"
    assert "No space left" in engine.docker_result("exec", "small", "sh", "-c", WRITE.format("/a", 200)).stdout
    engine.docker("rm", "-f", "small")
    assert not disk.exists()
    until(lambda: not mounts_of_layers(engine) and not devices_of(engine), "no device is left")


def mounts_of_layers(engine):
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f"{engine.root}/data/snapshots/" in line]


def test_a_layer_with_a_size_is_copied_committed_and_exported_while_its_container_is_stopped(engine, tmp_path):
    engine.docker("create", "--name", "still", "--storage-opt", "size=4m", "busybox", "cat", "/in")
    (tmp_path / "in").write_text("copied")
    engine.docker("cp", str(tmp_path / "in"), "still:/in")
    engine.docker("cp", "still:/in", str(tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "copied"
    (tmp_path / "much").write_bytes(bytes(6 << 20))
    result = engine.docker_result("cp", str(tmp_path / "much"), "still:/much")
    assert result.returncode == 1 and "no space left" in result.stderr.lower(), result
    engine.docker("commit", "still", "copied-image")
    assert engine.docker("run", "--rm", "copied-image", "cat", "/in") == "copied"
    engine.docker("export", "-o", str(tmp_path / "tar"), "still")
    with tarfile.open(tmp_path / "tar") as tar:
        assert tar.extractfile("in").read() == b"copied"
    assert engine.docker("start", "-a", "still") == "copied"
    assert int(engine.docker("inspect", "-s", "-f", "{{.SizeRw}}", "still")) >= 6
    engine.docker("rm", "still")
    engine.docker("rmi", "copied-image")
    assert not layers_of(engine)
