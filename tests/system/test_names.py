"""Names between containers on a real engine: over changes, restarts, and the deaths of daemon and name server."""

import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from under_test import EngineUnderTest, until

pytestmark = pytest.mark.system


def name_servers(engine: EngineUnderTest) -> list[int]:
    """Return the pids of the engine's name server processes."""
    mark = f"{engine.root}/exec/dns.sock"
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                words = (folder / "cmdline").read_bytes().decode().split("\0")
            except OSError:
                continue
            if mark in words:
                found.append(int(folder.name))
    return found


def addresses(engine: EngineUnderTest, container: str, name: str) -> list[str]:
    """Return what a name means in a container."""
    script = f"nslookup {name} 127.0.0.11 2>/dev/null | sed -n '4,$s/^Address: *//p' | sort"
    return engine.docker("exec", container, "sh", "-c", script).split()


def sleeper(engine: EngineUnderTest, name: str, *flags: str) -> str:
    """Start a container that sleeps; return its address in its only network."""
    engine.docker("run", "-d", "--name", name, *flags, "busybox", "sleep", "1000")
    return engine.docker("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", name)


@pytest.fixture
def tidy(engine: EngineUnderTest):
    yield
    for kind, listed in (("container", engine.docker("ps", "-aq").split()),
                         ("network", engine.docker("network", "ls", "-q", "--filter", "type=custom").split())):  # fmt: skip
        if listed:
            engine.docker(kind, "rm", "-f", *listed)


def test_a_container_that_was_stopped_is_never_named_again(engine, tidy):
    engine.docker("network", "create", "names")
    sleeper(engine, "asker", "--network", "names")
    pid = engine.docker("inspect", "-f", "{{.State.Pid}}", "asker")
    script = (
        "import socket,sys\n"
        "s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM);s.settimeout(5);s.connect(('127.0.0.11',53))\n"
        "q=bytes.fromhex('0001010000010000000000000377656200')+bytes((0,1,0,1))\n"
        "for line in sys.stdin:\n s.send(q);print(int.from_bytes(s.recv(999)[6:8],'big'),flush=True)\n"
    )
    asking = subprocess.Popen(["nsenter", "-t", pid, "-n", "python3", "-c", script], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True, bufsize=1)  # fmt: skip

    def known() -> int:
        asking.stdin.write("\n")
        return int(asking.stdout.readline())

    with asking:
        for number in range(5):
            sleeper(engine, f"web{number}", "--network", "names", "--network-alias", "web")
            assert known() == 1
            engine.docker(*(["kill", f"web{number}"] if number % 2 else ["network", "disconnect", "names", f"web{number}"]))
            assert known() == 0
        asking.stdin.close()


def test_one_alias_of_many_containers_gives_all_of_them(engine, tidy):
    engine.docker("network", "create", "--subnet", "10.201.0.0/24", "names")
    count = 24
    line = "docker run -d --name bearer-N --network names --network-alias all busybox sleep 1000"
    engine.run(["sh", "-c", f"seq {count} | xargs -P 4 -I N {line}"], check=True)
    found = addresses(engine, "bearer-1", "all")
    assert len(set(found)) == count
    script = "nslookup all 127.0.0.11 | sed -n '4,$s/^Address: *//p' | head -1"
    first = {engine.docker("exec", "bearer-1", "sh", "-c", script) for _ in range(6)}
    assert len(first) > 1, "the same one comes first every time"


def test_servers_search_list_and_options_come_from_flags(engine, tidy):
    engine.docker("network", "create", "names")
    answer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with answer:
        answer.bind(("127.0.5.3", 53))
        answer.settimeout(10)
        asking = subprocess.Popen(
            ["docker", "run", "--rm", "--network", "names", "--dns", "127.0.5.3", "busybox", "nslookup", "a.example"],
            env=engine.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        # A loopback address that the user names is the container's own: the host is not asked.
        asking.wait(30)
        answer.setblocking(False)
        with pytest.raises(BlockingIOError):
            answer.recv(512)
    text = engine.docker("run", "--rm", "--network", "names", "--dns-search", "a.example", "--dns-option", "timeout:1",
                         "--add-host", "up:host-gateway", "busybox", "cat", "/etc/resolv.conf", "/etc/hosts")  # fmt: skip
    assert "nameserver 127.0.0.11\nsearch a.example\noptions timeout:1 ndots:0" in text
    gateway = engine.docker("network", "inspect", "-f", "{{range .IPAM.Config}}{{.Gateway}}{{end}}", "bridge")
    assert f"{gateway}\tup" in text


def test_a_resolv_conf_that_was_edited_stays_so(engine, tidy):
    engine.docker("network", "create", "names")
    engine.docker("network", "create", "more")
    for name in ("edited", "plain"):
        sleeper(engine, name)
    engine.docker("exec", "edited", "sh", "-c", "echo '# mine' >> /etc/resolv.conf")
    for name in ("edited", "plain"):
        engine.docker("network", "connect", "names", name)
    assert "127.0.0.11" not in engine.docker("exec", "edited", "cat", "/etc/resolv.conf")
    assert "127.0.0.11" in engine.docker("exec", "plain", "cat", "/etc/resolv.conf")
    assert addresses(engine, "edited", "plain"), "the name server is there nevertheless"


def test_names_live_through_the_death_of_the_daemon_and_changes_meanwhile(own_engine):
    own_engine.docker("network", "create", "names")
    sleeper(own_engine, "asker", "--network", "names")
    web = sleeper(own_engine, "web", "--network", "names", "--network-alias", "www")
    gone = sleeper(own_engine, "gone", "--network", "names")
    assert addresses(own_engine, "asker", "gone") == [gone]
    pids = {name: own_engine.docker("inspect", "-f", "{{.State.Pid}}", name) for name in ("asker", "gone")}
    servers = name_servers(own_engine)
    assert len(servers) == 1
    daemon = own_engine.pid
    os.kill(daemon, signal.SIGSTOP)
    os.kill(daemon, signal.SIGKILL)
    asked = subprocess.run(
        ["nsenter", "-t", pids["asker"], "-n", "busybox", "nslookup", "www", "127.0.0.11"],
        capture_output=True, text=True, timeout=10,
    )  # fmt: skip
    assert web in asked.stdout, "names are answered while no daemon is there"
    os.kill(int(pids["gone"]), signal.SIGKILL)
    own_engine.process.wait()
    own_engine.process = None
    until(lambda: (own_engine.root / "barque.pid").exists() and own_engine.pid != daemon)
    own_engine.wait_ready()
    own_engine.adopt()
    assert name_servers(own_engine) == servers, "the next daemon takes the name server over"
    assert addresses(own_engine, "asker", "www") == [web]
    assert addresses(own_engine, "asker", "gone") == []
    new = sleeper(own_engine, "new", "--network", "names")
    assert addresses(own_engine, "web", "new") == [new]


def test_a_killed_name_server_comes_back_with_every_name(own_engine):
    own_engine.docker("network", "create", "names")
    sleeper(own_engine, "asker", "--network", "names")
    web = sleeper(own_engine, "web", "--network", "names")
    (first,) = name_servers(own_engine)
    os.kill(first, signal.SIGKILL)
    assert addresses(own_engine, "asker", "web") == [web], "the question waits for the next one"
    (second,) = name_servers(own_engine)
    assert first != second
    new = sleeper(own_engine, "new", "--network", "names")
    assert addresses(own_engine, "asker", "new") == [new]


def test_no_name_server_is_left_behind_and_none_started_without_need(own_engine):
    sleeper(own_engine, "plain")
    assert name_servers(own_engine) == []
    own_engine.docker("network", "create", "names")
    sleeper(own_engine, "named", "--network", "names")
    assert len(name_servers(own_engine)) == 1
    own_engine.docker("rm", "-f", "plain", "named")
    own_engine.stop()
    until(lambda: not name_servers(own_engine))
    own_engine.start()
