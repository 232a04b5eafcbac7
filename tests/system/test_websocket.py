"""Attach over a websocket, by a client of its own and by docker-py."""

import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest
import websocket

from under_test import EngineUnderTest, _remove, needs_root, until

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def both() -> Iterator[tuple[EngineUnderTest, int]]:
    """Give an engine that listens on a socket and on a port of the loopback."""
    needs_root()
    root = Path(tempfile.mkdtemp(prefix="bqws", dir="/var/tmp"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    engine = EngineUnderTest(root, "-H", f"tcp://127.0.0.1:{port}")
    try:
        engine.start()
        engine.load_busybox()
        yield engine, port
        for name in engine.docker("ps", "-aq").split():
            engine.docker("rm", "-f", name)
    finally:
        engine.stop()
        _remove(root)


def by_socket(engine: EngineUnderTest, _: int, path: str) -> websocket.WebSocket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(15)
    sock.connect(str(engine.socket))
    return websocket.create_connection(f"ws://localhost{path}", socket=sock, timeout=15)


def by_port(_: EngineUnderTest, port: int, path: str) -> websocket.WebSocket:
    return websocket.create_connection(f"ws://127.0.0.1:{port}{path}", timeout=15)


Connect = Callable[[EngineUnderTest, int, str], websocket.WebSocket]
ALL = "stream=1&stdin=1&stdout=1&stderr=1"


def received(client: websocket.WebSocket, text: bytes) -> bytes:
    seen = b""
    while text not in seen:
        data = client.recv()
        assert data, seen
        seen += data if isinstance(data, bytes) else data.encode()
    return seen


@pytest.mark.parametrize("connect", [by_socket, by_port])
@pytest.mark.parametrize("flags", [["-i"], ["-it"]], ids=["pipes", "terminal"])
def test_a_shell_is_used_over_a_websocket_and_its_end_closes_it(
    both: tuple[EngineUnderTest, int], connect: Connect, flags: list[str]
) -> None:
    engine, port = both
    name = engine.docker("run", "-d", *flags, "busybox", "sh")
    client = connect(engine, port, f"/v1.51/containers/{name}/attach/ws?{ALL}")
    client.send_binary(b"echo first-$((40+2)); echo second-$((40+2)) >&2\n")
    seen = received(client, b"second-42")
    assert b"first-42" in seen
    client.send("exit 3\n")
    with pytest.raises((websocket.WebSocketConnectionClosedException, ConnectionError)):
        while client.recv() != "":
            pass
        raise websocket.WebSocketConnectionClosedException
    client.close()
    assert engine.docker("wait", name) == "3"
    engine.docker("rm", name)


@pytest.mark.parametrize("connect", [by_socket, by_port])
def test_a_client_that_goes_leaves_the_container_and_detach_keys_do_too(
    both: tuple[EngineUnderTest, int], connect: Connect
) -> None:
    engine, port = both
    name = engine.docker("run", "-dit", "busybox", "sh")
    client = connect(engine, port, f"/containers/{name}/attach/ws?{ALL}")
    client.send_binary(b"echo here-$((1+1))\n")
    received(client, b"here-2")
    client.shutdown()
    client = connect(engine, port, f"/containers/{name}/attach/ws?{ALL}&detachKeys=ctrl-x,q&logs=1")
    received(client, b"here-2")
    client.send_binary(b"\x18q")
    with pytest.raises((websocket.WebSocketConnectionClosedException, ConnectionError)):
        while client.recv() != "":
            pass
        raise websocket.WebSocketConnectionClosedException
    assert engine.docker("inspect", "-f", "{{.State.Status}}", name) == "running"
    engine.docker("rm", "-f", name)


def test_what_cannot_be_attached_is_told_before_the_upgrade(both: tuple[EngineUnderTest, int]) -> None:
    engine, port = both
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        by_port(engine, port, f"/containers/nosuch/attach/ws?{ALL}")
    assert refused.value.status_code == 404
    name = engine.docker("run", "-d", "busybox", "sleep", "100")
    engine.docker("pause", name)
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        by_socket(engine, port, f"/containers/{name}/attach/ws?{ALL}")
    assert refused.value.status_code == 409
    engine.docker("rm", "-f", name)


def test_docker_py_attaches_by_websocket(both: tuple[EngineUnderTest, int]) -> None:
    _, port = both
    client = docker.APIClient(base_url=f"tcp://127.0.0.1:{port}")
    try:
        made = client.create_container("busybox", "cat", stdin_open=True, tty=True)
        joined = client.attach_socket(made["Id"], params={"stdin": 1, "stdout": 1, "stream": 1}, ws=True)
        client.start(made["Id"])
        joined.send("typed\n")
        assert b"typed" in received(joined, b"typed")
        joined.close()
        until(lambda: client.inspect_container(made["Id"])["State"]["Running"])
        client.remove_container(made["Id"], force=True)
    finally:
        client.close()
