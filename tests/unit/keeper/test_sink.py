"""Output on its way into the log: however it is cut into chunks, the log has every byte once and in order."""

import json
import os
import random
import tempfile

import pytest

from barque.keeper.jsonlog import BATCH_SIZE, PIECE_SIZE, Clock
from barque.keeper.logfile import LogFile, LogSettings
from barque.keeper.sink import Sink


@pytest.fixture
def opened(tmp_path):
    """Return what opens the log and the sink of standard output anew, as the next keeper does."""

    def again():
        log = LogFile(LogSettings({"path": str(tmp_path / "log")}), str(tmp_path))
        made.append((log, Sink(log, Clock(), str(tmp_path), 1)))
        return made[-1]

    made: list[tuple[LogFile, Sink]] = []
    yield again
    for log, sink in made:
        sink.close()
        log.close()


def rows_of(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@pytest.mark.parametrize("seed", range(6))
def test_the_log_has_every_line_once_however_output_is_cut(opened, tmp_path, seed):
    rng = random.Random(seed)
    lengths = (0, 1, 99, PIECE_SIZE - 1, PIECE_SIZE, PIECE_SIZE + 1, 3 * PIECE_SIZE, BATCH_SIZE + 1)
    text = b"".join(rng.choice((b"a", b'"')) * rng.choice(lengths) + b"\n" for _ in range(60)) + b"rest"
    log, sink = opened()
    start = 0
    while start < len(text):
        size = rng.choice((1, 100, PIECE_SIZE, 100_000, 400_000))
        sink.write(text[start : start + size])
        start += size
    sink.finish()
    rows = rows_of(tmp_path / "log")
    assert "".join(row["log"] for row in rows).encode() == text
    assert all(len(row["log"].removesuffix("\n")) <= PIECE_SIZE for row in rows)
    assert log.failed == ""


@pytest.mark.parametrize("cut", [10, BATCH_SIZE + 1])
def test_what_was_logged_but_not_recorded_is_logged_once_by_the_next_keeper(opened, tmp_path, monkeypatch, cut):
    _, sink = opened()
    sink.write(b"first\nhalf")
    text = b" line\n" + b"x" * cut + b"\nlast\n"
    with monkeypatch.context() as patch:
        # It dies before the record is written, whose new state nobody sees.
        patch.setattr(LogFile, "record", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            sink.write(text)
    assert os.path.getsize(tmp_path / "spool.1") == len(b"first\nhalf" + text)
    opened()
    assert "".join(row["log"] for row in rows_of(tmp_path / "log")).encode() == b"first\nhalf" + text


def test_output_without_an_end_of_line_at_any_chunks_end_leaves_nothing_in_memory(tmp_path):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        log = LogFile(LogSettings({"path": str(tmp_path / "log")}), folder)
        sink = Sink(log, Clock(), folder, 1)
        for _ in range(400):
            sink.write(b"x\n" * 2000 + b"x")
        assert os.stat(f"{folder}/spool.1").st_blocks * 512 < 128 * 1024
        sink.close()
        log.close()
        # The next keeper goes on in the midst of the line.
        log = LogFile(LogSettings({"path": str(tmp_path / "log")}), folder)
        sink = Sink(log, Clock(), folder, 1)
        sink.write(b"y\n")
        assert "".join(row["log"] for row in rows_of(tmp_path / "log")) == ("x\n" * 2000 + "x") * 400 + "y\n"
        assert os.stat(f"{folder}/spool.1").st_blocks * 512 < 128 * 1024
        sink.close()
        log.close()
