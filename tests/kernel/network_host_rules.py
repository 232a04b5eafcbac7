"""Programs that test_network runs: published ports that obey the host's own rules for incoming packets; `<scenario>`."""

import os
import subprocess
import sys
import tempfile

from network_modes import DualContainer
from network_scenarios import Container, Machine, assert_clean, fetch, outside, published, sh

from barque.network.model import NetworkOptions, Subnet

UFW = """
table inet theirs {
    chain before { ct state established,related accept; ct state invalid drop; icmpv6 type != 255 accept;
                   udp sport 67 udp dport 68 accept; }
    chain user { tcp dport { 22, 8081 } accept; udp dport 5353 accept; ip saddr 198.51.100.3 tcp dport 8080 accept; }
    chain input { type filter hook input priority 0; policy drop; iif lo accept; jump before; jump user; }
    chain forward { type filter hook forward priority 0; policy drop; ct state established,related accept; }
    chain output { type filter hook output priority 0; policy accept; }
}
"""


def _state() -> list[str]:
    shown = sh("ip rule; ip -6 rule; ip route show table all; ip -6 route show table all; nft list tables")
    # The kernel's own come and go with the state of interfaces.
    return [line for line in shown.splitlines() if "table local" not in line and "proto kernel" not in line]


def source(folder: str) -> None:
    """Where the host's rules hold, laid out as ufw does it, containers see who asks; what they answer comes back."""
    far = outside()
    for at in (3, 4):
        sh(f"nsenter --net={far} ip addr add 198.51.100.{at}/24 dev eth0")
    sh(f"nft '{UFW}'")
    ours_before = _state()
    before = sh("nft list table inet theirs")
    machine = Machine(folder, NetworkOptions(firewall="respect-host"))
    machine.open()
    both = machine.network("both", ipv6=True, subnets=(Subnet("10.93.0.0/24"), Subnet("fd00:93::/64")))
    web = machine.run("web", {"80/tcp": [*published(8080), *published(8081)], "53/udp": published(5353)}, network=both.name)
    near = machine.run("near", network=both.name)
    served = DualContainer(web)
    four, six = "::ffff:198.51.100.2", "fd99::2"
    assert fetch("tcp", "198.51.100.1", 8081, far) == four
    assert fetch("tcp", "fd99::1", 8081, far) == six
    assert fetch("udp", "198.51.100.1", 5353, far) == "198.51.100.2 hello"
    assert not fetch("tcp", "198.51.100.1", 8080, far) and not fetch("tcp", "fd99::1", 8080, far), "the host's rules hold"
    other = subprocess.run(["nsenter", f"--net={far}", sys.executable, "-c", FROM, "198.51.100.3", "198.51.100.1", "8080"],
                           capture_output=True, text=True)  # fmt: skip
    assert other.stdout.strip() == "::ffff:198.51.100.3", "by the client's address, too"
    # Clients that the container answers without this machine are carried as before.
    assert fetch("tcp", "127.0.0.1", 8080) and fetch("tcp", "::1", 8080) and fetch("udp", "127.0.0.1", 5353)
    inside = f"/proc/{os.getpid()}/fd/{near.netns_fd}"
    assert fetch("tcp", web.gateway, 8081, inside) and fetch("tcp", web.gateway6, 8081, inside)
    assert fetch("tcp", web.gateway, 8081, served.netns), "its own port"
    sh("nft delete table inet barque_proxy")
    machine.manager._rules_touched = True
    assert machine.manager.mend() == ["the proxy's way back"]
    assert fetch("tcp", "198.51.100.1", 8081, far) == four
    served.kill()
    for name in ("web", "near"):
        machine.manager.release(name * 8)
    machine.manager.remove(both)
    machine.manager.close()
    assert sh("nft list table inet theirs") == before
    left = sorted(set(_state()) ^ set(ours_before))
    assert not left, f"left: {left}"
    sh("nft delete table inet theirs")
    assert_clean(folder)


FROM = """
import socket, sys
s = socket.create_connection((sys.argv[2], int(sys.argv[3])), 1, (sys.argv[1], 0)); print(s.recv(99).decode())
"""


def respect(folder: str) -> None:
    """Published ports obey the host's own rules for incoming packets, and nothing else changes."""
    far = outside()
    sh("nft 'table inet theirs { chain input { type filter hook input priority 0; policy drop; ct state established accept;"
       " iif lo accept; iifname \"barque*\" accept; tcp dport 8081 accept; };"
       " chain forward { type filter hook forward priority 0; policy drop; }; }'")  # fmt: skip
    before = sh("nft list table inet theirs")
    machine = Machine(folder, NetworkOptions(firewall="respect-host"))
    machine.open()
    web = machine.run("web", {"80/tcp": [*published(8080), *published(8081)], "53/udp": published(5353)})
    served = Container(web)
    assert not fetch("tcp", "198.51.100.1", 8080, far), "the host does not let it in"
    assert not fetch("udp", "198.51.100.1", 5353, far)
    assert fetch("tcp", "198.51.100.1", 8081, far), "the host lets it in, whatever others forward"
    assert fetch("tcp", "127.0.0.1", 8080) and fetch("tcp", "::1", 8080) and fetch("udp", "127.0.0.1", 5353)
    machine.manager.republish("web" * 8, ())
    assert not fetch("tcp", "127.0.0.1", 8081)
    served.kill()
    machine.manager.release("web" * 8)
    machine.manager.close()
    assert sh("nft list table inet theirs") == before
    sh("nft delete table inet theirs")
    assert_clean(folder)


if __name__ == "__main__":
    sh("ip link set lo up")
    with tempfile.TemporaryDirectory() as place:
        globals()[sys.argv[1]](place)
