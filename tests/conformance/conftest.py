"""A Docker daemon beside ours, in namespaces and on roots of its own."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import control_groups
from under_test import _remove, busybox_tar, needs_root

# Its own mounts and network; /run is its own too, so that nothing of it meets another daemon.
_START = """
ip link set lo up
mount -t tmpfs tmpfs /run
exec dockerd -H unix://{root}/docker.sock --data-root {root}/data --exec-root {root}/exec --pidfile {root}/pid \
  --config-file {root}/none.json --cgroup-parent {parent} {flags}
"""
_NO_RULES = "--iptables=false --ip6tables=false"


class Oracle:
    """A running dockerd."""

    def __init__(self, root: Path, flags: str = _NO_RULES) -> None:
        self.root = root
        self.flags = flags
        self.parent = f"/barque-oracle-{root.name}"
        self.host = f"unix://{root}/docker.sock"
        self.environment = {**os.environ, "DOCKER_HOST": self.host, "DOCKER_CONFIG": str(root / "docker-config")}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        (self.root / "none.json").write_text("{}")
        script = _START.format(root=self.root, parent=self.parent, flags=self.flags)
        with (self.root / "log").open("wb") as log:
            self.process = subprocess.Popen(
                ["unshare", "-n", "-m", "sh", "-c", script], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        deadline = time.monotonic() + 30
        while self.docker_result("version").returncode:
            if self.process.poll() is not None or time.monotonic() > deadline:
                text = (self.root / "log").read_text()[-1000:]
                self.stop()
                pytest.skip(f"dockerd does not start here: {text}")
            time.sleep(0.05)

    def docker_result(self, *arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
        """Run the docker command against it."""
        settings: dict[str, object] = {"capture_output": True, "text": True, "timeout": 60, **options}
        return subprocess.run(["docker", *arguments], env=self.environment, **settings)  # type: ignore[call-overload,no-any-return]

    def docker(self, *arguments: str) -> str:
        """Run the docker command; return its standard output without the last newline."""
        result = self.docker_result(*arguments)
        assert result.returncode == 0, (arguments, result.stdout, result.stderr)
        return result.stdout.rstrip("\n")

    def stop(self) -> None:
        """End it and take its control groups away."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(30)
        control_groups.remove(self.parent)


def _oracle(flags: str) -> Iterator[Oracle]:
    needs_root()
    for command in ("dockerd", "docker", "unshare"):
        if shutil.which(command) is None:
            pytest.skip(f"{command} is not installed: nothing to compare with")
    root = Path(tempfile.mkdtemp(prefix="dk", dir="/var/tmp"))
    oracle = Oracle(root, flags)
    try:
        oracle.start()
        (root / "busybox.tar").write_bytes(busybox_tar())
        oracle.docker("import", "-c", 'CMD ["sh"]', "-c",
                      "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                      str(root / "busybox.tar"), "busybox:latest")  # fmt: skip
        yield oracle
    finally:
        oracle.stop()
        _remove(root)


@pytest.fixture(scope="module")
def dockerd() -> Iterator[Oracle]:
    """Give a Docker daemon with the tests' busybox image; skip aloud where there is none."""
    yield from _oracle(_NO_RULES)


@pytest.fixture(scope="module")
def dockerd_with_networks() -> Iterator[Oracle]:
    """Give a Docker daemon that makes rules in a network namespace of its own; skip aloud where there is none."""
    if shutil.which("iptables") is None or shutil.which("nsenter") is None:
        pytest.skip("iptables or nsenter is not installed: a Docker daemon cannot make networks")
    yield from _oracle("--ip6tables --experimental")
