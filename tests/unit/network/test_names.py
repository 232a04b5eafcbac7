from hypothesis import given, strategies as st

from barque.network.names import Entry, Found, Names


def entry(container: str, network: str, *names: str, ip: str = "", ip6: str = "", **more: object) -> Entry:
    return Entry(f"{container}-{network}", container, network, f"{network}-name", names, ip, ip6, **more)


def test_a_name_means_all_endpoints_that_bear_it_in_the_first_network_that_knows_it():
    names = Names()
    names.add(entry("a", "n1", "a", "web", ip="10.0.0.2"))
    names.add(entry("b", "n1", "b", "web", ip="10.0.0.3", ip6="fd00::3"))
    names.add(entry("b", "n2", "b", "web", ip="10.1.0.3"))
    names.add(entry("c", "n2", "c", ip="10.1.0.4"))
    assert names.lookup("WEB.", "a") == Found(("10.0.0.2", "10.0.0.3"), ("fd00::3",))
    assert names.lookup("web", "c") == Found(("10.1.0.3",), ())
    assert names.lookup("c", "a") is None, "another network"
    assert names.lookup("b.n2-name", "b") == Found(("10.1.0.3",), ())
    names.order("b", ["b-n2"])
    assert names.lookup("web", "b") == Found(("10.1.0.3",), ())


def test_a_removed_endpoint_is_gone_at_once_and_a_renamed_one_answers_to_its_new_name():
    names = Names()
    names.add(entry("a", "n", "a", "web", ip="10.0.0.2"))
    names.add(entry("b", "n", "b", "web", ip="10.0.0.3"))
    names.add(entry("b", "n", "new", "web", ip="10.0.0.3"))
    assert names.lookup("b", "a") is None
    assert names.lookup("new", "a") == Found(("10.0.0.3",), ())
    assert names.reverse("10.0.0.3", "a") == "new.n-name"
    names.remove("b-n")
    names.remove("b-n")
    assert names.lookup("web", "a") == Found(("10.0.0.2",), ())
    assert names.reverse("10.0.0.3", "a") is None


def test_a_link_is_a_name_for_one_container_alone():
    names = Names()
    names.add(entry("db", "n", "db", ip="10.0.0.2"))
    names.add(entry("web", "n", "web", ip="10.0.0.3", links={"Store": "db"}))
    assert names.lookup("store", "web") == Found(("10.0.0.2",), ())
    assert names.lookup("store", "db") is None


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.integers(0, 2), st.sampled_from("xyz")), max_size=40))
def test_the_registry_agrees_with_a_list_that_is_searched(steps):
    names, model = Names(), {}
    for adds, container, network, name in steps:
        made = entry(str(container), str(network), name, ip=f"10.{network}.0.{container}")
        if adds:
            names.add(made)
            model[made.endpoint_id] = made
        else:
            names.remove(made.endpoint_id)
            model.pop(made.endpoint_id, None)
        for asker in map(str, range(4)):
            mine = list(names.of_container(asker))
            assert {item.endpoint_id for item in mine} == {k for k, v in model.items() if v.container_id == asker}
            for wanted in "xyz":
                expected = None
                for own in mine:
                    hits = [v for v in model.values() if v.network_id == own.network_id and wanted in v.names]
                    if hits:
                        expected = {v.ip for v in hits}
                        break
                found = names.lookup(wanted, asker)
                assert (set(found.ip) if found else None) == expected


def test_names_and_networks_may_both_have_dots():
    names = Names()
    names.add(Entry("e", "c", "n", "my.net", ("a.b",), "10.0.0.2"))
    for name in ("a.b", "a.b.my.net", "A.B.My.Net."):
        assert names.lookup(name, "c") == Found(("10.0.0.2",), ())
    for name in ("a", "a.b.net", "a.b.my", "my.net", ""):
        assert names.lookup(name, "c") is None
