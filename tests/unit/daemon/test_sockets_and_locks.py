import os
import socket
import ssl
import stat
import subprocess

import pytest

from barque.daemon import listeners, ownership
from barque.daemon.flags import DaemonError
from barque.daemon.options import Options


def _options(tmp_path, *argv):
    return Options(["--config-file", str(tmp_path / "none.json"), *argv])


@pytest.fixture
def opened():
    found = []
    yield found
    listeners.close_all(found)


def test_a_unix_socket_is_for_root_and_its_group(tmp_path, opened):
    path = tmp_path / "s"
    opened += listeners.open_all(_options(tmp_path, "-H", f"unix://{path}"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    listeners.close_all(opened)
    assert not path.exists()


def test_a_stale_socket_is_replaced_and_a_living_one_is_not(tmp_path, opened):
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    opened += listeners.open_all(_options(tmp_path, "-H", f"unix://{path}"))
    with pytest.raises(DaemonError, match="another process listens on it"):
        listeners.open_all(_options(tmp_path, "-H", f"unix://{path}"))


def test_a_file_is_not_taken_for_a_stale_socket(tmp_path):
    (tmp_path / "s").write_text("mine")
    with pytest.raises(DaemonError, match="not a socket"):
        listeners.open_all(_options(tmp_path, "-H", f"unix://{tmp_path}/s"))
    assert (tmp_path / "s").read_text() == "mine"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["-H", "ftp://x"], "unable to parse docker host"),
        (["-H", "tcp://0.0.0.0:1"], "without client certificates"),
        (["-H", "tcp://1.2.3.4:x"], "invalid bind address"),
        (["-H", "fd://"], "no sockets found via socket activation"),
        (["-H", "unix:///tmp/" + "x" * 120], "longer than 107 bytes"),
        (["--tlsverify"], "TLS needs --tlscert"),
        (["--tls", "--tlscert=/none", "--tlskey=/none"], "could not load"),
        (["-H", "unix:///proc/x/y"], "can't create unix socket"),
    ],
)
def test_a_socket_that_cannot_be_had_is_told(tmp_path, argv, message):
    with pytest.raises(DaemonError, match=message):
        listeners.open_all(_options(tmp_path, *argv))


def test_loopback_may_be_served_without_certificates(tmp_path, opened):
    opened += listeners.open_all(_options(tmp_path, "-H", "tcp://127.0.0.1:0"))
    assert opened[0].sock.getsockname()[0] == "127.0.0.1"


def test_clients_without_a_certificate_are_refused(tmp_path, opened):
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key,
         "-out", certificate, "-days", "1", "-subj", "/CN=localhost"], check=True, capture_output=True,
    )  # fmt: skip
    opened += listeners.open_all(
        _options(tmp_path, "-H", "tcp://0.0.0.0:0", "--tlsverify", f"--tlscacert={certificate}",
                 f"--tlscert={certificate}", f"--tlskey={key}")
    )  # fmt: skip
    assert opened[0].tls is not None
    assert opened[0].tls.verify_mode is ssl.CERT_REQUIRED


def test_a_data_root_belongs_to_one_daemon(tmp_path):
    fd = ownership.lock_data_root(str(tmp_path / "root"))
    try:
        with pytest.raises(DaemonError, match=rf"in use by another daemon \(pid {os.getpid()}\)"):
            ownership.lock_data_root(str(tmp_path / "root"))
    finally:
        os.close(fd)
    os.close(ownership.lock_data_root(str(tmp_path / "root")))


def test_a_data_root_that_cannot_be_written_is_told():
    with pytest.raises(DaemonError, match="cannot use the data root /proc/nothing"):
        ownership.lock_data_root("/proc/nothing")


def test_a_pid_file_of_the_dead_is_replaced_and_removed_at_the_end(tmp_path):
    path = tmp_path / "pid"
    path.write_text("999999999")
    ownership.write_pidfile(str(path))
    assert path.read_text() == str(os.getpid())
    ownership.remove_pidfile(str(path))
    assert not path.exists()
