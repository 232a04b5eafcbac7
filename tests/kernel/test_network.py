import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces"),
]

_PROGRAM = Path(__file__).with_name("network_scenarios.py")
_MODES = Path(__file__).with_name("network_modes.py")
_DRIVERS = Path(__file__).with_name("network_drivers.py")
_HOST_RULES = Path(__file__).with_name("network_host_rules.py")
_SOURCE = Path(__file__).parents[2] / "src"


def _run(scenario: str, program: Path = _PROGRAM) -> None:
    done = subprocess.run(
        ["unshare", "-n", sys.executable, str(program), scenario],
        capture_output=True,
        text=True,
        timeout=100,
        env=os.environ | {"PYTHONPATH": str(_SOURCE)},
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_published_ports_are_reached_from_everywhere_they_should_and_nowhere_else() -> None:
    _run("reachability")


def test_containers_reach_the_outside_but_not_the_loopback_of_the_host() -> None:
    _run("outbound")


def test_two_engines_take_different_bridges_and_keep_their_containers_apart() -> None:
    _run("isolation")


def test_a_new_daemon_takes_over_endpoints_and_removes_what_nobody_uses() -> None:
    _run("restart")


def test_addresses_avoid_routes_of_the_host_and_the_lowest_free_one_comes_first() -> None:
    _run("addresses")


def test_an_ipv6_bridge_publishes_without_a_proxy() -> None:
    _run("ipv6")


def test_with_the_firewall_off_the_proxy_carries_and_nothing_of_the_machine_changes() -> None:
    _run("unchanged")


def test_a_failed_start_leaves_nothing_behind() -> None:
    _run("failures")


def test_gateway_modes_decide_who_reaches_a_container_at_its_own_address() -> None:
    _run("modes", _MODES)


def test_direct_routing_marks_and_trusted_interfaces_open_the_way() -> None:
    _run("direct", _MODES)


def test_published_ports_obey_the_hosts_rules_where_that_is_asked_for() -> None:
    _run("respect", _HOST_RULES)


def test_containers_see_who_asks_where_the_hosts_rules_hold() -> None:
    _run("source", _HOST_RULES)


def test_others_tables_that_drop_are_told_of_and_left_alone() -> None:
    _run("coexist", _MODES)


def test_datagrams_of_one_flow_find_the_container_that_has_the_port_now() -> None:
    _run("flows", _MODES)


def test_a_machine_keeps_the_router_that_it_learned_of() -> None:
    _run("routers", _MODES)


def test_macvlan_containers_are_neighbours_of_the_hosts_network() -> None:
    _run("macvlan", _DRIVERS)


def test_macvlan_modes_decide_who_reaches_whom() -> None:
    _run("macvlan_modes", _DRIVERS)


def test_engines_that_know_each_other_share_a_network() -> None:
    _run("overlay", _DRIVERS)


def test_two_daemons_do_not_take_each_others_subnets() -> None:
    _run("same_subnet", _MODES)


def test_a_network_that_is_full_says_so() -> None:
    _run("full", _MODES)


def test_a_container_finds_no_way_into_another_network() -> None:
    _run("escape", _MODES)
