import pytest
from hypothesis import given, strategies as st

from barque.base.errors import BarqueError, ForbiddenError, InvalidInputError, NotFoundError
from barque.network import request
from barque.network.model import Network, Subnet


def parse(**config) -> Network:
    return request.parse({"Name": "net", **config}, "f" * 64, 1)


def test_a_request_without_wishes_is_a_bridge_with_ipv4():
    made = parse()
    assert (made.driver, made.ipv4, made.ipv6, made.ipam_options, made.subnets) == ("bridge", True, False, None, ())


def test_options_may_switch_the_ip_versions_and_the_fields_win():
    key = "com.docker.network.enable_ipv6"
    assert parse(Options={key: "true"}).ipv6
    made = parse(Options={key: "true"}, EnableIPv6=False)
    assert not made.ipv6 and key not in made.options
    with pytest.raises(InvalidInputError, match=f'driver-opt "{key}" is not a valid bool'):
        parse(Options={key: "yes"})


def test_options_of_the_daemon_hold_where_a_request_says_nothing():
    mtu, six = "com.docker.network.driver.mtu", "com.docker.network.enable_ipv6"
    defaults = {"bridge": {mtu: "1400", six: "true"}, "macvlan": {"parent": "eth0"}}

    def made(**config: object) -> Network:
        return request.parse({"Name": "net", **config}, "f" * 64, 1, defaults)

    assert made().options == {mtu: "1400", six: "true"} and made().ipv6
    assert made(Options={mtu: "9000"}, EnableIPv6=False).options == {mtu: "9000"}
    assert made(Driver="macvlan").options == {"parent": "eth0"}
    assert made(ConfigOnly=True).options == made(ConfigFrom={"Network": "x"}).options == {}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"Subnet": "10.0.0.1/24"}, "invalid subnet 10.0.0.1/24: it should be 10.0.0.0/24"),
        ({"Subnet": "10.0.0.0"}, "invalid subnet 10.0.0.0: invalid CIDR block notation"),
        ({"Subnet": "x/24"}, "invalid subnet x/24: invalid CIDR block notation"),
        ({"Subnet": "10.0.0.0/24", "Gateway": "10.0.1.1"},
         "invalid gateway 10.0.1.1: parent subnet 10.0.0.0/24 doesn't contain this address"),
        ({"Subnet": "10.0.0.0/24", "Gateway": "fd00::1"}, "invalid gateway fd00::1: parent subnet is an IPv4 block"),
        ({"Subnet": "10.0.0.0/24", "Gateway": "router"}, "invalid gateway router: invalid address"),
        ({"Subnet": "10.0.0.0/24", "IPRange": "10.0.0.0/16"},
         "invalid ip-range 10.0.0.0/16: CIDR block is bigger than its parent subnet 10.0.0.0/24"),
        ({"Subnet": "10.0.0.0/24", "IPRange": "10.0.1.0/25"},
         "invalid ip-range 10.0.1.0/25: parent subnet 10.0.0.0/24 doesn't contain ip-range"),
        ({"Subnet": "10.0.0.0/24", "IPRange": "fd00::/64"},
         "invalid ip-range fd00::/64: parent subnet is an IPv4 block"),
        ({"Subnet": "10.0.0.0/24", "AuxiliaryAddresses": {"printer": "10.9.0.1"}},
         "invalid auxiliary address printer: parent subnet 10.0.0.0/24 doesn't contain this address"),
        ({"IPRange": "10.0.0.0/24"}, "invalid subnet : invalid CIDR block notation"),
    ],
)  # fmt: skip
def test_a_subnet_that_makes_no_sense_is_refused_in_dockers_words(config, words):
    with pytest.raises(InvalidInputError) as caught:
        parse(IPAM={"Config": [config]}, EnableIPv6=True)
    assert str(caught.value) == f"invalid network config:\n{words}"


def test_several_mistakes_are_told_at_once():
    with pytest.raises(InvalidInputError) as caught:
        parse(IPAM={"Config": [{"Subnet": "10.0.0.1/24", "Gateway": "10.9.0.1"}]})
    assert str(caught.value).count("\n* ") == 2


@pytest.mark.parametrize(
    ("config", "error", "words"),
    [
        ({"Name": " "}, InvalidInputError, "name is empty"),
        ({"Name": "bridge"}, ForbiddenError, "operation is not permitted on predefined bridge network"),
        ({"Driver": "weave"}, NotFoundError, 'plugin "weave" not found'),
        ({"Driver": "host"}, ForbiddenError, 'only one instance of "host" network is allowed'),
        ({"Scope": "swarm"}, ForbiddenError, "swarm is not active"),
        ({"Ingress": True}, ForbiddenError, "Ingress network can only be global"),
        ({"IPAM": {"Driver": "dhcp"}}, NotFoundError, 'plugin "dhcp" not found'),
        ({"ConfigOnly": True, "Internal": True}, ForbiddenError, "network specific fields"),
        ({"ConfigOnly": True, "ConfigFrom": {"Network": "x"}}, ForbiddenError, "cannot depend on another"),
        ({"ConfigFrom": {"Network": "x"}, "Labels": {"a": "b"}}, ForbiddenError, "user-specified configurations"),
        ({"ConfigFrom": {"Network": "x"}, "Options": {"a": "b"}}, ForbiddenError, "network driver options are not"),
    ],
)
def test_what_may_not_be_is_refused(config, error, words):
    with pytest.raises(error, match=words):
        parse(**config)


def test_a_network_survives_its_row():
    made = parse(
        EnableIPv6=True, Internal=True, Labels={"a": "b"}, Options={"x": "y"},
        IPAM={"Options": {}, "Config": [{"Subnet": "10.0.0.0/24", "AuxiliaryAddresses": {"p": "10.0.0.9"}}]},
    )  # fmt: skip
    assert made.subnets == (Subnet("10.0.0.0/24", auxiliary={"p": "10.0.0.9"}),)
    assert request.from_row(request.to_row(made)) == made


texts = st.text(max_size=12) | st.sampled_from(["10.0.0.0/24", "fd00::/64", "10.0.0.1", "::/0", "0.0.0.0/0", "1.2.3.4/33"])


@given(st.lists(st.fixed_dictionaries({}, optional={"Subnet": texts, "IPRange": texts, "Gateway": texts,
                                                    "AuxiliaryAddresses": st.dictionaries(texts, texts, max_size=2)}),
                max_size=3), texts, st.booleans())  # fmt: skip
def test_any_request_is_read_or_refused_plainly(configs, name, ipv6):
    try:
        made = parse(Name=name, EnableIPv6=ipv6, IPAM={"Config": configs})
    except BarqueError as error:
        assert str(error)
    else:
        assert request.from_row(request.to_row(made)) == made
