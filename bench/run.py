"""Times whole commands on Barque, and on Docker and Podman where they are installed, interleaved.

Each engine gets roots of its own; dockerd runs in a network namespace of its own so that the machine's
firewall stays as it is. Prints medians and their ratios to Docker.

    python bench/run.py [--rounds 15] [--only run,exec,wide,memory,ps]
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from conftest import EngineUnderTest, busybox_tar

Timing = dict[str, list[float]]


class Peer:
    """An engine to be timed: its name, the words before a verb, and its environment."""

    def __init__(self, name: str, words: list[str], environment: dict[str, str]) -> None:
        self.name = name
        self.words = words
        self.environment = environment
        self.end: Callable[[], None] = lambda: None

    def run(self, *arguments: str, data: bytes | None = None) -> str:
        """Run a verb; return what it printed."""
        result = subprocess.run(
            [*self.words, *arguments], env=self.environment, input=data, capture_output=True, timeout=300
        )
        if result.returncode:
            raise RuntimeError(f"{self.name} {arguments}: {result.stderr.decode()[-400:]}")
        return result.stdout.decode().strip()

    def seconds(self, *arguments: str) -> float:
        """Return how long the whole command takes, in seconds."""
        started = time.perf_counter()
        self.run(*arguments)
        return time.perf_counter() - started


def barque_peers(root: Path) -> list[Peer]:
    """Start Barque; return it as driven by its own command and by the docker command."""
    engine = EngineUnderTest(root)
    engine.start()
    own = Peer("barque", [sys.executable, "-m", "barque"], engine.environment)
    script = Path(sys.executable).with_name("barque")
    if script.exists():
        own.words = [str(script)]
    own.end = engine.stop
    peers = [own]
    if shutil.which("docker"):
        peers.append(Peer("docker->barque", ["docker"], engine.environment))
    return peers


def docker_peer(root: Path) -> Peer | None:
    """Start dockerd in a network namespace of its own; None where it is not installed or does not start."""
    if not shutil.which("dockerd") or not shutil.which("docker"):
        return None
    host = f"unix://{root}/docker.sock"
    log = (root / "dockerd.log").open("wb")
    process = subprocess.Popen(
        ["unshare", "-n", "sh", "-c", 'ip link set lo up; exec dockerd "$@"', "dockerd", "-H", host,
         "--data-root", f"{root}/data", "--exec-root", f"{root}/exec", "--pidfile", f"{root}/pid"],
        stdout=log, stderr=log, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    peer = Peer("docker", ["docker"], {**os.environ, "DOCKER_HOST": host})

    def end() -> None:
        process.terminate()
        process.wait(30)

    peer.end = end
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline and process.poll() is None:
        try:
            peer.run("version")
            return peer
        except RuntimeError:
            time.sleep(0.2)
    print(f"dockerd did not start: {(root / 'dockerd.log').read_text()[-300:]}", file=sys.stderr)
    end()
    return None


def podman_peer(root: Path) -> Peer | None:
    """Return Podman on roots of its own; None where it is not installed."""
    if not shutil.which("podman"):
        return None
    words = ["podman", "--root", f"{root}/storage", "--runroot", f"{root}/run", "--cgroup-manager", "cgroupfs",
             "--events-backend", "file", "--tmpdir", f"{root}/tmp"]  # fmt: skip
    peer = Peer("podman", words, dict(os.environ))
    try:
        peer.run("info")
    except RuntimeError as error:
        print(f"podman does not run here: {error}", file=sys.stderr)
        return None
    return peer


def interleaved(peers: list[Peer], rounds: int, *arguments: str) -> Timing:
    """Time the same verb on all peers in turn."""
    timing: Timing = {peer.name: [] for peer in peers}
    for peer in peers:
        peer.run(*arguments)
    for _ in range(rounds):
        for peer in peers:
            timing[peer.name].append(peer.seconds(*arguments))
    return timing


def report(title: str, timing: Timing) -> None:
    """Print medians in ms and their ratios to Docker."""
    print(f"\n{title}")
    docker = statistics.median(timing["docker"]) if timing.get("docker") else None
    for name, values in timing.items():
        if not values:
            continue
        median = statistics.median(values)
        ratio = f"  {median / docker:6.2f} of docker" if docker else ""
        print(f"  {name:16} {median * 1000:10.1f} ms{ratio}")


def bench_wide(peers: list[Peer]) -> Timing:
    """Time 50 detached runs, eight at a time."""
    timing: Timing = {}
    for peer in peers:
        started = time.perf_counter()
        words = " ".join(peer.words)
        subprocess.run(
            ["sh", "-c", f"seq 50 | xargs -P 8 -I N {words} run -d --name wide-N busybox sleep 1000"],
            env=peer.environment, check=True, capture_output=True,
        )  # fmt: skip
        timing[peer.name] = [time.perf_counter() - started]
        peer.run("rm", "-f", *[f"wide-{number}" for number in range(1, 51)])
    return timing


def main() -> None:
    """Run the chosen benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="run,exec,wide,ps")
    options = parser.parse_args()
    chosen = options.only.split(",")
    root = Path(tempfile.mkdtemp(prefix="bqbench", dir="/var/tmp"))
    for name in ("barque", "docker", "podman"):
        (root / name).mkdir()
    peers = barque_peers(root / "barque")
    peers += [peer for peer in (docker_peer(root / "docker"), podman_peer(root / "podman")) if peer]
    image = busybox_tar()
    try:
        for peer in peers:
            if peer.name != "docker->barque":
                peer.run("import", "-", "busybox:latest", data=image)
        if "run" in chosen:
            report("run --rm busybox true", interleaved(peers, options.rounds, "run", "--rm", "busybox", "true"))
        if "exec" in chosen:
            names = [peer for peer in peers if peer.name != "docker->barque"]
            for peer in names:
                peer.run("run", "-d", "--name", "target", "busybox", "sleep", "1000")
            report("exec true", interleaved(peers, options.rounds, "exec", "target", "true"))
            for peer in names:
                peer.run("rm", "-f", "target")
        if "wide" in chosen:
            report("50 x run -d, eight at a time", bench_wide(peers))
        if "ps" in chosen:
            report("ps -a", interleaved(peers, options.rounds, "ps", "-a"))
    finally:
        for peer in reversed(peers):
            peer.end()
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
