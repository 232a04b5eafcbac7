"""Networks on a real engine with real traffic, driven by the docker command."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from pages import address, clear, connected, page, pings, reaches, run
from under_test import EngineUnderTest, until

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]


@pytest.fixture
def made(engine: EngineUnderTest) -> Iterator[EngineUnderTest]:
    """Give the shared engine, and remove the containers and networks that a test made."""
    yield engine
    clear(engine)


def test_containers_of_a_network_find_each_other_by_name_and_those_of_others_do_not(made: EngineUnderTest) -> None:
    made.docker("network", "create", "--ipv6", "front")
    made.docker("network", "create", "back")
    run(made, "web", "--network", "front", "--network-alias", "site")
    run(made, "shop", "--network", "front")
    run(made, "store", "--network", "back")
    assert reaches(made, "shop", "web") and reaches(made, "shop", "site")
    assert reaches(made, "shop", f"[{address(made, 'web', 'front', 'GlobalIPv6Address')}]")
    assert pings(made, "shop", "web")
    assert not page(made, "shop", "store")
    assert not page(made, "shop", address(made, "store", "back")), "an address of another network"
    assert not pings(made, "shop", address(made, "store", "back"))
    assert reaches(made, "", address(made, "store", "back")), "the host reaches all"
    made.docker("network", "connect", "--alias", "db", "front", "store")
    assert reaches(made, "shop", "db") and reaches(made, "store", "web")
    made.docker("network", "disconnect", "front", "store")
    assert not page(made, "shop", "db")
    made.docker("rename", "web", "renamed")
    members = json.loads(made.docker("network", "inspect", "-f", "{{json .Containers}}", "front"))
    assert {item["Name"] for item in members.values()} == {"renamed", "shop"}
    assert reaches(made, "shop", "renamed") and not page(made, "shop", "web")


def test_published_ports_are_reached_from_everywhere_and_follow_every_change(made: EngineUnderTest) -> None:
    made.docker("network", "create", "--ipv6", "front")
    made.docker("network", "create", "back")
    run(made, "web", "--network", "front", "-p", "8080:80")
    run(made, "near", "--network", "front")
    run(made, "far", "--network", "back")
    gateway = address(made, "near", "front", "Gateway")
    everywhere = [("", "127.0.0.1:8080"), ("", "[::1]:8080"), ("", f"{gateway}:8080"), ("near", f"{gateway}:8080"),
                  ("far", f"{gateway}:8080"), ("web", f"{gateway}:8080")]  # fmt: skip

    def check() -> None:
        assert [place for place in everywhere if not reaches(made, *place)] == []

    check()
    made.docker("network", "connect", "back", "web")
    check()
    made.docker("network", "disconnect", "front", "web")
    check()
    made.docker("network", "connect", "front", "web")
    made.docker("network", "disconnect", "back", "web")
    check()
    made.docker("restart", "-t", "0", "web")
    check()
    made.barque("update", "--publish-add", "8081:80", "--publish-rm", "80", "web", check=False)
    made.barque("update", "--publish-rm", "8080:80", "web", check=False)
    assert not page(made, "", "127.0.0.1:8080")


def test_a_change_of_ports_cuts_no_connection_of_ports_that_stay(made: EngineUnderTest) -> None:
    made.docker("run", "-d", "--name", "echo", "-p", "8085:7", "busybox", "nc", "-ll", "-p", "7", "-e", "cat")
    with connected(8085) as talk:
        talk.sendall(b"one")
        assert talk.recv(9) == b"one"
        made.barque("update", "--publish-add", "8086:7", "echo")
        talk.sendall(b"two")
        assert talk.recv(9) == b"two"
        with connected(8086) as other:
            other.sendall(b"new")
            assert other.recv(9) == b"new"
        made.barque("update", "--publish-rm", "8086:7", "echo")
        talk.sendall(b"end")
        assert talk.recv(9) == b"end"
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", 8086), 1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        failed = made.barque("update", "--publish-add", f"127.0.0.1:{number}:7", "echo", check=False)
        assert failed == ""
    assert made.docker("port", "echo", "7").splitlines()[0] == "0.0.0.0:8085"


def test_internal_networks_have_no_way_out_and_no_way_in(made: EngineUnderTest) -> None:
    made.docker("network", "create", "--internal", "closed")
    made.docker("network", "create", "open")
    run(made, "vault", "--network", "closed", "-p", "8082:80")
    run(made, "guard", "--network", "closed")
    run(made, "street", "--network", "open", "-p", "8083:80")
    assert reaches(made, "guard", "vault")
    assert made.docker("port", "vault") == ""
    vault = address(made, "vault", "closed")
    assert not page(made, "street", vault)
    gateway = vault.rsplit(".", 1)[0] + ".1"
    # Even with a route that the container makes itself.
    made.docker("exec", "--privileged", "guard", "ip", "route", "add", "default", "via", gateway)
    assert not page(made, "guard", address(made, "street", "open"))
    assert not page(made, "guard", f"{gateway}:8083")
    assert not pings(made, "guard", address(made, "street", "open"))


def test_containers_that_may_not_talk_to_each_other_are_reached_from_the_host_alone(made: EngineUnderTest) -> None:
    made.docker("network", "create", "-o", "com.docker.network.bridge.enable_icc=false", "quiet")
    run(made, "one", "--network", "quiet", "-p", "8084:80")
    run(made, "two", "--network", "quiet")
    one = address(made, "one", "quiet")
    assert reaches(made, "", one)
    assert not page(made, "two", one) and not pings(made, "two", one)
    made.docker("exec", "--privileged", "two", "ip", "route", "add", f"{one}/32", "via", address(made, "two", "quiet", "Gateway"))
    assert not page(made, "two", one), "over the bridge's address"
    assert reaches(made, "two", f"{address(made, 'two', 'quiet', 'Gateway')}:8084"), "published ports are for all"


def test_addresses_interfaces_and_routes_are_those_that_were_asked_for(made: EngineUnderTest) -> None:
    made.docker("network", "create", "--subnet", "10.201.0.0/24", "--ip-range", "10.201.0.128/25",
                "--aux-address", "printer=10.201.0.129", "one")  # fmt: skip
    made.docker("network", "create", "--subnet", "10.202.0.0/24", "--ipv6", "--subnet", "fd02::/64", "two")
    made.docker("run", "-d", "--name", "both", "--network", "name=one,ip=10.201.0.77,mac-address=02:42:00:00:00:77",
                "--network", "name=two,ip6=fd02::77,gw-priority=5,driver-opt=com.docker.network.endpoint.ifname=lan,"
                "\"driver-opt=com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.log_martians=1\"",
                "busybox", "sleep", "1000")  # fmt: skip
    links = made.docker("exec", "both", "ip", "addr")
    assert "10.201.0.77/24" in links and "fd02::77/64" in links and "lan@" in links and "02:42:00:00:00:77" in links
    assert made.docker("exec", "both", "ip", "route").startswith("default via 10.202.0.1 dev lan")
    assert made.docker("exec", "both", "cat", "/proc/sys/net/ipv4/conf/lan/log_martians") == "1"
    made.docker("run", "-d", "--name", "next", "--network", "one", "busybox", "sleep", "1000")
    assert address(made, "next", "one") == "10.201.0.130", "gateway and auxiliary address are passed over"
    made.docker("network", "disconnect", "two", "both")
    assert made.docker("exec", "both", "ip", "route").startswith("default via 10.201.0.128 dev eth0")
    refused = made.docker_result("run", "--rm", "--network", "one", "--ip", "10.201.0.77", "busybox", "true")
    assert refused.returncode == 125 and "Address already in use" in refused.stderr


def test_what_is_asked_of_an_interface_holds_for_one_that_comes_later_and_after_a_restart(made: EngineUnderTest) -> None:
    for name in ("alpha", "beta", "gamma"):
        made.docker("network", "create", "--ipv6", name)
    made.docker("run", "-d", "--name", "box", "--network", "beta", "--network", "alpha", "busybox", "sleep", "1000")
    made.docker("network", "connect", "--gw-priority", "7", "--driver-opt", "com.docker.network.endpoint.ifname=wan0",
                "--driver-opt", '"com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.log_martians=1,'
                'net.ipv6.conf.IFNAME.hop_limit=33"', "gamma", "box")  # fmt: skip

    def of(interface: str) -> set[str]:
        return set(made.docker("exec", "box", "ip", "-o", "addr", "show", interface, "scope", "global").split())

    for step in ("at once", "after a restart"):
        for interface, network in (("eth0", "beta"), ("eth1", "alpha"), ("wan0", "gamma")):
            assert f"{address(made, 'box', network)}/16" in of(interface), (step, interface)
            assert f"{address(made, 'box', network, 'GlobalIPv6Address')}/64" in of(interface), (step, interface)
        for flag, field in (("-4", "Gateway"), ("-6", "IPv6Gateway")):
            default = made.docker("exec", "box", "ip", flag, "route", "show", "default")
            assert f"via {address(made, 'box', 'gamma', field)} dev wan0" in default, step
        switches = made.docker("exec", "box", "cat", "/proc/sys/net/ipv4/conf/wan0/log_martians",
                               "/proc/sys/net/ipv6/conf/wan0/hop_limit", "/proc/sys/net/ipv4/conf/eth0/log_martians")  # fmt: skip
        assert switches.split() == ["1", "33", "0"], step
        made.docker("restart", "-t", "0", "box")
    made.docker("network", "disconnect", "gamma", "box")
    assert "dev wan0" not in made.docker("exec", "box", "ip", "route")
    assert f"via {address(made, 'box', 'alpha', 'Gateway')} dev eth1" in made.docker("exec", "box", "ip", "route")


def test_a_container_on_a_device_of_the_host_may_begin_anew_at_once(made: EngineUnderTest) -> None:
    subprocess.run(["ip", "link", "add", "lan0", "type", "veth", "peer", "name", "lan1"], check=True)
    try:
        for name in ("lan0", "lan1"):
            subprocess.run(["ip", "link", "set", name, "up"], check=True)
        made.docker("network", "create", "-d", "macvlan", "-o", "parent=lan0", "--subnet", "10.207.0.0/24", "lan")
        made.docker("network", "create", "front")
        made.docker("run", "-d", "--name", "box", "--network", "front", "--network", "lan", "busybox", "sleep", "1000")
        made.docker("run", "-d", "--name", "near", "--network", "lan", "--ip", "10.207.0.9", "busybox", "sleep", "1000")
        for again in (("restart", "-t", "0", "box"), ("network", "disconnect", "lan", "box"), ("network", "connect", "lan", "box")):
            made.docker(*again)
        for _ in range(2):
            # The hardware address follows from the address, and a device does not take one twice.
            made.docker("restart", "-t", "0", "box", "near")
            until(lambda: pings(made, "box", "10.207.0.9") and pings(made, "near", address(made, "box", "lan")), "they talk")
            made.kill_daemon()
        made.docker("rm", "-f", "box", "near")
        made.docker("network", "rm", "lan", "front")
    finally:
        subprocess.run(["ip", "link", "del", "lan0"], check=True)


def test_a_network_without_ipv4_is_reached_by_ipv6_and_published_in_both(made: EngineUnderTest) -> None:
    made.docker("network", "create", "--ipv4=false", "--ipv6", "--subnet", "fd06::/64", "six")
    run(made, "web", "--network", "six", "--network-alias", "site", "-p", "8094:80")
    run(made, "shop", "--network", "six", "--ip6", "fd06::77")
    shown = json.loads(made.docker("inspect", "-f", "{{json .NetworkSettings.Networks.six}}", "web"))
    assert (shown["IPAddress"], shown["GlobalIPv6Address"], shown["IPv6Gateway"]) == ("", "fd06::2", "fd06::1")
    assert reaches(made, "shop", "site") and reaches(made, "web", "[fd06::77]")
    assert "inet " not in made.docker("exec", "web", "ip", "addr", "show", "eth0")
    for host in ("127.0.0.1", "[::1]", "[fd06::1]"):
        assert reaches(made, "", f"{host}:8094"), host
    made.docker("network", "create", "--subnet", "10.208.0.0/24", "four")
    made.docker("network", "connect", "four", "web")
    run(made, "old", "--network", "four")
    assert reaches(made, "old", "web") and not page(made, "old", "[fd06::2]")


def test_link_local_addresses_are_reached_by_neighbours(made: EngineUnderTest) -> None:
    made.docker("network", "create", "local")
    made.docker("run", "-d", "--name", "one", "--network", "local", "--link-local-ip", "169.254.7.7", "busybox", "sleep", "1000")
    made.docker("run", "-d", "--name", "two", "busybox", "sleep", "1000")
    made.docker("network", "connect", "--link-local-ip", "169.254.7.8", "local", "two")
    until(lambda: pings(made, "one", "169.254.7.8") and pings(made, "two", "169.254.7.7"), "they talk")
    made.docker("restart", "-t", "0", "one")
    until(lambda: pings(made, "two", "169.254.7.7"), "they talk after a restart")
    assert "169.254.7.7" in made.docker("inspect", "-f", "{{json .NetworkSettings.Networks.local.IPAMConfig.LinkLocalIPs}}", "one")


def test_a_network_in_use_is_not_removed_and_one_without_users_is_pruned(made: EngineUnderTest) -> None:
    made.docker("network", "create", "used")
    made.docker("network", "create", "--label", "keep", "labelled")
    made.docker("network", "create", "free")
    run(made, "web", "--network", "used")
    refused = made.docker_result("network", "rm", "used")
    assert 'network used has active endpoints (name:"web" id:"' in refused.stderr
    would_go = made.barque("network", "prune", "--dry-run", "--filter", "label!=keep").split()
    assert would_go == ["Deleted", "Networks:", "free"] and made.docker("network", "ls", "-q", "--filter", "name=free")
    assert made.docker("network", "prune", "-f", "--filter", "label!=keep").split() == ["Deleted", "Networks:", "free"]
    assert set(made.docker("network", "ls", "-q", "--filter", "type=custom", "--no-trunc").split()) == {
        made.docker("network", "inspect", "-f", "{{.Id}}", name) for name in ("used", "labelled")
    }
    made.docker("rm", "-f", "web")
    made.docker("network", "rm", "used", "labelled")
    assert "br-" not in subprocess.run(["ip", "-br", "link"], capture_output=True, text=True).stdout


def test_a_network_that_no_container_is_in_gets_another_name(made: EngineUnderTest) -> None:
    identity = made.docker("network", "create", "--subnet", "10.206.0.0/24", "old")
    made.docker("network", "create", "taken")
    made.docker("create", "--name", "later", "--network", "old", "busybox", "true")

    def refused(*words: str) -> str:
        return made.run([sys.executable, "-m", "barque", "network", "rename", *words]).stderr

    assert "rename old: network is in use - [later]" in refused("old", "new")
    made.docker("rm", "later")
    for words, said in ((("old", "taken"), "network with name taken already exists"), (("old", " "), "name is empty"),
                        (("old", "host"), "not permitted on predefined host network"), (("none", "x"), "predefined none"),
                        (("nobody", "x"), "network nobody not found")):  # fmt: skip
        assert said in refused(*words)
    made.barque("network", "rename", "old", "new")
    assert made.docker("network", "inspect", "-f", "{{.Id}}", "new") == identity
    run(made, "web", "--network", "new")
    run(made, "shop", "--network", "new")
    assert reaches(made, "shop", "web.new") and address(made, "web", "new") == "10.206.0.2"
    made.kill_daemon()
    assert made.docker("network", "ls", "--filter", f"id={identity}", "--format", "{{.Name}}") == "new"


def test_a_configuration_network_gives_its_settings_to_others(made: EngineUnderTest) -> None:
    made.docker("network", "create", "--config-only", "--subnet", "10.203.0.0/24", "--label", "a=b", "settings")
    made.docker("network", "create", "--config-from", "settings", "user")
    shown = json.loads(made.docker("network", "inspect", "user"))[0]
    assert shown["IPAM"]["Config"] == [{"Subnet": "10.203.0.0/24", "Gateway": "10.203.0.1"}]
    assert (shown["Labels"], shown["ConfigFrom"]) == ({"a": "b"}, {"Network": "settings"})
    refused = made.docker_result("network", "rm", "settings")
    assert 'configuration network "settings" is in use' in refused.stderr
    started = made.docker_result("run", "--rm", "--network", "settings", "busybox", "true")
    assert "cannot create endpoint on configuration-only network" in started.stderr
    made.docker("network", "rm", "user", "settings")


def test_a_legacy_link_is_a_name_and_variables_and_follows_a_restart(made: EngineUnderTest) -> None:
    run(made, "db", "--expose", "80", "-e", "SECRET=x")
    run(made, "app", "--link", "db:store")
    assert reaches(made, "app", "store") and reaches(made, "app", "db")
    variables = made.docker("exec", "app", "env").splitlines()
    ip = address(made, "db", "bridge")
    assert f"STORE_PORT=tcp://{ip}:80" in variables and "STORE_ENV_SECRET=x" in variables
    assert made.docker("inspect", "-f", "{{.HostConfig.Links}}", "app") == "[/db:/app/store]"
    made.docker("stop", "-t", "0", "db")
    run(made, "other")
    made.docker("start", "db")
    assert address(made, "db", "bridge") != ip
    assert reaches(made, "app", "store")
    made.docker("rm", "--link", "app/store")
    assert made.docker("inspect", "-f", "{{.HostConfig.Links}}", "app") == "[]"


def _believed(engine: EngineUnderTest, name: str, ip: str) -> str:
    """Return the MAC address that a container takes for that of an address."""
    table = engine.docker("exec", name, "cat", "/proc/net/arp").splitlines()
    return next(line.split()[3] for line in table if line.split()[0] == ip)


def test_a_container_cannot_speak_for_another_where_that_is_forbidden(made: EngineUnderTest) -> None:
    made.docker("network", "create", "-o", "barque.network.anti_spoof=true", "--subnet", "10.204.0.0/24", "honest")
    made.docker("network", "create", "--subnet", "10.205.0.0/24", "loose")
    for network, works in (("honest", False), ("loose", True)):
        base = "10.204.0" if network == "honest" else "10.205.0"
        for name in ("liar", "victim", "other"):
            made.docker("run", "-d", "--name", f"{name}-{network}", "--network", network, "--cap-add", "NET_ADMIN",
                        "busybox", "sleep", "1000")  # fmt: skip
        assert pings(made, f"liar-{network}", f"{base}.4"), "its own address is fine"
        assert pings(made, f"other-{network}", f"{base}.3")
        victim = made.docker("inspect", "-f", f"{{{{.NetworkSettings.Networks.{network}.MacAddress}}}}", f"victim-{network}")
        assert _believed(made, f"other-{network}", f"{base}.3") == victim
        # It has the victim's address too, and tells everybody.
        made.docker("exec", f"liar-{network}", "ip", "addr", "add", f"{base}.3/24", "dev", "eth0")
        made.docker("exec", f"liar-{network}", "busybox", "arping", "-U", "-c", "3", "-I", "eth0", f"{base}.3", check=False)
        assert (_believed(made, f"other-{network}", f"{base}.3") != victim) is works
        made.docker("exec", f"liar-{network}", "ip", "addr", "del", f"{base}.3/24", "dev", "eth0")
        made.docker("exec", f"liar-{network}", "ip", "addr", "add", f"{base}.99/24", "dev", "eth0")
        assert pings(made, f"other-{network}", f"{base}.99") is works
        made.docker("exec", f"liar-{network}", "ip", "link", "set", "eth0", "down")
        made.docker("exec", f"liar-{network}", "ip", "link", "set", "eth0", "address", "02:42:00:00:00:99")
        made.docker("exec", f"liar-{network}", "ip", "link", "set", "eth0", "up")
        assert pings(made, f"liar-{network}", f"{base}.4") is works


# Says to all: "I am your router", or "this address is at this hardware address".
_SAY = """
import ipaddress, socket, struct, sys
kind, address, mac = sys.argv[1:]
router = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0)
neighbour = struct.pack("!BBHI", 136, 0, 0, 0x20000000) + ipaddress.ip_address(address).packed
neighbour += bytes((2, 1)) + bytes.fromhex(mac.replace(":", ""))
with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as sock:
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
    sock.sendto(router if kind == "router" else neighbour, ("ff02::1", 0, 0, socket.if_nametoindex("eth0")))
"""
_LISTENS_TO_ROUTERS = '"driver-opt=com.docker.network.endpoint.sysctls=net.ipv6.conf.IFNAME.accept_ra=1"'


def _inside(engine: EngineUnderTest, name: str, *words: str) -> str:
    """Run a command of the host in a container's network namespace."""
    pid = engine.docker("inspect", "-f", "{{.State.Pid}}", name)
    return str(engine.run(["nsenter", "-t", pid, "-n", *words], check=True).stdout)


@pytest.mark.parametrize("works", [False, True], ids=["forbidden", "allowed"])
def test_a_container_plays_neighbour_or_router_by_ipv6_only_where_that_is_not_forbidden(made: EngineUnderTest, works: bool) -> None:
    made.docker("network", "create", "--internal", "--ipv6", "-o", f"barque.network.anti_spoof={not works}", "town")
    for name in ("liar", "victim", "other"):
        made.docker("run", "-d", "--name", name, "--network", f"name=town,{_LISTENS_TO_ROUTERS}", "busybox", "sleep", "1000")
    victim, other = (address(made, name, "town", "GlobalIPv6Address") for name in ("victim", "other"))
    own = address(made, "liar", "town", "MacAddress")

    def believed() -> bool:
        """Tell whether the other one takes the liar for the victim, and for a router."""
        known = json.loads(_inside(made, "other", "ip", "-j", "-6", "neigh", "show", victim))[0].get("lladdr")
        way = _inside(made, "other", "ip", "-6", "route", "show", "default")
        assert (known == own) == ("via fe80:" in way)
        return known == own

    until(lambda: pings(made, "other", victim) and pings(made, "liar", other), "they talk")
    assert not believed()
    for kind in ("neighbour", "router"):
        _inside(made, "liar", sys.executable, "-c", _SAY, kind, victim, own)
    # What was sent before has been seen once this is answered.
    until(lambda: pings(made, "liar", other), "they talk still")
    assert believed() is works


def test_a_container_joins_a_network_namespace_by_its_path(made: EngineUnderTest) -> None:
    with subprocess.Popen(["unshare", "-n", "sleep", "60"]) as holder:
        try:
            path = f"/proc/{holder.pid}/ns/net"
            until(lambda: os.stat(path).st_ino != os.stat("/proc/self/ns/net").st_ino, "the namespace is there")
            assert made.docker("run", "--rm", "--network", f"ns:{path}", "busybox", "readlink", "/proc/self/ns/net") == os.readlink(path)
        finally:
            holder.kill()
    for mode, words in (("ns:/etc/passwd", "not a network namespace"), ("ns:/nosuch", "nothing is there"), ("ns:x", "not a")):
        refused = made.docker_result("run", "--rm", "--network", mode, "busybox", "true")
        assert refused.returncode == 125 and words in refused.stderr, (mode, refused.stderr)
