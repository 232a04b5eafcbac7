"""Connections of the command that are used again: what the engine closed meanwhile, and what is never sent twice."""

import socket
import threading

import pytest

from barque.base.errors import UnavailableError
from barque.client.api import Api, ApiConnectionError
from barque.client.endpoint import parse_host

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class FakeEngine:
    """Answers as the script of each connection says, and notes the requests."""

    def __init__(self, path, scripts):
        self.requests = []
        self.closed = threading.Semaphore(0)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, args=(scripts,), daemon=True)
        self._thread.start()

    def _serve(self, scripts):
        for script in scripts:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                for answer in script:
                    data = b""
                    while b"\r\n\r\n" not in data:
                        data += connection.recv(65536)
                    self.requests.append(data.split(b" HTTP", 1)[0].decode())
                    connection.sendall(answer)
            self.closed.release()

    def end(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)


@pytest.fixture
def engine_with(tmp_path):
    made = []

    def make(*scripts):
        path = str(tmp_path / "s.sock")
        made.append(FakeEngine(path, scripts))
        return made[0], Api(parse_host(f"unix://{path}"))

    yield make
    for engine in made:
        engine.end()


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_connection_that_was_closed_while_it_was_idle_is_not_used_again(engine_with, method):
    engine, api = engine_with([ANSWER], [ANSWER])
    assert api.call(method, "/first") == {}
    assert engine.closed.acquire(timeout=10)
    assert api.call(method, "/second") == {}
    assert engine.requests == [f"{method} /first", f"{method} /second"]


def test_a_question_whose_connection_closes_under_it_is_asked_again(engine_with):
    engine, api = engine_with([ANSWER, b""], [ANSWER])
    api.get("/first")
    assert api.get("/second") == {}
    assert engine.requests == ["GET /first", "GET /second", "GET /second"]


def test_a_change_is_never_sent_twice(engine_with):
    engine, api = engine_with([ANSWER, b""])
    api.get("/first")
    with pytest.raises((UnavailableError, ApiConnectionError)):
        api.post("/change")
    assert engine.requests == ["GET /first", "POST /change"]


@pytest.mark.parametrize("size", [b"", b"-5", b"xyz", b"0x10", b"1_0"])
def test_a_chunk_without_a_proper_size_is_an_error(engine_with, size):
    _, api = engine_with([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + size + b"\r\nhello\r\n0\r\n\r\n"])
    with pytest.raises(UnavailableError, match="a chunk without its size"):
        api.get("/x")
