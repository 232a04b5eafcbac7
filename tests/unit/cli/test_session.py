"""Streams between the user and a container: frames and detach keys."""

import pytest
from hypothesis import given, strategies

from barque.base.errors import InvalidInputError
from barque.cli.session import Demultiplexer, StreamError
from barque.cli.terminal import DetachKeys, parse_keys


def frame(kind, payload):
    return bytes([kind, 0, 0, 0]) + len(payload).to_bytes(4, "big") + payload


@given(
    strategies.lists(strategies.tuples(strategies.sampled_from([1, 2]), strategies.binary(max_size=20))),
    strategies.data(),
)
def test_frames_come_out_whole_however_they_are_cut(frames, data):
    raw = b"".join(frame(kind, payload) for kind, payload in frames)
    got = {1: b"", 2: b""}
    demultiplexer = Demultiplexer(lambda fd, piece: got.__setitem__(fd, got[fd] + piece))
    while raw:
        size = data.draw(strategies.integers(1, 9))
        demultiplexer.feed(raw[:size])
        raw = raw[size:]
    for kind in (1, 2):
        assert got[kind] == b"".join(payload for one, payload in frames if one == kind)


def test_an_error_frame_is_raised():
    with pytest.raises(StreamError, match="error from daemon in stream: broken"):
        Demultiplexer(lambda fd, piece: None).feed(frame(3, b"broken"))


def test_detach_keys_are_found_across_reads_and_other_keys_go_through():
    keys = DetachKeys(parse_keys(""))
    assert keys.feed(b"a\x10") == (b"a", False)
    assert keys.feed(b"b") == (b"\x10b", False)
    assert keys.feed(b"\x10") == (b"", False)
    assert keys.feed(b"\x11rest") == (b"", True)


def test_key_names_are_read_or_refused():
    assert parse_keys("ctrl-a,x,ctrl-[") == b"\x01x\x1b"
    with pytest.raises(InvalidInputError):
        parse_keys("ctrl-1x")
