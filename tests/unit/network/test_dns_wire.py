import ipaddress
import struct

import pytest
from hypothesis import given, strategies as st

from barque.network.dns import wire

pytest.importorskip("dns", reason="dnspython is not installed")
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rrset

LABELS = st.lists(st.text("abcXYZ019-_", min_size=1, max_size=63), min_size=1, max_size=4)
KINDS = st.sampled_from(["A", "AAAA", "MX", "TXT", "PTR", "SRV", "ANY", "HTTPS"])


def query(name="web", kind="A", **settings):
    return dns.message.make_query(name, kind, **settings)


def answered(question, *records, **settings):
    answer = dns.message.make_response(question, **settings)
    for text in records:
        name, ttl, kind, data = text.split(maxsplit=3)
        answer.answer.append(dns.rrset.from_text(name, int(ttl), "IN", kind, data))
    return answer


@given(LABELS, KINDS, st.booleans())
def test_a_question_is_read_as_the_library_wrote_it(labels, kind, edns):
    name = ".".join(labels)
    if len(name) > 250:
        return
    asked = query(name, kind, use_edns=0 if edns else -1, payload=1400)
    read = wire.read_query(asked.to_wire())
    assert (read.ident, read.name, read.edns) == (asked.id, name.lower(), edns)
    assert read.limit == (1400 if edns else 512)
    assert read.question == wire.question(name, int(asked.question[0].rdtype))


@given(st.binary(max_size=80))
def test_any_bytes_are_a_question_or_an_error(data):
    for read in (wire.read_query, wire.read_answer):
        try:
            read(data)
        except wire.WireError:
            pass


@given(st.data())
def test_damaged_answers_are_refused_or_can_be_passed_on_whole(data):
    good = answered(query("www.example.org", use_edns=0), "www.example.org. 60 CNAME a.example.org.",
                    "a.example.org. 30 A 192.0.2.1").to_wire()  # fmt: skip
    damaged = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(damaged[: data.draw(st.integers(0, len(damaged)))])
    try:
        read = wire.read_answer(damaged)
    except wire.WireError:
        return
    asked = wire.read_query(query("www.example.org").to_wire())
    if read.question.lower() == asked.question.lower():
        again = wire.read_answer(wire.passed_on(asked, damaged, read, 5, 4096))
        assert (again.answers, again.rcode) == (read.answers, read.rcode & 0xF) or read.flags & wire.TC
        assert len(again.ttls) == len(read.ttls) or read.flags & wire.TC


@given(st.binary(min_size=12, max_size=120), st.binary(max_size=40))
def test_pointers_never_make_reading_endless(head, tail):
    data = head[:2] + b"\x81\x80\0\1\0\3\0\0\0\0" + b"\1a\0\0\1\0\1" + b"\xc0\x0c" * 3 + head + b"\xc0" + tail
    try:
        wire.read_answer(data)
    except wire.WireError:
        pass


def test_a_pointer_to_itself_and_one_forward_are_refused():
    for pointer in (b"\xc0\x13", b"\xc0\x20", b"\xc0\x00"):
        data = b"\0\1\x81\x80\0\1\0\1\0\0\0\0" + b"\1a\0\0\1\0\1" + pointer + b"\0\1\0\1\0\0\0\1\0\4\1\2\3\4" + bytes(40)
        with pytest.raises(wire.WireError):
            wire.read_answer(data)


@pytest.mark.parametrize(
    ("change", "rcode"),
    [
        (lambda d: d[:11], wire.FORMERR),
        (lambda d: d[:4] + b"\0\2" + d[6:], wire.FORMERR),
        (lambda d: d[:4] + b"\0\0" + d[6:], wire.FORMERR),
        (lambda d: d[:2] + b"\x20\0" + d[4:], wire.NOTIMP),
        (lambda d: d[:12] + b"\xc0\x0c\0\1\0\1", wire.FORMERR),
        (lambda d: d[:12] + b"\x40" + d[13:], wire.FORMERR),
        (lambda d: d[:-1], wire.FORMERR),
        (lambda d: d[:10] + b"\0\1" + d[12:], wire.FORMERR),
        (lambda d: d[:10] + b"\0\1" + d[12:] + b"\0\0\x29\x10\0\0\1\0\0\0\0", wire.BADVERS),
        (lambda d: d[:10] + b"\0\2" + d[12:] + b"\0\0\x29\x10\0\0\0\0\0\0\0" * 2, wire.FORMERR),
        (lambda d: d[:10] + b"\xff\xff" + d[12:], wire.FORMERR),
    ],
)
def test_a_wrong_question_says_how_to_refuse_it(change, rcode):
    data = change(query(use_edns=-1).to_wire())
    with pytest.raises(wire.WireError) as refused:
        wire.read_query(data)
    assert refused.value.rcode == rcode
    if len(data) >= 12:
        told = dns.message.from_wire(wire.refusal(data, rcode))
        assert told.rcode() == rcode


def test_an_answer_of_ours_is_read_by_the_library():
    asked = query("Web.Net", "A", use_edns=0, want_dnssec=True)
    read = wire.read_query(asked.to_wire())
    made = wire.reply(read, records=wire.record(wire.A, 600, bytes((10, 0, 0, 1))), count=1)
    told = dns.message.from_wire(made)
    assert told.is_response(asked) or told.answer[0].to_text() == "Web.Net. 600 IN A 10.0.0.1"
    assert told.flags & dns.flags.RA and told.edns == 0


def test_a_foreign_answer_is_passed_on_older_and_without_the_server_s_options():
    asked = query("WWW.example.org", use_edns=-1)
    foreign = answered(query("www.example.org", use_edns=0, payload=1232), "www.example.org. 60 CNAME a.example.org.",
                       "a.example.org. 30 A 192.0.2.1")  # fmt: skip
    foreign.use_edns(0, payload=1232)
    data = foreign.to_wire()
    read = wire.read_answer(data)
    assert read.lifetime_s == 30
    told = dns.message.from_wire(wire.passed_on(wire.read_query(asked.to_wire()), data, read, 10, 512))
    assert told.id == asked.id and told.edns == -1
    assert [rrset.ttl for rrset in told.answer] == [50, 20]
    assert str(told.question[0].name) == "WWW.example.org."


def test_an_answer_too_large_for_the_asker_is_cut_and_says_so():
    asked = query("big.example.org", use_edns=-1)
    foreign = answered(asked, *[f"big.example.org. 60 A 192.0.2.{n}" for n in range(60)])
    data = foreign.to_wire()
    read = wire.read_answer(data)
    told = dns.message.from_wire(wire.passed_on(wire.read_query(asked.to_wire()), data, read, 0, 512))
    assert told.flags & dns.flags.TC and not told.answer
    whole = dns.message.from_wire(wire.passed_on(wire.read_query(asked.to_wire()), data, read, 0, 65535))
    assert len(whole.answer[0]) == 60


def test_no_such_name_lives_as_long_as_its_authority_says():
    asked = query("nope.example.org")
    foreign = dns.message.make_response(asked)
    foreign.set_rcode(dns.rcode.NXDOMAIN)
    foreign.authority.append(dns.rrset.from_text("example.org.", 900, "IN", "SOA", "ns. root. 1 2 3 4 77"))
    assert wire.read_answer(foreign.to_wire()).lifetime_s == 77


def test_a_time_to_live_with_the_top_bit_is_none():
    data = bytearray(answered(query(), "web. 5 A 192.0.2.1").to_wire())
    at = bytes(data).index(struct.pack("!IH", 5, 4))
    data[at] = 0x80
    assert wire.read_answer(bytes(data)).lifetime_s == 0


@given(st.ip_addresses())
def test_reverse_names_mean_their_address(address):
    assert ipaddress.ip_address(wire.address_of_reverse(address.reverse_pointer)) == address


@pytest.mark.parametrize(
    "name", ["", "in-addr.arpa", "1.2.3.in-addr.arpa", "01.2.3.4.in-addr.arpa", "256.2.3.4.in-addr.arpa",
             "a.b.c.d.in-addr.arpa", "1.ip6.arpa", "x" * 63 + ".ip6.arpa", "1.2.3.4.example"]
)  # fmt: skip
def test_other_names_mean_no_address(name):
    assert wire.address_of_reverse(name) == ""


@pytest.mark.parametrize("name", ["a..b", "x" * 64, "ä", ".".join(["x" * 60] * 5)])
def test_names_that_no_message_can_carry_are_refused(name):
    with pytest.raises(ValueError):
        wire.encode_name(name)
