"""Names, durations, events, logs and state: the small pure parts."""

import io
import json
import struct

import pytest

from barque.base.errors import InvalidInputError
from barque.engine import log_files, logs
from barque.engine.detach import parse_keys
from barque.engine.events import Events, matches
from barque.engine.names import check_name, random_name
from barque.engine.state import Database
from barque.engine.types import LogOptions


@pytest.mark.parametrize("name", ["a", "-a", "a b", "a/b", "", "é1"])
def test_a_bad_name_is_refused(name):
    with pytest.raises(InvalidInputError, match="Invalid container name"):
        check_name(name)


def test_a_random_name_is_not_taken_and_valid():
    taken = set()
    for _ in range(200):
        name = random_name(taken.__contains__)
        assert name not in taken
        assert check_name(name) == name
        taken.add(name)


def test_detach_keys_are_parsed():
    assert parse_keys("") == b"\x10\x11"
    assert parse_keys("ctrl-a,x") == b"\x01x"
    with pytest.raises(InvalidInputError):
        parse_keys("ctrl-!!")


def event(**more):
    actor = {"ID": "abc", "Attributes": {"name": "web", "image": "busybox:latest", "env": "test"}}
    return {"Type": "container", "Action": "exec_create: sh", "Actor": actor, "scope": "local", **more}


@pytest.mark.parametrize(
    ("filters", "passes"),
    [({"type": ["container"]}, True), ({"type": ["image"]}, False), ({"event": ["exec_create"]}, True),
     ({"container": ["web"]}, True), ({"container": ["db"]}, False), ({"image": ["busybox"]}, True),
     ({"label": ["env=test"]}, True), ({"label": ["env=prod"]}, False), ({"container": ["ab"], "type": ["image"]}, False)],
)  # fmt: skip
def test_events_are_filtered(filters, passes):
    assert matches(event(), filters) is passes


async def test_past_events_are_sent_and_the_stream_ends_at_until():
    events = Events()
    events.publish("container", "create", "1", {})
    events.publish("container", "start", "1", {})
    stream = events.subscribe(1, 2 * 10**18 // 10**18, {})
    assert [e["Action"] async for e in stream] == []
    import time

    stream = events.subscribe(1, time.time_ns(), {})
    assert [e["Action"] async for e in stream] == ["create", "start"]
    assert events.listeners == 0


def line(text, stream="stdout", time="2026-01-02T03:04:05.1Z", **more):
    return json.dumps({"log": text, "stream": stream, "time": time, **more}, separators=(",", ":")) + "\n"


def frame(text, number=1):
    return struct.pack(">BxxxI", number, len(text)) + text


async def read(path, **options):
    wanted = LogOptions(**{"stdout": True, "stderr": True, **options})
    return b"".join([c async for c in logs.read(str(path), wanted, tty=False, alive=lambda: False)])


async def test_logs_are_framed_by_stream(tmp_path):
    path = tmp_path / "log"
    path.write_text(line("a\n") + line('q"uote\n', "stderr") + line("part"))
    assert await read(path) == frame(b"a\n") + frame(b'q"uote\n', 2) + frame(b"part")
    assert await read(path, stdout=False) == frame(b'q"uote\n', 2)


async def test_the_tail_reaches_into_rotated_files(tmp_path):
    path = tmp_path / "log"
    (tmp_path / "log.2").write_text(line("1\n") + line("2\n"))
    (tmp_path / "log.1").write_text(line("3\n") + line("4\n"))
    path.write_text(line("5\n"))
    assert await read(path, tail=3) == b"".join(frame(f"{n}\n".encode()) for n in (3, 4, 5))
    assert await read(path, tail=0) == b""
    assert await read(path) == b"".join(frame(f"{n}\n".encode()) for n in range(1, 6))


async def test_since_until_timestamps_and_details(tmp_path):
    path = tmp_path / "log"
    path.write_text(
        line("old\n", time="2026-01-01T00:00:00Z") + line("new\n", attrs={"k": "v"})
        + line("late\n", time="2026-02-01T00:00:00Z")
    )  # fmt: skip
    day = 1767312000 * 10**9
    got = await read(path, since_ns=day, until_ns=day + 2 * 86400 * 10**9, timestamps=True, details=True)
    assert got == frame(b"2026-01-02T03:04:05.100000000Z k=v new\n")


@pytest.mark.parametrize("count", [1, 2, 5, 1000, 5000])
def test_the_tail_is_found_across_blocks(count):
    data = b"".join(b"%06d %s\n" % (n, b"x" * (n % 300)) for n in range(3000))
    offset, found = log_files.tail_start(io.BytesIO(data), len(data), count)
    assert data[offset:].count(b"\n") == min(count, 3000)
    assert found == min(count, 3000)


async def test_rows_come_back_after_the_database_is_opened_again(tmp_path):
    path = str(tmp_path / "state.db")
    database = Database(path)
    for number in range(100):
        database.put("container", "a", {"n": number})
    database.put("container", "b", {})
    database.delete("container", "b")
    await database.flush()
    database.close()
    again = Database(path)
    assert again.load("container") == {"a": {"n": 99}}
    again.close()
