"""Small real log servers on loopback: UDP, TCP, TLS, unix, fluentd, HTTP."""

import datetime
import gzip
import http.server
import ipaddress
import json
import socket
import ssl
import threading
import zlib
from pathlib import Path

from barque.logdrivers import msgpack


class Lines:
    """A server that keeps what it is sent, piece by piece."""

    def __init__(self, kind="tcp", path="", context=None, separator=b"\n", port=0):
        self.got, self.separator = [], separator
        self.accepting = True
        if kind == "unixgram":
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self.sock.bind(path)
        elif kind == "udp":
            self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
            self.sock.bind(("127.0.0.1", port))
        else:
            self.sock = socket.socket()
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.sock.bind(("127.0.0.1", port))
            self.sock.listen()
        self.port = 0 if kind == "unixgram" else self.sock.getsockname()[1]
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
            while data := peer.recv(1 << 16):
                *whole, rest = (rest + data).split(self.separator)
                self.got += whole
        except OSError:
            return

    def close(self):
        for sock in [self.sock, *self.peers]:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            sock.close()


class Fluentd(Lines):
    """A fluentd that acknowledges chunks."""

    def serve(self, peer):
        rest = b""
        try:
            while data := peer.recv(1 << 16):
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

    def __init__(self, answer=lambda method, path: (200, {})):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.got, self.answer = [], answer
        self.port = self.server_address[1]
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def close(self):
        self.shutdown()
        self.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle_one(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
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
