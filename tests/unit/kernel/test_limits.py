import subprocess
import sys

_CHILD = """
import resource, subprocess, sys
from barque.kernel.limits import raise_open_files
print(raise_open_files(), resource.getrlimit(resource.RLIMIT_NOFILE), flush=True)
if sys.argv[1:]:
    subprocess.run([sys.executable, "-c", sys.argv[1]])
"""


def test_the_limit_of_open_files_is_raised_and_the_users_own_is_remembered_across_processes():
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]

    def lower():
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))

    result = subprocess.run(
        [sys.executable, "-c", _CHILD, _CHILD], capture_output=True, text=True, check=True, preexec_fn=lower
    )
    assert result.stdout.splitlines() == [f"(100, {hard}) ({hard}, {hard})"] * 2
