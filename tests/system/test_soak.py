"""A short soak: nothing is left over, no line is lost; `make soak` takes an hour."""

import pytest

from soak import PARENT, Soak, settled
from under_test import running_engine

pytestmark = [pytest.mark.system, pytest.mark.slow]


@pytest.mark.timeout(100)
def test_nothing_is_left_over_after_containers_came_and_went_at_random():
    for engine in running_engine("--cgroup-parent", PARENT):
        _soak(engine)


def _soak(engine):
    soak = Soak(engine, seed=20, most=25)
    soak.run(3, kill_every_s=1000)
    soak.clear()
    before = soak.left()
    soak.run(25, kill_every_s=5)
    soak.clear()
    assert not settled(soak, before), soak.counts
    assert not soak.problems, soak.counts
    assert soak.counts["make"] > 30, soak.counts
