"""Version 2 control groups, and project quotas, in a virtual machine: what the kernel's files say there.

The checks are the functions of guest_cgroup_v2.py, which runs inside; the processor is emulated.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.kernel, pytest.mark.slow]

TOOL = Path(__file__).parents[2] / "tools/virtual-machine"
GUEST = Path(__file__).with_name("guest_cgroup_v2.py")
CHECKS = re.findall(r"\w+", re.search(r"^CHECKS = \((.*?)\)", GUEST.read_text(), re.DOTALL | re.MULTILINE)[1])
CHECKS = [name for name in CHECKS if name not in ("fmt", "skip")]


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Boot once, with an ext4 that keeps project quotas; return what each check said."""
    if not shutil.which("mkfs.ext4"):
        pytest.skip("e2fsprogs is not installed")
    image = tmp_path_factory.mktemp("machine") / "disk.img"
    with image.open("wb") as file:
        file.truncate(48 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-O", "quota,project", "-E", "quotatype=prjquota", image], check=True)
    done = subprocess.run([sys.executable, TOOL, "--file", image, GUEST], capture_output=True, text=True, timeout=300, check=False)
    if done.returncode == 77:
        pytest.skip(done.stdout.strip())
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert done.returncode == 0, done.stdout + done.stderr
    return {each["check"]: each["failure"] for each in told}


@pytest.mark.timeout(400)
@pytest.mark.parametrize("check", CHECKS)
def test_on_version_2(failures: dict[str, str], check: str) -> None:
    assert not failures[check], failures[check]
