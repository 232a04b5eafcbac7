"""Sizes of volumes and of containers' own layers, where the data root's file system keeps project quotas."""

import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from barque.kernel import quota
from under_test import EngineUnderTest, needs_root, traces

pytestmark = pytest.mark.system
WRITE = "dd if=/dev/zero of={} bs=64k count={} 2>&1"


@pytest.fixture(scope="module")
def engine():
    """Give an engine on an ext4 of its own with project quotas."""
    needs_root()
    if not shutil.which("mkfs.ext4"):
        pytest.skip("e2fsprogs is not installed")
    folder = Path(tempfile.mkdtemp(prefix="bqquota", dir="/var/tmp"))
    image, root = folder / "image", folder / "root"
    root.mkdir()
    with image.open("wb") as file:
        file.truncate(200 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-O", "quota,project", "-E", "quotatype=prjquota", str(image)], check=True)
    mounted = subprocess.run(["mount", "-o", "loop,prjquota", str(image), str(root)], capture_output=True, text=True)
    try:
        if mounted.returncode:
            pytest.skip(f"an ext4 with project quotas cannot be mounted here: {mounted.stderr.strip()}")
        made = EngineUnderTest(root)
        made.start()
        try:
            made.load_busybox()
            yield made
        finally:
            made.stop()
    finally:
        subprocess.run(["umount", "-l", str(root)], check=False)
        shutil.rmtree(folder, ignore_errors=True)


def full(text):
    return "No space left" in text or "quota exceeded" in text


def test_a_container_writes_no_more_over_its_image_than_it_may(engine):
    before = traces(engine)
    limited = ["run", "--name", "small", "--storage-opt", "size=4m", "busybox", "sh", "-c"]
    result = engine.docker_result(*limited, f"{WRITE.format('/a', 160)}; rm /a; {WRITE.format('/b', 16)} && echo fits; "
                                            "echo x >> /etc/group && echo copied; df -k / | tail -n 1")  # fmt: skip
    assert full(result.stdout) and "fits" in result.stdout and "copied" in result.stdout, result
    assert result.stdout.splitlines()[-1].split()[1] == "4096"
    assert engine.docker("inspect", "-f", "{{.HostConfig.StorageOpt.size}}", "small") == "4m"
    size = int(engine.docker("inspect", "-s", "-f", "{{.SizeRw}}", "small"))
    assert (1 << 20) <= size <= (4 << 20)
    engine.docker("restart", "-t", "0", "small")
    engine.docker("rm", "-f", "small")
    assert engine.docker("run", "--rm", "busybox", "sh", "-c", WRITE.format("/a", 160) + " && echo free").endswith("free")
    now = traces(engine)
    assert (now["folders"], now["layers"]) == (before["folders"], before["layers"])


def test_a_volume_takes_no_more_than_its_size_and_gives_it_back(engine):
    engine.docker("volume", "create", "-o", "size=3m", "narrow")
    engine.docker("run", "-d", "--name", "one", "-v", "narrow:/v", "busybox", "sleep", "1000")
    assert full(engine.docker_result("exec", "one", "sh", "-c", WRITE.format("/v/a", 100)).stdout)
    assert full(engine.docker_result("run", "--rm", "-v", "narrow:/v", "busybox", "sh", "-c", "mkdir /v/d; " + WRITE.format("/v/d/b", 100)).stdout)
    engine.docker("exec", "one", "sh", "-c", "rm -r /v/*")
    assert engine.docker("exec", "one", "sh", "-c", WRITE.format("/v/a", 32) + " && echo fits").endswith("fits")
    engine.docker("rm", "-f", "one")
    engine.docker("volume", "rm", "narrow")


def test_the_kernel_forgets_the_limits_of_what_is_gone(engine):
    engine.docker("volume", "create", "-o", "size=3m", "passing")
    folder = engine.docker("volume", "inspect", "-f", "{{.Mountpoint}}", "passing")
    project = quota.project_of(folder)
    assert project >= 1 << 30 and quota.limits(folder, project) == (3 << 20, 0)
    engine.docker("volume", "rm", "passing")
    assert quota.limits(str(engine.root), project) == (0, 0)


@pytest.mark.parametrize(("options", "words"), [("inodes=5", "unknown option inodes"), ("size=much", "invalid size")])
def test_an_option_that_cannot_be_is_told(engine, options, words):
    result = engine.docker_result("create", "--storage-opt", options, "busybox")
    assert result.returncode == 1 and words in result.stderr
