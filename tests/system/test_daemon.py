"""The daemon as a process: who may start it, how it is told things, how it ends."""

import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from under_test import EngineUnderTest, busybox_tar, needs_root, until

pytestmark = pytest.mark.system


def _daemon(root: Path, *flags: str, **options: object) -> "subprocess.CompletedProcess[str]":
    settings: dict[str, object] = {"capture_output": True, "text": True, "timeout": 30, **options}
    return subprocess.run(  # type: ignore[call-overload,no-any-return]
        [sys.executable, "-m", "barque", "daemon", "--pidfile", str(root / "pid"), "--exec-root", str(root / "x"),
         "--config-file", str(root / "daemon.json"), "-H", f"unix://{root}/s", *flags], **settings,
    )  # fmt: skip


def test_a_second_daemon_on_a_data_root_is_refused(engine: EngineUnderTest, tmp_path: Path) -> None:
    result = _daemon(tmp_path, "--data-root", str(engine.root / "data"))
    assert result.returncode == 1
    assert f"is in use by another daemon (pid {engine.pid})" in result.stderr
    assert not (tmp_path / "s").exists()
    assert engine.docker("ps", "-q") is not None


def test_a_second_daemon_does_not_steal_a_socket(engine: EngineUnderTest, tmp_path: Path) -> None:
    result = _daemon(tmp_path, "--data-root", str(tmp_path / "d"), "-H", engine.host)
    assert result.returncode == 1
    assert "another process listens on it" in result.stderr
    assert engine.docker("version", "-f", "{{.Server.Os}}") == "linux"


def test_a_read_only_data_root_is_told(tmp_path: Path) -> None:
    needs_root()
    (tmp_path / "ro").mkdir()
    script = 'mount -t tmpfs -o ro none "$1" && shift && exec "$@"'
    result = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", str(tmp_path / "ro"), sys.executable, "-m", "barque", "daemon",
         "--data-root", str(tmp_path / "ro" / "d"), "--pidfile", str(tmp_path / "pid"), "-H", f"unix://{tmp_path}/s"],
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert result.returncode == 1
    assert "cannot use the data root" in result.stderr
    assert "Read-only file system" in result.stderr


def test_a_user_without_rights_is_told() -> None:
    needs_root()
    nowhere = Path("/nonexistent")
    try:
        _daemon(nowhere, "--help", user=65534)
    except PermissionError:
        pytest.skip("another user cannot read this interpreter")
    assert "needs to be started with root privileges" in _daemon(nowhere, user=65534).stderr


def test_a_hang_up_reads_the_configuration_again(own_engine: EngineUnderTest) -> None:
    own_engine.root.joinpath("daemon.json").write_text(json.dumps({"labels": ["place=here"]}))
    os.kill(own_engine.pid, signal.SIGHUP)
    until(lambda: own_engine.docker("info", "-f", "{{.Labels}}") == "[place=here]")
    own_engine.root.joinpath("daemon.json").write_text(json.dumps({"nope": 1}))
    os.kill(own_engine.pid, signal.SIGHUP)
    until(lambda: "the configuration stays as it was" in own_engine.log.read_text())
    assert own_engine.docker("info", "-f", "{{.Labels}}") == "[place=here]"


def test_an_ending_daemon_stops_its_containers_and_leaves_no_socket(own_engine: EngineUnderTest) -> None:
    own_engine.docker("run", "-d", "--name", "sleeper", "busybox", "sleep", "1000")
    pid = int(own_engine.docker("inspect", "-f", "{{.State.Pid}}", "sleeper"))
    own_engine.stop(60)
    assert not own_engine.socket.exists()
    assert not (own_engine.root / "barque.pid").exists()
    assert not Path(f"/proc/{pid}").exists()
    own_engine.start()
    assert own_engine.docker("inspect", "-f", "{{.State.Status}}", "sleeper") == "exited"


def test_a_socket_passed_by_a_service_manager_is_served(tmp_path: Path) -> None:
    needs_root()
    path, notified = str(tmp_path / "passed"), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notified.bind(str(tmp_path / "notify"))
    notified.settimeout(30)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        script = 'exec 3<&"$1"; shift; LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"'
        process = subprocess.Popen(
            ["bash", "-c", script, "sh", str(listening.fileno()), sys.executable, "-m", "barque", "daemon", "-H", "fd://",
             "--data-root", str(tmp_path / "d"), "--exec-root", str(tmp_path / "x"), "--pidfile", str(tmp_path / "pid"),
             "--bridge=none", "--iptables=false"],
            pass_fds=[listening.fileno()], env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")},
        )  # fmt: skip
    try:
        assert notified.recv(4096).startswith(b"READY=1")
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(path)
        connection.request("GET", "/_ping")
        assert connection.getresponse().read() == b"OK"
        connection.close()
    finally:
        process.terminate()
        assert process.wait(30) == 0
        notified.close()


def test_tcp_is_served_to_clients_with_a_certificate_only(tmp_path: Path) -> None:
    needs_root()
    key, certificate = str(tmp_path / "key.pem"), str(tmp_path / "cert.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key,
         "-out", certificate, "-days", "1", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
        check=True, capture_output=True,
    )  # fmt: skip
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "barque", "daemon", "-H", f"tcp://localhost:{port}", "--tlsverify",
         f"--tlscacert={certificate}", f"--tlscert={certificate}", f"--tlskey={key}", "--data-root", str(tmp_path / "d"),
         "--exec-root", str(tmp_path / "x"), "--pidfile", str(tmp_path / "pid"), "--bridge=none", "--iptables=false"]
    )  # fmt: skip

    def ping(context: ssl.SSLContext) -> bytes:
        connection = http.client.HTTPSConnection("localhost", port, context=context, timeout=10)
        connection.request("GET", "/_ping")
        answer = connection.getresponse().read()
        connection.close()
        return answer

    try:
        known = ssl.create_default_context(cafile=certificate)
        known.load_cert_chain(certificate, key)

        def answers() -> bool:
            try:
                return ping(known) == b"OK"
            except ConnectionRefusedError:
                return False

        until(answers)
        (tmp_path / "ca.pem").write_bytes(Path(certificate).read_bytes())
        environment = {
            **os.environ, "DOCKER_HOST": f"tcp://localhost:{port}", "DOCKER_TLS_VERIFY": "1",
            "DOCKER_CERT_PATH": str(tmp_path), "DOCKER_CONFIG": str(tmp_path / "c"),
        }  # fmt: skip
        if shutil.which("docker"):
            subprocess.run(
                ["docker", "import", "-", "bb"], input=busybox_tar(), env=environment, check=True, timeout=30
            )
            counted = subprocess.run(
                ["docker", "run", "--rm", "-i", "--network=none", "bb", "/bin/wc", "-c"],
                input=b"x" * 100000, env=environment, capture_output=True, timeout=30,
            )  # fmt: skip
            assert counted.stdout.strip() == b"100000", counted.stderr
        with pytest.raises((ssl.SSLError, ConnectionError)):
            ping(ssl.create_default_context(cafile=certificate))
    finally:
        process.terminate()
        assert process.wait(30) == 0
