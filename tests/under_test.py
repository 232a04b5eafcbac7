"""A real engine on roots of its own, and base images made of busybox, for the tests that need them."""

import fcntl
import io
import os
import select
import shutil
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import pytest

from barque.kernel import namespaces, process

_SIOCSIFFLAGS, _IFF_UP = 0x8914, 0x1
BUSYBOX = "/bin/busybox"
_APPLETS = ["sh", "ls", "cat", "echo", "true", "false", "sleep", "id", "env", "mount", "ps", "kill", "head", "tail", "grep", "wc", "touch", "mkdir", "rm", "cp", "mv", "ln", "stat", "hostname", "ip", "ping", "wget", "nc", "httpd", "seq", "date", "printf", "test", "expr", "tr", "dd", "yes", "uname", "pwd", "readlink", "stty", "tty", "df", "chmod", "chown", "cut", "sort", "uniq", "awk", "sed", "vi", "find", "xargs", "top", "free", "nslookup", "time", "timeout", "sync", "mknod", "umount", "getopt", "du", "tar", "md5sum", "sha256sum", "od", "basename", "dirname", "which", "whoami", "usleep", "setsid", "trap"]


def isolate_network() -> None:
    """Enter a network namespace with nothing but loopback: the host's bridges, rules and routes stay alone."""
    namespaces.unshare(process.CLONE_NEWNET)
    with socket.socket() as any_socket:
        up = struct.pack("16sH14x", b"lo", _IFF_UP)
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, up)


def until(condition: Callable[[], object], what: str = "the condition is true", timeout_s: float = 20) -> object:
    """Wait until a condition is true, of which nothing tells when it becomes so; return what it gave."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.02)
    return value


def needs_root() -> None:
    """Skip the test, aloud, where it is not run by root."""
    if os.geteuid() != 0:
        pytest.skip("needs root: containers are made by real system calls")


def busybox_tar() -> bytes:
    """Return a root file system made of the static busybox, as a tar."""
    if not Path(BUSYBOX).exists():
        pytest.skip("busybox-static is not installed")
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("bin", "etc", "root", "tmp", "var", "var/www", "home", "usr", "usr/bin", "dev", "proc", "sys"):
            info = tarfile.TarInfo(name)
            info.type, info.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(info)
        tar.add(BUSYBOX, "bin/busybox")
        for applet in _APPLETS:
            info = tarfile.TarInfo(f"bin/{applet}")
            info.type, info.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(info)
        files = {
            "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nwww:x:33:33:www:/var/www:/bin/sh\n"
            "nobody:x:65534:65534:nobody:/:/bin/false\n",
            "etc/group": "root:x:0:\nwww:x:33:\naudio:x:29:www\nnobody:x:65534:\n",
        }
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return out.getvalue()


class EngineUnderTest:
    """A daemon on roots of its own; commands talk to it through its socket."""

    def __init__(self, root: Path, *flags: str, variables: Mapping[str, str] | None = None) -> None:
        self.root = root
        self.socket = root / "barque.sock"
        self.host = f"unix://{self.socket}"
        self.log = root / "daemon.log"
        self.flags = flags
        self.process: subprocess.Popen[bytes] | None = None
        self.adopted = 0
        self.environment = {
            **os.environ,
            "DOCKER_HOST": self.host,
            "DOCKER_CONFIG": str(root / "docker-config"),
            "BARQUE_HOST": self.host,
            "DOCKER_CLI_HINTS": "false",
            **(variables or {}),
        }

    def arguments(self) -> list[str]:
        """Return the daemon's command line."""
        return [
            sys.executable, "-m", "barque", "daemon", "-H", self.host,
            "--data-root", str(self.root / "data"), "--exec-root", str(self.root / "exec"),
            "--pidfile", str(self.root / "barque.pid"), "--config-file", str(self.root / "daemon.json"),
            *self.flags,
        ]  # fmt: skip

    def launch(self) -> None:
        """Start the daemon without waiting for it."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.arguments(), stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=self.environment
            )

    def start(self) -> None:
        """Start the daemon and wait until it answers a ping."""
        self.launch()
        self.wait_ready()

    def wait_ready(self, timeout_s: float = 20) -> None:
        """Wait until the socket answers."""
        import http.client

        deadline = time.monotonic() + timeout_s
        while True:
            if self.process is not None and self.process.poll() is not None:
                raise AssertionError(f"the daemon ended: {self.log.read_text()[-4000:]}")
            try:
                connection = http.client.HTTPConnection("localhost")
                connection.sock = socket.socket(socket.AF_UNIX)
                connection.sock.settimeout(5)
                connection.sock.connect(str(self.socket))
                connection.request("GET", "/_ping")
                assert connection.getresponse().read() == b"OK"
                connection.close()
                return
            except (OSError, http.client.HTTPException) as error:
                if time.monotonic() > deadline:
                    raise AssertionError(f"no answer: {error}: {self.log.read_text()[-4000:]}") from error
                time.sleep(0.02)

    @property
    def pid(self) -> int:
        """Return the pid of the living daemon."""
        return int((self.root / "barque.pid").read_text())

    def adopt(self) -> None:
        """Take over a daemon that the keeper started, to end it by pid at the end."""
        self.adopted = self.pid

    def kill_daemon(self, timeout_s: float = 30) -> None:
        """Kill the daemon and wait until the next one, which the keeper starts, answers."""
        old = self.pid
        os.kill(old, signal.SIGKILL)
        if self.process is not None:
            self.process.wait()
            self.process = None
        until(lambda: self.docker_result("version").returncode == 0 and self.pid != old, "the daemon is back", timeout_s)
        self.adopt()

    def lose_machine(self) -> None:
        """End every process of the engine at once and forget what a restart of the machine forgets."""
        pids = [self.pid, int((self.root / "exec" / "keeper.pid").read_text().split()[0])]
        listed = self.docker("ps", "-q").split()
        pids += [int(self.docker("inspect", "-f", "{{.State.Pid}}", name)) for name in listed]
        for pid in pids[:2]:
            os.kill(pid, signal.SIGSTOP)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        if self.process is not None:
            self.process.wait()
            self.process = None
        for pid in pids:
            wait_gone(pid)
        shutil.rmtree(self.root / "exec")
        self.socket.unlink(missing_ok=True)
        (self.root / "barque.pid").unlink(missing_ok=True)

    def stop(self, timeout_s: float = 30) -> None:
        """End the daemon as a service manager would."""
        if self.adopted:
            os.kill(self.adopted, signal.SIGTERM)
            wait_gone(self.adopted, timeout_s)
            self.adopted = 0
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self.process = None

    def run(self, command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        """Run a command against this engine and return what it said."""
        settings: dict[str, object] = {"capture_output": True, "text": True, "timeout": 60, **options}
        return subprocess.run(command, env=self.environment, **settings)  # type: ignore[call-overload,no-any-return]

    def docker(self, *arguments: str, check: bool = True, **options: object) -> str:
        """Run the real docker command; return its standard output without the last newline."""
        docker = shutil.which("docker")
        if docker is None:
            pytest.skip("the docker command is not installed")
        result = self.run([docker, *arguments], **options)
        if check:
            assert result.returncode == 0, (arguments, result.stdout, result.stderr)
        return result.stdout.rstrip("\n")

    def docker_result(self, *arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
        """Run the real docker command; return all of its result."""
        docker = shutil.which("docker")
        if docker is None:
            pytest.skip("the docker command is not installed")
        return self.run([docker, *arguments], **options)

    def barque(self, *arguments: str, check: bool = True, **options: object) -> str:
        """Run our command; return its standard output without the last newline."""
        result = self.run([sys.executable, "-m", "barque", *arguments], **options)
        if check:
            assert result.returncode == 0, (arguments, result.stdout, result.stderr)
        return result.stdout.rstrip("\n")

    def load_busybox(self) -> None:
        """Import the busybox image under the name that tests use."""
        result = subprocess.run(
            [sys.executable, "-m", "barque", "import", "-c", 'CMD ["sh"]', "-c",
             "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "-", "busybox:latest"],
            input=busybox_tar(), env=self.environment, capture_output=True, timeout=60,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr


def traces(engine: EngineUnderTest) -> dict[str, object]:
    """Return all that a container leaves somewhere: rows, folders, layers, mounts, namespaces, control groups."""
    data, run = engine.root / "data", engine.root / "exec"
    with sqlite3.connect(f"file:{data}/state.db?mode=ro", uri=True) as database:
        tables = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type='table'")]
        rows = {t: database.execute(f"SELECT count(*) FROM \"{t}\"").fetchone()[0] for t in tables if t != "engine"}
    layers = [os.readlink(data / "snapshots" / n / "m") for n in os.listdir(data / "snapshots") if n not in ("empty", "trash")]
    return {
        "rows": rows,
        "folders": sorted(os.listdir(data / "containers")),
        "run": sorted(os.listdir(run / "containers")),
        "layers": sorted(text for text in layers if '"init-' not in text),
        "volumes": sorted(os.listdir(data / "volumes")) if (data / "volumes").exists() else [],
        "mounts": [line for line in Path(f"/proc/{engine.pid}/mountinfo").read_text().splitlines() if str(engine.root) in line],
    }


def running(command: str) -> list[int]:
    """Return the processes of this machine with a command line."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            line = Path(f"/proc/{name}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue
        if line == command:
            found.append(int(name))
    return found


def wait_gone(pid: int, timeout_s: float = 10) -> None:
    """Wait until a process that may not be our child is gone."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        ready, _, _ = select.select([fd], [], [], timeout_s)
        assert ready, f"process {pid} did not end within {timeout_s} s"
    finally:
        os.close(fd)


def _remove(root: Path) -> None:
    """Remove the roots; a mount left below them is a defect and fails the test."""
    left = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(root) in line]
    for target in sorted(left, key=len, reverse=True):
        subprocess.run(["umount", "-l", target], check=False)
    # Not shutil's: hostile archives nest deeper than Python recurses.
    subprocess.run(["rm", "-rf", str(root)], check=False)
    assert not left, f"mounts left in the host's namespace: {left}"


AnyEngine = TypeVar("AnyEngine", bound=EngineUnderTest)


def running_engine(*flags: str, variables: Mapping[str, str] | None = None) -> Iterator[EngineUnderTest]:
    """Give a running engine with a busybox image; `variables` are in its daemon's and its commands' environment."""
    needs_root()
    yield from served(EngineUnderTest(Path(tempfile.mkdtemp(prefix="bq", dir="/var/tmp")), *flags, variables=variables))


def served(under_test: AnyEngine) -> Iterator[AnyEngine]:
    """Start an engine and give it with a busybox image; at the end it goes, with its root."""
    try:
        under_test.start()
        under_test.load_busybox()
        yield under_test
        for line in under_test.docker("ps", "-aq").split():
            under_test.docker("rm", "-f", line)
    finally:
        under_test.stop()
        _remove(under_test.root)
