"""Sizes, numbers and times as Docker reads and prints them."""

import pytest
from hypothesis import given, strategies

from barque.base.errors import InvalidInputError
from barque.cli.timestamps import api_time, local_rfc3339, parse_rfc3339
from barque.cli.units import (
    binary_size,
    human_size,
    parse_bytes,
    parse_decimal,
)


@pytest.mark.parametrize(
    ("text", "count"),
    [("0", 0), ("10", 10), ("64m", 64 << 20), ("1.5GiB", 3 << 29), ("1kb", 1024), ("2 g", 2 << 30), ("7B", 7)],
)
def test_a_size_is_read(text, count):
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "x", "1x", "-1", "1.", ".5", "1bb", "1 1k", "1..2m", "m"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError, match="invalid size"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0B"), (999, "999B"), (1_240_000, "1.24MB"), (1000, "1kB"), (1_985_000, "1.99MB")]
)
def test_a_size_is_printed_in_thousands(size, text):
    assert human_size(size, 3) == text


def test_a_size_is_printed_in_powers_of_1024():
    assert binary_size(335872) == "328KiB" and binary_size(25275860000) == "23.54GiB"


def test_a_decimal_is_read_to_the_billionth():
    assert parse_decimal("1.5") == 1_500_000_000 and parse_decimal("1/2") == 500_000_000
    with pytest.raises(ValueError, match="value is too precise"):
        parse_decimal("0.0000000001")
    with pytest.raises(ValueError, match="failed to parse abc as a rational number"):
        parse_decimal("abc")


@given(strategies.integers(0, 2**33))
def test_a_printed_time_reads_back(seconds):
    assert int(parse_rfc3339(local_rfc3339(seconds * 10**9 + 5))) == seconds


def test_a_time_for_the_api_is_seconds_with_nanoseconds():
    assert api_time("2013-01-02T13:23:37Z") == "1357133017.000000000"
    assert api_time("2013-01-02T14:23:37.5+01:00") == "1357133017.500000000"
    assert api_time("1357133017.25") == "1357133017.25"
    assert api_time("") is None
    with pytest.raises(InvalidInputError):
        api_time("foo")
