"""A Docker daemon and ours on one machine, that is in one network namespace: neither touches what the other made."""

import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from traffic import Server, ask
from under_test import EngineUnderTest, _remove

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]


class Beside(EngineUnderTest):
    """Our engine in the network namespace of another one."""

    def __init__(self, root: Path, netns: str) -> None:
        super().__init__(root)
        self.netns = netns

    def arguments(self) -> list[str]:
        return ["nsenter", f"--net={self.netns}", *super().arguments()]


@pytest.fixture
def both(dockerd_with_networks: Any) -> Iterator[tuple[Any, Beside]]:
    root = Path(tempfile.mkdtemp(prefix="bq", dir="/var/tmp"))
    ours = Beside(root, f"/proc/{dockerd_with_networks.process.pid}/ns/net")
    try:
        ours.start()
        ours.load_busybox()
        yield dockerd_with_networks, ours
        for engine in (ours, dockerd_with_networks):
            for name in engine.docker("ps", "-aq").split():
                engine.docker("rm", "-f", name)
    finally:
        ours.stop()
        _remove(root)


def _inside(netns: str, line: str) -> str:
    return subprocess.run(["nsenter", f"--net={netns}", *line.split()], capture_output=True, text=True, check=True).stdout


def _rules(netns: str) -> list[str]:
    """Return Docker's rules without their counters."""
    found = _inside(netns, "iptables-save") + _inside(netns, "ip6tables-save")
    return [re.sub(r" \[\d+:\d+\]", "", line) for line in found.splitlines() if not line.startswith("#")]


def test_two_engines_serve_their_ports_apart_and_leave_each_others_rules_alone(both: tuple[Any, Beside]) -> None:
    docker, ours = both
    servers = []
    seen: dict[str, str] = {}
    for engine, name, port in ((docker, "theirs", 18301), (ours, "mine", 18302)):
        engine.docker("run", "-d", "--name", name, "-p", f"{port}:80", "busybox", "sleep", "100000")
        seen[name] = engine.docker("inspect", "-f", "{{.NetworkSettings.Networks.bridge.IPAddress}}", name)
        seen[f"{name} netns"] = f"/proc/{engine.docker('inspect', '-f', '{{.State.Pid}}', name)}/ns/net"
        servers.append(Server(seen[f"{name} netns"]))
    assert seen["mine"].rsplit(".", 1)[0] != seen["theirs"].rsplit(".", 1)[0], "each has a subnet of its own"
    before = _rules(ours.netns)
    ports = [("tcp", "127.0.0.1", 18301), ("tcp", "127.0.0.1", 18302), ("tcp", seen["mine"], 80), ("tcp", seen["theirs"], 80)]
    try:
        assert all(ask({ours.netns: ports})[ours.netns])
        # What Docker lets into its own networks is Docker's affair.
        assert ask({seen["theirs netns"]: [("tcp", seen["mine"], 80)]})[seen["theirs netns"]] == [""]
        ours.docker("network", "create", "front")
        ours.docker("network", "connect", "front", "mine")
        ours.kill_daemon()
        assert all(ask({ours.netns: ports})[ours.netns])
        # Where Docker has switched forwarding on it drops what it does not know; its own chain for that lets us through.
        outside = ours.docker("network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", "front")
        _inside(ours.netns, "iptables -I DOCKER-USER -j ACCEPT")
        assert all(ask({seen["theirs netns"]: [("tcp", outside, 18302)]})[seen["theirs netns"]])
        _inside(ours.netns, "iptables -D DOCKER-USER -j ACCEPT")
        ours.docker("rm", "-f", "mine")
        ours.docker("network", "rm", "front")
        ours.stop()
        assert ask({ours.netns: ports[:1]})[ours.netns] != [""], "Docker serves on when we are gone"
        assert _rules(ours.netns) == before
        assert "barque" not in _inside(ours.netns, "nft list tables") + _inside(ours.netns, "ip link")
        ours.start()
    finally:
        for server in servers:
            server.end()
