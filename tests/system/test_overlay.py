"""Two engines on two machines that share a network, driven by the docker command."""

import json
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from machines import HERE, THERE, EngineThere, engine_on, machine
from traffic import Question, Server, ask
from under_test import needs_root, until

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

_CREATE = ("network", "create", "-d", "overlay", "--attachable", "--ipv6", "--subnet", "10.98.0.0/24", "--subnet", "fd00:98::/64")


class Side:
    """An engine with a container that serves."""

    def __init__(self, engine: EngineThere, name: str) -> None:
        self.engine, self.name = engine, name
        self._server: Server | None = None

    def look(self) -> None:
        """Learn where the container is, and serve there."""
        self.end()
        shown = json.loads(self.engine.docker("inspect", self.name))[0]
        settings = shown["NetworkSettings"]["Networks"]["wide"]
        self.netns = f"/proc/{shown['State']['Pid']}/ns/net"
        self.ip, self.ip6 = settings["IPAddress"], settings["GlobalIPv6Address"]
        self._server = Server(self.netns)

    def end(self) -> None:
        """End the server."""
        if self._server is not None:
            self._server.end()
            self._server = None

    def sees(self, other: "Side") -> bool:
        """Tell whether the other one is reached in every way, and is told this one's own addresses."""
        asked: list[Question] = [(kind, address, port) for address in (other.ip, other.ip6)
                                 for kind, port in (("tcp", 80), ("udp", 53), ("ping", 0))]  # fmt: skip
        told = ask({self.netns: asked})[self.netns]
        return told == [self.ip, self.ip, "alive", self.ip6, self.ip6, "alive"]


@pytest.fixture
def sides() -> Iterator[tuple[Side, Side]]:
    needs_root()
    with machine() as here, engine_on(here) as mine, engine_on(here.other()) as theirs, ExitStack() as ending:
        made = Side(mine, "left"), Side(theirs, "right")
        for side, peer in zip(made, (THERE, HERE), strict=True):
            side.engine.docker(*_CREATE, "-o", f"barque.overlay.peers={peer}", "wide")
            side.engine.docker("run", "-d", "--name", side.name, "--network", "wide", "busybox", "sleep", "100000")
            side.look()
            ending.callback(side.end)
        yield made


def test_containers_of_two_engines_talk_over_changes_restarts_and_deaths(sides: tuple[Side, Side]) -> None:
    left, right = sides

    def check(when: str) -> None:
        for side in sides:
            side.look()
        until(lambda: left.sees(right) and right.sees(left), when)

    check("at the start")
    assert {left.ip, right.ip} == {"10.98.0.2", "10.98.0.129"}, "each engine gives addresses of its own part"
    changes = (("restart", "-t", "0", "left"), ("network", "disconnect", "wide", "left"), ("network", "connect", "wide", "left"))
    for change in changes:
        left.engine.docker(*change)
        if change[1] != "disconnect":
            check(" ".join(change))
    right.engine.kill_daemon()
    check("after the death of a daemon")
    left.engine.stop()
    left.engine.start()
    left.engine.docker("start", "left")
    check("after a restart of a daemon")
    right.engine.docker("network", "create", "apart")
    right.engine.docker("run", "-d", "--name", "stranger", "--network", "apart", "busybox", "sleep", "100000")
    stranger = f"/proc/{right.engine.docker('inspect', '-f', '{{.State.Pid}}', 'stranger')}/ns/net"
    assert ask({stranger: [("tcp", right.ip, 80), ("tcp", left.ip, 80)]})[stranger] == ["", ""], "other networks stay apart"


def test_an_overlay_that_cannot_be_is_refused_in_words(sides: tuple[Side, Side]) -> None:
    left, _ = sides
    for flags, words in (
        ((), "This node is not a swarm manager"),
        (("-o", "barque.overlay.peers=nobody"), "barque.overlay.peers: not an address: 'nobody'"),
        (("-o", f"barque.overlay.peers={THERE}", "-o", "encrypted="), "encrypted overlay networks are not supported"),
        (("-o", f"barque.overlay.peers={THERE}"), "an overlay network needs --subnet"),
    ):
        refused = left.engine.docker_result("network", "create", "-d", "overlay", *flags, "bad")
        assert refused.returncode == 1 and words in refused.stderr, (flags, refused.stderr)
    assert left.engine.docker("network", "ls", "-q", "--filter", "name=bad") == ""
