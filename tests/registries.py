"""A real registry (Debian's docker-registry) for tests, with or without passwords and TLS."""

import base64
import json
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

USER, PASSWORD = "alice", "correct horse"


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class RegistryUnderTest:
    """docker-registry on a port and a folder of its own."""

    def __init__(
        self, root: Path, *, passwords: bool = False, tls: bool = False, address: str = "127.0.0.1"
    ) -> None:
        if shutil.which("docker-registry") is None:
            pytest.skip("docker-registry is not installed")
        self.root = root
        self.port = free_port()
        self.address = address
        self.host = f"{address}:{self.port}"
        self.tls = tls
        root.mkdir(parents=True, exist_ok=True)
        auth = ""
        if passwords:
            (root / "htpasswd").write_text(f"{USER}:{_bcrypt(PASSWORD)}\n")
            auth = f"auth: {{htpasswd: {{realm: test, path: {root}/htpasswd}}}}\n"
        secured = ""
        if tls:
            make_certificate(root, address)
            secured = f", tls: {{certificate: {root}/server.crt, key: {root}/server.key}}"
        (root / "config.yml").write_text(
            f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {root}/data}}, delete: {{enabled: true}}}}\n"
            f"http: {{addr: '{self.host}'{secured}}}\nlog: {{level: error, accesslog: {{disabled: true}}}}\n{auth}"
        )
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        with (self.root / "log").open("ab") as log:
            self.process = subprocess.Popen(
                ["docker-registry", "serve", str(self.root / "config.yml")], stdout=log, stderr=log
            )
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection((self.address, self.port), 1).close()
                return
            except OSError:
                assert self.process.poll() is None, (self.root / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.01)

    def stop(self) -> None:
        """End it."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
            self.process = None


def auth_header(username: str = USER, password: str = PASSWORD) -> str:
    """Return an X-Registry-Auth header."""
    return base64.urlsafe_b64encode(json.dumps({"username": username, "password": password}).encode()).decode()


def make_certificate(root: Path, address: str = "127.0.0.1") -> None:
    """Make a certificate for an address and the CA that signed it: ca.crt, server.crt, server.key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    name = root / "names"
    name.write_text(f"subjectAltName=IP:{address},DNS:registry.test")
    commands = [
        ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=test-ca", "-keyout", f"{root}/ca.key", "-out", f"{root}/ca.crt"],
        ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=registry.test",
         "-keyout", f"{root}/server.key", "-out", f"{root}/server.csr"],
        ["x509", "-req", "-in", f"{root}/server.csr", "-CA", f"{root}/ca.crt", "-CAkey", f"{root}/ca.key",
         "-CAcreateserial", "-days", "2", "-extfile", str(name), "-out", f"{root}/server.crt"],
    ]  # fmt: skip
    for command in commands:
        subprocess.run(["openssl", *command], check=True, capture_output=True)


def _bcrypt(password: str) -> str:
    """Return a bcrypt hash of the password, which is all that docker-registry takes."""
    for command in (["htpasswd", "-nbB", "x", password], ["mkpasswd", "-m", "bcrypt", password]):
        if shutil.which(command[0]):
            return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip().rpartition(":")[2]
    crypt = pytest.importorskip("bcrypt", reason="htpasswd, mkpasswd or bcrypt is needed for a password file")
    return str(crypt.hashpw(password.encode(), crypt.gensalt(4)).decode())
