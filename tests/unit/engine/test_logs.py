"""Reading of json-file logs."""

import asyncio
import gzip
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from barque.base import times
from barque.engine import log_files, logs
from barque.engine.types import LogOptions

ALL = LogOptions(stdout=True, stderr=True)


def _line(text: str, stream: str = "stdout", at_ns: int = 1_000_000_000) -> bytes:
    return json.dumps({"log": text, "stream": stream, "time": times.format_ns(at_ns)}).encode() + b"\n"


async def _read(path: Path, options: LogOptions, *, tty: bool = True) -> bytes:
    return b"".join([chunk async for chunk in logs.read(str(path), options, tty=tty, alive=lambda: False)])


async def test_streams_are_chosen_and_framed(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(_line("out\n") + _line("err\n", "stderr"))
    framed = await _read(path, ALL, tty=False)
    assert framed == b"\x01\0\0\0\0\0\0\x04out\n\x02\0\0\0\0\0\0\x04err\n"
    assert await _read(path, ALL._replace(stdout=False)) == b"err\n"


@pytest.mark.parametrize("tail", [0, 1, 5, 9, 10, 19, 25, 100, -1])
async def test_the_tail_reaches_over_rotated_files(tmp_path: Path, tail: int) -> None:
    path = tmp_path / "log"
    lines = [f"{number}\n" for number in range(30)]
    (tmp_path / "log.2.gz").write_bytes(gzip.compress(b"".join(map(_line, lines[:10]))))
    (tmp_path / "log.1").write_bytes(b"".join(map(_line, lines[10:20])))
    path.write_bytes(b"".join(map(_line, lines[20:])))
    expected = lines if tail < 0 else lines[len(lines) - min(tail, 30) :]
    assert (await _read(path, ALL._replace(tail=tail))).decode() == "".join(expected)


@settings(max_examples=30)
@given(st.lists(st.integers(0, 90_000), max_size=8), st.integers(1, 9))
def test_the_tail_is_exact_for_lines_of_any_length(lengths: list[int], tail: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log"
        texts = [f"{index}" + "x" * length + "\n" for index, length in enumerate(lengths)]
        path.write_bytes(b"".join(map(_line, texts)))
        assert asyncio.run(_read(path, ALL._replace(tail=tail))).decode() == "".join(texts[-tail:])


@pytest.mark.parametrize("in_memory", [True, False])
async def test_the_tail_takes_a_thread_only_where_the_disk_must_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: bool
) -> None:
    path = tmp_path / "log"
    texts = [f"{number}\n" for number in range(5000)]
    path.write_bytes(b"".join(map(_line, texts)))
    in_threads = []
    real = log_files.chosen

    def chosen(*wanted: Any) -> Any:
        in_threads.append(threading.current_thread() is not threading.main_thread())
        return real(*wanted)

    def on_disk(*wanted: object) -> int:
        raise BlockingIOError

    monkeypatch.setattr(log_files, "chosen", chosen)
    if not in_memory:
        monkeypatch.setattr(os, "preadv", on_disk)
    assert (await _read(path, ALL._replace(tail=10))).decode() == "".join(texts[-10:])
    assert in_threads == ([] if in_memory else [True])


async def test_time_limits_and_time_stamps(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"".join(_line(f"{second}\n", at_ns=second * 10**9) for second in range(1, 6)))
    options = ALL._replace(since_ns=2 * 10**9, until_ns=4 * 10**9)
    assert await _read(path, options) == b"2\n3\n4\n"
    assert (await _read(path, ALL._replace(tail=1, timestamps=True))) == b"1970-01-01T00:00:05.000000000Z 5\n"


async def test_following_goes_on_after_a_rotation_and_ends_with_the_container(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(_line("one\n"))
    over = False
    seen: list[bytes] = []

    async def follow() -> None:
        options = ALL._replace(follow=True)
        async for chunk in logs.read(str(path), options, tty=True, alive=lambda: not over):
            seen.append(chunk)

    async def wait_for(text: bytes) -> None:
        async with asyncio.timeout(10):
            while text not in b"".join(seen):
                await asyncio.sleep(0.01)

    task = asyncio.create_task(follow())
    await wait_for(b"one\n")
    with path.open("ab") as file:
        file.write(_line("two\n"))
    path.rename(tmp_path / "log.1")
    path.write_bytes(_line("three\n"))
    await wait_for(b"three\n")
    over = True
    await asyncio.wait_for(task, 10)
    assert b"".join(seen) == b"one\ntwo\nthree\n"


async def test_a_missing_log_is_empty_and_a_torn_line_is_left_out(tmp_path: Path) -> None:
    assert await _read(tmp_path / "none", ALL) == b""
    path = tmp_path / "log"
    path.write_bytes(_line("whole\n") + b'{"log":"to')
    assert await _read(path, ALL) == b"whole\n"


async def test_no_line_is_lost_when_a_log_is_rotated_several_times_between_two_looks(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(_line("1\n"))
    over = False
    gate = asyncio.Event()

    class Gate:
        def clear(self) -> None:
            gate.clear()

        async def wait(self) -> None:
            await gate.wait()

        def close(self) -> None:
            pass

    seen: list[bytes] = []

    async def follow() -> None:
        options = ALL._replace(follow=True)
        async for chunk in logs.read(str(path), options, tty=True, alive=lambda: not over, changes=Gate):
            seen.append(chunk)

    task = asyncio.create_task(follow())
    async with asyncio.timeout(10):
        while not seen:
            await asyncio.sleep(0.01)
    with path.open("ab") as file:
        file.write(_line("2\n"))
    for number in (3, 4, 5):
        for old in (2, 1):
            if (tmp_path / f"log.{old}").exists():
                (tmp_path / f"log.{old}").rename(tmp_path / f"log.{old + 1}")
        path.rename(tmp_path / "log.1")
        path.write_bytes(_line(f"{number}\n"))
    over = True
    gate.set()
    await asyncio.wait_for(task, 10)
    assert b"".join(seen) == b"1\n2\n3\n4\n5\n"


async def test_a_rotation_while_the_log_is_read_doubles_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log"
    (tmp_path / "log.1").write_bytes(_line("1\n"))
    path.write_bytes(_line("2\n"))
    reading = logs.read(str(path), ALL, tty=True, alive=lambda: False)
    got = [await anext(reading)]
    (tmp_path / "log.1").rename(tmp_path / "log.2")
    path.rename(tmp_path / "log.1")
    path.write_bytes(_line("3\n"))
    got += [chunk async for chunk in reading]
    assert got == [b"1\n", b"2\n"]


SECONDS, RATE = 3000, 20


@pytest.fixture(scope="module")
def long_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a log of 12 MB in three files: 3,000 seconds with twenty lines each, the oldest file compressed."""
    path = tmp_path_factory.mktemp("long") / "log"
    seconds = [_line(f"{second} {'x' * 130}\n", at_ns=second * 10**9) * RATE for second in range(SECONDS)]
    parts = [b"".join(seconds[number * SECONDS // 3 : (number + 1) * SECONDS // 3]) for number in range(3)]
    packed = path.with_name("log.2.gz")
    packed.write_bytes(gzip.compress(parts[0], 1))
    os.utime(packed, (1001, 1001))
    path.with_name("log.1").write_bytes(parts[1])
    path.write_bytes(parts[2])
    return path


def _bytes_read() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])


@pytest.mark.parametrize(("since", "until"), [(1990, 1995), (2500, 2501), (2999, 3001), (1000.5, 1002), (3100, 3200)])
async def test_a_moment_is_found_without_reading_what_lies_before(long_log: Path, since: float, until: float) -> None:
    before = _bytes_read()
    text = await _read(long_log, ALL._replace(since_ns=int(since * 10**9), until_ns=int(until * 10**9)))
    taken = _bytes_read() - before
    seconds = [int(line.split()[0]) for line in text.splitlines()]
    assert seconds == [second for second in range(SECONDS) if since <= second <= until for _ in range(RATE)]
    # Each of the files is 4 MB.
    assert taken < 1_000_000


async def test_a_compressed_file_is_read_where_the_moment_lies_in_it(long_log: Path) -> None:
    text = await _read(long_log, ALL._replace(since_ns=990 * 10**9, until_ns=1010 * 10**9))
    assert len(text.splitlines()) == 21 * RATE


@pytest.mark.parametrize("tail", [1, 20_001, 50_123, 59_999, 60_000, 80_000])
async def test_a_tail_that_begins_in_a_compressed_file_is_exact(long_log: Path, tail: int) -> None:
    text = await _read(long_log, ALL._replace(tail=tail))
    count = min(tail, RATE * SECONDS)
    lines = text.splitlines()
    assert len(lines) == count
    assert int(lines[0].split()[0]) == (RATE * SECONDS - count) // RATE


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.integers(0, 40_000), st.integers(-900, 3000)), min_size=1, max_size=12),
    st.integers(0, 20_000),
    st.binary(max_size=3),
)
def test_no_line_since_a_moment_is_missed_where_the_clock_was_set_back_a_little(
    steps: list[tuple[int, int]], since_ms: int, torn: bytes
) -> None:
    import tempfile

    at_ms, data, expected = 5000, b"", []
    for index, (length, step_ms) in enumerate(steps):
        # Set back by less than a second in all, whatever the order.
        at_ms = max(at_ms + step_ms, at_ms - 900 if step_ms < 0 else 0)
        data += _line(f"{index}{'x' * length}\n", at_ns=at_ms * 1_000_000)
        expected += [f"{index}{'x' * length}"] if at_ms >= since_ms else []
        if step_ms < 0:
            at_ms -= step_ms
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log"
        path.write_bytes(data + torn.replace(b"\n", b""))
        found = asyncio.run(_read(path, ALL._replace(since_ns=max(1, since_ms) * 1_000_000)))
        assert found.decode().splitlines() == expected


async def test_what_was_written_before_a_clock_was_set_back_by_a_day_is_found(tmp_path: Path) -> None:
    path = tmp_path / "log"
    day = 86400
    times_s = [*range(day, day + 1000), *range(2000)]
    path.write_bytes(b"".join(_line(f"{second} {'x' * 900}\n", at_ns=second * 10**9) for second in times_s))
    text = await _read(path, ALL._replace(since_ns=1900 * 10**9))
    assert [int(line.split()[0]) for line in text.splitlines()] == [second for second in times_s if second >= 1900]


async def test_rubbish_in_a_log_hides_no_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    lines = [_line(f"{second} {'x' * 900}\n", at_ns=second * 10**9) for second in range(1000)]
    path.write_bytes(b"".join(lines[:300]) + b"\0" * 3_000_000 + b"\n" + b"".join(lines[300:]))
    for since in (10, 299, 500, 990):
        text = await _read(path, ALL._replace(since_ns=since * 10**9))
        assert len(text.splitlines()) == 1000 - since
