"""Published ports of every kind, pools that are full, and interfaces that somebody deletes."""

import json
import os
import re
import socket
import subprocess
from collections.abc import Iterator

import pytest

from traffic import Question, Server, ask
from under_test import EngineUnderTest, running_engine, until

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]
_HERE = f"/proc/{os.getpid()}/ns/net"
_SCTP = 132


@pytest.fixture
def served(engine: EngineUnderTest) -> Iterator[list[Server]]:
    """Give a list of servers to be ended, and remove the containers and networks of a test."""
    servers: list[Server] = []
    yield servers
    for item in servers:
        item.end()
    for name in engine.docker("ps", "-aq").split():
        engine.docker("rm", "-f", name, check=False)
    engine.docker("network", "prune", "-f")


def run(engine: EngineUnderTest, servers: list[Server], name: str, *flags: str) -> str:
    """Start a container that serves TCP 80 and UDP 53; return the path of its network namespace."""
    engine.docker("run", "-d", "--name", name, *flags, "busybox", "sleep", "100000")
    netns = f"/proc/{engine.docker('inspect', '-f', '{{.State.Pid}}', name)}/ns/net"
    servers.append(Server(netns))
    return netns


def answers(*questions: Question, netns: str = _HERE) -> list[bool]:
    return [bool(text) for text in ask({netns: list(questions)})[netns]]


def test_ranges_addresses_and_both_protocols_are_reached_where_they_are_published(
    engine: EngineUnderTest, served: list[Server]
) -> None:
    engine.docker("network", "create", "--ipv6", "both")
    with socket.create_server(("0.0.0.0", 18210)):
        netns = run(engine, served, "web", "--network", "both", "-p", "18200-18202:79-81", "-p", "18210-18219:80",
                    "-p", "[::1]:18220:80", "-p", "127.0.0.1:18221:80", "-p", "[::]:18222:53/udp", "-p", "80")  # fmt: skip
    shown = json.loads(engine.docker("inspect", "-f", "{{json .NetworkSettings}}", "web"))
    numbers = {item["HostPort"] for item in shown["Ports"]["80/tcp"] if item["HostPort"] not in ("18220", "18221")}
    assert {"18201", "18211"} < numbers and len(numbers) == 3, "the first free one of a range, and a chance one"
    chance = int((numbers - {"18201", "18211"}).pop())
    gateway, gateway6 = (shown["Networks"]["both"][key] for key in ("Gateway", "IPv6Gateway"))
    for host in ("127.0.0.1", "::1", gateway, gateway6):
        asked = [("tcp", host, port) for port in (18200, 18201, 18202, 18211, chance)]
        assert answers(*asked) == [False, True, False, True, True], host
    assert answers(("tcp", "::1", 18220), ("tcp", "127.0.0.1", 18220), ("tcp", gateway6, 18220)) == [True, False, False]
    assert answers(("tcp", "127.0.0.1", 18221), ("tcp", "::1", 18221), ("tcp", gateway, 18221)) == [True, False, False]
    assert answers(("udp", "::1", 18222), ("udp", gateway6, 18222), ("udp", "127.0.0.1", 18222)) == [True, True, False]
    hairpin = [("tcp", gateway, 18201), ("tcp", gateway6, 18201), ("udp", gateway6, 18222), ("tcp", gateway, 18221)]
    assert answers(*hairpin, netns=netns) == [True, True, True, False], "its own ports, but not those of the host's loopback"


def test_ports_that_are_changed_are_shown_and_stay_over_every_restart(own_engine: EngineUnderTest) -> None:
    engine = own_engine
    servers: list[Server] = []
    run(engine, servers, "web", "-p", "18260:80", "-p", "18261:80")

    def check(*ports: int) -> None:
        shown = json.loads(engine.docker("inspect", "web"))[0]
        wanted = {str(port) for port in ports}
        assert {item["HostPort"] for item in shown["HostConfig"]["PortBindings"]["80/tcp"]} == wanted
        assert {item["HostPort"] for item in shown["NetworkSettings"]["Ports"]["80/tcp"]} == wanted
        assert set(re.findall(r"0\.0\.0\.0:(\d+)", engine.docker("port", "web"))) == wanted
        assert set(re.findall(r"0\.0\.0\.0:(\d+)->80/tcp", engine.docker("ps", "--format", "{{.Ports}}"))) == wanted
        servers.pop().end()
        servers.append(Server(f"/proc/{shown['State']['Pid']}/ns/net"))
        asked = [18260, 18261, 18262, 18263]
        for host in ("127.0.0.1", "::1", shown["NetworkSettings"]["Networks"]["bridge"]["Gateway"]):
            questions: list[Question] = [("tcp", host, port) for port in asked]
            until(lambda questions=questions: answers(*questions) == [port in ports for port in asked], f"{ports} at {host}")

    try:
        check(18260, 18261)
        engine.barque("update", "--publish-add", "18262:80", "--publish-rm", "18260:80", "web")
        check(18261, 18262)
        for again in (lambda: engine.docker("restart", "-t", "0", "web"), engine.kill_daemon):
            again()
            check(18261, 18262)
        engine.docker("stop", "-t", "0", "web")
        engine.barque("update", "--publish-add", "18263:80", "--publish-rm", "18261:80", "web")
        engine.stop()
        engine.start()
        engine.docker("start", "web")
        check(18262, 18263)
    finally:
        servers.pop().end()


def test_datagrams_find_the_container_that_has_the_port_now(engine: EngineUnderTest, served: list[Server]) -> None:
    run(engine, served, "bridge-keeper", "-p", "127.0.0.1::80")
    gateway = engine.docker("inspect", "-f", "{{.NetworkSettings.Networks.bridge.Gateway}}", "bridge-keeper")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(0.5)
        client.connect((gateway, 18223))
        for name in ("one", "two"):
            run(engine, served, name, "-p", "18223:53/udp")

            def told(client: socket.socket = client) -> bool:
                try:
                    client.send(b"x")
                    return bool(client.recv(100))
                except OSError:
                    return False

            until(told, f"{name} answers on the client's one socket")
            engine.docker("rm", "-f", name)
            assert not told(), "nobody has the port"


def test_sctp_is_carried_where_the_kernel_has_it_and_refused_in_words_elsewhere(
    engine: EngineUnderTest, served: list[Server]
) -> None:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, _SCTP).close()
    except OSError:
        refused = engine.docker_result("run", "--rm", "-p", "18230:80/sctp", "busybox", "true")
        assert refused.returncode == 125 and "this kernel has no sctp support" in refused.stderr
        pytest.skip("this kernel has no SCTP: the port was refused, as it must be; nothing was carried")
    netns = run(engine, served, "web", "-p", "18230:80/sctp")
    code = "import socket; s = socket.socket(2, 1, 132); s.bind(('', 80)); s.listen(); print(flush=True); s.accept()[0].send(b'hi')"
    gateway = engine.docker("inspect", "-f", "{{.NetworkSettings.Networks.bridge.Gateway}}", "web")
    with subprocess.Popen(["nsenter", f"--net={netns}", "python3", "-c", code], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None and server.stdout.readline()
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM, _SCTP) as client:
            client.settimeout(5)
            client.connect((gateway, 18230))
            assert client.recv(10) == b"hi"


def test_a_full_address_pool_is_told_and_has_room_again_after_a_removal() -> None:
    for engine in running_engine("--default-address-pool=base=10.240.0.0/23,size=24"):
        engine.docker("network", "create", "last")
        refused = engine.docker_result("network", "create", "more")
        assert refused.returncode == 1 and "all predefined address pools have been fully subnetted" in refused.stderr
        assert engine.docker("network", "ls", "-q", "--filter", "name=more") == ""
        engine.docker("network", "rm", "last")
        engine.docker("network", "create", "more")
        engine.docker("network", "rm", "more")


def test_a_container_whose_interface_somebody_deleted_gets_another_one(engine: EngineUnderTest, served: list[Server]) -> None:
    network = engine.docker("network", "create", "front")[:12]
    run(engine, served, "web", "--network", "front", "-p", "18240:80")
    links = subprocess.run(["ip", "-o", "link", "show", "master", f"br-{network}"], capture_output=True, text=True).stdout
    (veth,) = re.findall(r"^\d+: (\w+)@", links, re.MULTILINE)
    subprocess.run(["ip", "link", "del", veth], check=True)
    assert answers(("tcp", "127.0.0.1", 18240)) == [False]
    engine.docker("network", "disconnect", "front", "web")
    engine.docker("network", "connect", "front", "web")
    until(lambda: answers(("tcp", "127.0.0.1", 18240)) == [True], "it is reached again")
    engine.docker("rm", "-f", "web")
    engine.docker("network", "rm", "front")
    assert f"br-{network}" not in subprocess.run(["ip", "link"], capture_output=True, text=True).stdout
