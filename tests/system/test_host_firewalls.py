"""Published ports on machines that ufw or firewalld guards, as Debian packs them."""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from host_firewalls import Firewalld, HostFirewall, Ufw, firewall
from machines import HERE, THERE, EngineThere, Machine, engine_on, machine
from traffic import Question, Server, ask
from under_test import needs_root, until

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

_TCP: Question = ("tcp", HERE, 18400)
_UDP: Question = ("udp", HERE, 18401)
_PORTS = ("-p", "18400:80", "-p", "18401:53/udp")


class Scene:
    """A guarded machine with an engine."""

    def __init__(self, where: Machine, guard: HostFirewall, engine: EngineThere) -> None:
        self.where, self.guard, self.engine = where, guard, engine

    def seen(self, *questions: Question) -> list[str]:
        """Return what the neighbour is told."""
        return ask({self.where.neighbour: [*questions]})[self.where.neighbour]

    def serve(self, stack: ExitStack) -> str:
        """Start a container that serves; return the path of its network namespace."""
        self.engine.docker("run", "-d", "--name", "web", *_PORTS, "busybox", "sleep", "100000")
        netns = f"/proc/{self.engine.docker('inspect', '-f', '{{.State.Pid}}', 'web')}/ns/net"
        stack.callback(Server(netns).end)
        return netns


@contextmanager
def guarded(kind: str, folder: Path, *flags: str) -> Iterator[Scene]:
    """Give a guarded machine with an engine."""
    needs_root()
    with machine() as where, firewall(kind, where, folder) as guard, engine_on(where, *flags) as engine:
        yield Scene(where, guard, engine)


@pytest.fixture(params=["ufw", "firewalld"])
def respected(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    with guarded(request.param, tmp_path, "--respect-host-firewall") as made:
        yield made


@pytest.fixture(params=["ufw", "firewalld"])
def passed_by(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    with guarded(request.param, tmp_path) as made:
        yield made


_WAYS: dict[type, str] = {
    Ufw: "ufw route allow out on barque0; ufw route allow in on barque0",
    Firewalld: "firewall-cmd --permanent --zone=trusted --add-interface=barque0; firewall-cmd --reload",
}


def _closed(scene: Scene) -> tuple[list[str], list[str]]:
    """Return what `docker info` and a new container with a published port advise to do with the firewall."""
    info = scene.engine.docker_result("info").stderr
    made = scene.engine.docker_result("create", "--name", "asked", "-p", "18402:80", "busybox").stderr
    scene.engine.docker("rm", "asked")
    advice = re.compile(r"^WARNING: the chain .* drops forwarded packets .* \((.*)\)$", re.MULTILINE)
    return advice.findall(info), advice.findall(made)


def test_a_published_port_is_closed_until_the_firewall_allows_it(respected: Scene) -> None:
    scene = respected
    guard = scene.guard
    before = guard.rules()
    with ExitStack() as stack:
        scene.serve(stack)
        assert all(ask({scene.where.netns: [("tcp", "127.0.0.1", 18400), ("udp", "127.0.0.1", 18401)]})[scene.where.netns])
        assert scene.seen(_TCP, _UDP) == ["", ""], "nothing is allowed yet"
        assert guard.rules() == before
        guard.allow("18400/tcp")
        until(lambda: scene.seen(_TCP) == [THERE], "the allowed port is open, and shows who asks")
        assert scene.seen(_UDP) == [""]
        guard.reload()
        until(lambda: scene.seen(_TCP) == [THERE], "it is open after a reload")
        scene.engine.kill_daemon()
        until(lambda: scene.seen(_TCP) == [THERE], "and after the daemon's death")
        assert scene.seen(_UDP) == [""]
        guard.allow("18401/udp")
        until(lambda: scene.seen(_UDP) == [THERE], "datagrams, too")
        guard.deny("18400/tcp")
        guard.deny("18401/udp")
        assert scene.seen(_TCP) == [""], "closed again"
        before = guard.rules()
        scene.engine.docker("network", "create", "--ipv6", "more")
        scene.engine.docker("network", "connect", "more", "web")
        assert guard.rules() == before, "nothing of ours is in the firewall's rules"
    scene.engine.docker("rm", "-f", "web")
    scene.engine.docker("network", "rm", "more")
    scene.engine.stop()
    assert guard.rules() == before
    assert "barque" not in scene.where.run("nft list tables") + scene.where.run("ip rule")
    scene.engine.start()


def test_without_respect_what_it_forwards_counts_and_not_what_it_lets_in(passed_by: Scene) -> None:
    scene = passed_by
    guard = scene.guard
    with ExitStack() as stack:
        netns = scene.serve(stack)
        outside = Server(scene.where.neighbour)
        stack.callback(outside.end)
        assert _closed(scene) == ([_WAYS[type(guard)]], [_WAYS[Ufw]] if isinstance(guard, Ufw) else [])
        away = [("tcp", THERE, 80), ("udp", THERE, 53)]
        if isinstance(guard, Ufw):
            # It drops what is forwarded, and no rule of another table can outvote that: the daemon says so.
            said = "the chain FORWARD of the table ip filter drops forwarded packets"
            until(lambda: said in scene.engine.log.read_text(), "the log says which chain drops")
            assert scene.seen(_TCP) == [""] and ask({netns: away})[netns] == ["", ""]
            guard.ufw("route allow out on barque0")
            until(lambda: scene.seen(_TCP) == [THERE], "published ports are forwarded out of this machine's bridge")
            assert ask({netns: away})[netns] == ["", ""]
            guard.ufw("route allow in on barque0")
        elif isinstance(guard, Firewalld):
            until(lambda: _WAYS[Firewalld] in scene.engine.log.read_text(), "the log says what allows it")
            assert scene.seen(_TCP, _UDP) == [THERE, THERE], "it lets through what is led elsewhere, allowed or not"
            assert ask({netns: away})[netns] == ["", ""]
            guard.command("--zone=trusted --add-interface=barque0")
        until(lambda: scene.seen(_TCP, _UDP) == [THERE, THERE], "published ports are reached though nobody let them in")
        until(lambda: ask({netns: away})[netns] == [HERE, HERE], "the container reaches others")
        guard.reload()
        if isinstance(guard, Firewalld):
            guard.command("--zone=trusted --add-interface=barque0")
        until(lambda: scene.seen(_TCP, _UDP) == [THERE, THERE], "after a reload")
        assert ask({netns: away})[netns] == [HERE, HERE]
        assert _closed(scene) == ([], []), "who has decided is not warned any more"
        before = guard.rules()
        scene.engine.kill_daemon()
        assert scene.seen(_TCP, _UDP) == [THERE, THERE] and ask({netns: away})[netns] == [HERE, HERE]
    scene.engine.docker("rm", "-f", "web")
    assert guard.rules() == before
