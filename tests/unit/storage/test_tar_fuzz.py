"""Whatever bytes come as a tar: they are read or refused, and both readers agree on what is plain."""

import io
import tarfile

from hypothesis import HealthCheck, given, settings, strategies as st

from barque.base.errors import InvalidInputError
from barque.storage.archive import tar
from barque.storage.archive.stream import TarStream
from barque.storage.compression import plain

calm = settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=150)
names = st.text(alphabet=st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=150).filter(
    lambda n: n.strip("/. ")
)
files = st.lists(st.tuples(names, st.binary(max_size=700)), max_size=6)


def packed(entries, form):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as made:
        for name, data in entries:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
    return out.getvalue()


def streamed(data, size):
    stream = TarStream(data[at : at + size] for at in range(0, len(data), size))
    return [(m.name, m.kind, m.link, m.size, b"".join(map(bytes, stream.data()))) for m in stream.members()]


def mapped(data):
    view = memoryview(data)
    return [(e.name, e.kind, e.link, e.size, bytes(view[e.data : e.data + e.stored])) for e in tar.entries(view)]


@calm
@given(files, st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]), st.integers(1, 3000))
def test_both_readers_find_what_was_packed(entries, form, size):
    data = packed(entries, form)
    found = streamed(data, size)
    assert found == mapped(data)
    assert [(name.decode(), body) for name, _, _, _, body in found] == [(n.rstrip("/"), d) for n, d in entries] or any(
        n.endswith("/") for n, _ in entries
    )


@calm
@given(files, st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), min_size=1, max_size=8), st.integers(0, 5000))
def test_a_damaged_tar_is_read_or_refused(entries, damage, cut):
    data = bytearray(packed(entries, tarfile.PAX_FORMAT))
    for at, value in damage:
        if at < len(data):
            data[at] = value
            # A header whose sum is right again gets further.
            start = at // 512 * 512
            header = data[start : start + 512]
            header[148:156] = b" " * 8
            data[start + 148 : start + 156] = b"%06o\0 " % sum(header)
    for broken in (bytes(data), bytes(data[: len(data) - cut])):
        for read in (lambda b: streamed(b, 1000), mapped):
            try:
                read(broken)
            except InvalidInputError:
                continue


@calm
@given(st.binary(max_size=2000))
def test_any_bytes_are_a_tar_or_are_refused(data):
    for read in (lambda b: streamed(b, 100), mapped):
        try:
            read(data)
        except InvalidInputError:
            continue


@calm
@given(st.sampled_from([b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"BZh9", b"\xfd7zXZ\0", b""]), st.binary(max_size=500))
def test_any_bytes_are_inflated_or_are_refused(magic, data):
    try:
        for piece in plain([magic + data]):
            assert len(piece) <= 1 << 20
    except InvalidInputError:
        return
