"""Logs to the journal and to plugins, and what a slow or dead server costs without blocking: no more than the buffer says."""

import array
import http.server
import json
import os
import socket
import socketserver
import struct
import threading
import time
from pathlib import Path

import pytest

from system.log_servers import Lines
from under_test import until

pytestmark = pytest.mark.system
JOURNAL = Path("/run/systemd/journal/socket")
SPEAK = ["sh", "-c", "echo to out; echo to err >&2; printf unfinished"]


class Journal:
    """A journal that keeps what it is sent, as dictionaries of fields."""

    def __init__(self, path):
        self.got, self.files = [], 0
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(str(path))
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                data, more, _, _ = self.sock.recvmsg(1 << 20, socket.CMSG_SPACE(4))
            except OSError:
                return
            for level, kind, raw in more:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    with open(array.array("i", raw)[0], "rb") as file:
                        file.seek(0)
                        data = file.read()
                    self.files += 1
            if not data:
                return
            self.got.append(self._fields(data))

    def _fields(self, data):
        found = {}
        while data:
            line, _, data = data.partition(b"\n")
            name, equals, value = line.partition(b"=")
            if not equals:
                size = struct.unpack_from("<Q", data)[0]
                value, data = data[8 : 8 + size], data[9 + size :]
            found[name.decode()] = value.decode()
        return found

    def close(self):
        self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()


@pytest.fixture
def journal():
    if JOURNAL.exists():
        pytest.skip("this machine has a journal of its own")
    made = [folder for folder in (JOURNAL.parent, *JOURNAL.parent.parents) if not folder.exists()]
    JOURNAL.parent.mkdir(parents=True, exist_ok=True)
    server = Journal(JOURNAL)
    yield server
    server.close()
    JOURNAL.unlink()
    for folder in made:
        folder.rmdir()


def test_the_journal_gets_lines_with_their_containers_fields(engine, journal):
    words = ["--log-driver", "journald", "--log-opt", "tag={{.Name}}", "--log-opt", "labels=team", "--log-opt", "env=STAGE"]
    engine.docker("run", "--name", "journalled", "-l", "team=a", "-e", "STAGE=test", *words, "busybox", *SPEAK)
    found = {row["MESSAGE"]: row for row in until(lambda: len(journal.got) == 3 and journal.got, "three lines came")}
    assert {text: row["PRIORITY"] for text, row in found.items()} == {"to out": "6", "to err": "3", "unfinished": "6"}
    row = found["to out"]
    identity = engine.docker("inspect", "-f", "{{.Id}}", "journalled")
    assert (row["CONTAINER_NAME"], row["CONTAINER_TAG"], row["SYSLOG_IDENTIFIER"]) == ("journalled",) * 3
    assert (row["CONTAINER_ID"], row["CONTAINER_ID_FULL"], row["IMAGE_NAME"]) == (identity[:12], identity, "busybox")
    assert (row["TEAM"], row["STAGE"]) == ("a", "test")
    assert engine.docker("logs", "journalled") == "to out\nunfinished"
    # What fits no datagram comes as a file.
    words[5] = "labels-regex=big"
    big = [word for n in range(5) for word in ("-l", f"big{n}={'x' * 60_000}")]
    engine.docker("run", "--rm", *big, *words, "busybox", "echo", "large")
    until(lambda: len(journal.got) == 4, "the large one came")
    assert journal.files == 1 and len(journal.got[3]["BIG4"]) == 60_000 and journal.got[3]["MESSAGE"] == "large"
    engine.docker("run", "--rm", *words, "busybox", "sh", "-c", "yes | head -c 40000 | tr -d '\\n'")
    pieces = until(lambda: len(journal.got) == 6 and journal.got[4:], "both pieces came")
    assert "".join(piece["MESSAGE"] for piece in pieces) == "y" * 20000
    assert [piece.get("CONTAINER_PARTIAL_MESSAGE") for piece in pieces] == ["true", None]
    engine.docker("rm", "journalled")


def test_without_a_journal_a_container_does_not_start(engine):
    if JOURNAL.exists():
        pytest.skip("this machine has a journal of its own")
    refused = engine.docker_result("run", "--rm", "--log-driver", "journald", "busybox", "true")
    assert refused.returncode == 125 and "journald is not enabled on this host" in refused.stderr


class Plugin(http.server.BaseHTTPRequestHandler):
    """A log plugin that keeps entries; its server has `calls`, `entries`, and `err` to refuse with."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")
        self.server.calls.append((self.path, body))
        answer = {"/Plugin.Activate": {"Implements": ["LogDriver"]}, "/LogDriver.Capabilities": {"Cap": {"ReadLogs": False}}}
        data = json.dumps(answer.get(self.path, {"Err": self.server.err})).encode()
        if self.path == "/LogDriver.StartLogging" and not self.server.err:
            threading.Thread(target=self._read, args=(body["File"],), daemon=True).start()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _read(self, path):
        with open(path, "rb") as pipe:
            while head := pipe.read(4):
                self.server.entries.append(parsed(pipe.read(struct.unpack(">I", head)[0])))

    def address_string(self):
        return "engine"

    def log_message(self, *words):
        pass


def parsed(data):
    """Return the fields of a LogEntry."""
    def varint():
        nonlocal data
        value = shift = 0
        while True:
            byte, data = data[0], data[1:]
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7

    found = {}
    while data:
        key = varint()
        value = varint()
        if key & 7 == 2:
            value, data = data[:value], data[value:]
        found[key >> 3] = value
    return found


@pytest.fixture
def plugin(engine):
    folder = engine.root / "exec" / "plugins"
    folder.mkdir(exist_ok=True)
    server = socketserver.ThreadingUnixStreamServer(str(folder / "keeper.sock"), Plugin)
    server.daemon_threads = True
    server.calls, server.entries, server.err = [], [], ""
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()
    (folder / "keeper.sock").unlink()


def test_a_log_plugin_is_used_by_dockers_protocol(engine, plugin):
    before = time.time_ns()
    engine.docker("run", "--name", "plugged", "-l", "team=a", "--log-driver", "keeper", "--log-opt", "any=option", "busybox", *SPEAK)
    until(lambda: len(plugin.entries) == 3, "three entries came")
    assert sorted((e[1], e[3]) for e in plugin.entries) == [(b"stderr", b"to err"), (b"stdout", b"to out"), (b"stdout", b"unfinished")]
    assert all(before < e[2] < time.time_ns() for e in plugin.entries)
    begun = until(lambda: [body for path, body in plugin.calls if path == "/LogDriver.StartLogging"])[0]
    ended = until(lambda: [body for path, body in plugin.calls if path == "/LogDriver.StopLogging"], "it is told of the end")[0]
    assert ended["File"] == begun["File"]
    until(lambda: not os.path.exists(begun["File"]), "the pipe is gone")
    told = begun["Info"]
    assert (told["ContainerName"], told["ContainerLabels"], told["Config"]) == ("/plugged", {"team": "a"}, {"any": "option"})
    assert told["ContainerID"] == engine.docker("inspect", "-f", "{{.Id}}", "plugged")
    assert (told["ContainerEntrypoint"], told["ContainerArgs"][0]) == ("sh", "-c")
    result = engine.docker_result("logs", "plugged")
    assert (result.stdout, result.stderr) == ("to out\nunfinished", "to err\n")
    assert "keeper" in json.loads(engine.docker("info", "-f", "{{json .Plugins.Log}}"))
    plugin.err = "the shelf is full"
    refused = engine.docker_result("run", "--name", "unplugged", "--log-driver", "keeper", "busybox", "true")
    assert refused.returncode == 125 and "the shelf is full" in refused.stderr
    engine.docker("rm", "plugged", "unplugged")


class Stuck(Lines):
    """A server that takes connections and reads nothing until it is released."""

    def __init__(self, **options):
        self.released = threading.Event()
        super().__init__(**options)

    def serve(self, peer):
        self.released.wait()
        super().serve(peer)


@pytest.mark.parametrize("fault", ["dead", "stuck"])
def test_without_blocking_no_more_is_lost_than_the_buffer_does_not_hold(engine, fault):
    server = Stuck(separator=b"\0")
    port = server.port
    words = ["--log-driver", "gelf", "--log-opt", f"gelf-address=tcp://127.0.0.1:{port}", "--log-opt", "gelf-tcp-max-reconnect=0",
             "--log-opt", "mode=non-blocking", "--log-opt", "max-buffer-size=1m", "--log-opt", "cache-max-size=300k",
             "--log-opt", "cache-max-file=2", "--log-opt", "cache-compress=false"]  # fmt: skip
    if fault == "dead":
        server.close()
    lines = 60_000
    began = time.monotonic()
    # Many times the buffer.
    engine.docker("run", "--name", f"unheard-{fault}", *words, "busybox", "sh", "-c", f"seq 1 {lines} | sed 's/$/ {'x' * 200}/'")
    assert time.monotonic() - began < 30, "the container was held back"
    if fault == "dead":
        server = Stuck(separator=b"\0", port=port)
    server.released.set()
    until(lambda: server.got and number(server.got[-1]) == lines, "the last line came", 60)
    told = [number(message) for message in server.got]
    # First what was on its way before the buffer filled, then what it holds: the end, with nothing missing.
    gaps = [at for at in range(1, len(told)) if told[at] != told[at - 1] + 1]
    assert gaps and told[0] == 1 and told == sorted(set(told))
    held = told[gaps[-1] :]
    assert held[-1] == lines and sum(len(f"{n} {'x' * 200}\n") for n in held) >= 1 << 20
    server.close()
    engine.docker("rm", f"unheard-{fault}")


def number(message):
    return int(json.loads(message)["short_message"].split()[0])
