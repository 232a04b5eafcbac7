"""Machines, that is network namespaces, with a neighbour, and engines on them."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from under_test import EngineUnderTest, served

HERE, THERE = "198.51.100.1", "198.51.100.2"
HERE6, THERE6 = "fd99::1", "fd99::2"


class Machine:
    """A network namespace with another one as its neighbour, by the interface lan0."""

    def __init__(self, pid: int, neighbour: int) -> None:
        """Remember the processes that hold them."""
        self._pids = pid, neighbour
        self.netns, self.neighbour = f"/proc/{pid}/ns/net", f"/proc/{neighbour}/ns/net"

    def other(self) -> "Machine":
        """Return the neighbour as a machine."""
        return Machine(*reversed(self._pids))

    def run(self, line: str, *, check: bool = True, environment: dict[str, str] | None = None) -> str:
        """Run a command on this machine; return what it printed."""
        return self._run(self.netns, line, check=check, environment=environment)

    def run_there(self, line: str) -> str:
        """Run a command on the neighbour; return what it printed."""
        return self._run(self.neighbour, line)

    def _run(self, netns: str, line: str, *, check: bool = True, environment: dict[str, str] | None = None) -> str:
        done = subprocess.run(["nsenter", f"--net={netns}", *line.split()], capture_output=True, text=True,
                              env={**os.environ, **(environment or {})}, timeout=60)  # fmt: skip
        assert not check or done.returncode == 0, (line, done.stdout, done.stderr)
        return done.stdout + done.stderr


def _hold() -> "subprocess.Popen[bytes]":
    held = subprocess.Popen(["unshare", "-n", "sh", "-c", "ip link set lo up; echo; exec sleep 100000"], stdout=subprocess.PIPE)
    assert held.stdout is not None and held.stdout.readline()
    return held


@contextmanager
def machine() -> Iterator[Machine]:
    """Give a machine and its neighbour."""
    with _hold() as held, _hold() as other:
        try:
            made = Machine(held.pid, other.pid)
            made.run(f"ip link add lan0 type veth peer name far0 netns {other.pid}")
            for run, link, four, six in ((made.run, "lan0", HERE, HERE6), (made.run_there, "far0", THERE, THERE6)):
                run(f"ip addr add {four}/24 dev {link}")
                run(f"ip addr add {six}/64 dev {link} nodad")
                run(f"ip link set {link} up")
            yield made
        finally:
            held.kill()
            other.kill()


class EngineThere(EngineUnderTest):
    """An engine in the network namespace of a machine."""

    def __init__(self, root: Path, where: Machine, *flags: str) -> None:
        super().__init__(root, *flags)
        self.where = where

    def arguments(self) -> list[str]:
        """Return the daemon's command line."""
        return ["nsenter", f"--net={self.where.netns}", *super().arguments()]


@contextmanager
def engine_on(where: Machine, *flags: str) -> Iterator[EngineThere]:
    """Give an engine on a machine, with a busybox image."""
    yield from served(EngineThere(Path(tempfile.mkdtemp(prefix="bq", dir="/var/tmp")), where, *flags))
