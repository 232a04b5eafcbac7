"""Shortcuts of reading headers mean what the long way means."""

import os
import posixpath

import pytest
from hypothesis import given, strategies as st

from barque.base.errors import InvalidInputError
from barque.storage.archive import tar
from barque.storage.archive.extract import clean


@pytest.mark.parametrize("block", [bytes(512), b"\xff" * 512, b"\xff" * 256 + bytes(256), os.urandom(512)])
def test_the_sum_of_a_block_is_exact(block):
    assert tar._sum(block) == sum(block)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (b"0000644\0", 0o644), (b"0000644 ", 0o644), (b"   644 \0", 0o644), (b"644\0\0\0\0\0", 0o644), (b"0\0junk..", 0),
        (bytes(8), 0), (b" " * 8, 0), (b"77777777", 0o77777777), (b"\x80" + bytes(6) + b"\x05", 5), (b"\xff" * 8, -1),
    ],
)  # fmt: skip
def test_numbers_are_read_in_every_form_that_archivers_write(field, value):
    assert tar._number(field) == value


@pytest.mark.parametrize("field", [b"0000648\0", b"0o12\0\0\0\0", b"+12\0\0\0\0\0", b"1_2\0\0\0\0\0", b"-1\0\0\0\0\0\0", b"1 2\0\0\0\0\0"])
def test_what_is_no_octal_number_is_refused(field):
    with pytest.raises(InvalidInputError):
        tar._number(field)


@given(st.text("ab./", max_size=12).map(str.encode) | st.binary(max_size=12))
def test_names_are_cleaned_as_paths_are(name):
    try:
        found = clean(name)
    except InvalidInputError:
        assert posixpath.normpath(b"./" + name.lstrip(b"/")).split(b"/")[0] == b".."
        return
    cleaned = posixpath.normpath(b"/" + name.lstrip(b"/")).lstrip(b"/")
    assert found == cleaned
