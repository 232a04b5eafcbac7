"""Requests and command lines that are wrong: a clear error, and nothing half-made."""

import http.client
import json
import socket
from typing import Any

import pytest

from conftest import EngineUnderTest

pytestmark = pytest.mark.system


def _ask(engine: EngineUnderTest, method: str, path: str, body: bytes | None = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("localhost", timeout=20)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(20)
    connection.sock.connect(str(engine.socket))
    connection.request(method, path, body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return answer.status, json.loads(text) if text else None


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{", 400, ""),
        (b"[]", 400, ""),
        (b'{"Image": 7}', 400, ""),
        (b'{"Image": "nosuchimage"}', 404, "No such image: nosuchimage:latest"),
        (b'{"Image": "busybox", "HostConfig": {"Memory": 1}}', 400, "Minimum memory limit"),
        (b'{"Image": "busybox", "HostConfig": {"PortBindings": {"80/xyz": [{}]}}}', 400, ""),
        (b'{"Image": "busybox", "HostConfig": {"RestartPolicy": {"Name": "sometimes"}}}', 400, "sometimes"),
    ],
)
def test_a_wrong_create_is_refused_and_makes_nothing(
    engine: EngineUnderTest, body: bytes, status: int, words: str
) -> None:
    before = engine.docker("ps", "-aq")
    got, answer = _ask(engine, "POST", "/v1.47/containers/create", body)
    assert got == status, answer
    assert words in answer["message"]
    assert engine.docker("ps", "-aq") == before


def test_unknown_fields_are_tolerated_as_docker_does(engine: EngineUnderTest) -> None:
    got, answer = _ask(engine, "POST", "/v1.47/containers/create", b'{"Image": "busybox", "Nonsense": {"a": 1}}')
    assert got == 201, answer
    engine.docker("rm", answer["Id"])


def test_unknown_containers_and_pages_are_not_found(engine: EngineUnderTest) -> None:
    assert _ask(engine, "GET", "/containers/nosuch/json") == (404, {"message": "No such container: nosuch"})
    assert _ask(engine, "GET", "/nosuch")[0] == 404
    assert _ask(engine, "GET", "/v9.99/info")[0] == 400


def test_a_name_in_use_is_a_conflict_and_a_wrong_one_refused(engine: EngineUnderTest) -> None:
    first = engine.docker("create", "--name", "taken", "busybox")
    result = engine.docker_result("create", "--name", "taken", "busybox")
    assert result.returncode == 1
    assert f'The container name "/taken" is already in use by container "{first}"' in result.stderr
    assert "Invalid container name" in engine.docker_result("create", "--name", "a b", "busybox").stderr
    engine.docker("rm", "taken")


def test_a_missing_command_exits_127_and_an_inexecutable_one_126(engine: EngineUnderTest) -> None:
    missing = engine.docker_result("run", "--rm", "busybox", "nosuchcommand")
    assert missing.returncode == 127, missing.stderr
    assert 'exec: "nosuchcommand": executable file not found in $PATH' in missing.stderr
    folder = engine.docker_result("run", "--rm", "busybox", "/etc/passwd")
    assert folder.returncode == 126, folder.stderr
    assert engine.docker_result("run", "--rm", "busybox", "sh", "-c", "exit 7").returncode == 7
    assert engine.docker_result("run", "--nosuchflag", "busybox").returncode == 125
    assert engine.docker("ps", "-aq") == ""


def test_a_taken_port_is_an_error_and_the_container_stays_created(engine: EngineUnderTest) -> None:
    with socket.socket() as listener:
        listener.bind(("0.0.0.0", 0))
        listener.listen()
        port = listener.getsockname()[1]
        result = engine.docker_result("run", "-d", "--name", "noport", "-p", f"{port}:80", "busybox", "sleep", "9")
    assert result.returncode == 125
    assert str(port) in result.stderr
    assert engine.docker("inspect", "-f", "{{.State.Status}}", "noport") == "created"
    engine.docker("rm", "noport")


def test_a_second_daemon_on_the_same_roots_is_refused(engine: EngineUnderTest) -> None:
    second = engine.run(engine.arguments(), timeout=30)
    assert second.returncode != 0
    assert str(engine.root) in second.stderr
    assert engine.docker("version", "-f", "{{.Server.Version}}")
