"""Runs in a virtual machine whose kernel has VLANs, ipvlan and SCTP: networks that other kernels refuse."""

import json
import socket
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import closing, contextmanager

from network_scenarios import Machine, published

from barque.base.errors import BarqueError
from barque.kernel.netlink import namespace, route
from barque.kernel.netlink.connection import Connection
from barque.kernel.netlink.namespace import Namespace
from barque.network.model import Subnet

_SCTP = 132
_PARENT = "out0"


@contextmanager
def neighbour() -> Iterator[Namespace]:
    """Give a namespace that plays a machine on the other end of the parent interface."""
    here, far = Connection(), namespace.create(ipv6=False)
    here.run([route.add_veth(_PARENT, "eth0", netns_fd=far.fd, master=0, mtu=1500)])
    add_address(far, "eth0", "192.0.2.1", 24)
    try:
        yield far
    finally:
        found = route.link(here, _PARENT)
        if found is not None:
            here.run([route.remove_link(found.ifindex)])
        far.close()


def add_address(space: Namespace, name: str, address: str, size: int) -> None:
    link = route.link(space.connection, name)
    assert link is not None
    space.connection.run([route.bring_up(link.ifindex), route.add_address(link.ifindex, address, size)])


def reaches(source: int, target: int, address: str, port: int = 80, protocol: int = 0, at: int = 80) -> str:
    """Connect from one namespace to a server in another; return the client's address as the server sees it, or ""."""
    with namespace.entered(target):
        server = socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol)
    with namespace.entered(source):
        client = socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol)
    with closing(server), closing(client):
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("0.0.0.0", at))
        server.listen()
        client.settimeout(4)
        try:
            client.connect((address, port))
        except OSError:
            return ""
        taken, peer = server.accept()
        with closing(taken):
            client.sendall(b"hello")
            return str(peer[0]) if taken.recv(10) == b"hello" else ""


def macvlan_on_a_vlan() -> None:
    with neighbour() as far, tempfile.TemporaryDirectory() as folder:
        eth0 = route.link(far.connection, "eth0")
        assert eth0 is not None
        far.connection.run([route.add_vlan("eth0.10", eth0.ifindex, 10), route.add_vlan("eth0.20", eth0.ifindex, 20)])
        add_address(far, "eth0.10", "192.0.10.1", 24)
        add_address(far, "eth0.20", "192.0.20.1", 24)
        machine = Machine(folder)
        machine.open()
        networks, places = [], {}
        for number in (10, 20):
            subnet = Subnet(f"192.0.{number}.0/24", "", f"192.0.{number}.1")
            networks.append(machine.network(f"v{number}", driver="macvlan", options={"parent": f"{_PARENT}.{number}"}, subnets=(subnet,)))
            places[number] = machine.run(f"box{number}", network=f"v{number}")
        twin = machine.run("twin", network="v10")
        for number, place in places.items():
            assert reaches(far.fd, place.netns_fd, place.ip) == f"192.0.{number}.1"
        assert reaches(twin.netns_fd, places[10].netns_fd, places[10].ip) == twin.ip, "on one VLAN"
        # Frames of another VLAN do not arrive, even where somebody has an address there.
        assert not reaches(twin.netns_fd, places[20].netns_fd, places[20].ip), "on another VLAN"
        for name in ("box10", "box20", "twin"):
            machine.manager.release(name * 8)
        for network in networks:
            machine.manager.remove(network)
        assert [item.name for item in route.links(Connection()) if "." in item.name] == [], "sub-interfaces are ours"
        machine.manager.close()


def ipvlan_in_its_modes() -> None:
    with neighbour() as far, tempfile.TemporaryDirectory() as folder:
        machine = Machine(folder)
        machine.open()
        subnet = Subnet("192.0.2.0/24", "192.0.2.128/25", "192.0.2.1")
        network = machine.network("flat", driver="ipvlan", options={"parent": _PARENT}, subnets=(subnet,))
        one, two = machine.run("one", network="flat"), machine.run("two", network="flat")
        assert one.mac == ""
        try:
            machine.run("wish", network="flat", mac="02:00:00:00:00:07")
        except BarqueError as error:
            assert "ipvlan interfaces do not support custom mac address assignment" in str(error)
        else:
            raise AssertionError("an interface that shares its parent's address")
        assert reaches(far.fd, one.netns_fd, one.ip) == "192.0.2.1"
        assert reaches(one.netns_fd, two.netns_fd, two.ip) == one.ip
        for name in ("one", "two"):
            machine.manager.release(name * 8)
        machine.manager.remove(network)
        options = {"parent": _PARENT, "ipvlan_mode": "l3"}
        network = machine.network("routed", driver="ipvlan", options=options, subnets=(Subnet("192.0.3.0/24"),))
        three = machine.run("three", network="routed")
        eth0 = route.link(far.connection, "eth0")
        assert eth0 is not None
        # The neighbour's way back leads to the parent.
        here = Connection()
        parent = route.link(here, _PARENT)
        assert parent is not None
        here.run([route.add_address(parent.ifindex, "192.0.2.9", 24)])
        far.connection.run([route.add_default_route(eth0.ifindex, "192.0.2.9")])
        assert reaches(three.netns_fd, far.fd, "192.0.2.1") == three.ip
        machine.manager.release("three" * 8)
        machine.manager.remove(network)
        machine.manager.close()


def sctp_is_published() -> None:
    with neighbour() as far, tempfile.TemporaryDirectory() as folder:
        here = Connection()
        link = route.link(here, _PARENT)
        assert link is not None
        here.run([route.add_address(link.ifindex, "192.0.2.2", 24)])
        machine = Machine(folder)
        machine.open()
        web = machine.run("web", {"80/sctp": published(8080)})
        assert reaches(far.fd, web.netns_fd, "192.0.2.2", 8080, _SCTP) == "192.0.2.1", "the source address is kept"
        try:
            machine.run("other", {"80/sctp": published(8080)})
        except BarqueError as error:
            assert "8080" in str(error)
        else:
            raise AssertionError("the port is taken")
        machine.manager.release("web" * 8)
        assert not reaches(far.fd, far.fd, "192.0.2.2", 8080, _SCTP)
        machine.manager.close()


CHECKS = (macvlan_on_a_vlan, ipvlan_in_its_modes, sctp_is_published)

if __name__ == "__main__":
    for check in CHECKS:
        failure = ""
        try:
            check()
        except Exception:
            failure = traceback.format_exc()
        print(json.dumps({"check": check.__name__, "failure": failure}), flush=True)
