"""Containers that serve pages of their own name, and who gets them: for tests of networks."""

import json
import socket
import time
import urllib.request

from under_test import EngineUnderTest, until


def run(engine: EngineUnderTest, name: str, *flags: str) -> str:
    """Start a container that serves pages of its own name on port 80."""
    page = f"mkdir -p /w; echo {name} > /w/index.html; exec httpd -f -p 80 -h /w"
    return engine.docker("run", "-d", "--name", name, *flags, "busybox", "sh", "-c", page)


def page(engine: EngineUnderTest, source: str, target: str) -> str:
    """Return what a container (or "" for the host) gets from an address, "" where it gets nothing."""
    if source:
        return engine.docker("exec", source, "timeout", "1", "wget", "-q", "-O", "-", f"http://{target}/", check=False)
    try:
        with urllib.request.urlopen(f"http://{target}/", timeout=1) as answer:
            return str(answer.read().decode().strip())
    except OSError:
        return ""


def reaches(engine: EngineUnderTest, source: str, target: str) -> bool:
    """Wait until a page is there (a server may just be starting)."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if page(engine, source, target):
            return True
    return False


def connected(port: int) -> socket.socket:
    """Return a connection to a port of the host whose server may just be starting."""

    def tried() -> socket.socket | None:
        try:
            return socket.create_connection(("127.0.0.1", port), 5)
        except ConnectionRefusedError:
            return None

    found = until(tried, f"port {port} is served")
    assert isinstance(found, socket.socket)
    return found


def address(engine: EngineUnderTest, name: str, network: str, field: str = "IPAddress") -> str:
    """Return an address that a container is said to have in a network."""
    settings = json.loads(engine.docker("inspect", "-f", "{{json .NetworkSettings.Networks}}", name))
    return str(settings[network][field])


def pings(engine: EngineUnderTest, source: str, target: str) -> bool:
    """Tell whether a container gets an answer to a ping."""
    return engine.docker_result("exec", source, "ping", "-c1", "-W1", target).returncode == 0


def clear(engine: EngineUnderTest) -> None:
    """Remove all containers, and the networks that nobody uses then."""
    for name in engine.docker("ps", "-aq").split():
        engine.docker("rm", "-f", name, check=False)
    engine.docker("network", "prune", "-f")
