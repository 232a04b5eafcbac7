"""Requests that no client would send, to an engine under test."""

import http.client
import json
import socket
from typing import Any

from under_test import EngineUnderTest


def ask(engine: EngineUnderTest, method: str, path: str, body: bytes | None = None, kind: str = "application/json") -> tuple[int, Any]:
    """Send a request to the engine's socket; return the status, and the JSON or text of the answer."""
    connection = http.client.HTTPConnection("localhost", timeout=30)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(30)
    connection.sock.connect(str(engine.socket))
    try:
        connection.request(method, path, body, {"Content-Type": kind} if body is not None else {})
        answer = connection.getresponse()
        text = answer.read()
    finally:
        connection.close()
    try:
        return answer.status, json.loads(text) if text else None
    except ValueError:
        return answer.status, text.decode(errors="replace")
