"""The firewall's table where there are many networks and ports."""

import errno
import subprocess
from collections.abc import Iterator

import pytest

from barque.base.errors import KernelError
from barque.kernel import nft
from barque.kernel.netlink.connection import NETLINK_NETFILTER, Connection
from barque.network.firewall import BridgeRules, Firewall, Forward
from barque.network.model import PortBinding
from under_test import needs_root

pytestmark = pytest.mark.kernel

_TABLE = "barque_many"


@pytest.fixture
def firewall() -> Iterator[Firewall]:
    needs_root()
    made = Firewall(_TABLE)
    yield made
    made.remove()
    made.close()


def _count(name: str) -> int:
    shown = subprocess.run(["nft", "list", "set", "inet", _TABLE, name], capture_output=True, text=True)
    if shown.returncode:
        shown = subprocess.run(["nft", "list", "map", "inet", _TABLE, name], capture_output=True, text=True, check=True)
    elements = shown.stdout.partition("elements = {")[2].partition("}")[0]
    return elements.count(",") + bool(elements.strip())


def _forward(number: int) -> Forward:
    target = f"10.{number >> 8 & 255}.{number & 255}.2"
    return Forward(PortBinding(80, "tcp", "0.0.0.0", 1000 + number), target)


def test_a_thousand_networks_and_five_thousand_ports_are_built_anew_in_one_step(firewall: Firewall) -> None:
    bridges = [BridgeRules(f"br-{number:012x}", addresses=(f"10.{number >> 8}.{number & 255}.1",)) for number in range(1000)]
    forwards = [_forward(number) for number in range(5000)]
    for _ in range(2):
        firewall.rebuild(bridges, forwards)
    assert firewall.is_whole()
    assert (_count("bridges"), _count("gate4"), _count("dnat4_any"), _count("self4")) == (1000, 1000, 5000, 5000)
    with pytest.raises(KernelError) as refused:
        firewall.add_forwards([*map(_forward, range(5000, 9000)), Forward(PortBinding(80, "tcp", "0.0.0.0", 1000), "10.9.9.9")])
    assert refused.value.errno == errno.EEXIST
    assert _count("dnat4_any") == 5000, "all or none"
    firewall.remove_forwards(forwards[:4000], forwards[4000:])
    assert _count("dnat4_any") == _count("self4") == 1000


def test_what_is_left_of_a_port_that_somebody_took_out_in_part_is_removed(firewall: Firewall) -> None:
    firewall.rebuild([], [_forward(1), _forward(2)])
    subprocess.run(["nft", "flush", "set", "inet", _TABLE, "self4"], check=True)
    with pytest.raises(KernelError) as told:
        firewall.remove_forwards([_forward(1)])
    assert told.value.errno == errno.ENOENT
    assert _count("dnat4_any") == 1, "the next container may have the port"


def test_more_failures_than_the_socket_holds_are_one_failure(firewall: Firewall) -> None:
    connection = Connection(NETLINK_NETFILTER)
    requests = [nft.remove_elements("barque_nowhere", "none", [b"x"])] * 5000
    for _ in range(2):
        with pytest.raises(KernelError) as refused:
            connection.transact(requests)
        assert refused.value.errno == errno.ENOENT
    connection.transact([nft.add_table(_TABLE)])
    connection.close()
