"""Time stamps."""

import pytest
from hypothesis import given, strategies as st

from barque.base import times


@given(st.integers(min_value=0, max_value=4_000_000_000 * 10**9))
def test_a_formatted_time_reads_back_as_itself(time_ns: int) -> None:
    assert times.parse_ns(times.format_ns(time_ns)) == time_ns


def test_trailing_zeros_of_the_fraction_are_cut() -> None:
    assert times.format_ns(1_500_000_000) == "1970-01-01T00:00:01.5Z"
    assert times.format_ns(2_000_000_000) == "1970-01-01T00:00:02Z"


def test_a_zone_is_taken_off() -> None:
    assert times.parse_ns("1970-01-01T02:00:01+02:00") == 1_000_000_000


@pytest.mark.parametrize("text", ["", "now", "1970-13-01T00:00:00Z", "1970-01-01T00:00:00Zx", "1970-01-41"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an RFC 3339 time"):
        times.parse_ns(text)
