"""Reading behind the keeper: rotation, restarts, pieces, loss."""

import json
import os
import struct
import threading
from pathlib import Path

import pytest

from barque.keeper.logfile import LogFile, LogSettings
from barque.logdrivers.entry import Driver, DriverError, Retries
from barque.logdrivers.shipper import Shipper
from barque.logdrivers.source import LogSource


def line(text, stream="stdout"):
    return json.dumps({"log": text, "stream": stream, "time": "2024-01-01T00:00:00.5Z"}).encode() + b"\n"


def append(path, *lines):
    with open(path, "ab") as file:
        file.write(b"".join(lines))


def rotate(path, keep=3):
    for number in range(keep - 1, 0, -1):
        if os.path.exists(f"{path}.{number}"):
            os.rename(f"{path}.{number}", f"{path}.{number + 1}")
    os.rename(path, f"{path}.1")
    open(path, "wb").close()


def texts(source):
    entries = source.read()
    source.taken(len(entries))
    return [e.text.decode() for e in entries]


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "log")


def test_entries_come_in_order_across_rotations_and_a_finished_file_is_told(path):
    finished = []
    append(path, line("1\n"), line("2\n"))
    source = LogSource(path, finished.append)
    assert texts(source) == ["1", "2"]
    append(path, line("3\n"))
    rotate(path)
    append(path, line("4\n"))
    rotate(path)
    append(path, line("5\n"))
    assert [texts(source), texts(source), texts(source), texts(source)] == [["3"], ["4"], ["5"], []]
    assert len(finished) == 2 and source.lost == 0


def test_a_new_reader_goes_on_where_the_last_one_was(path):
    append(path, *(line(f"{n}\n") for n in range(5)))
    source = LogSource(path)
    assert len(source.read()) == 5
    source.taken(3)
    source.close()
    rotate(path)
    again = LogSource(path)
    assert texts(again) == ["3", "4"]
    assert again.behind() == 0


def test_a_file_that_is_not_the_one_of_the_position_is_read_from_its_start(path):
    append(path, line("old\n"))
    source = LogSource(path)
    assert texts(source) == ["old"]
    source.close()
    with open(path, "r+b") as file:
        file.write(line("NEW\n"))
        file.write(line("and more\n"))
    again = LogSource(path)
    assert texts(again) == ["NEW", "and more"] and again.lost == 1


def test_an_unfinished_line_and_rubbish_are_left_out(path):
    append(path, line("a\n"), b"rubbish\n", line("b\n"), b'{"log":"half')
    source = LogSource(path)
    assert texts(source) == ["a", "b"]
    assert texts(source) == []


def test_pieces_of_a_long_line_bear_one_name_and_their_numbers(path):
    append(path, line("a" * 16384), line("err\n", "stderr"), line("b" * 16384), line("c\n"), line("end"))
    entries = LogSource(path).read()
    pieces = [e for e in entries if e.stream == "stdout"][:3]
    assert [(e.ordinal, e.last) for e in pieces] == [(1, False), (2, False), (3, True)]
    assert len({e.partial_id for e in pieces}) == 1
    assert entries[1].partial_id == ""
    assert entries[-1].text == b"end" and entries[-1].partial_id == ""


def test_what_the_keeper_may_write_anew_is_not_read_yet(path, tmp_path):
    append(path, line("sure\n"))
    size = os.path.getsize(path)
    append(path, line("perhaps\n"))
    record = tmp_path / "spool.state"
    record.write_bytes(struct.pack("=QQQQ", os.stat(path).st_ino, size, 0, 0))
    source = LogSource(path, record=str(record))
    assert texts(source) == ["sure"] and texts(source) == []
    record.unlink()
    assert texts(source) == ["perhaps"]


def test_a_cleared_log_is_read_from_its_start(path):
    append(path, line("before\n"))
    source = LogSource(path)
    assert texts(source) == ["before"]
    os.truncate(path, 0)
    assert texts(source) == []
    append(path, line("a\n"))
    assert texts(source) == ["a"]


def test_the_keeper_keeps_what_is_not_read_and_drops_what_is(path, tmp_path):
    settings = LogSettings({"path": path, "max_size": 10, "max_file": 2, "guard": f"{path}.sent"})
    log = LogFile(settings, str(tmp_path))
    log.append(line("1\n"))
    log.rotate()
    log.append(line("2\n"))
    assert log.is_held()
    log.rotate()
    assert Path(path).read_bytes().count(b"\n") == 1
    source = LogSource(path)
    assert texts(source) == ["1"]
    assert not log.is_held()
    log.rotate()
    assert texts(source) == ["2"]
    log.append(line("3\n"))
    assert texts(source) == ["3"]
    log.close()


class Server(Driver):
    """A driver that fails as told and remembers."""

    def __init__(self):
        self.got, self.fail, self.tries = [], 0, threading.Semaphore(0)

    def open(self):
        pass

    def close(self):
        pass

    def send(self, entries):
        failing = self.fail > 0
        self.got += [e.text for e in (entries[:1] if failing else entries)]
        self.fail -= failing
        self.tries.release()
        if failing:
            raise DriverError("no", delivered=1)


def test_a_shipper_tries_again_and_delivers_each_entry_once(path):
    append(path, *(line(f"{n}\n") for n in range(6)))
    server = Server()
    server.fail = 3
    shipper = Shipper("c" * 64, LogSource(path), server)
    shipper.start()
    shipper.finish()
    assert shipper.wait(10)
    assert server.got == [b"0", b"1", b"2", b"3", b"4", b"5"]
    assert not shipper.resume()


def test_a_shipper_that_is_stopped_leaves_the_rest_to_the_next(path):
    append(path, *(line(f"{n}\n") for n in range(3)))
    server = Server()
    server.fail = 10**9
    shipper = Shipper("c" * 64, LogSource(path), server)
    shipper.start()
    server.tries.acquire()
    shipper.stop()
    assert shipper.wait(10)
    got, server.got, server.fail = server.got, [], 0
    again = Shipper("c" * 64, LogSource(path), server)
    again.start()
    again.finish()
    assert again.wait(10)
    assert got + server.got == [b"0", b"1", b"2"]


def test_an_entry_is_given_up_after_as_many_tries_as_are_wanted(path):
    append(path, *(line(f"{n}\n") for n in range(3)))
    server = Refusing(b"1")
    shipper = Shipper("c" * 64, LogSource(path), server, Retries(first_s=0.001, most=2))
    shipper.start()
    shipper.finish()
    assert shipper.wait(10)
    assert (server.got, server.refused) == ([b"0", b"2"], 3)


class Refusing(Server):
    """A driver that takes all but one text."""

    def __init__(self, text):
        super().__init__()
        self.text, self.refused = text, 0

    def send(self, entries):
        for number, entry in enumerate(entries):
            if entry.text == self.text:
                self.refused += 1
                raise DriverError("no", delivered=number)
            self.got.append(entry.text)


def test_entries_are_gathered_until_the_time_is_over_or_there_are_many_or_the_end_comes(path):
    append(path, line("1\n"))
    server = Server()
    server.gather_s = 1000.0
    shipper = Shipper("c" * 64, LogSource(path), server)
    shipper.start()
    append(path, line("x" * 70_000 + "\n"))
    assert server.tries.acquire(timeout=10)
    assert [len(text) for text in server.got] == [1, 70_000]
    append(path, line("2\n"))
    shipper.finish()
    assert shipper.wait(10)
    assert server.got[2:] == [b"2"]


def test_what_is_unfinished_waits_for_what_follows_and_for_nothing_at_the_end(path):
    append(path, line("1\n"), line("2\n"))
    server = Server()
    server.unfinished = lambda entries: min(1, len(entries))
    shipper = Shipper("c" * 64, LogSource(path), server)
    shipper.start()
    assert server.tries.acquire(timeout=10)
    assert server.got == [b"1"]
    shipper.finish()
    assert shipper.wait(10)
    assert server.got == [b"1", b"2"]
