"""Small real log servers: UDP, TCP, TLS, unix, fluentd, HTTP, the journal, a log plugin.

All keep in `got` what they are sent. Those that can be slow take nothing while their event `flowing` is not set.
"""

import array
import contextlib
import datetime
import gzip
import http.server
import ipaddress
import json
import os
import select
import socket
import socketserver
import ssl
import struct
import threading
import zlib
from pathlib import Path

import pytest

from barque.logdrivers import msgpack

JOURNAL = Path("/run/systemd/journal/socket")


def flows():
    """Return an event that is set."""
    event = threading.Event()
    event.set()
    return event


def shut(sock):
    """Close a socket on which threads may wait."""
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    sock.close()


class Lines:
    """A server that keeps what it is sent, piece by piece."""

    def __init__(self, kind="tcp", path="", context=None, separator=b"\n", port=0):
        self.got, self.separator = [], separator
        self.flowing = flows()
        if kind == "unixgram":
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self.sock.bind(path)
        elif kind == "unix":
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.bind(path)
            self.sock.listen()
        elif kind == "udp":
            self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
            self.sock.bind(("127.0.0.1", port))
        else:
            self.sock = socket.socket()
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Little lies between us and who sends, so that being slow is noticed.
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
            self.sock.bind(("127.0.0.1", port))
            self.sock.listen()
        self.port = 0 if path else self.sock.getsockname()[1]
        self.context = context
        self.peers = []
        target = self.accept if self.sock.type == socket.SOCK_STREAM else self.datagrams
        threading.Thread(target=target, daemon=True).start()

    def datagrams(self):
        while True:
            try:
                data = self.sock.recv(1 << 16)
            except OSError:
                return
            if not data:
                return
            self.got.append(data)

    def accept(self):
        while True:
            try:
                peer, _ = self.sock.accept()
            except OSError:
                return
            self.peers.append(peer)
            threading.Thread(target=self.serve, args=(peer,), daemon=True).start()

    def serve(self, peer):
        try:
            if self.context:
                peer = self.context.wrap_socket(peer, server_side=True)
            rest = b""
            while self.flowing.wait() and (data := peer.recv(1 << 16)):
                *whole, rest = (rest + data).split(self.separator)
                self.got += whole
        except OSError:
            return

    def close(self):
        self.flowing.set()
        for sock in [self.sock, *self.peers]:
            shut(sock)


class Fluentd(Lines):
    """A fluentd that acknowledges chunks."""

    def serve(self, peer):
        rest = b""
        try:
            while self.flowing.wait() and (data := peer.recv(1 << 16)):
                rest += data
                while rest:
                    try:
                        (tag, time, record, option), end = msgpack.unpack(rest)
                    except IndexError:
                        break
                    rest = rest[end:]
                    self.got.append((tag, time, record))
                    if option.get("chunk"):
                        peer.sendall(msgpack.pack({"ack": option["chunk"]}))
        except OSError:
            return


class Http(http.server.ThreadingHTTPServer):
    """An HTTP server that keeps (method, path, headers, body) and answers as told."""

    daemon_threads = True

    def __init__(self, answer=lambda method, path: (200, {}), *, host="127.0.0.1", port=0, context=None):
        super().__init__((host, port), _Handler)
        self.got, self.answer, self.peers = [], answer, []
        self.flowing = flows()
        self.context = context
        self.port = self.server_address[1]
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def get_request(self):
        peer, where = super().get_request()
        self.peers.append(peer)
        return peer, where

    def finish_request(self, peer, where):
        if self.context:
            peer = self.context.wrap_socket(peer, server_side=True)
        super().finish_request(peer, where)

    def handle_error(self, peer, where):
        """Say nothing: clients that go away, and ourselves that do, are part of tests."""

    def close(self):
        self.shutdown()
        self.server_close()
        self.flowing.set()
        for peer in self.peers:
            shut(peer)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle_one(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.flowing.wait()
        self.server.got.append((self.command, self.path, dict(self.headers), body))
        status, value = self.server.answer(self.command, self.path)
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_POST = do_OPTIONS = do_PUT = do_GET = handle_one  # noqa: N815

    def log_message(self, *words):
        pass


class Journal:
    """A journal that keeps what it is sent, as dictionaries of fields."""

    def __init__(self, path):
        self.got, self.files = [], 0
        self.flowing = flows()
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(str(path))
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while self.flowing.wait():
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
        self.flowing.set()
        os.unlink(self.sock.getsockname())
        shut(self.sock)


@contextlib.contextmanager
def place_of_journal():
    """Give the path of this machine's journal, where it has none."""
    if JOURNAL.exists():
        pytest.skip("this machine has a journal of its own")
    made = [folder for folder in (JOURNAL.parent, *JOURNAL.parent.parents) if not folder.exists()]
    JOURNAL.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield JOURNAL
    finally:
        for folder in made:
            folder.rmdir()


class LogPlugin(socketserver.ThreadingUnixStreamServer):
    """A log plugin at a socket, that keeps the fields of entries, and calls; `err` refuses to begin."""

    daemon_threads = True

    def __init__(self, path):
        super().__init__(str(path), _PluginHandler)
        self.got, self.calls, self.err = [], [], ""
        self.flowing, self.ended = flows(), threading.Event()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def read(self, path):
        with open(path, "rb", buffering=0) as pipe:
            while not self.ended.is_set():
                if not self.flowing.wait(0.05) or not select.select([pipe], [], [], 0.05)[0]:
                    continue
                head = _exactly(pipe, 4)
                if not head:
                    return
                self.got.append(_log_entry(_exactly(pipe, struct.unpack(">I", head)[0])))

    def close(self):
        os.unlink(self.server_address)
        self.ended.set()
        self.shutdown()
        self.server_close()


class _PluginHandler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")
        self.server.calls.append((self.path, body))
        answer = {"/Plugin.Activate": {"Implements": ["LogDriver"]}, "/LogDriver.Capabilities": {"Cap": {"ReadLogs": False}}}
        data = json.dumps(answer.get(self.path, {"Err": self.server.err})).encode()
        if self.path == "/LogDriver.StartLogging" and not self.server.err:
            threading.Thread(target=self.server.read, args=(body["File"],), daemon=True).start()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def address_string(self):
        return "engine"

    def log_message(self, *words):
        pass


def _exactly(pipe, count):
    data = b""
    while len(data) < count and (more := pipe.read(count - len(data))):
        data += more
    return data


def _log_entry(data):
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


def gelf_messages(packets):
    """Return the JSON of GELF's UDP packets, chunks joined."""
    parts, found = {}, []
    for packet in packets:
        if packet[:2] == b"\x1e\x0f":
            chunks = parts.setdefault(packet[2:10], {})
            chunks[packet[10]] = packet[12:]
            if len(chunks) < packet[11]:
                continue
            packet = b"".join(chunks[n] for n in range(len(chunks)))
        if packet[:2] == b"\x1f\x8b":
            packet = gzip.decompress(packet)
        elif packet[:1] == b"\x78":
            packet = zlib.decompress(packet)
        found.append(json.loads(packet))
    return found


def certificate(folder: Path):
    """Write ca.pem (also the server's certificate, for 127.0.0.1) and key.pem; return the server's context."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "log server")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    (folder / "ca.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "ca.pem", folder / "key.pem")
    return context


def google_variables(port, folder: Path, token_port=0):
    """Write the file of a service account; return what in a daemon's environment leads it to servers of ours."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())  # fmt: skip
    account = {"client_email": "a@b", "private_key": key.decode(), "project_id": "proj",
               "token_uri": f"http://127.0.0.1:{token_port or port}/token"}  # fmt: skip
    (folder / "account.json").write_text(json.dumps(account))
    return {"GOOGLE_APPLICATION_CREDENTIALS": str(folder / "account.json"),
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_LOGGING": f"http://127.0.0.1:{port}/"}  # fmt: skip
