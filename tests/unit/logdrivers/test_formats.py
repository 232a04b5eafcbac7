"""What drivers put on the wire, without a wire."""

import json
import time

import pytest
from hypothesis import given, strategies as st

from barque.logdrivers import awslogs, gelf, journald, msgpack, plugin
from barque.logdrivers.aws_access import Credentials, sign
from barque.logdrivers.entry import DriverError, Entry
from barque.logdrivers.syslog import Syslog
from unit.logdrivers.facts import facts

NOON_NS = 1_700_000_000_123_456_789
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=5), inner, max_size=20),
    max_leaves=30,
)


@given(VALUES)
def test_messagepack_comes_back_as_it_went(value):
    data = msgpack.pack(value)
    assert msgpack.unpack(data) == (value, len(data))


@given(st.binary(max_size=40))
def test_messagepack_from_outside_is_a_value_or_an_error(data):
    try:
        msgpack.unpack(data)
    except (IndexError, ValueError, TypeError):
        return


def test_syslog_messages_have_their_forms():
    def message(form, stream="stdout"):
        driver = Syslog(facts(options={"syslog-format": form, "tag": "{{.Name}}", "syslog-facility": "local0"}))
        return driver.message(Entry(b"hello", stream, NOON_NS)).decode()

    assert message("").startswith("<134>Nov ") and message("").endswith("]: hello\n")
    assert message("rfc3164", "stderr").startswith("<131>Nov ")
    micro = message("rfc5424micro").split(" ")
    assert micro[0] == "<134>1" and ".123456" in micro[1] and micro[3] == micro[5] == "web" and micro[6] == "-"


def test_syslog_over_tls_counts_its_bytes():
    driver = Syslog(facts(options={"syslog-format": "rfc5424", "syslog-address": "tcp+tls://h:6514"}))
    count, _, rest = driver.message(Entry("grün".encode(), "stdout", NOON_NS)).partition(b" ")
    assert int(count) == len(rest)


def test_gelf_is_cut_into_numbered_chunks():
    assert gelf.cut(b"x" * 1420, b"12345678") == [b"x" * 1420]
    packets = gelf.cut(bytes(range(256)) * 20, b"12345678")
    assert all(p[:10] == b"\x1e\x0f12345678" and len(p) <= 1420 for p in packets)
    assert [p[10] for p in packets] == list(range(len(packets))) and {p[11] for p in packets} == {len(packets)}
    assert b"".join(p[12:] for p in packets) == bytes(range(256)) * 20
    with pytest.raises(DriverError, match="message too large"):
        gelf.cut(b"x" * 200_000, b"12345678")


def test_gelf_has_the_containers_facts():
    driver = gelf.Gelf(facts(options={"gelf-address": "udp://127.0.0.1:1", "labels": "team"}))
    row = json.loads(driver.message(Entry(b"hi", "stderr", NOON_NS)))
    assert (row["short_message"], row["level"], row["_team"], row["_tag"]) == ("hi", 3, "a", "c" * 12)
    assert row["timestamp"] == 1_700_000_000.123


def test_journal_fields_with_newlines_are_counted():
    driver = journald.Journald(facts(options={"env": "STAGE"}))
    data = driver.message(Entry(b"two\nlines", "stdout", NOON_NS))
    assert data.startswith(b"MESSAGE\n" + (9).to_bytes(8, "little") + b"two\nlines\n")
    assert b"\nSTAGE=prod\n" in data and b"\nPRIORITY=6\n" in data
    assert journald.field_name("__my.label-1") == "MY_LABEL_1"


def test_lines_are_joined_to_events_by_a_pattern():
    lines = [b"2024 start", b" more", b"2025 next", b" rest"]
    found = awslogs.events([Entry(t, "stdout", NOON_NS) for t in lines], awslogs.multiline_pattern(
        {"awslogs-datetime-format": "%Y"}))  # fmt: skip
    assert [(e.text, e.entries) for e in found] == [(b"2024 start\n more\n", 2), (b"2025 next\n rest\n", 2)]


@given(st.lists(st.integers(0, 400_000), min_size=1, max_size=12))
def test_batches_stay_within_the_services_limits_and_lose_nothing(sizes):
    entries = [Entry(b"x" * size, "stdout", NOON_NS) for size in sizes]
    found = awslogs.batches(awslogs.events(entries, None))
    assert sum(e.entries for batch in found for e in batch) == len(entries)
    assert sum(len(e.text) for batch in found for e in batch) == sum(sizes)
    for batch in found:
        assert sum(len(e.text) + 26 for e in batch) <= 1_048_576 and len(batch) <= 10_000
        assert all(len(e.text) <= 262_144 - 26 for e in batch)


def test_an_event_that_began_just_now_waits_for_its_other_lines():
    driver = awslogs.AwsLogs(facts(options={"awslogs-group": "g", "awslogs-multiline-pattern": "^at", "awslogs-force-flush-interval-seconds": "60"}))
    now = [Entry(text, "stdout", time.time_ns()) for text in (b"at 1", b" more", b"at 2", b" more", b" more")]
    assert (driver.gather_s, driver.unfinished(now), driver.unfinished(now[:3]), driver.unfinished([])) == (60, 3, 1, 0)
    # After the interval, or where the clock was set back, it is sent as it is.
    for moved_s in (-61, 3600):
        assert driver.unfinished([entry._replace(time_ns=entry.time_ns + moved_s * 10**9) for entry in now]) == 0
    assert driver.unfinished([Entry(b"at " + b"x" * 200_000, "stdout", time.time_ns())]) == 0


def test_a_batch_has_no_more_events_than_are_wanted():
    entries = [Entry(b"x", "stdout", NOON_NS)] * 5
    assert [len(batch) for batch in awslogs.batches(awslogs.events(entries, None), 2)] == [2, 2, 1]


def test_a_batch_spans_less_than_a_day():
    day = 86_400_000_000_000
    entries = [Entry(b"x", "stdout", NOON_NS + n * day // 2) for n in range(4)]
    assert [len(b) for b in awslogs.batches(awslogs.events(entries, None))] == [2, 2]


def test_signatures_are_those_of_the_published_example():
    # The string to sign and the key of the service's documentation, with a POST of our form around it.
    made = sign(Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "token"), "us-east-1", "logs",
                "logs.us-east-1.amazonaws.com", {"Content-Type": "application/x-amz-json-1.1"}, b"{}", 1440938160)  # fmt: skip
    assert made["X-Amz-Date"] == "20150830T123600Z" and made["X-Amz-Security-Token"] == "token"
    assert "Credential=AKIDEXAMPLE/20150830/us-east-1/logs/aws4_request" in made["Authorization"]
    assert "SignedHeaders=content-type;host;x-amz-date;x-amz-security-token" in made["Authorization"]


def test_plugins_get_entries_as_protobuf():
    data = plugin.message(Entry(b"hi", "stdout", 1, "id", 2, last=True))
    assert data == b"\x0a\x06stdout\x10\x01\x1a\x02hi\x20\x01\x2a\x08\x08\x01\x12\x02id\x18\x02"
