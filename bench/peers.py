"""The engines that are timed: Barque, and Docker and Podman where they are installed, each on roots of its own."""

import compileall
import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import barque
from under_test import EngineUnderTest

_PODMAN_CONF = """\
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


class Peer:
    """An engine to be timed: its name, the words before a verb, its environment, and its root."""

    def __init__(self, name: str, words: list[str], environment: dict[str, str], root: Path) -> None:
        self.name = name
        self.words = words
        self.environment = environment
        self.root = root
        self.socket = ""
        self.create_flags: tuple[str, ...] = ()
        self.end: Callable[[], None] = lambda: None
        self.stop: Callable[[], None] = lambda: None
        self.start: Callable[[], None] = lambda: None
        self.pids: Callable[[], list[int]] = list

    def line(self, verb: str, *arguments: str) -> list[str]:
        """Return the whole command line of a verb."""
        flags = self.create_flags if verb in ("run", "create") else ()
        return [*self.words, verb, *flags, *arguments]

    def run(self, *arguments: str, data: bytes | None = None) -> str:
        """Run a verb; return what it printed."""
        result = subprocess.run(
            self.line(*arguments), env=self.environment, input=data, capture_output=True, timeout=600
        )
        if result.returncode:
            raise RuntimeError(f"{self.name} {arguments}: {result.stderr.decode()[-400:]}")
        return result.stdout.decode().strip()

    def seconds(self, *arguments: str) -> float:
        """Return how long the whole command takes, in seconds."""
        started = time.perf_counter()
        self.run(*arguments)
        return time.perf_counter() - started

    def get_seconds(self, path: str) -> float:
        """Return how long a GET on a new connection takes, in seconds."""
        started = time.perf_counter()
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(self.socket)
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        if answer.status != 200:
            raise RuntimeError(f"{self.name} {path}: {body[:200]!r}")
        return time.perf_counter() - started

    def restart_seconds(self) -> float:
        """End the daemon, start it again; return the time from its start to its first answer, in seconds."""
        self.stop()
        started = time.perf_counter()
        self.start()
        self.wait_answer(started + 120)
        return time.perf_counter() - started

    def wait_answer(self, deadline: float) -> None:
        """Wait until the list of containers comes, until a moment of perf_counter."""
        while True:
            try:
                self.get_seconds("/containers/json")
                return
            except (OSError, http.client.HTTPException):
                if time.perf_counter() > deadline:
                    raise
                # Docker tells nobody when it answers; this is less than any start takes.
                time.sleep(0.002)

    def memory(self) -> int:
        """Return what the engine's own processes take, as the sum of their proportional set sizes in bytes."""
        return sum(_pss(pid) for pid in self.pids())


def _pss(pid: int) -> int:
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith("Pss:"))


def processes_with(*marks: str) -> list[int]:
    """Return the processes whose command line contains one of `marks`."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                line = Path(f"/proc/{name}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if any(mark in line for mark in marks):
                found.append(int(name))
    return found


def barque_peers(root: Path, *flags: str) -> list[Peer]:
    """Start Barque; return it as driven by its own command and, where it is installed, by the docker command."""
    # As an installation does: where PYTHONDONTWRITEBYTECODE is set each start would compile all sources anew.
    compileall.compile_dir(str(Path(barque.__file__).parent), quiet=2)
    # Docker keeps all of a log unless it is told otherwise.
    engine = EngineUnderTest(root, "--log-opt", "max-size=-1", *flags)
    engine.start()
    own = Peer("barque", [sys.executable, "-m", "barque"], engine.environment, root)
    script = Path(sys.executable).with_name("barque")
    if script.exists():
        own.words = [str(script)]
    own.stop, own.start = engine.stop, engine.launch

    def end() -> None:
        keeper = int((root / "exec" / "keeper.pid").read_text().split()[0])
        engine.stop()
        if "--live-restore" in flags:
            # It goes on without a daemon where something runs.
            with contextlib.suppress(ProcessLookupError):
                os.kill(keeper, signal.SIGKILL)

    own.end = end
    own.socket = str(engine.socket)
    own.pids = lambda: [
        engine.pid, int((root / "exec" / "keeper.pid").read_text().split()[0]),
        *processes_with(f"{root}/exec/dns.sock"),
    ]  # fmt: skip
    peers = [own]
    if shutil.which("docker"):
        peers.append(Peer("docker->barque", ["docker"], engine.environment, root))
    return peers


def docker_peer(root: Path, *flags: str) -> Peer | None:
    """Start dockerd in a network namespace of its own; None where it is not installed or does not start."""
    if not shutil.which("dockerd") or not shutil.which("docker"):
        return None
    host = f"unix://{root}/docker.sock"
    log = (root / "dockerd.log").open("wb")
    words = ["dockerd", "-H", host, "--data-root", f"{root}/data", "--exec-root", f"{root}/exec",
             "--pidfile", f"{root}/pid", *flags]  # fmt: skip
    # The namespace outlives the daemon, for the next one.
    holder = subprocess.Popen(
        ["unshare", "-n", "sh", "-c", "ip link set lo up; echo; exec sleep infinity"], stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    # Before that its namespace is still ours.
    holder.stdout.readline()
    running: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        running.append(subprocess.Popen(["nsenter", "-n", "-t", str(holder.pid), *words],
                                        stdout=log, stderr=log, stdin=subprocess.DEVNULL))  # fmt: skip

    def stop() -> None:
        process = running.pop()
        process.terminate()
        process.wait(60)

    peer = Peer("docker", ["docker"], {**os.environ, "DOCKER_HOST": host}, root)
    peer.socket = f"{root}/docker.sock"
    peer.pids = lambda: processes_with(str(root))

    def end() -> None:
        if running:
            stop()
        holder.kill()
        holder.wait()

    peer.start, peer.stop, peer.end = start, stop, end
    start()
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline and running[-1].poll() is None:
        try:
            peer.run("version")
            return peer
        except RuntimeError:
            time.sleep(0.2)
    print(f"dockerd did not start: {(root / 'dockerd.log').read_text()[-300:]}", file=sys.stderr)
    end()
    return None


def podman_peer(root: Path) -> Peer | None:
    """Return Podman on roots of its own; None where it is not installed or does not run."""
    if not shutil.which("podman"):
        return None
    (root / "containers.conf").write_text(_PODMAN_CONF)
    words = ["podman", "--root", f"{root}/storage", "--runroot", f"{root}/run", "--tmpdir", f"{root}/tmp"]
    peer = Peer("podman", words, {**os.environ, "CONTAINERS_CONF": str(root / "containers.conf")}, root)
    peer.pids = lambda: processes_with(str(root))
    # Podman raises limits by default, which fails where CAP_SYS_RESOURCE is missing.
    peer.create_flags = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")
    try:
        peer.run("info")
    except RuntimeError as error:
        print(f"podman does not run here: {error}", file=sys.stderr)
        return None
    return peer
