import ipaddress

import pytest
from hypothesis import given, strategies as st

from barque.base.errors import BarqueError, ForbiddenError, InvalidInputError
from barque.network import ipam


def test_addresses_are_handed_out_in_order_and_the_lowest_free_one_first():
    pool = ipam.Pool("172.17.0.0/16", gateway="172.17.0.1")
    assert [pool.take() for _ in range(3)] == ["172.17.0.2", "172.17.0.3", "172.17.0.4"]
    pool.give_back("172.17.0.3")
    pool.give_back("172.17.0.2")
    assert [pool.take() for _ in range(3)] == ["172.17.0.2", "172.17.0.3", "172.17.0.5"]


def test_network_broadcast_gateway_and_reserved_addresses_are_never_handed_out():
    pool = ipam.Pool("10.0.0.0/29", gateway="10.0.0.3", reserved=["10.0.0.5"])
    assert [pool.take() for _ in range(4)] == ["10.0.0.1", "10.0.0.2", "10.0.0.4", "10.0.0.6"]
    with pytest.raises(BarqueError):
        pool.take()


def test_a_range_bounds_the_addresses():
    pool = ipam.Pool("10.0.0.0/24", ip_range="10.0.0.128/30")
    assert [pool.take() for _ in range(4)] == [f"10.0.0.{n}" for n in range(128, 132)]
    with pytest.raises(BarqueError):
        pool.take()


@pytest.mark.parametrize(
    ("subnet", "more"),
    [
        ("nonsense", {}),
        ("10.0.0.0/24", {"gateway": "10.0.1.1"}),
        ("10.0.0.0/24", {"ip_range": "10.0.1.0/25"}),
        ("10.0.0.0/24", {"ip_range": "10.0.0.0/16"}),
        ("10.0.0.0/24", {"ip_range": "fd00::/64"}),
    ],
)
def test_a_pool_that_makes_no_sense_is_refused(subnet, more):
    with pytest.raises(InvalidInputError):
        ipam.Pool(subnet, **more)


def test_a_wanted_address_in_use_is_a_conflict_and_is_skipped_over():
    pool = ipam.Pool("10.0.0.0/24", gateway="10.0.0.1")
    assert pool.take("10.0.0.2") == "10.0.0.2"
    with pytest.raises(ForbiddenError, match="Address already in use"):
        pool.take("10.0.0.2")
    with pytest.raises(InvalidInputError):
        pool.take("10.0.9.2")
    assert pool.take() == "10.0.0.3"


def test_subnets_come_in_the_known_order_and_avoid_what_is_taken():
    assert ipam.choose_subnet(ipam.DEFAULT_POOLS, []) == "172.17.0.0/16"
    taken = ["172.17.3.0/24", "172.18.0.0/15", "192.168.0.0/24"]
    assert ipam.choose_subnet(ipam.DEFAULT_POOLS, taken) == "172.20.0.0/16"
    assert ipam.choose_subnet(ipam.DEFAULT_POOLS, ["172.16.0.0/12"]) == "192.168.0.0/20"
    with pytest.raises(InvalidInputError):
        ipam.choose_subnet([("10.0.0.0/24", 25)], ["10.0.0.0/8"])


def test_an_overlapping_subnet_is_refused():
    ipam.check_free("10.1.0.0/16", ["10.2.0.0/16", "fd00::/8"])
    with pytest.raises(ForbiddenError, match="Pool overlaps with other one"):
        ipam.check_free("10.1.0.0/16", ["10.1.4.0/24"])


def test_the_mac_address_follows_from_the_ip_address():
    assert ipam.mac_of("172.17.0.2") == "02:42:ac:11:00:02"


@given(
    st.integers(22, 29),
    st.lists(st.one_of(st.none(), st.integers(0, 40)), max_size=120),
)
def test_no_address_is_out_twice_and_each_is_the_lowest_free_one(size, steps):
    subnet = ipaddress.ip_network(("10.20.0.0", size))
    pool = ipam.Pool(str(subnet), gateway=str(subnet[1]))
    usable = [str(item) for item in list(subnet.hosts())[1:]]
    out: list[str] = []
    for step in steps:
        if step is not None and out:
            pool.give_back(out.pop(step % len(out)))
            continue
        free = [item for item in usable if item not in out]
        if not free:
            with pytest.raises(BarqueError):
                pool.take()
            continue
        got = pool.take()
        assert got == free[0]
        out.append(got)
    assert pool.used() == len(out)


def test_an_address_asked_for_again_and_again_leaves_nothing_behind():
    pool = ipam.Pool("10.0.0.0/24")
    assert [pool.take() for _ in range(9)][-1] == "10.0.0.9"
    for _ in range(100):
        pool.give_back("10.0.0.9")
        pool.take("10.0.0.9")
    assert len(pool._returned) <= 1
    pool.give_back("10.0.0.9")
    assert pool.take() == "10.0.0.9"
    assert pool.take() == "10.0.0.10"
