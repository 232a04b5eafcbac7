"""A bundle, and `barque runtime` as another engine calls it."""

import json
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


class Runtime:
    """The command with a root and a bundle of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bundle = folder / "bundle"
        self.id = f"test-{uuid.uuid4().hex[:12]}"
        rootfs = self.bundle / "rootfs"
        for name in ("bin", "proc", "dev", "sys", "tmp", "etc"):
            (rootfs / name).mkdir(parents=True)
        shutil.copy("/bin/busybox", rootfs / "bin" / "busybox")
        for applet in ("sh", "cat", "echo", "sleep", "id", "ls", "true", "kill", "tty"):
            (rootfs / "bin" / applet).symlink_to("busybox")
        assert self.run("spec", "-b", str(self.bundle)).returncode == 0
        self.change(lambda config: config["process"].update(terminal=False))

    def change(self, edit: Any) -> None:
        path = self.bundle / "config.json"
        config = json.loads(path.read_text())
        edit(config)
        path.write_text(json.dumps(config))

    def command(self, *arguments: str) -> None:
        self.change(lambda config: config["process"].update(args=list(arguments)))

    def run(self, *arguments: str, shell: str = "", **options: Any) -> subprocess.CompletedProcess[str]:
        """Call the command, after what a shell does first."""
        settings: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 30, **options}
        words = [sys.executable, "-m", "barque.runtime.command.main", "--root", str(self.folder / "root")]
        if shell:
            words = ["sh", "-c", f'{shell}; exec "$@"', "sh", *words]
        return subprocess.run([*words, *arguments], check=False, **settings)

    def start(self, *arguments: str) -> None:
        """Create and start a detached container."""
        self.command(*arguments)
        streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "stdin": subprocess.DEVNULL}
        made = self.run("create", "-b", str(self.bundle), self.id, capture_output=False, **streams)
        assert made.returncode == 0
        assert self.run("start", self.id).returncode == 0

    def status(self) -> str:
        return str(json.loads(self.run("state", self.id).stdout)["status"])

    def wait_status(self, wanted: str) -> None:
        deadline = time.monotonic() + 10
        while self.status() != wanted:
            assert time.monotonic() < deadline, (wanted, self.status())
            time.sleep(0.01)


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    made = Runtime(tmp_path)
    yield made
    made.run("delete", "-f", made.id)
    left = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(tmp_path) in line]
    assert not left
