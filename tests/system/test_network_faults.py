"""What is left of networks after crashes: of containers, of the daemon, and by others' hands."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from barque.network.manager import BARE_READY
from barque.network.model import NetworkOptions
from machines import HERE, HERE6, THERE, THERE6, engine_on, machine
from pages import address, clear, connected, page, reaches, run
from traffic import Question, Server, ask
from under_test import EngineUnderTest, needs_root, until

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]


@pytest.fixture
def made(engine: EngineUnderTest) -> Iterator[EngineUnderTest]:
    """Give the shared engine, and remove the containers and networks that a test made."""
    yield engine
    clear(engine)


def _places(pid: int) -> int:
    """Return how many network namespaces a process holds open."""
    found = 0
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            found += os.readlink(f"/proc/{pid}/fd/{name}").startswith("net:[")
        except FileNotFoundError:
            continue
    return found


def test_a_crash_loop_leaves_nothing_behind(made: EngineUnderTest) -> None:
    made.docker("network", "create", "--ipv6", "loop")
    shown = ("ip -br link", "ip -o addr show scope global", "ip rule", "ip route", "ip -6 route show scope global", "nft list ruleset")

    def state() -> list[object]:
        told = [subprocess.run(line.split(), capture_output=True, text=True).stdout for line in shown]
        links = told[0].count("veth")
        # More is said of routes and addresses of a bridge with members in it than of an empty one.
        counts = [text.count("\n") for text in told[1:5]]
        used = made.docker("network", "inspect", "-f", "{{json .Status}}", "loop")
        return [links, *counts, told[5], used, *os.listdir(made.root / "exec" / "network"), _places(made.pid)]

    made.docker("run", "--rm", "--network", "loop", "-p", "80", "busybox", "true")
    ready = NetworkOptions().pool_size
    until(lambda: (state()[0], _places(made.pid)) == (ready, ready + BARE_READY), "what is kept ready is there, and nothing else")
    before = state()
    # Ten containers at once begin anew more often than one does in minutes: the pauses between its restarts double.
    names = [f"crash{number}" for number in range(10)]
    for number, name in enumerate(names):
        made.docker("run", "-d", "--name", name, "--restart", "always", "--network", "loop", "--network-alias", "all",
                    "-p", f"{8100 + number}:80", "busybox", "false")  # fmt: skip
    until(lambda: sum(map(int, made.docker("inspect", "-f", "{{.RestartCount}}", *names).split())) >= 50, "they restart", 60)
    made.docker("rm", "-f", *names)
    until(lambda: state() == before, "all is as before")


def test_networks_survive_the_death_of_the_daemon_and_its_restart(own_engine: EngineUnderTest) -> None:
    engine = own_engine
    engine.docker("network", "create", "--ipv6", "front")
    engine.docker("network", "create", "-o", "barque.network.anti_spoof=true", "back")
    run(engine, "web", "--network", "front", "--network", "back", "-p", "8088:80")
    run(engine, "shop", "--network", "front", "--network-alias", "s")
    engine.docker("run", "-d", "--name", "echo", "-p", "8089:7", "busybox", "nc", "-ll", "-p", "7", "-e", "cat")
    shown = engine.docker("inspect", "-f", "{{json .NetworkSettings.Networks}}", "web")
    with connected(8089) as talk:
        talk.sendall(b"before")
        assert talk.recv(9) == b"before"
        engine.kill_daemon()
        talk.sendall(b"after")
        assert talk.recv(9) == b"after", "the connection is not cut"
    assert engine.docker("inspect", "-f", "{{json .NetworkSettings.Networks}}", "web") == shown
    for source, target in (("", "127.0.0.1:8088"), ("", "[::1]:8088"), ("shop", "web"), ("web", "s")):
        assert reaches(engine, source, target), (source, target)
    engine.docker("network", "disconnect", "front", "web")
    assert not page(engine, "shop", "web")
    engine.docker("network", "connect", "front", "web")
    assert reaches(engine, "shop", "web"), "live changes of containers that an earlier daemon started"
    engine.docker("run", "-d", "--name", "late", "--network", "front", "busybox", "sleep", "1000")
    taken = [address(engine, name, "front") for name in ("web", "shop", "late")]
    assert len(set(taken)) == 3
    engine.barque("update", "--publish-add", "8090:80", "web")
    engine.kill_daemon()
    assert reaches(engine, "", "127.0.0.1:8090") and reaches(engine, "", "127.0.0.1:8088")
    engine.docker("rm", "-f", "web", "shop", "late", "echo")
    engine.docker("network", "prune", "-f")


def _links_of(engine: EngineUnderTest, name: str) -> set[str]:
    """Return the IPv4 addresses that a container really has."""
    shown = engine.docker("exec", name, "ip", "-4", "-o", "addr")
    return {line.split()[3].partition("/")[0] for line in shown.splitlines() if " lo " not in line}


def test_a_daemon_that_dies_in_the_middle_of_a_change_leaves_nothing_half_made(own_engine: EngineUnderTest) -> None:
    engine = own_engine
    engine.docker("network", "create", "front")
    engine.docker("network", "create", "back")
    run(engine, "web", "--network", "front", "-p", "8092:80")
    run(engine, "shop", "--network", "front")
    changes = [
        ("network", "connect", "back", "web"), ("network", "disconnect", "back", "web"), ("restart", "-t", "0", "web"),
        ("network", "disconnect", "front", "web"), ("network", "connect", "front", "web"), ("network", "create", "more"),
        ("run", "-d", "--network", "back", "busybox", "sleep", "100"),
    ]  # fmt: skip
    for at, change in enumerate(changes):
        busy = subprocess.Popen(
            ["docker", *change], env=engine.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        # Another moment each time; which one it is does not matter, but that it is in the middle does.
        time.sleep(0.012 + 0.004 * at)
        engine.kill_daemon()
        busy.wait(20)
        until(lambda: engine.docker("inspect", "-f", "{{.State.Running}}", "web", check=False) == "true" or
              engine.docker_result("start", "web").returncode == 0, "web runs")  # fmt: skip
        shown = json.loads(engine.docker("inspect", "-f", "{{json .NetworkSettings.Networks}}", "web"))
        assert _links_of(engine, "web") == {item["IPAddress"] for item in shown.values()}, change
        for name in ("front", "back"):
            members = json.loads(engine.docker("network", "inspect", "-f", "{{json .Containers}}", name))
            assert ("web" in {item["Name"] for item in members.values()}) is (name in shown), change
        if shown:
            assert reaches(engine, "", "127.0.0.1:8092"), (change, shown)
        if "front" not in shown:
            engine.docker("network", "connect", "front", "web")
    bridges = subprocess.run(["ip", "-br", "link", "show", "type", "bridge"], capture_output=True, text=True).stdout
    known = {f"br-{name[:12]}" for name in engine.docker("network", "ls", "-q", "--no-trunc", "--filter", "driver=bridge").split()}
    assert {line.split()[0] for line in bridges.splitlines() if line.startswith("br-")} <= known
    for name in engine.docker("ps", "-aq").split():
        engine.docker_result("rm", "-f", name)
    engine.docker("network", "prune", "-f")


def test_what_somebody_deletes_of_ours_is_made_again(own_engine: EngineUnderTest) -> None:
    engine = own_engine
    network_id = engine.docker("network", "create", "front")
    run(engine, "web", "--network", "front", "-p", "8091:80")
    run(engine, "shop", "--network", "front")
    assert reaches(engine, "", "127.0.0.1:8091")
    table = "barque" if "barque0" in subprocess.run(["ip", "link"], capture_output=True, text=True).stdout else ""
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True).stdout
    mine = [line.split()[2] for line in tables.splitlines() if line.split()[2].startswith("barque")]
    assert mine, table
    for name in mine:
        subprocess.run(["nft", "delete", "table", "inet", name], check=True)
    until(lambda: all(name in subprocess.run(["nft", "list", "tables"], capture_output=True, text=True).stdout
                      for name in mine), "the table is back")  # fmt: skip
    assert reaches(engine, "shop", f"{address(engine, 'shop', 'front', 'Gateway')}:8091")
    bridge = f"br-{network_id[:12]}"
    subprocess.run(["ip", "link", "del", bridge], check=True)
    until(lambda: subprocess.run(["ip", "link", "show", bridge], capture_output=True).returncode == 0, "the bridge is back")
    assert reaches(engine, "shop", "web") and reaches(engine, "", "127.0.0.1:8091")
    engine.docker("rm", "-f", "web", "shop")


def test_ports_and_ways_out_follow_the_addresses_of_the_machine() -> None:
    needs_root()
    new, new6 = "198.51.100.9", "fd99::9"
    with machine() as where, engine_on(where) as engine, ExitStack() as servers:
        engine.docker("network", "create", "--ipv6", "front")
        engine.docker("run", "-d", "--name", "web", "--network", "front", "-p", "18500:80", "-p", f"{HERE}:18501:80",
                      "busybox", "sleep", "1000")  # fmt: skip
        box = f"/proc/{engine.docker('inspect', '-f', '{{.State.Pid}}', 'web')}/ns/net"
        for netns in (box, where.neighbour):
            servers.callback(Server(netns).end)
        hosts = (HERE, HERE6, new, new6)
        inward: list[Question] = [("tcp", host, 18500) for host in hosts] + [("tcp", HERE, 18501)]
        outward: list[Question] = [("tcp", THERE, 80), ("tcp", THERE6, 80)]

        def seen() -> list[str]:
            told = ask({where.neighbour: inward, box: outward})
            return [*told[where.neighbour], *told[box]]

        until(lambda: seen() == [THERE, THERE6, "", "", THERE, HERE, HERE6], "all is at the machine's addresses")
        for line in (f"addr add {new}/24 dev lan0", f"addr add {new6}/64 dev lan0 nodad", f"addr del {HERE}/24 dev lan0",
                     f"addr del {HERE6}/64 dev lan0", f"addr replace {new}/24 dev lan0"):  # fmt: skip
            where.run(f"ip {line}")
        until(lambda: seen() == ["", "", THERE, THERE6, "", new, new6], "all is at the new addresses")
        where.run(f"ip addr add {HERE}/24 dev lan0")
        until(lambda: seen() == [THERE, "", THERE, THERE6, THERE, new, new6], "an address that is back serves its ports again")
