import ipaddress

import pytest
from hypothesis import given, strategies as st

from barque.base.errors import BarqueError, ForbiddenError, InvalidInputError
from barque.network import ipam, subnets
from barque.network.drivers.overlay import part_of
from barque.network.model import Network, Subnet
from barque.network.subnets import Addresses, Taken, fill

POOLS = [*ipam.DEFAULT_POOLS, subnets.unique_local_pool("machine")]


def network(*listed: Subnet, ipv4: bool = True, ipv6: bool = False) -> Network:
    return Network("f" * 64, "net", "bridge", 0, ipv4=ipv4, ipv6=ipv6, subnets=listed)


def test_a_network_gets_the_first_free_subnet_and_its_first_address_as_gateway():
    made = fill(network(), POOLS, Taken(("172.17.0.0/16",), ("172.18.4.0/24",)))
    assert made.subnets == (Subnet("172.19.0.0/16", gateway="172.19.0.1", chosen=True),)


def test_both_versions_come_of_their_own_pools():
    made = fill(network(ipv6=True), POOLS, Taken())
    four, six = made.subnets
    assert four.subnet == "172.17.0.0/16"
    assert ipaddress.ip_network(six.subnet).prefixlen == 64 and six.subnet.startswith("fd")
    assert fill(network(ipv4=False, ipv6=True), POOLS, Taken()).subnets == (six,)


def test_a_subnet_of_a_size_is_cut_of_the_pools():
    assert fill(network(Subnet("0.0.0.0/28")), POOLS, Taken()).subnets[0].subnet == "172.17.0.0/28"


def test_an_overlap_with_a_network_is_refused_and_one_with_a_route_is_told():
    asked = network(Subnet("10.1.0.0/16"))
    with pytest.raises(ForbiddenError, match="Pool overlaps with other one on this address space"):
        fill(asked, POOLS, Taken(("10.1.4.0/24",)))
    made = fill(asked, POOLS, Taken((), ("10.1.4.0/24",)))
    assert subnets.overlapped(made, ["10.1.4.0/24", "10.2.0.0/24"]) == [("10.1.0.0/16", "10.1.4.0/24")]


def test_the_gateway_comes_of_the_range_and_not_of_what_is_kept_free():
    asked = Subnet("10.0.0.0/24", ip_range="10.0.0.128/25", auxiliary={"a": "10.0.0.128"})
    assert fill(network(asked), POOLS, Taken()).subnets[0].gateway == "10.0.0.129"
    assert fill(network(asked), POOLS, Taken(), gateways=(False, False)).subnets[0].gateway == ""


def test_full_pools_are_told():
    with pytest.raises(InvalidInputError, match="all predefined address pools have been fully subnetted"):
        fill(network(), [("10.0.0.0/24", 25)], Taken(("10.0.0.0/25", "10.0.0.128/25")))


def test_a_thousand_networks_each_get_a_subnet_of_their_own():
    taken: list[str] = []
    for _ in range(1000):
        made = fill(network(ipv6=True), [("10.0.0.0/8", 24), subnets.unique_local_pool("x")], Taken(tuple(taken)))
        taken += [item.subnet for item in made.subnets]
    assert len(set(taken)) == 2000
    assert taken[-2] == "10.3.231.0/24"


def test_subnets_of_a_family_are_used_up_one_after_another():
    made = network(Subnet("10.0.0.0/30", gateway="10.0.0.1"), Subnet("10.1.0.0/30", gateway="10.1.0.1"))
    pools = Addresses(made)
    assert [pools.take(4)[0] for _ in range(2)] == ["10.0.0.2", "10.1.0.2"]
    assert pools.take(6) is None
    with pytest.raises(BarqueError, match=r"no available IPv4 addresses on this network's address pools: net \(f+\)"):
        pools.take(4)
    pools.give_back("10.1.0.2")
    with pytest.raises(ForbiddenError, match="Address already in use"):
        pools.take(4, "10.0.0.2")
    assert pools.take(4, "10.1.0.2")[0] == "10.1.0.2"
    with pytest.raises(InvalidInputError, match=r"no configured subnet or ip-range contain the IP address 10\.9\.0\.1"):
        pools.take(4, "10.9.0.1")
    assert pools.usage() == [("10.0.0.0/30", 4, 0), ("10.1.0.0/30", 4, 0)]


def test_engines_of_an_overlay_share_a_subnet_without_sharing_an_address():
    parts = [part_of(Subnet("10.0.0.0/24"), at, 3) for at in range(3)]
    spans = [ipaddress.ip_network(item.ip_range) for item in parts]
    assert [str(item) for item in spans] == ["10.0.0.0/26", "10.0.0.64/26", "10.0.0.128/26"]
    gateways = {fill(network(item), POOLS, Taken()).subnets[0].gateway for item in parts}
    assert gateways == {"10.0.0.1", "10.0.0.64", "10.0.0.128"}
    with pytest.raises(InvalidInputError):
        part_of(Subnet("10.0.0.0/30"), 0, 3)


@st.composite
def asked_subnets(draw) -> Subnet:
    size = draw(st.integers(8, 32))
    subnet = ipaddress.ip_network((draw(st.integers(0x0A000000, 0x0AFFFFFF)), size), strict=False)
    inner = draw(st.integers(size, 32))
    first = int(subnet[0]) + (draw(st.integers(0, 7)) << (32 - inner))
    span = ipaddress.ip_network((min(first, int(subnet[-1])), inner), strict=False)
    aux = {str(n): str(subnet[n % subnet.num_addresses]) for n in draw(st.lists(st.integers(0, 9), max_size=3))}
    return Subnet(str(subnet), str(span) if draw(st.booleans()) else "", "", aux)


@given(asked_subnets(), st.lists(asked_subnets(), max_size=4))
def test_gateways_and_addresses_are_of_the_range_and_never_kept_ones(asked, others):
    try:
        made = fill(network(asked), POOLS, Taken(tuple(item.subnet for item in others)))
    except BarqueError:
        return
    (item,) = made.subnets
    subnet, span = ipaddress.ip_network(item.subnet), ipaddress.ip_network(item.ip_range or item.subnet)
    assert not any(subnet.overlaps(ipaddress.ip_network(other.subnet)) for other in others)
    pools, seen = Addresses(made), {item.gateway, *item.auxiliary.values()}
    for _ in range(5):
        try:
            address = pools.take(4)[0]
        except BarqueError:
            break
        assert address not in seen and ipaddress.ip_address(address) in span
        if subnet.prefixlen < 31:
            assert ipaddress.ip_address(address) not in (subnet.network_address, subnet.broadcast_address)
        seen.add(address)


@given(st.lists(st.tuples(st.integers(0, 255), st.integers(9, 18)), max_size=20), st.integers(9, 18))
def test_the_first_free_subnet_is_the_first_that_a_search_of_all_finds(busy, size):
    taken = [str(ipaddress.ip_network(((10 << 24) + (number << 16), wide), strict=False)) for number, wide in busy]
    whole = ipaddress.ip_network("10.0.0.0/8")
    used = [ipaddress.ip_network(item) for item in taken]
    free = (item for item in whole.subnets(new_prefix=size) if not any(item.overlaps(other) for other in used))
    expected = next(free, None)
    if expected is None:
        with pytest.raises(InvalidInputError):
            ipam.choose_subnet([("10.0.0.0/8", size)], taken)
    else:
        assert ipam.choose_subnet([("10.0.0.0/8", size)], taken) == str(expected)
