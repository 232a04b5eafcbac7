"""The keeper with plain processes: nothing is lost or doubled when it is killed."""

import asyncio
import collections
import contextlib
import json
import os
import re
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

from barque.keeper.client import Keeper, KeeperError

STANDIN = [sys.executable, "-I", "-S", os.path.join(os.path.dirname(__file__), "../unit/keeper/standin.py")]
KEEPS_CODES = tuple(int(n) for n in os.uname().release.split(".")[:2]) >= (6, 15)
pytestmark = pytest.mark.kernel


class Harness:
    """A keeper on a root of its own and what it said."""

    def __init__(self, root):
        self.root = str(root)
        self.events = []
        self.news = asyncio.Event()
        self.keeper = None

    async def connect(self, **options):
        self.keeper = await Keeper.connect_or_spawn(self.root, on_event=self._event, boot=STANDIN, **options)

    def _event(self, event):
        self.events.append(event)
        self.news.set()

    async def event(self, kind, timeout=20, **fields):
        async with asyncio.timeout(timeout):
            while True:
                for event in self.events:
                    if event["event"] == kind and all(event.get(k) == v for k, v in fields.items()):
                        return event
                self.news.clear()
                await self.news.wait()

    async def start(self, name, *args, **options):
        bundle = f"{self.root}/containers/{name}"
        os.makedirs(bundle, exist_ok=True)
        with open(f"{bundle}/config.json", "w") as file:
            json.dump({"process": {"args": list(args)}}, file)
        log = {"driver": "json-file", "path": f"{self.root}/{name}.log", **options.pop("log", {})}
        return await self.keeper.start(name, bundle=bundle, log=log, **options)

    def log(self, name, stream=None):
        with open(f"{self.root}/{name}.log") as file:
            rows = [json.loads(line) for line in file]
        return "".join(row["log"] for row in rows if stream in (None, row["stream"]))


@pytest.fixture
async def harness(tmp_path):
    made = Harness(tmp_path)
    await made.connect()
    yield made
    for row in await made.keeper.list():
        if "exit" not in row:
            with contextlib.suppress(KeeperError):
                await made.keeper.signal(row["id"], row["exec_id"], signal.SIGKILL)
            await made.event("exit", id=row["id"], exec_id=row["exec_id"])
    await made.keeper.close(shutdown=True)


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.002)


async def read_all(sock):
    loop = asyncio.get_running_loop()
    data = b""
    while chunk := await loop.sock_recv(sock, 65536):
        data += chunk
    sock.close()
    return data


async def test_output_is_on_file_and_the_code_known_when_the_exit_is_told(harness):
    await harness.start("one", "sh", "-c", "echo out; echo err >&2; printf unfinished; exit 7")
    event = await harness.event("exit", id="one")
    assert event["exit_code"] == 7
    assert harness.log("one", "stdout") == "out\nunfinished"
    assert harness.log("one", "stderr") == "err\n"
    assert json.loads(Path(f"{harness.root}/containers/one/exit.json").read_text())["exit_code"] == 7


async def test_a_signal_is_told_as_128_plus_its_number(harness):
    await harness.start("one", "sleep", "100")
    await harness.keeper.signal("one", None, signal.SIGTERM)
    event = await harness.event("exit", id="one")
    assert (event["exit_code"], event["signal"]) == (143, 15)


async def test_the_exit_is_told_within_milliseconds(harness):
    delays = []
    for number in range(10):
        await harness.start(f"c{number}", "sleep", "100")
        before = time.monotonic()
        await harness.keeper.signal(f"c{number}", None, signal.SIGKILL)
        await harness.event("exit", id=f"c{number}")
        delays.append(time.monotonic() - before)
    assert sorted(delays)[5] < 0.02


async def test_attached_before_the_start_a_client_gets_all_in_frames(harness):
    sock = await harness.keeper.attach("one", None, stdin=True, stdout=True, stderr=True)
    await harness.start("one", "sh", "-c", "cat; echo bad >&2", open_stdin=True, stdin_once=True)
    await asyncio.get_running_loop().sock_sendall(sock, b"hello\n")
    sock.shutdown(1)
    data = await read_all(sock)
    assert b"\1\0\0\0\0\0\0\6hello\n" in data
    assert b"\2\0\0\0\0\0\0\4bad\n" in data


async def test_without_stdin_once_the_input_stays_open_for_the_next_client(harness):
    await harness.start("one", "sh", "-c", "read a; read b; echo $a$b", open_stdin=True)
    for text in (b"x\n", b"y\n"):
        sock = await harness.keeper.attach("one", None, stdin=True)
        await asyncio.get_running_loop().sock_sendall(sock, text)
        sock.shutdown(1)
    await harness.event("exit", id="one")
    assert harness.log("one") == "xy\n"


async def test_a_terminal_is_resized_and_its_output_raw(harness):
    sock = await harness.keeper.attach("one", None, stdin=True)
    await harness.start(
        "one", "sh", "-c", "stty size; read a; stty size", tty=True, open_stdin=True, console_size=(20, 70)
    )
    data = await asyncio.get_running_loop().sock_recv(sock, 100)
    assert data == b"20 70\r\n"
    await harness.keeper.resize("one", None, 30, 90)
    await asyncio.get_running_loop().sock_sendall(sock, b"\n")
    assert b"30 90\r\n" in await read_all(sock)


async def test_an_exec_has_streams_and_an_exit_of_its_own(harness):
    await harness.start("one", "sleep", "100")
    sock = await harness.keeper.attach("one", "e1", stdin=True)
    await harness.keeper.exec("one", "e1", process={"args": ["sh", "-c", "cat; exit 3"]}, open_stdin=True)
    await asyncio.get_running_loop().sock_sendall(sock, b"abc")
    sock.shutdown(1)
    assert await read_all(sock) == b"\1\0\0\0\0\0\0\3abc"
    assert (await harness.event("exit", exec_id="e1"))["exit_code"] == 3
    assert harness.log("one") == ""


async def test_a_slow_client_loses_nothing_and_holds_the_process_back(harness):
    count = 2_000_000
    sock = await harness.keeper.attach("one", None)
    await harness.start("one", "seq", "1", str(count))
    await asyncio.sleep(0.3)
    assert "exit" not in (await harness.keeper.list())[0]
    data = await read_all(sock)
    text, position = b"", 0
    while position < len(data):
        size = int.from_bytes(data[position + 4 : position + 8], "big")
        text += data[position + 8 : position + 8 + size]
        position += 8 + size
    expected = "".join(f"{n}\n" for n in range(1, count + 1))
    assert text.decode() == expected
    await harness.event("exit", id="one")
    assert harness.log("one") == expected


WRITER = (
    "import os,sys,time\nfor n in range(3000):\n os.write(1,b'%d\\n'%n)\n time.sleep(0.001)\nsys.exit(int(sys.argv[1]))"
)


async def test_twenty_writers_lose_and_double_nothing_when_the_keeper_is_killed(harness):
    for number in range(20):
        await harness.start(f"w{number}", sys.executable, "-S", "-c", WRITER, str(number))
    for _ in range(4):
        await asyncio.sleep(0.4)
        pid = harness.keeper.pid
        os.kill(pid, signal.SIGKILL)
        await until(lambda pid=pid: harness.keeper.pid != pid)
    expected = "".join(f"{n}\n" for n in range(3000))
    for number in range(20):
        event = await harness.event("exit", 60, id=f"w{number}")
        assert event["exit_code"] == number
        assert harness.log(f"w{number}") == expected


async def test_a_flood_loses_and_doubles_nothing_when_the_keeper_is_killed(harness):
    count = 3_000_000
    await harness.start("flood", "seq", "1", str(count), log={"max_size": 1_000_000, "max_file": 1000})
    for _ in range(6):
        pid = harness.keeper.pid
        await asyncio.sleep(0.05)
        os.kill(pid, signal.SIGKILL)
        await until(lambda pid=pid: harness.keeper.pid != pid)
    await harness.event("exit", 60, id="flood")
    files = [f"{harness.root}/flood.log"]
    while os.path.exists(f"{harness.root}/flood.log.{len(files)}"):
        files.append(f"{harness.root}/flood.log.{len(files)}")
    numbers = []
    for path in reversed(files):
        with open(path) as file:
            numbers += re.findall(r'^\{"log":"(\d+)\\n"', file.read(), re.M)
    doubled = [n for n, times in collections.Counter(numbers).items() if times > 1]
    assert doubled == []
    assert numbers == [str(n) for n in range(1, count + 1)]


async def test_an_end_in_the_gap_between_two_keepers_is_told_with_its_code(harness):
    info = await harness.start("one", "sh", "-c", "trap 'echo last; exit 9' TERM; sleep 100 & wait")
    await asyncio.sleep(0.1)
    os.kill(harness.keeper.pid, signal.SIGKILL)
    os.kill(info["pid"], signal.SIGTERM)
    assert (await harness.event("exit", id="one"))["exit_code"] == 9
    assert harness.log("one") == "last\n"


async def test_input_goes_on_after_the_keeper_was_replaced(harness):
    await harness.start("one", "sh", "-c", "read a; echo got; exit 9", open_stdin=True)
    sock = await harness.keeper.attach("one", None, stdin=True)
    os.kill(harness.keeper.pid, signal.SIGSTOP)
    await asyncio.get_running_loop().sock_sendall(sock, b"x\n")
    os.kill(harness.keeper.pid, signal.SIGKILL)
    await harness.event("keeper_restarted")
    again = await harness.keeper.attach("one", None, stdin=True)
    await asyncio.get_running_loop().sock_sendall(again, b"x\n")
    assert (await harness.event("exit", id="one"))["exit_code"] == 9
    assert harness.log("one") == "got\n"


async def test_killed_together_with_the_daemon_processes_are_adopted_and_losses_told(harness):
    await harness.start("plain", "sh", "-c", "for i in $(seq 300); do echo $i; sleep 0.01; done; exit 4")
    await harness.start("typed", "sleep", "100", open_stdin=True)
    harness.keeper._closed = True
    os.kill(harness.keeper.pid, signal.SIGKILL)
    harness.keeper._process.wait()
    await harness.keeper.close()
    await asyncio.sleep(0.3)
    await harness.connect()
    assert (await harness.event("adopted", id="plain"))["lost"] == []
    assert (await harness.event("adopted", id="typed"))["lost"] == ["stdin"]
    assert (await harness.event("exit", id="plain"))["exit_code"] == (4 if KEEPS_CODES else 255)
    assert harness.log("plain") == "".join(f"{n}\n" for n in range(1, 301))


async def test_what_a_process_leaves_behind_writing_holds_neither_the_keeper_nor_its_memory(harness):
    await harness.start("one", "sleep", "100")
    await harness.keeper.attach("one", "e")
    script = "for i in 1 2 3 4; do timeout -s KILL 4 yes $(printf %4000d 0) & done; exit 3"
    await harness.keeper.exec("one", "e", process={"args": ["sh", "-c", script]})
    assert (await harness.event("exit", id="one", exec_id="e"))["exit_code"] == 3
    await harness.start("two", "true")
    await harness.event("exit", id="two")
    status = Path(f"/proc/{harness.keeper.pid}/status").read_text()
    assert int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) < 100_000


async def test_a_process_whose_log_cannot_be_opened_any_more_is_minded(harness):
    os.mkdir(f"{harness.root}/logs")
    await harness.start("one", "sh", "-c", "read a; echo $a; exit 5", open_stdin=True, log={"path": f"{harness.root}/logs/one"})
    shutil.rmtree(f"{harness.root}/logs")
    os.kill(harness.keeper.pid, signal.SIGKILL)
    await harness.event("keeper_restarted")
    assert (await harness.event("log_error", id="one"))["message"] == "no such file or directory"
    sock = await harness.keeper.attach("one", None, stdin=True)
    await asyncio.get_running_loop().sock_sendall(sock, b"x\n")
    assert await read_all(sock) == b"\1\0\0\0\0\0\0\2x\n"
    assert (await harness.event("exit", id="one"))["exit_code"] == 5


async def test_a_daemon_that_died_is_started_again_by_its_command_line(harness):
    mark = f"{harness.root}/revived"
    second = await Keeper.connect_or_spawn(
        harness.root, on_event=lambda _: None, restart_daemon=True, daemon_argv=["touch", mark]
    )
    await harness.keeper.close()
    second._closed = True
    second._drop_connection()
    await until(lambda: os.path.exists(mark))
    await harness.connect()


async def test_rotated_files_are_numbered_and_compressed(harness):
    import gzip

    await harness.start("one", "seq", "1", "20000", log={"max_size": 400_000, "max_file": 5, "compress": True})
    await harness.event("exit", id="one")

    def rotated():
        return sorted(Path(harness.root).glob("one.log.*"), reverse=True)

    await until(lambda: len(rotated()) >= 3 and all(path.suffix == ".gz" for path in rotated()))
    text = "".join(gzip.decompress(path.read_bytes()).decode() for path in rotated())
    text += Path(f"{harness.root}/one.log").read_text()
    numbers = re.findall(r'"log":"(\d+)\\n"', text)
    assert numbers == [str(n) for n in range(1, 20001)]


async def test_requests_with_wrong_names_or_types_are_refused(harness):
    with pytest.raises(KeeperError, match="invalid name"):
        await harness.keeper.forget("../../etc")
    with pytest.raises(KeeperError, match="not running"):
        await harness.keeper.signal("nosuch", None, 9)
    with pytest.raises(KeeperError):
        await harness.start("one", "/no/such/program")
    with pytest.raises(KeeperError, match="unknown log settings"):
        await harness.start("one", "true", log={"wrong": 1})
    await harness.start("one", "true")
    await harness.event("exit", id="one")
    await harness.keeper.forget("one")
    assert await harness.keeper.list() == []


async def test_an_idle_keeper_is_small(harness):
    await harness.keeper.ping()
    rollup = Path(f"/proc/{harness.keeper.pid}/smaps_rollup").read_text()
    pss_kb = int(re.search(r"^Pss:\s+(\d+)", rollup, re.M)[1])
    print("PSS", pss_kb, "kB")
    assert pss_kb < 12_000


async def test_what_a_terminal_wrote_on_its_way_to_the_log_outlives_the_keeper(harness):
    await harness.start("one", "sh", "-c", "echo before; read a; echo after", tty=True, open_stdin=True)
    await until(lambda: "before" in harness.log("one"))
    os.kill(harness.keeper.pid, signal.SIGSTOP)
    # As a keeper leaves it that is killed after it took the bytes and before it has spooled them.
    os.write(harness.keeper._held[("one", None)]["bridge"], b"between\r\n")
    harness.events.clear()
    os.kill(harness.keeper.pid, signal.SIGKILL)
    adopted = await harness.event("adopted", id="one")
    assert adopted["lost"] == []
    assert harness.log("one") == "before\r\nbetween\r\n"
    sock = await harness.keeper.attach("one", None, stdin=True)
    await asyncio.get_running_loop().sock_sendall(sock, b"\n")
    assert b"after\r\n" in await read_all(sock)
    await harness.event("exit", id="one")
    assert harness.log("one").endswith("between\r\n\r\nafter\r\n")


async def test_a_terminal_that_writes_much_loses_nothing(harness):
    count = 200_000
    sock = await harness.keeper.attach("one", None)
    await harness.start("one", "seq", "1", str(count), tty=True)
    expected = "".join(f"{n}\r\n" for n in range(1, count + 1))
    assert (await read_all(sock)).decode() == expected
    await harness.event("exit", id="one")
    assert harness.log("one") == expected


async def test_a_keeper_that_is_to_end_while_a_process_runs_ends_after_it(tmp_path):
    made = Harness(tmp_path)
    await made.connect()
    await made.start("one", "sleep", "0.5")
    process = made.keeper._process
    await made.keeper.close(shutdown=True)
    assert process.wait(20) == 0
    assert json.loads(Path(f"{made.root}/containers/one/exit.json").read_text())["exit_code"] == 0
