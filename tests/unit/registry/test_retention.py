"""Which tags the rules of retention keep."""

import time

import pytest

from barque.base.errors import InvalidInputError
from barque.registry.retention import Rule, parse_rule, superfluous
from barque.registry.storage import Entry

DAY = 24 * 3600


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("5", Rule("*", "*", 5)),
        ("720h", Rule("*", "*", 0, 30 * DAY)),
        ("ci/*=1", Rule("ci/*", "*", 1)),
        ("ci/*:pr-*=1h30m", Rule("ci/*", "pr-*", 0, 5400)),
        (":pr-*=2", Rule("*", "pr-*", 2)),
    ],
)
def test_rules_are_read(text, rule):
    assert parse_rule(text) == rule


@pytest.mark.parametrize("text", ["", "0", "0h", "-1", "-1h", "x", "a=", "a=b=c", "1.5", "٣x"])
def test_what_keeps_nothing_is_no_rule(text):
    with pytest.raises(InvalidInputError, match="--retain"):
        parse_rule(text)


def tags(**ages):
    now = time.time()
    return [Entry(name.replace("_", "-"), now - age) for name, age in sorted(ages.items())]


def test_the_newest_or_the_young_stay_and_what_no_rule_names():
    found = tags(pr_1=5 * DAY, pr_2=4 * DAY, pr_3=3 * DAY, latest=9 * DAY, v1=99 * DAY)
    assert superfluous("ci/app", found, []) == []
    assert superfluous("other", found, [parse_rule("ci/*=1")]) == []
    assert superfluous("ci/app", found, [parse_rule("ci/*:pr-*=1")]) == ["pr-1", "pr-2"]
    assert superfluous("ci/app", found, [parse_rule("ci/*:pr-*=84h"), parse_rule(":v*=1")]) == ["pr-1", "pr-2"]
    # What one rule keeps no other takes.
    assert superfluous("ci/app", found, [parse_rule("2"), parse_rule(":latest=1")]) == ["pr-1", "v1"]
