"""Servers and askers of real traffic, run in network namespaces: TCP 80, UDP 53 and ping, in both IP versions.

    python traffic.py serve        answers who asked, until it is ended
    python traffic.py ask          reads a JSON list of [kind, address, port], writes one of what each was told ("": nothing)
"""

import concurrent.futures
import json
import socket
import struct
import subprocess
import sys
import threading
from typing import Any

_TIMEOUT_S = 0.6
# A question to one machine: "tcp", "udp" or "ping", its address, and the port.
Question = tuple[str, str, int]


class Server:
    """A server in a network namespace, for as long as the context lasts or until end()."""

    def __init__(self, netns: str) -> None:
        self._process = subprocess.Popen(
            ["nsenter", f"--net={netns}", sys.executable, "-I", "-S", __file__, "serve"], stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n", "the server did not start"

    def end(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


def ask(questions: dict[str, list[Question]]) -> dict[str, list[str]]:
    """Ask all at once, by the network namespace to ask from; return what each was told."""
    running = {}
    for netns, listed in questions.items():
        command = ["nsenter", f"--net={netns}", sys.executable, "-I", "-S", __file__, "ask"]
        running[netns] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert running[netns].stdin is not None
        running[netns].stdin.write(json.dumps(listed))
        running[netns].stdin.close()
    answers = {}
    for netns, process in running.items():
        assert process.stdout is not None
        answers[netns] = json.loads(process.stdout.read())
        process.wait()
    return answers


def _ask_one(question: Question) -> str:
    kind, host, port = question
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        if kind == "ping":
            return _ping(family, host)
        with socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as sock:
            sock.settimeout(_TIMEOUT_S)
            sock.connect((host, port))
            sock.send(b"x")
            return sock.recv(100).decode()
    except OSError:
        return ""


def _ping(family: socket.AddressFamily, host: str) -> str:
    six = family == socket.AF_INET6
    with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_ICMPV6 if six else socket.IPPROTO_ICMP) as sock:
        sock.settimeout(_TIMEOUT_S)
        sock.connect((host, 0))
        number = id(sock) >> 4 & 0xFFFF
        # Type 8 (128 in IPv6, where the kernel adds the checksum), code, checksum, identifier, sequence.
        checksum = 0 if six else ~(0x0800 + number + ((0x0800 + number) >> 16)) & 0xFFFF
        sock.send(struct.pack("!BBHHH", 128 if six else 8, 0, checksum, number, 0))
        while True:
            data = sock.recv(2000)
            kind, _, _, got, _ = struct.unpack_from("!BBHHH", data, 0 if six else (data[0] & 15) * 4)
            if got == number and kind == (129 if six else 0):
                return "alive"


def _who(peer: Any) -> bytes:
    return str(peer[0]).removeprefix("::ffff:").encode()


def _serve() -> None:
    datagrams = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    datagrams.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    datagrams.bind(("::", 53))

    def echo() -> None:
        while True:
            _, peer = datagrams.recvfrom(100)
            try:
                datagrams.sendto(_who(peer), peer)
            except OSError:
                continue

    threading.Thread(target=echo, daemon=True).start()
    listener = socket.create_server(("::", 80), family=socket.AF_INET6, dualstack_ipv6=True, backlog=100)
    print("ready", flush=True)
    while True:
        talk, peer = listener.accept()
        try:
            talk.sendall(_who(peer))
        except OSError:
            pass
        talk.close()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        _serve()
    else:
        asked = json.load(sys.stdin)
        with concurrent.futures.ThreadPoolExecutor(max(1, len(asked))) as pool:
            json.dump(list(pool.map(_ask_one, asked)), sys.stdout)
