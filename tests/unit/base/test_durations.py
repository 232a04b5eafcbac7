"""Durations as Docker reads and tells them."""

import time

import pytest

from barque.base.durations import human_duration, parse_duration
from barque.base.times import moment_ns


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.9, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (119, "About a minute"),
        (120, "2 minutes"),
        (3600, "About an hour"),
        (47 * 3600, "47 hours"),
        (48 * 3600, "2 days"),
        (14 * 86400, "2 weeks"),
        (60 * 86400, "2 months"),
        (2 * 365 * 86400, "2 years"),
    ],
)
def test_a_duration_is_told_in_words(seconds, text):
    assert human_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [("1h30m", 5400 * 10**9), ("1.5s", 1_500_000_000), ("-1ms", -1_000_000), ("0", 0), ("100us", 100_000)],
)
def test_a_duration_is_read(text, nanoseconds):
    assert parse_duration(text) == nanoseconds


@pytest.mark.parametrize("text", ["", "x", "1", "1q", "1.2.3s", "."])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match="time: "):
        parse_duration(text)


def test_a_moment_is_a_number_a_duration_before_now_or_a_date():
    assert moment_ns("1357133017.25") == 1_357_133_017_250_000_000
    assert moment_ns("2013-01-02T13:23:37Z") == 1_357_133_017_000_000_000
    assert abs(moment_ns("1h30m") - (time.time_ns() - 5400 * 10**9)) < 10**9
    with pytest.raises(ValueError):
        moment_ns("foo")
