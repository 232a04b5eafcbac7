import socket
from types import SimpleNamespace

import pytest
from hypothesis import given, strategies as st

from barque.network.dns import wire
from barque.network.dns.cache import LONGEST_NEGATIVE_S, LONGEST_S, Cache
from barque.network.dns.health import Health
from barque.network.dns.local import CountedNames, LocalNames, Settings
from barque.network.names import Entry

pytest.importorskip("dns", reason="dnspython is not installed")
import dns.flags
import dns.message
import dns.reversename


def names_of(*entries, keeps_short=False):
    names = CountedNames()
    names.add(Entry("me", "me", "n1", "net", ("me",), "10.0.0.2"))
    for number, entry in enumerate(entries):
        names.add(entry._replace(endpoint_id=f"e{number}"))
    return names, LocalNames(names, "me", Settings((), keeps_short))


def web(number=0, **changed):
    return Entry("", f"c{number}", "n1", "net", ("web", f"c{number}"), f"10.0.1.{number}")._replace(**changed)


def ask(local, name, kind="A", limit=None, **settings):
    """Ask twice, as the second answer comes from memory; both are the same but for their order."""
    found = []
    for _ in range(2):
        data = dns.message.make_query(name, kind, **settings).to_wire()
        query = wire.read_query(data)
        quick = local.quick(data)
        answer = quick or local.answer(query, limit or query.limit, data)
        if answer is None:
            return None
        found.append(dns.message.from_wire(answer))
        assert found[-1].id == query.ident
    if not found[0].flags & dns.flags.TC:
        assert addresses(found[0]) == addresses(found[1])
    return found[0]


def addresses(message):
    return sorted(item.to_text() for rrset in message.answer for item in rrset)


@pytest.mark.parametrize("name", ["web", "WEB", "web.net", "c0", "c0.Net", "web."])
def test_names_are_found_in_any_spelling_and_with_their_network(name):
    _, local = names_of(web())
    message = ask(local, name)
    assert addresses(message) == ["10.0.1.0"]
    assert message.answer[0].ttl == 600
    assert message.flags & dns.flags.RA


def test_networks_with_dots_in_their_names_are_found():
    _, local = names_of(web(network_name="net"), Entry("", "x", "n1", "net", ("a.b",), "10.0.9.9"))
    assert addresses(ask(local, "a.b.net")) == ["10.0.9.9"]


def test_a_name_without_an_address_of_the_kind_is_empty_and_not_asked_outside():
    _, local = names_of(web())
    for kind in ("AAAA", "MX", "TXT", "HTTPS"):
        message = ask(local, "web", kind)
        assert message.rcode() == 0 and not message.answer


def test_both_families_are_answered():
    _, local = names_of(web(ip6="fd00::5"))
    assert addresses(ask(local, "web", "AAAA")) == ["fd00::5"]
    assert addresses(ask(local, "web", "ANY")) == ["10.0.1.0", "fd00::5"]


def test_reverse_names_give_name_and_network():
    _, local = names_of(web(ip6="fd00::5"))
    for name in ("0.1.0.10.in-addr.arpa", dns.reversename.from_address("fd00::5").to_text()):
        assert str(ask(local, name, "PTR").answer[0][0].target) == "web.net."
    assert ask(local, "9.9.9.9.in-addr.arpa", "PTR") is None


def test_names_of_other_networks_are_not_ours():
    _, local = names_of(web(network_id="n2"))
    assert ask(local, "web") is None
    assert ask(local, "0.1.0.10.in-addr.arpa", "PTR") is None


def test_an_alias_of_many_gives_all_and_each_comes_first_in_turn():
    _, local = names_of(*[web(n) for n in range(100)])
    data = dns.message.make_query("web", "A", use_edns=0, payload=4096).to_wire()
    first = []
    for _ in range(200):
        answer = local.quick(data) or local.answer(wire.read_query(data), 4096, data)
        message = dns.message.from_wire(answer)
        assert len(addresses(message)) == 100 and not message.flags & dns.flags.TC
        record = wire.HEADER + len(wire.question("web", 1)) + 12
        first.append(socket.inet_ntoa(answer[record : record + 4]))
    assert len(set(first)) == 100
    assert all(first.count(item) == 2 for item in set(first))


def test_what_does_not_fit_is_cut_said_so_and_turns_too():
    _, local = names_of(*[web(n) for n in range(100)])
    seen = set()
    for _ in range(100):
        message = ask(local, "web", use_edns=-1)
        assert message.flags & dns.flags.TC
        assert len(message.to_wire()) <= 512
        seen |= set(addresses(message))
    assert len(seen) == 100


def test_a_changed_name_is_known_at_once():
    names, local = names_of(web())
    ask(local, "web")
    names.add(Entry("e9", "c9", "n1", "net", ("web",), "10.0.1.9"))
    assert addresses(ask(local, "web")) == ["10.0.1.0", "10.0.1.9"]
    names.remove("e0")
    assert addresses(ask(local, "web")) == ["10.0.1.9"]
    names.remove("e9")
    assert ask(local, "web") is None


def test_links_come_before_names_and_are_seen_by_their_owner_alone():
    names, local = names_of(web())
    names.add(Entry("me", "me", "n1", "net", ("me",), "10.0.0.2", "", {"db": "web"}))
    assert addresses(ask(local, "db")) == ["10.0.1.0"]
    assert ask(LocalNames(names, "c0", Settings()), "db") is None


@pytest.mark.parametrize(("name", "kind", "kept"), [("nope", "A", True), ("nope", "AAAA", True), ("nope", "TXT", False),
                                                    ("nope.example", "A", False)])  # fmt: skip
def test_short_names_stay_here_where_the_options_say_so(name, kind, kept):
    _, local = names_of(keeps_short=True)
    query = wire.read_query(dns.message.make_query(name, kind).to_wire())
    assert local.keeps(query) is kept


def test_a_flood_of_different_questions_is_not_remembered_for_ever():
    _, local = names_of(web())
    for number in range(10_000):
        data = number.to_bytes(2, "big") + dns.message.make_query("web", "A", use_edns=-1).to_wire()[2:]
        data = data[:2] + data[2:12] + wire.question(f"web.{'net'}", 1 + number % 60_000)
        local.answer(wire.read_query(data), 512, data)
    assert len(local._ready) <= 5000
    # Padded to the largest question that is read, for a name of many.
    _, local = names_of(*(web(number) for number in range(100)))
    opt = dns.message.make_query("web", "A", use_edns=0, payload=4096).to_wire()
    for number in range(2000):
        padding = number.to_bytes(4, "big") * 1000
        data = opt[:-2] + (len(padding) + 4).to_bytes(2, "big") + b"\0\x0c" + len(padding).to_bytes(2, "big") + padding
        assert local.answer(wire.read_query(data), 4096, data)
    assert 0 < len(local._ready) < 200, "a megabyte for a container"


def answer(lifetime_s, answers=1):
    return SimpleNamespace(lifetime_s=lifetime_s, answers=answers)


def test_a_cache_keeps_what_lives_and_no_longer():
    cache = Cache()
    cache.put("a", b"x", answer(10), 100.0)
    cache.put("b", b"x", answer(0), 100.0)
    cache.put("c", b"x", answer(10**9), 100.0)
    cache.put("d", b"x", answer(10**9, answers=0), 100.0)
    assert cache.get("a", 109.9) and not cache.get("a", 110.0)
    assert not cache.get("b", 100.0)
    assert cache.get("c", 100 + LONGEST_S - 1) and not cache.get("c", 100.0 + LONGEST_S)
    assert cache.get("d", 100 + LONGEST_NEGATIVE_S - 1) and not cache.get("d", 100.0 + LONGEST_NEGATIVE_S)
    assert (len(cache), cache.size) == (0, 0)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 50), st.booleans())))
def test_a_cache_stays_within_its_bounds(steps):
    cache = Cache(most=8, most_bytes=200)
    for key, size, reads in steps:
        if reads:
            cache.get(key, 0.0)
        else:
            cache.put(key, bytes(size), answer(60), 0.0)
        assert len(cache) <= 8 and cache.size <= 200


def test_a_server_is_sick_after_two_silences_and_asked_again_later():
    health = Health()
    health.silent(0.0)
    assert not health.is_sick
    health.silent(1.0)
    assert health.is_sick and not health.is_due(2.0) and health.is_due(6.0)
    health.silent(6.0)
    assert not health.is_due(12.0) and health.is_due(16.0)
    health.answered()
    assert not health.is_sick and health.is_due(6.1)
