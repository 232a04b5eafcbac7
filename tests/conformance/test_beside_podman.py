"""Podman and our engine on one machine, that is in one network namespace: neither touches what the other made."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from machines import HERE, THERE, EngineThere, Machine, machine
from traffic import Question, Server, ask
from under_test import _remove, busybox_tar, needs_root, until

pytestmark = [pytest.mark.conformance, pytest.mark.timeout(180)]

_CONF = """
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
[network]
network_backend = "{backend}"
[containers]
default_sysctls = []
"""
_NETAVARK = ("/usr/lib/podman/netavark", "/usr/libexec/podman/netavark")
_CNI = "/usr/lib/cni/bridge"


class Podman:
    """Podman with all its state below one folder; what it keeps elsewhere lies on mounts of its own."""

    def __init__(self, where: Machine, root: Path, backend: str) -> None:
        """Hold a mount namespace for it."""
        (root / "containers.conf").write_text(_CONF.format(backend=backend))
        (root / "networks").mkdir()
        self._environment = {**os.environ, "CONTAINERS_CONF": str(root / "containers.conf")}
        script = "for at in /run /var/lib/cni; do mkdir -p $at; mount -t tmpfs tmpfs $at; done; echo; exec sleep 100000"
        self._holder = subprocess.Popen(
            ["nsenter", f"--net={where.netns}", "unshare", "-m", "sh", "-c", script], stdout=subprocess.PIPE
        )
        assert self._holder.stdout is not None and self._holder.stdout.readline()
        self._words = ["nsenter", "-t", str(self._holder.pid), "-m", "-n", "podman", "--root", f"{root}/storage",
                       "--runroot", f"{root}/run", "--tmpdir", f"{root}/tmp", "--network-config-dir", f"{root}/networks"]  # fmt: skip

    def result(self, *arguments: str, data: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        """Run a verb; return all of its result."""
        return subprocess.run([*self._words, *arguments], env=self._environment, input=data, capture_output=True, timeout=90)

    def run(self, *arguments: str, data: bytes | None = None) -> str:
        """Run a verb; return what it printed."""
        done = self.result(*arguments, data=data)
        assert done.returncode == 0, (arguments, done.stderr.decode())
        return done.stdout.decode().strip()

    def end(self) -> None:
        """End all its containers and let its namespace go."""
        self.result("rm", "-fa", "-t", "0")
        self._holder.kill()
        self._holder.wait()


@pytest.fixture(params=["cni", "netavark"])
def both(request: pytest.FixtureRequest) -> Iterator[tuple[Machine, Podman, EngineThere]]:
    needs_root()
    for command in ("podman", "iptables"):
        if shutil.which(command) is None:
            pytest.skip(f"{command} is not installed: nothing to stand beside")
    if not any(Path(path).exists() for path in ((_CNI,) if request.param == "cni" else _NETAVARK)):
        pytest.skip(f"Podman's {request.param} is not installed")
    with machine() as where, ExitStack() as stack:
        theirs, mine = (Path(tempfile.mkdtemp(prefix=name, dir="/var/tmp")) for name in ("pm", "bq"))
        stack.callback(_remove, mine)
        stack.callback(_remove, theirs)
        podman = Podman(where, theirs, request.param)
        stack.callback(podman.end)
        told = podman.result("import", "-", "localhost/busybox:latest", data=busybox_tar())
        if told.returncode:
            pytest.skip(f"podman does not run here: {told.stderr.decode()[-500:]}")
        engine = EngineThere(mine, where)
        stack.callback(engine.stop)
        engine.start()
        engine.load_busybox()
        yield where, podman, engine
        for name in engine.docker("ps", "-aq").split():
            engine.docker("rm", "-f", name)


def _rules(where: Machine) -> list[str]:
    """Return Podman's rules without counters."""
    found = where.run("iptables-save") + where.run("ip6tables-save")
    return [re.sub(r" ?\[\d+:\d+\] ?", "", line) for line in found.splitlines() if not line.startswith("#")]


def test_both_serve_and_reach_others_and_either_may_go(both: tuple[Machine, Podman, EngineThere]) -> None:
    where, podman, engine = both
    inbound: list[Question] = [("tcp", HERE, 18501), ("udp", HERE, 18502), ("tcp", HERE, 18503), ("udp", HERE, 18504)]
    outbound: list[Question] = [("tcp", THERE, 80), ("udp", THERE, 53)]

    def seen(netns: str, questions: list[Question]) -> list[str]:
        return ask({netns: questions})[netns]

    with ExitStack() as stack:
        outside = Server(where.neighbour)
        stack.callback(outside.end)

        def start(name: str) -> tuple[str, Server]:
            if name == "theirs":
                podman.run("--runtime", "runc", "run", "-d", "--name", name, "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024",
                           "-p", "18501:80", "-p", "18502:53/udp", "localhost/busybox", "sleep", "100000")  # fmt: skip
                pid = podman.run("inspect", "-f", "{{.State.Pid}}", name)
            else:
                engine.docker("run", "-d", "--name", name, "-p", "18503:80", "-p", "18504:53/udp", "busybox", "sleep", "100000")
                pid = engine.docker("inspect", "-f", "{{.State.Pid}}", name)
            netns = f"/proc/{pid}/ns/net"
            server = Server(netns)
            stack.callback(server.end)
            return netns, server

        theirs, their_server = start("theirs")
        mine, my_server = start("mine")
        before = _rules(where)
        subnets = {where.run(f"nsenter --net={netns} ip -4 -o addr show eth0").split()[3] for netns in (theirs, mine)}
        assert len({item.rsplit(".", 1)[0] for item in subnets}) == 2, "each has a subnet of its own"
        until(lambda: seen(where.neighbour, inbound) == [THERE] * 4, "the ports of both are reached, and show who asks")
        assert seen(theirs, outbound) == [HERE, HERE] and seen(mine, outbound) == [HERE, HERE]
        assert all(seen(where.netns, [("tcp", "127.0.0.1", 18501), ("tcp", "127.0.0.1", 18503)]))
        my_address = engine.docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "mine")
        assert seen(theirs, [("tcp", my_address, 80)]) == [""], "nobody else's containers get into our networks"
        taken = engine.docker_result("run", "--rm", "-p", "18501:80", "busybox", "true")
        assert taken.returncode == 125 and "18501" in taken.stderr
        engine.docker("network", "create", "front")
        engine.docker("network", "connect", "front", "mine")
        engine.kill_daemon()
        assert seen(where.neighbour, inbound) == [THERE] * 4 and _rules(where) == before

        podman.run("rm", "-f", "-t", "0", "theirs")
        assert seen(where.neighbour, inbound) == ["", "", THERE, THERE] and seen(mine, outbound) == [HERE, HERE]
        their_server.end()
        theirs, their_server = start("theirs")
        until(lambda: seen(where.neighbour, inbound) == [THERE] * 4, "both again")
        before = _rules(where)
        engine.docker("rm", "-f", "mine")
        engine.docker("network", "rm", "front")
        engine.stop()
        assert seen(where.neighbour, inbound) == [THERE, THERE, "", ""] and seen(theirs, outbound) == [HERE, HERE]
        assert _rules(where) == before
        assert "barque" not in where.run("nft list tables") + where.run("ip link")
        my_server.end()
        engine.start()
