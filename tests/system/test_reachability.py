"""Who reaches whom, with real traffic in both IP versions, before and after everything that changes networks."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from machines import HERE, HERE6, THERE, THERE6, Machine, engine_on, machine
from traffic import Question, Server, ask
from under_test import EngineUnderTest, needs_root, running_engine, until, wait_gone

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

_NETWORKS = {"front": (), "back": (), "closed": ("--internal",), "quiet": ("-o", "com.docker.network.bridge.enable_icc=false")}
_MEMBERS = {"web": "front", "near": "front", "other": "back", "vault": "closed", "guard": "closed", "one": "quiet", "two": "quiet"}
_KINDS = (("tcp", 80), ("udp", 53), ("ping", 0))
# A question, who asks, and whether there must be an answer.
Case = tuple[str, Question, bool]


class Town:
    """An engine with networks, containers that serve, and a neighbour machine."""

    def __init__(self, engine: EngineUnderTest, where: Machine) -> None:
        self.engine = engine
        self.where = where
        self.servers: dict[str, tuple[str, Server]] = {}
        self.networks: dict[str, dict[str, dict[str, str]]] = {}
        for number, (name, flags) in enumerate(_NETWORKS.items()):
            engine.docker("network", "create", "--ipv6", "--subnet", f"10.77.{number}.0/24", "--subnet", f"fd77:{number}::/64",
                          *flags, name)  # fmt: skip
        for name, network in _MEMBERS.items():
            ports = ("-p", "8080:80", "-p", "8053:53/udp") if name == "web" else ()
            engine.docker("run", "-d", "--name", name, "--network", network, *ports, "busybox", "sleep", "100000")
        self.look()

    def look(self) -> None:
        """Learn where the containers are, and serve in those whose namespace is new."""
        for shown in json.loads(self.engine.docker("inspect", *_MEMBERS)):
            name = shown["Name"][1:]
            self.networks[name] = shown["NetworkSettings"]["Networks"]
            netns = f"/proc/{shown['State']['Pid']}/ns/net"
            place = os.readlink(netns)
            if self.servers.get(name, ("", None))[0] != place:
                self.end(name)
                self.servers[name] = (place, Server(netns))
            self.servers[name] = (place, self.servers[name][1])
            self.netns = {**getattr(self, "netns", {}), name: netns}

    def end(self, name: str) -> None:
        if name in self.servers:
            self.servers.pop(name)[1].end()

    def cases(self) -> list[Case]:
        """Return who may reach what, by the networks that the containers are in."""
        found: list[Case] = []
        for target, networks in self.networks.items():
            for network, settings in networks.items():
                for address in (settings["IPAddress"], settings["GlobalIPv6Address"]):
                    for kind, port in _KINDS:
                        question = (kind, address, port)
                        found.append(("host", question, True))
                        found.append(("neighbour", question, False))
                        for source, own in self.networks.items():
                            if source != target and (network in own or not (own.keys() & networks.keys())):
                                found.append((source, question, network in own and network != "quiet"))
        return [*found, *self._published()]

    def _published(self) -> Iterator[Case]:
        places = [("host", "127.0.0.1"), ("host", "::1"), ("host", HERE), ("host", HERE6), ("host", "10.77.0.1"),
                  ("host", "fd77::1"), ("neighbour", HERE), ("neighbour", HERE6)]  # fmt: skip
        places += [(source, gateway) for source in ("near", "other", "one", "web", "vault") for gateway in (HERE, HERE6, "10.77.0.1", "fd77::1")]
        for source, address in places:
            for kind, port in (("tcp", 8080), ("udp", 8053)):
                yield source, (kind, address, port), bool(self.networks["web"]) and source != "vault"

    def check(self, when: str) -> None:
        """Hold reality against what may be: what must not be reached never is, what must be is soon."""
        self.look()
        places = {"host": self.where.netns, "neighbour": self.where.neighbour, **self.netns}
        cases = self.cases()
        deadline = time.monotonic() + 20
        while cases:
            asked: dict[str, list[Case]] = {}
            for case in cases:
                asked.setdefault(places[case[0]], []).append(case)
            told = ask({netns: [case[1] for case in listed] for netns, listed in asked.items()})
            cases = []
            for netns, listed in asked.items():
                for case, answer in zip(listed, told[netns], strict=True):
                    source, question, wanted = case
                    assert wanted or not answer, f"{when}: {source} reached {question}"
                    if wanted and not answer:
                        cases.append(case)
                    if source == "neighbour" and answer:
                        assert answer in (THERE, THERE6), "the source address is kept"
            assert not cases or time.monotonic() < deadline, f"{when}: {cases}"


@pytest.fixture
def town() -> Iterator[Town]:
    needs_root()
    with machine() as where:
        # Ways to the containers, which only the firewall may bar.
        where.run_there(f"ip route add 10.77.0.0/16 via {HERE}")
        where.run_there(f"ip route add fd77::/16 via {HERE6}")
        with engine_on(where, "--live-restore") as engine:
            made = Town(engine, where)
            try:
                yield made
            finally:
                for name in list(made.servers):
                    made.end(name)
                engine.docker("rm", "-f", *_MEMBERS, check=False)
                engine.docker("network", "prune", "-f")


_CHANGES = (
    ("network", "connect", "back", "web"),
    ("network", "disconnect", "front", "web"),
    ("network", "connect", "front", "web"),
    ("restart", "-t", "0", "web"),
    ("network", "disconnect", "back", "web"),
)


def test_everybody_reaches_what_he_may_and_nothing_else_after_every_change(town: Town) -> None:
    town.check("at the start")
    for change in _CHANGES:
        town.engine.docker(*change)
        town.check(" ".join(change))
    town.engine.stop()
    town.engine.start()
    town.check("after a restart of the daemon")


def _runs(engine: EngineUnderTest) -> bool:
    running = engine.docker("inspect", "-f", "{{.State.Running}}", "web") == "true"
    return running or engine.docker_result("start", "web").returncode == 0


def test_the_same_holds_when_the_daemon_is_killed_during_each_change(town: Town) -> None:
    for at, change in enumerate(_CHANGES):
        busy = subprocess.Popen(
            ["docker", *change], env=town.engine.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        # Another moment each time, of those in which the change is under way: a condition would choose always the same.
        time.sleep(0.014 + 0.005 * at)
        town.engine.kill_daemon()
        busy.wait(20)
        until(lambda: _runs(town.engine), "web runs")
        town.check(f"killed during {' '.join(change)}")
        if not town.networks["web"]:
            town.engine.docker("network", "connect", "front", "web")


def _killed_ending_and_starting(engine: EngineUnderTest, ending_s: float, starting_s: float) -> None:
    """End the daemon and kill it after a moment; start it and kill it after a moment; wait for one that stays.

    The moments are what is tested: a condition to wait for would choose always the same.
    """
    pid = engine.pid
    os.kill(pid, signal.SIGTERM)
    time.sleep(ending_s)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    if engine.process is not None:
        engine.process.wait(20)
    wait_gone(pid)
    engine.adopted = 0
    engine.launch()
    assert engine.process is not None
    time.sleep(starting_s)
    engine.process.kill()
    engine.process.wait(20)
    # A daemon that was killed is started by the keeper, one that had ended is not: which it was depends on the moment.
    engine.launch()
    until(lambda: engine.docker_result("version").returncode == 0, "a daemon is there")
    if engine.pid != engine.process.pid:
        engine.process.wait(20)
        engine.process = None
        engine.adopt()


def test_the_same_holds_when_the_daemon_is_killed_while_it_ends_and_while_it_starts(town: Town) -> None:
    for ending_s, starting_s in ((0.0, 0.1), (0.02, 0.25), (0.05, 0.4), (0.1, 0.6)):
        _killed_ending_and_starting(town.engine, ending_s, starting_s)
        town.check(f"killed {ending_s} s after its end began, and {starting_s} s after its start")
        town.engine.docker("network", "connect", "back", "web")
        town.check("a change afterwards")
        town.engine.docker("network", "disconnect", "back", "web")


def test_linked_containers_reach_exposed_ports_alone_where_containers_may_not_talk() -> None:
    for engine in running_engine("--icc=false"):
        engine.docker("run", "-d", "--name", "db", "--expose", "80", "busybox", "sleep", "100000")
        engine.docker("run", "-d", "--name", "app", "--link", "db", "--expose", "80", "busybox", "sleep", "100000")
        engine.docker("run", "-d", "--name", "stranger", "busybox", "sleep", "100000")
        servers: list[Server] = []

        def seen(servers: list[Server] = servers, engine: EngineUnderTest = engine) -> list[list[str]]:
            """Return what app gets of db, db of app, a stranger of db: TCP (which is exposed), UDP, ping."""
            shown = json.loads(engine.docker("inspect", "db", "app", "stranger"))
            netns = {item["Name"]: f"/proc/{item['State']['Pid']}/ns/net" for item in shown if item["State"]["Running"]}
            address = {item["Name"]: item["NetworkSettings"]["Networks"]["bridge"]["IPAddress"] for item in shown}
            servers += [Server(netns[name]) for name in ("/db", "/app") if name in netns]
            pairs = (("/app", "/db"), ("/db", "/app"), ("/stranger", "/db"))
            asked = {netns[a]: [(kind, address[b], port) for kind, port in _KINDS] for a, b in pairs if a in netns}
            told = ask(asked)
            while servers:
                servers.pop().end()
            return [told[netns[a]] for a, _ in pairs if a in netns]

        nothing = ["", "", ""]
        app = engine.docker("inspect", "-f", "{{.NetworkSettings.Networks.bridge.IPAddress}}", "app")
        assert seen() == [[app, "", ""], nothing, nothing]
        engine.kill_daemon()
        assert seen() == [[app, "", ""], nothing, nothing]
        # Another address: the link follows it.
        engine.docker("stop", "-t", "0", "db")
        engine.docker("run", "-d", "--name", "squatter", "busybox", "sleep", "100000")
        engine.docker("start", "db")
        assert seen() == [[app, "", ""], nothing, nothing]
        engine.docker("rm", "--link", "/app/db")
        assert seen() == [nothing, nothing, nothing]
