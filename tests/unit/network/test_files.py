import pytest
from hypothesis import given, strategies as st

from barque.base.errors import InvalidInputError
from barque.network import files
from barque.network.files import Resolver
from barque.network.resolving import Upstream


def test_hosts_has_localhost_then_extra_names_then_the_own_one():
    text = files.hosts(["172.17.0.2"], ["web"], [("db", "10.0.0.9")])
    lines = text.splitlines()
    assert lines[0] == "127.0.0.1\tlocalhost"
    assert lines[1] == "::1\tlocalhost ip6-localhost ip6-loopback"
    assert lines[-2:] == ["10.0.0.9\tdb", "172.17.0.2\tweb"]


def test_a_host_name_with_a_domain_gives_both_names():
    assert files.own_names("web", "example.org") == ["web.example.org", "web"]
    assert files.own_names("web.example.org") == ["web.example.org", "web"]


def test_host_gateway_stands_for_the_bridge():
    assert files.extra_hosts(["up:host-gateway", "x:::1"], ["172.17.0.1"]) == [
        ("up", "172.17.0.1"),
        ("x", "::1"),
    ]
    with pytest.raises(InvalidInputError):
        files.extra_hosts(["up:host-gateway"])


@pytest.mark.parametrize("entry", ["", "name", ":1.2.3.4", "a b:1.2.3.4", "a:1.2.3", "a:"])
def test_a_wrong_extra_host_is_refused(entry):
    with pytest.raises(InvalidInputError):
        files.extra_hosts([entry])


def test_loopback_servers_of_the_host_are_left_out_and_defaults_stand_in():
    host = files.parse_resolver(
        "# made by hand\nnameserver 127.0.0.53\nnameserver 10.0.0.1\nnameserver fe80::1%eth0\n"
        "search a.example b.example\noptions edns0 trust-ad\n"
    )
    own = files.container_resolver(host, Resolver(), own_namespace=True, ipv6=False)
    assert own == Resolver(("10.0.0.1",), ("a.example", "b.example"), ("edns0", "trust-ad"))
    alone = files.container_resolver(Resolver(("127.0.0.53", "::1")), Resolver(), own_namespace=True, ipv6=False)
    assert alone.servers == files.DEFAULT_SERVERS
    shared = files.container_resolver(host, Resolver(), own_namespace=False, ipv6=True)
    assert shared.servers == host.servers


def test_wishes_win_over_the_host_and_a_dot_means_no_search():
    host = Resolver(("10.0.0.1",), ("a.example",), ("ndots:2",))
    wish = Resolver(("1.1.1.1",), (".",), ("ndots:5",))
    made = files.container_resolver(host, wish, own_namespace=True, ipv6=False)
    assert files.resolv_conf(made) == "nameserver 1.1.1.1\noptions ndots:5\n"


@given(st.text(max_size=300))
def test_any_text_is_read_as_a_resolver_file(text):
    host = files.parse_resolver(text)
    made = files.container_resolver(host, Resolver(), own_namespace=True, ipv6=True)
    assert files.parse_resolver(files.resolv_conf(made)).servers == made.servers != ()


def test_a_served_container_asks_the_name_server_which_asks_the_host_s_servers():
    host = Resolver(("127.0.0.53", "10.0.0.1"), ("corp.example",), ("edns0",))
    resolver, upstreams = files.served_resolver(host, Resolver())
    assert resolver == Resolver(("127.0.0.11",), ("corp.example",), ("edns0", "ndots:0"))
    assert upstreams == (Upstream("127.0.0.53", True), Upstream("10.0.0.1", True))
    assert files.served_resolver(host, Resolver(), inside=True)[1] == (
        Upstream("127.0.0.53", True),
        Upstream("10.0.0.1", False),
    )


def test_wishes_of_a_served_container_come_before_the_host():
    wish = Resolver(("9.9.9.9", "127.0.0.1", "127.0.0.11"), (".",), ("ndots:3",))
    resolver, upstreams = files.served_resolver(Resolver(("10.0.0.1",), ("x",), ("edns0",)), wish)
    assert resolver == Resolver(("127.0.0.11",), (), ("ndots:3",))
    assert upstreams == (Upstream("9.9.9.9", True), Upstream("127.0.0.1", False))


def test_the_file_of_a_served_container_can_be_read_again():
    resolver, upstreams = files.served_resolver(Resolver(("127.0.0.53",), ("a", "b"), ()), Resolver())
    text = files.served_resolv_conf(resolver, upstreams)
    assert files.parse_resolver(text) == resolver
    assert "# ExtServers: [host(127.0.0.53)]" in text
