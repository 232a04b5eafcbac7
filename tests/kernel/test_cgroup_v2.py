"""Version 2 control groups, in a virtual machine that has no others: what the kernel's files say there.

The checks are the functions of guest_cgroup_v2.py, which runs inside; the processor is emulated.
"""

import json
import re
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
def failures() -> dict[str, str]:
    """Boot once; return what each check said."""
    done = subprocess.run([sys.executable, TOOL, GUEST], capture_output=True, text=True, timeout=300, check=False)
    if done.returncode == 77:
        pytest.skip(done.stdout.strip())
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert done.returncode == 0, done.stdout + done.stderr
    return {each["check"]: each["failure"] for each in told}


@pytest.mark.timeout(400)
@pytest.mark.parametrize("check", CHECKS)
def test_on_version_2(failures: dict[str, str], check: str) -> None:
    assert not failures[check], failures[check]
