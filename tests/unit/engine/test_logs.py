"""Reading of json-file logs."""

import asyncio
import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from barque.base import times
from barque.engine import logs
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
