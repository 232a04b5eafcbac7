"""A registry server of our own for tests: real processes on loopback, certificates, users."""

import datetime
import hashlib
import http.client
import ipaddress
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from barque.oci import media

USER, PASSWORD = "jane", "s3cret:word"


class RegistryUnderTest:
    """A running `barque registry serve`."""

    def __init__(self, root: Path, *flags: str, prefix: Sequence[str] = ()) -> None:
        self.root = root
        self.prefix = prefix
        self.flags = flags
        self.address = ""
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Return where it answers."""
        return f"{'https' if '--tls-cert' in self.flags else 'http'}://{self.address}"

    def start(self) -> "RegistryUnderTest":
        """Start it and wait until it listens; a second start takes the same address."""
        command = [
            *self.prefix,
            sys.executable,
            "-m",
            "barque",
            "registry",
            "serve",
            "--addr",
            self.address or "127.0.0.1:0",
        ]
        with (self.root / "registry.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--root", str(self.root / "registry"), *self.flags], stdout=subprocess.PIPE, stderr=log
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode()
        if not line.startswith("Registry listens on "):
            raise AssertionError(f"the registry did not start: {self.log()}")
        self.address = line.split()[-1]
        return self

    def log(self) -> str:
        """Return what it logged."""
        return (self.root / "registry.log").read_text()[-4000:]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it and return its exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(30)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


@contextmanager
def registry(root: Path, *flags: str, prefix: Sequence[str] = ()) -> Iterator[RegistryUnderTest]:
    """Give a running registry below a folder; prefix is a command that starts it elsewhere."""
    root.mkdir(parents=True, exist_ok=True)
    running = RegistryUnderTest(root, *flags, prefix=prefix)
    running.start()
    try:
        yield running
    finally:
        assert running.process is not None
        if running.process.poll() is None:
            running.stop()


def htpasswd(path: Path, users: dict[str, str] | None = None) -> Path:
    """Write a file of users."""
    bcrypt = pytest.importorskip("bcrypt")
    lines = []
    for user, password in (users or {USER: PASSWORD}).items():
        lines.append(f"{user}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()}\n")
    path.write_text("".join(lines))
    return path


def certificate(folder: Path, *, name: str = "127.0.0.1") -> tuple[Path, Path]:
    """Write a self-signed certificate for loopback and its key."""
    pytest.importorskip("cryptography")
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder.mkdir(parents=True, exist_ok=True)
    cert_path, key_path = folder / "ca.crt", folder / "server.key"
    cert_path.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    plain = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    key_path.write_bytes(plain)
    os.chmod(key_path, 0o600)
    return cert_path, key_path


class Client:
    """One connection; answers are status, headers, body."""

    def __init__(self, server):
        host, _, port = server.address.rpartition(":")
        self.connection = http.client.HTTPConnection(host, int(port), timeout=30)

    def __call__(self, method, path, body=None, **headers):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.connection.request(method, path, body, named)
        response = self.connection.getresponse()
        return response.status, response.headers, response.read()


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def push_blob(call, name, data):
    status, _headers, body = call("POST", f"/v2/{name}/blobs/uploads/?digest={digest(data)}", data)
    assert status == 201, body
    return {"digest": digest(data), "size": len(data)}


def push_image(call, name, tag, text=b"layer", **more):
    config = {"mediaType": media.OCI_CONFIG, **push_blob(call, name, b"{}")}
    layer = {"mediaType": media.OCI_LAYER, **push_blob(call, name, text)}
    manifest = {"schemaVersion": 2, "mediaType": media.OCI_MANIFEST, "config": config, "layers": [layer], **more}
    raw = json.dumps(manifest).encode()
    status, headers, body = call("PUT", f"/v2/{name}/manifests/{tag}", raw, Content_Type=media.OCI_MANIFEST)
    assert status == 201, body
    assert headers["Docker-Content-Digest"] == digest(raw)
    return raw, headers
