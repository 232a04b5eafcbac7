"""Log lines are what Docker writes."""

import json
import time

import pytest

from barque.keeper.jsonlog import PIECE_SIZE, Clock, LineFormat, escape, piece_length, whole_part


@pytest.mark.parametrize(
    ("raw", "escaped"),
    [
        (b"plain \x7f", b"plain \x7f"),
        (b'a"b\\c', b'a\\"b\\\\c'),
        (b"\r\t\b\0\x1b", b"\\r\\u0009\\u0008\\u0000\\u001b"),
        (b"<a>&", b"\\u003ca\\u003e\\u0026"),
        ("ä\u2028€\u2029".encode(), "ä\\u2028€\\u2029".encode()),
        (b"\xff\xfe", b"\\ufffd\\ufffd"),
        (b"\xe2\x82x", b"\\ufffd\\ufffdx"),
        (b"\xed\xa0\x80", b"\\ufffd\\ufffd\\ufffd"),
        ("\ufffd".encode(), "\ufffd".encode()),
    ],
)
def test_text_is_escaped_as_docker_escapes_it(raw, escaped):
    assert escape(raw) == escaped


def test_every_line_of_a_chunk_becomes_one_object_with_its_newline():
    lines = b"".join(LineFormat("stderr", None).lines(b'a\n"b"\n\n', b"2024-01-02T03:04:05.6Z"))
    rows = [json.loads(line) for line in lines.splitlines()]
    assert [row["log"] for row in rows] == ["a\n", '"b"\n', "\n"]
    assert lines.startswith(b'{"log":"a\\n","stream":"stderr","time":"2024-01-02T03:04:05.6Z"}\n')


def test_attributes_stand_between_stream_and_time():
    line = LineFormat("stdout", {"tag": "x"}).piece(b"a", b"T")
    assert line == b'{"log":"a","stream":"stdout","attrs":{"tag":"x"},"time":"T"}\n'


def test_stamps_increase():
    clock = Clock()
    stamps = [clock.stamp() for _ in range(1000)]
    assert len(set(stamps)) == 1000


def test_stamps_follow_a_clock_that_was_set_back_but_not_a_small_correction(monkeypatch):
    clock = Clock()
    second = 1_000_000_000
    day = 86_400 * second
    times = [2 * day, 2 * day - second // 2, 2 * day - 1, day, day + 1, day + 1, 2 * day]
    monkeypatch.setattr(time, "time_ns", lambda: times.pop(0))
    stamps = [clock.stamp().decode() for _ in range(7)]
    assert stamps == [
        "1970-01-03T00:00:00Z", "1970-01-03T00:00:00.000000001Z", "1970-01-03T00:00:00.000000002Z",
        "1970-01-02T00:00:00Z", "1970-01-02T00:00:00.000000001Z", "1970-01-02T00:00:00.000000002Z",
        "1970-01-03T00:00:00Z",
    ]  # fmt: skip


def test_long_lines_are_cut_at_the_piece_size_and_characters_stay_whole():
    assert whole_part(b"a\nb") == 2
    assert whole_part(b"a\nb", 2) == 2
    assert whole_part(b"a\nb\nc\n", 2) == 6
    assert whole_part(b"x" * PIECE_SIZE + b"\n") == PIECE_SIZE + 1
    assert whole_part(b"a\n" + b"x" * (PIECE_SIZE + 1) + b"\nb\n") == 2
    assert piece_length(b"x" * (PIECE_SIZE + 5)) == PIECE_SIZE
    assert piece_length(b"x" * (PIECE_SIZE - 1) + "€".encode() * 3) == PIECE_SIZE - 1
