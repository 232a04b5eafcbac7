import struct

import pytest
from hypothesis import given, strategies as st

from barque.kernel.netlink import codec

values = st.lists(st.tuples(st.integers(1, 0x3FFF), st.binary(max_size=40)), max_size=8)


@given(values)
def test_attributes_survive_being_written_and_read(items):
    data = b"".join(codec.attribute(kind, payload) for kind, payload in items)
    assert codec.attribute_list(data) == items
    assert len(data) % 4 == 0


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=5))
def test_messages_survive_being_written_and_read(bodies):
    data = b"".join(codec.pack(codec.Request(16, 0, body), at) for at, body in enumerate(bodies))
    found = list(codec.unpack(data))
    assert [(item.sequence, item.payload) for item in found] == list(enumerate(bodies))
    assert all(item.flags == codec.NLM_F_REQUEST | codec.NLM_F_ACK for item in found)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data):
    for read in (lambda: list(codec.unpack(data)), lambda: codec.attribute_list(data)):
        try:
            read()
        except ValueError:
            pass


def test_a_length_outside_the_data_is_refused():
    with pytest.raises(ValueError, match="wrong length"):
        codec.attributes(struct.pack("=HH", 40, 1))


def test_the_kernels_words_come_with_an_error():
    payload = struct.pack("=i", -17) + bytes(16) + codec.text(1, "exists")
    assert codec.unpack_error(payload, 0x300) == (17, "exists")
    assert codec.unpack_error(struct.pack("=i", 0) + bytes(16), 0x100) == (0, "")
