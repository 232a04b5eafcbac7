"""How fast Dockerfiles are built by each client, beside Docker's classic builder, its BuildKit, and buildah.

    python bench/builds.py [--rounds N] [--only CASE]... [--context-bytes N]

Run as root. Each engine has roots of its own; engines take turns in every round, and the least of the rounds counts.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from peers import Peer, barque_peers, docker_peer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from under_test import busybox_tar, isolate_network

PLUGINS = Path("/var/cache/barque-tests/cli-plugins")
AIMS = {"20 instructions": (0.3, 0.3), "four stages": (0.3, 0.3), "10,000 files": (0.5, 0.5)}
"""What a build may take at most, cold and cached, as a part of BuildKit's time."""
_SENT = re.compile(r"transferring context: ([\d.]+ ?[kMG]?B)")


def twenty(nonce: str, folder: Path) -> None:
    """Write a Dockerfile of 20 instructions with six RUN."""
    steps = ["FROM busybox", f"ENV NONCE={nonce}", "LABEL a=1", "WORKDIR /w", "COPY a.txt ./", "ARG X=1", "ENV Y=2"]
    steps += [f"RUN echo {number} > /w/{number}" for number in range(6)]
    steps += ["COPY b.txt /b", "LABEL b=2", "EXPOSE 80", "USER www", "VOLUME /v", "ENTRYPOINT [\"sh\"]", "CMD [\"-c\", \"true\"]"]
    _write(folder, steps)


def stages(nonce: str, folder: Path) -> None:
    """Write a Dockerfile of four stages of which two can be built side by side."""
    _write(folder, [
        "FROM busybox AS base", f"ENV NONCE={nonce}", "RUN echo base > /base", "FROM base AS left", "COPY a.txt /",
        "RUN echo left > /left", "FROM base AS right", "COPY b.txt /", "RUN echo right > /right", "FROM base",
        "COPY --from=left /left /", "COPY --from=right /right /", "RUN cat /left /right",
    ])  # fmt: skip


def many_files(nonce: str, folder: Path) -> None:
    """Write a Dockerfile that copies 10,000 files, none of which was ever seen."""
    _write(folder, ["FROM busybox", f"ENV NONCE={nonce}", "COPY many /many"])
    for number in range(10_000):
        path = folder / f"many/{number // 100}/{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{nonce} {number}\n" * 20)


def _write(folder: Path, steps: list[str]) -> None:
    (folder / "Dockerfile").write_text("\n".join(steps) + "\n")
    for name in ("a.txt", "b.txt"):
        (folder / name).write_text(f"{name}\n")


CASES: dict[str, Callable[[str, Path], None]] = {"20 instructions": twenty, "four stages": stages, "10,000 files": many_files}


class Builder:
    """One way to build: a name, its command, its environment."""

    def __init__(self, name: str, words: list[str], environment: dict[str, str]) -> None:
        self.name, self.words, self.environment = name, words, environment

    def seconds(self, folder: Path) -> tuple[float, str]:
        """Build a folder; return the seconds that the whole command took, and what it said."""
        started = time.perf_counter()
        done = subprocess.run([*self.words, str(folder)], env=self.environment, capture_output=True, text=True, timeout=900)
        took = time.perf_counter() - started
        if done.returncode:
            raise RuntimeError(f"{self.name}: {done.stdout[-500:]}{done.stderr[-500:]}")
        return took, done.stderr


def builders(root: Path) -> tuple[list[Builder], list[Peer]]:
    """Start what is installed; return the ways to build and the engines to end."""
    config = root / "config"
    config.mkdir()
    (config / "config.json").write_text(json.dumps({"cliPluginsExtraDirs": [str(PLUGINS)]}))
    engines = [("barque", barque_peers(_folder(root / "b"))[0]), ("docker", docker_peer(_folder(root / "d")))]
    found, running = [], []
    for name, peer in engines:
        if peer is None:
            print(f"{name} does not run here: it is left out", file=sys.stderr)
            continue
        running.append(peer)
        peer.run("import", "-", "busybox", data=busybox_tar())
        around = {**peer.environment, "DOCKER_CONFIG": str(config), "BUILDKIT_PROGRESS": "plain"}
        found.append(Builder(f"{name} classic", ["docker", "build", "-t", "bench"], {**around, "DOCKER_BUILDKIT": "0"}))
        if (PLUGINS / "docker-buildx").exists():
            found.append(Builder(f"{name} buildx", ["docker", "buildx", "build", "--load", "-t", "bench"], around))
        if name == "barque":
            found.append(Builder("barque build", [*peer.words, "build", "-t", "bench"], around))
    if shutil.which("buildah"):
        stores = ["buildah", "--root", f"{root}/buildah", "--runroot", f"{root}/buildah-run"]
        base = root / "busybox.tar"
        base.write_bytes(busybox_tar())
        name = subprocess.run([*stores, "from", "scratch"], check=True, capture_output=True, text=True).stdout.strip()
        for words in (["add", name, str(base), "/"], ["commit", name, "localhost/busybox"]):
            subprocess.run([*stores, *words], check=True, capture_output=True)
        found.append(Builder("buildah", [*stores, "build", "--layers", "--isolation", "chroot", "-t", "bench"], dict(os.environ)))
    return found, running


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def measure(ways: list[Builder], case: str, rounds: int, root: Path) -> dict[str, tuple[float, float]]:
    """Return the least seconds, cold and cached, of each way."""
    least = {way.name: (float("inf"), float("inf")) for way in ways}
    for number in range(rounds):
        for way in ways:
            folder = _folder(root / "context")
            CASES[case](f"{number}-{way.name.replace(' ', '-')}", folder)
            cold, cached = way.seconds(folder)[0], way.seconds(folder)[0]
            least[way.name] = min(least[way.name][0], cold), min(least[way.name][1], cached)
            shutil.rmtree(folder)
    return least


def _client_alone(ways: list[Builder]) -> None:
    """Print what buildx takes before it asks an engine for anything: no build can take less."""
    way = next((way for way in ways if way.name.endswith("buildx")), None)
    if way is None:
        return
    least = float("inf")
    for _ in range(10):
        started = time.perf_counter()
        subprocess.run(["docker", "buildx", "version"], env=way.environment, capture_output=True, check=True)
        least = min(least, time.perf_counter() - started)
    print(f"{'docker buildx version':30} {least:7.3f} s of every build by buildx", flush=True)


def changed_file(ways: list[Builder], size: int, root: Path) -> None:
    """Build a big context twice, one small file changed between; print what was sent the second time."""
    folder = _folder(root / "big")
    _write(folder, ["FROM busybox", "COPY a.txt big0 /x/"])
    block = os.urandom(1 << 20)
    for number in range(8):
        with (folder / f"big{number}").open("wb") as file:
            for index in range(size // 8 // len(block)):
                file.write(index.to_bytes(8, "little") + block[8:])
    # A context is sent whole where the Dockerfile takes all of it.
    (folder / "Dockerfile").write_text("FROM busybox\nCOPY . /x/\n")
    for way in ways:
        if not way.name.endswith("buildx"):
            continue
        first, _ = way.seconds(folder)
        (folder / "a.txt").write_text(f"changed for {way.name}\n")
        again, said = way.seconds(folder)
        sent = _SENT.findall(said)
        print(f"{'one changed file of ' + str(size >> 20) + ' MB':30} {way.name:16} first {first:7.2f} s, "
              f"again {again:7.2f} s, sent {sent[-1] if sent else '?'}")  # fmt: skip
    shutil.rmtree(folder)


def main() -> None:
    """Time everything and print it with its ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", action="append", choices=list(CASES), help="can be given several times")
    parser.add_argument("--context-bytes", type=int, default=2_000_000_000, help="0 leaves the case out")
    options = parser.parse_args()
    isolate_network()
    root = Path(tempfile.mkdtemp(prefix="bb", dir="/var/tmp"))
    running: list[Peer] = []
    try:
        ways, running = builders(root)
        _client_alone(ways)
        for case in options.only or CASES:
            least = measure(ways, case, options.rounds, root)
            against = least.get("docker buildx")
            for name, times in least.items():
                ratios = ""
                if against is not None:
                    ratios = "  ratio to BuildKit " + " / ".join(f"{t / o:.2f}" for t, o in zip(times, against, strict=True))
                    ratios += f"  (aim {AIMS[case][0]} / {AIMS[case][1]})" if name.startswith("barque") else ""
                print(f"{case:30} {name:16} cold {times[0]:7.3f} s, cached {times[1]:7.3f} s{ratios}", flush=True)
        if options.context_bytes:
            changed_file(ways, options.context_bytes, root)
    finally:
        for peer in running:
            peer.end()
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
