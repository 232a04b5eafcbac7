"""Starting the daemon again: once for each of its ends, whoever tells of it."""

import os

import pytest

from barque.keeper.revive import Reviver


class Ends:
    """Stands in for the poller and the keeper's children: what is to be done later, and at a child's end."""

    def __init__(self):
        self.later_ones = []
        self.ended = []

    def later(self, delay_s, action):
        self.later_ones.append(action)

    def expect(self, pid, ended):
        os.waitpid(pid, 0)
        self.ended.append(ended)


@pytest.fixture
def ends():
    return Ends()


@pytest.fixture
def reviver(ends):
    made = Reviver(ends, ends)
    made.connected()
    return made


def lose(reviver, *command):
    reviver.lost({"daemon_argv": list(command), "daemon_env": {}}, os.dup(2))


def descriptors():
    return len(os.listdir("/proc/self/fd"))


def test_of_a_daemon_that_had_connected_the_end_of_the_connection_counts_alone(reviver, ends):
    before = descriptors()
    lose(reviver, "true")
    ends.later_ones.pop()()
    reviver.connected()
    lose(reviver, "true")
    ends.ended.pop()(0)
    assert len(ends.later_ones) == 1
    reviver.connected()
    ends.later_ones.pop()()
    assert (ends.later_ones, ends.ended) == ([], [])
    assert descriptors() == before


def test_a_daemon_that_ends_before_it_connects_is_started_again(reviver, ends):
    lose(reviver, "true")
    ends.later_ones.pop()()
    ends.ended.pop()(256)
    ends.later_ones.pop()()
    assert len(ends.ended) == 1


def test_a_daemon_that_cannot_be_executed_is_tried_again(reviver, ends):
    lose(reviver, "/no/such/program")
    for _ in range(2):
        assert len(ends.later_ones) == 1
        ends.later_ones.pop()()
    assert ends.ended == []
    reviver.connected()
    ends.later_ones.pop()()
