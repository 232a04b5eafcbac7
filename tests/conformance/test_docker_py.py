"""docker-py's own integration tests, where a checkout of it is given."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.conformance, pytest.mark.slow]


@pytest.mark.timeout(900)
def test_docker_pys_own_tests_pass_but_for_known_reasons() -> None:
    checkout = os.environ.get("BARQUE_DOCKER_PY")
    if not checkout:
        pytest.skip("BARQUE_DOCKER_PY names no checkout of docker-py")
    tool = Path(__file__).parents[2] / "tools" / "conformance-docker-py"
    result = subprocess.run([sys.executable, str(tool), checkout], capture_output=True, text=True, timeout=880)
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-2000:]
