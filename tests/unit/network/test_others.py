from barque.network.others import Dropping, warning

_UFW = Dropping("ip", "filter", "FORWARD", "ufw route allow out on {0}", (b"\x01br-1\0\0", b"barque01\0"))
_FIREWALLD = Dropping("inet", "firewalld", "filter_FORWARD", "firewall-cmd --add-interface={0}")


def test_a_chain_knows_the_bridges_that_its_rules_name_in_full():
    assert _UFW.knows("br-1") and _UFW.knows("barque01")
    assert not _UFW.knows("barque0") and not _UFW.knows("br-")


def test_a_warning_names_the_chain_what_is_closed_and_what_to_do():
    text = warning(_UFW, ["br-2", "br-3", "br-4"], forwarded=True)
    assert text.startswith("the chain FORWARD of the table ip filter drops forwarded packets")
    assert "containers of br-2 reach other machines, and other machines their published ports, only" in text
    assert text.endswith("(ufw route allow out on br-2; so for br-3, br-4)")


def test_ports_are_not_told_closed_where_they_are_open():
    for chain, forwarded in ((_UFW, False), (_FIREWALLD, True)):
        assert "published ports" not in warning(chain, ["br-2"], forwarded=forwarded)
