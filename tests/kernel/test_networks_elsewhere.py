"""Networks that need a kernel with VLANs, ipvlan and SCTP: in a virtual machine that has one.

The checks are the functions of guest_networks.py, which runs inside; the processor is emulated.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.kernel, pytest.mark.slow]

_TOOL = Path(__file__).parents[2] / "tools/virtual-machine"
_HERE = Path(__file__).parent
_CHECKS = ("macvlan_on_a_vlan", "ipvlan_in_its_modes", "sctp_is_published")


@pytest.fixture(scope="module")
def failures() -> dict[str, str]:
    """Boot once; return what each check said."""
    words = [f"--module={name}" for name in ("8021q", "macvlan", "ipvlan", "sctp")]
    command = [sys.executable, str(_TOOL), *words, "--file", str(_HERE / "network_scenarios.py"), str(_HERE / "guest_networks.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode == 77:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout + done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {each["check"]: each["failure"] for each in told}


@pytest.mark.timeout(400)
@pytest.mark.parametrize("check", _CHECKS)
def test_on_another_kernel(failures: dict[str, str], check: str) -> None:
    assert not failures[check], failures[check]
