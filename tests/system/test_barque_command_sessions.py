"""The barque command where it stays: attach, start -ai, live statistics, TLS; files of run; prune with something to do."""

import contextlib
import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from under_test import EngineUnderTest, needs_root, until

pytestmark = pytest.mark.system
BARQUE = [sys.executable, "-m", "barque"]


def read_until(descriptor: int, text: bytes, timeout_s: float = 15) -> bytes:
    seen = b""
    deadline = time.monotonic() + timeout_s
    while text not in seen:
        left = deadline - time.monotonic()
        assert left > 0, seen
        if select.select([descriptor], [], [], left)[0]:
            piece = os.read(descriptor, 4096)
            assert piece, seen
            seen += piece
    return seen


@contextlib.contextmanager
def terminal(engine: EngineUnderTest, *words: str) -> Iterator[tuple[int, int]]:
    """Run the command on a terminal of its own; give its pid and the terminal."""
    pid, master = pty.fork()
    if pid == 0:
        os.execve(sys.executable, [*BARQUE, *words], engine.environment)
    try:
        yield pid, master
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
        os.close(master)


@pytest.fixture
def named(engine: EngineUnderTest) -> Iterator[str]:
    yield "stay"
    engine.docker_result("rm", "-fv", "stay")


def test_attach_joins_input_and_output_and_its_keys_can_be_chosen(engine: EngineUnderTest, named: str) -> None:
    engine.barque("run", "-dit", "--name", named, "busybox", "sh")
    with terminal(engine, "attach", "--detach-keys", "ctrl-a,x", named) as (pid, master):
        os.write(master, b"echo $((40+2))\n")
        read_until(master, b"42\r\n")
        os.write(master, b"\x10\x11echo not-$((40+2))\n")
        read_until(master, b"not-42\r\n")
        os.write(master, b"\x01x")
        read_until(master, b"read escape sequence")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert engine.barque("inspect", "-f", "{{.State.Status}}", named) == "running"
    with terminal(engine, "attach", named) as (pid, master):
        os.write(master, b"exit 6\n")
        until(lambda: engine.barque("inspect", "-f", "{{.State.Status}}", named) == "exited")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 6


def test_attach_without_a_terminal_passes_signals_on_or_not(engine: EngineUnderTest, named: str) -> None:
    engine.barque("run", "-d", "--name", named, "busybox", "sh", "-c",
                  "trap 'echo caught' USR1; trap 'echo bye; exit 3' TERM; echo ready; while :; do usleep 20000; done")  # fmt: skip
    process = subprocess.Popen([*BARQUE, "attach", "--no-stdin", named], env=engine.environment, stdout=subprocess.PIPE)
    assert process.stdout is not None
    # A signal before its handlers are there would end it.
    until(lambda: _catches(process.pid, signal.SIGUSR1))
    process.send_signal(signal.SIGUSR1)
    assert process.stdout.readline() == b"caught\n"
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=20)[0] == b"bye\n"
    assert process.returncode == 3

    engine.barque("start", named)
    quiet = subprocess.Popen([*BARQUE, "attach", "--sig-proxy=false", "--no-stdin", named], env=engine.environment)
    until(lambda: Path(f"/proc/{quiet.pid}/net/unix").exists() and _socket_open(quiet.pid))
    quiet.send_signal(signal.SIGTERM)
    assert quiet.wait(10) == -signal.SIGTERM
    assert engine.barque("inspect", "-f", "{{.State.Status}}", named) == "running"


def _catches(pid: int, number: int) -> bool:
    caught = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


def _socket_open(pid: int) -> bool:
    return any(os.readlink(f"/proc/{pid}/fd/{fd}").startswith("socket:") for fd in os.listdir(f"/proc/{pid}/fd"))


def test_start_with_input_and_output_gives_the_exit_code(engine: EngineUnderTest, named: str) -> None:
    engine.barque("create", "-i", "--name", named, "busybox", "sh", "-c", "cat; exit 5")
    result = engine.run([*BARQUE, "start", "-ai", named], input="typed\n")
    assert (result.stdout, result.returncode) == ("typed\n", 5)
    theirs = engine.docker_result("start", "-ai", named, input="again\n")
    assert (theirs.stdout, theirs.returncode) == ("again\n", 5)


def test_statistics_are_shown_again_and_again(engine: EngineUnderTest, named: str) -> None:
    engine.barque("run", "-d", "--name", named, "busybox", "sleep", "100")
    process = subprocess.Popen([*BARQUE, "stats", "--format", "{{.Name}} {{.PIDs}}", named], env=engine.environment,
                               stdout=subprocess.PIPE, text=True)  # fmt: skip
    assert process.stdout is not None
    seen = ""
    try:
        while seen.count(f"{named} 1") < 3:
            seen += process.stdout.readline()
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(10)
    with terminal(engine, "stats", named) as (_, master):
        shown = read_until(master, b"\x1b[H", 10) + read_until(master, b"stay", 10)
        assert b"CPU %" in shown or b"MEM USAGE" in shown


def test_run_reads_files_of_variables_and_labels_and_writes_the_id(engine: EngineUnderTest, named: str, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("# a comment\nA=1\nB=two words\nFROM_HOME\n\n")
    (tmp_path / "labels").write_text("x=y\n# none\nempty=\n")
    flags = ["--cidfile", str(tmp_path / "id"), "--env-file", str(tmp_path / "env"), "-e", "C=3",
             "--label-file", str(tmp_path / "labels"), "-l", "z=1", "--annotation", "note=it"]  # fmt: skip
    environment = {**engine.environment, "FROM_HOME": "here"}
    result = subprocess.run([*BARQUE, "run", "--name", named, *flags, "busybox", "env"], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert {"A=1", "B=two words", "C=3", "FROM_HOME=here"} <= set(result.stdout.splitlines())
    shown = json.loads(engine.docker("inspect", named))[0]
    assert (tmp_path / "id").read_text() == shown["Id"]
    assert shown["Config"]["Labels"] == {"x": "y", "empty": "", "z": "1"}
    assert shown["HostConfig"]["Annotations"] == {"note": "it"}
    assert shown["HostConfig"]["ContainerIDFile"] == str(tmp_path / "id")
    for program in (BARQUE, ["docker"]):
        taken = engine.run([*program, "run", "--cidfile", str(tmp_path / "id"), "busybox", "true"])
        assert taken.returncode == 125
        assert "container ID file found, make sure the other container isn't running or delete" in taken.stderr


@pytest.mark.parametrize(("flags", "words"), [
    (["--gpus", "all"], "could not select device driver"),
    (["--storage-opt", "colour=red"], "unknown option colour"),
    (["--env-file", "/nosuch"], "no such file or directory"),
    (["--label-file", "/nosuch"], "no such file or directory"),
    (["--runtime", "nosuch"], "unknown or invalid runtime name: nosuch"),
    (["--isolation", "hyperv"], "isolation"),
    (["--sig-proxy=x"], "invalid"),
    (["--detach-keys", "nope", "-it"], ""),
])  # fmt: skip
def test_what_cannot_be_is_told_as_docker_tells_it(engine: EngineUnderTest, flags: list[str], words: str) -> None:
    before = engine.docker("ps", "-aq")
    ours = engine.run([*BARQUE, "run", "--rm", *flags, "busybox", "true"], stdin=subprocess.DEVNULL)
    theirs = engine.docker_result("run", "--rm", *flags, "busybox", "true", stdin=subprocess.DEVNULL)
    assert ours.returncode == theirs.returncode != 0
    assert words in ours.stderr
    assert ours.stderr.replace("barque", "docker") == theirs.stderr
    assert engine.docker("ps", "-aq") == before


def test_prune_removes_and_tells_what_docker_tells(engine: EngineUnderTest) -> None:
    def make() -> None:
        engine.docker("run", "--name", "gone", "-v", "/anonymous", "-l", "prune=me", "busybox", "sh", "-c", "echo 12345 >/file")
        engine.docker("commit", "gone", "passing:1")
        engine.docker("tag", "busybox", "passing:1")
        engine.docker("volume", "create", "--label", "prune=me", "unused")

    for words in (["container", "prune", "-f", "--filter", "label=prune=me"], ["image", "prune", "-f"],
                  ["volume", "prune", "-f", "-a", "--filter", "label=prune=me"], ["system", "prune", "-f", "--filter", "label=prune=me"]):  # fmt: skip
        said = []
        for program in (["docker"], BARQUE):
            make()
            result = engine.run([*program, *words])
            assert result.returncode == 0, result.stderr
            said.append([line for line in result.stdout.splitlines() if not _identity(line)])
            engine.docker_result("rm", "-fv", "gone")
            engine.docker_result("volume", "rm", "unused")
            engine.docker_result("volume", "prune", "-f")
            engine.docker_result("image", "prune", "-f")
        assert said[0] == said[1], words
        assert any("Total reclaimed space" in line for line in said[0])
    engine.docker("rmi", "passing:1")


def test_a_dry_run_of_each_prune_says_what_would_go_and_removes_nothing(engine: EngineUnderTest) -> None:
    def there() -> list[str]:
        return [engine.docker(*words) for words in (["ps", "-aq"], ["images", "-aq"], ["volume", "ls", "-q"], ["network", "ls", "-q"],
                                                    ["system", "df", "--format", "{{.Type}} {{.TotalCount}}"])]  # fmt: skip

    engine.docker("create", "--name", "would-go", "-v", "/anonymous", "busybox")
    volume = engine.docker("inspect", "-f", "{{(index .Mounts 0).Name}}", "would-go")
    engine.docker("rm", "would-go")
    gone = engine.docker("create", "--name", "would-go", "busybox")
    network = "would-go"
    engine.docker("network", "create", network)
    engine.run(["env", "DOCKER_BUILDKIT=0", "docker", "build", "-t", "dangles", "-"], input="FROM busybox\nRUN echo 1 >/f\n")
    image = engine.docker("inspect", "-f", "{{.Id}}", "dangles")
    engine.docker("tag", "busybox", "dangles")
    before = there()
    for words, expected in ((["container"], [gone]), (["volume"], [volume]), (["network"], [network]), (["image"], [image]),
                            (["builder", "--all"], ["Deleted build cache objects:"]),
                            (["system", "--all", "--volumes"], [gone, volume, network, image, "Deleted build cache objects:"])):  # fmt: skip
        said = engine.barque(words[0], "prune", "--dry-run", *words[1:])
        assert all(word in said for word in expected), (words, said)
        assert there() == before, words
    engine.barque("system", "prune", "-f", "--volumes")
    assert there() != before
    engine.docker("rmi", "dangles")


def test_system_prune_warns_as_docker_warns(engine: EngineUnderTest) -> None:
    for words in ([], ["-a", "--volumes"], ["--filter", "label=a"]):
        asked = [engine.run([*program, "system", "prune", *words], input="n\n") for program in (["docker"], BARQUE)]
        assert asked[0].stdout == asked[1].stdout, words


def _identity(line: str) -> bool:
    return len(line.rsplit(":", maxsplit=1)[-1].strip()) == 64


def test_debugging_shows_the_requests(engine: EngineUnderTest) -> None:
    for flags in (["--debug"], ["-D"], ["--log-level", "debug"]):
        result = engine.run([*BARQUE, *flags, "ps", "-q"])
        assert "level=debug" in result.stderr and "/containers/json" in result.stderr
    assert engine.run([*BARQUE, "ps", "-q"]).stderr == ""
    wrong = engine.run([*BARQUE, "--log-level", "nope", "ps"])
    assert wrong.returncode == 1 and "nope" in wrong.stderr


@pytest.fixture(scope="module")
def encrypted() -> Iterator[EngineUnderTest]:
    """An engine that serves TLS beside its socket, and clients that use it."""
    needs_root()
    root = Path(tempfile.mkdtemp(prefix="bqtls", dir="/var/tmp"))
    key, certificate = str(root / "key.pem"), str(root / "cert.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key,
         "-out", certificate, "-days", "1", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
        check=True, capture_output=True,
    )  # fmt: skip
    (root / "ca.pem").write_bytes(Path(certificate).read_bytes())
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    engine = EngineUnderTest(
        root, "-H", f"tcp://localhost:{port}", "--tlsverify", f"--tlscacert={certificate}", f"--tlscert={certificate}",
        f"--tlskey={key}", "--bridge=none", "--iptables=false",
    )  # fmt: skip
    try:
        engine.start()
        engine.load_busybox()
        engine.environment |= {"BARQUE_HOST": f"tcp://localhost:{port}", "DOCKER_HOST": f"tcp://localhost:{port}",
                               "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(root)}  # fmt: skip
        yield engine
    finally:
        engine.stop()
        subprocess.run(["rm", "-rf", str(root)], check=False)


def test_without_a_default_bridge_containers_have_lo_alone(encrypted: EngineUnderTest) -> None:
    assert [line for line in encrypted.barque("run", "--rm", "busybox", "ip", "link").splitlines() if line[:1].isdigit()] \
        == ["1: lo: <LOOPBACK,UP,LOWER_UP> mtu 65536 qdisc noqueue qlen 1000"]  # fmt: skip


def test_input_ends_over_tls_while_output_is_still_read(encrypted: EngineUnderTest) -> None:
    data = os.urandom(3 << 20)
    for program in (BARQUE, ["docker"]):
        result = encrypted.run([*program, "run", "--rm", "-i", "busybox", "sh", "-c", "cat; echo end"],
                               input=data, text=False)  # fmt: skip
        assert result.returncode == 0, result.stderr
        assert result.stdout == data + b"end\n"
    encrypted.barque("run", "-d", "--name", "inner", "--network=none", "busybox", "sleep", "100")
    result = encrypted.run([*BARQUE, "exec", "-i", "inner", "wc", "-c"], input="x" * 100000)
    assert result.stdout == "100000\n"
    assert encrypted.barque("logs", "inner") == ""
    encrypted.barque("rm", "-f", "inner")
    strange = encrypted.root / "strange"
    strange.mkdir()
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout",
                    str(strange / "key.pem"), "-out", str(strange / "ca.pem"), "-subj", "/CN=other"], check=True, capture_output=True)  # fmt: skip
    encrypted.environment["DOCKER_CERT_PATH"] = str(strange)
    wrong = encrypted.run([*BARQUE, "ps"])
    assert wrong.returncode == 1 and "TLS with" in wrong.stderr and "self-signed certificate" in wrong.stderr
