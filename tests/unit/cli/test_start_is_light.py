"""What a short command must not import: each of these costs more than its own work."""

import subprocess
import sys

import pytest

_HEAVY = ("typing", "re", "enum", "json", "functools", "contextlib", "collections", "signal", "socket", "argparse")
_REPORT = f"""
import sys
before = set(sys.modules)
sys.argv = ["barque", *sys.argv[1:]]
from barque.cli.main import main
main(sys.argv[1:])
print("LOADED", [name for name in {_HEAVY!r} if name in sys.modules and name not in before])
"""


@pytest.mark.parametrize(
    "words", [["ps"], ["run", "-d", "--name", "x", "busybox", "true"], ["exec", "x", "true"], ["logs", "x"], ["rm", "x"]],
    ids=lambda words: words[0],
)
def test_a_short_command_imports_nothing_heavy(words: list[str], tmp_path: object) -> None:
    result = subprocess.run(
        [sys.executable, "-I", "-c", _REPORT, "-H", f"unix://{tmp_path}/none.sock", *words],
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert result.stdout.splitlines()[-1:] == ["LOADED []"], result.stdout + result.stderr
