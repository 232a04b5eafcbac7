"""How fast an image of 490 MB and 23,000 files is pulled, pushed, saved, loaded and removed, beside Docker and Podman.

    python bench/images.py [--peers barque,docker,podman] [--rounds N] [--keep FOLDER]

Run as root. Everything happens in a network namespace of its own with registries on loopback, each engine on roots of
its own. Printed are seconds a step (the least of the rounds) and the daemons' peak memory.
"""

import argparse
import hashlib
import io
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
FILES, BYTES, LAYERS = 23_000, 490_000_000, 4
STEPS = ("pull", "push", "save", "load", "rmi")


def make_image(folder: Path) -> Path:
    """Write an OCI layout with gzip layers whose bytes compress as programs do, and return its path."""
    layout = folder / "layout"
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    dice = random.Random(7)
    pool = b"".join(
        dice.randbytes(1500) + b"".join(dice.choice(_WORDS) for _ in range(700)) for _ in range(4000)
    )
    sizes = [dice.lognormvariate(8.2, 1.8) for _ in range(FILES)]
    scale = BYTES / sum(sizes)
    layers, diff_ids = [], []
    each = FILES // LAYERS
    for number in range(LAYERS):
        data = _layer(number, [int(s * scale) for s in sizes[number * each : (number + 1) * each]], pool, dice)
        diff_ids.append("sha256:" + hashlib.sha256(data).hexdigest())
        packed = subprocess.run(["gzip", "-6", "-n"], input=data, capture_output=True, check=True).stdout
        layers.append({"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", **_store(blobs, packed)})
    config = {
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/true"]}, "created": "2024-05-06T07:08:09Z",
        "history": [{"created_by": f"layer {n}"} for n in range(LAYERS)],
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }  # fmt: skip
    manifest = {
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": layers,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **_store(blobs, _json(config))},
    }  # fmt: skip
    entry = {"mediaType": manifest["mediaType"], **_store(blobs, _json(manifest))}
    (layout / "index.json").write_bytes(_json({"schemaVersion": 2, "manifests": [entry]}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return layout


_WORDS = [bytes(random.Random(n).choices(b"abcdefghijklmnop_(); \n", k=5)) for n in range(300)]


def _layer(number: int, sizes: list[int], pool: bytes, dice: random.Random) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for index, size in enumerate(sizes):
            if index % 40 == 0:
                info = tarfile.TarInfo(f"usr/l{number}/d{index // 40}")
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(info)
            info = tarfile.TarInfo(f"usr/l{number}/d{index // 40}/file{index}")
            info.size, info.mtime = size, 1_700_000_000 + index
            size = min(size, len(pool))
            info.size = size
            at = dice.randrange(len(pool) - size + 1)
            tar.addfile(info, io.BytesIO(pool[at : at + size]))
    return out.getvalue()


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def _store(blobs: Path, data: bytes) -> dict[str, object]:
    digest = hashlib.sha256(data).hexdigest()
    (blobs / digest).write_bytes(data)
    return {"digest": f"sha256:{digest}", "size": len(data)}


class Registry:
    """docker-registry on loopback."""

    def __init__(self, folder: Path, port: int) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.host = f"127.0.0.1:{port}"
        (folder / "config.yml").write_text(
            f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {folder}/data}}}}\nhttp: {{addr: '{self.host}'}}\n"
            "log: {level: error, accesslog: {disabled: true}}\n"
        )
        self.process = subprocess.Popen(["docker-registry", "serve", f"{folder}/config.yml"], stderr=subprocess.DEVNULL)
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                time.sleep(0.02)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


class Engine:
    """An engine with a daemon, driven by the docker command."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.root = name, folder / name
        self.process: subprocess.Popen[bytes] | None = None
        self.peak = 0

    def command(self) -> list[str]:
        return ["docker", "-H", f"unix://{self.root}/s.sock", "--config", f"{self.root}/config"]

    def start(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir(parents=True)
        common = ["-H", f"unix://{self.root}/s.sock", "--data-root", f"{self.root}/data", "--exec-root",
                  f"{self.root}/exec", "--pidfile", f"{self.root}/pid"]  # fmt: skip
        if self.name == "docker":
            words = ["dockerd", *common, "--bridge", "none", "--iptables=false", "--ip6tables=false",
                     "--config-file", f"{self.root}/none.json"]  # fmt: skip
            (self.root / "none.json").write_text("{}")
        else:
            words = [sys.executable, "-m", "barque", "daemon", *common, "--config-file", f"{self.root}/none.json"]
        environment = {**os.environ, "PYTHONPATH": str(HERE.parent / "src")}
        with (self.root / "log").open("wb") as log:
            self.process = subprocess.Popen(words, stdout=log, stderr=log, env=environment, start_new_session=True)
        for _ in range(1500):
            if subprocess.run([*self.command(), "version"], capture_output=True).returncode == 0:
                return
            time.sleep(0.02)
        raise SystemExit(f"{self.name} did not start: {(self.root / 'log').read_text()[-2000:]}")

    def remember_peak(self) -> None:
        assert self.process is not None
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                self.peak = max(self.peak, int(line.split()[1]) // 1024)

    def stop(self) -> None:
        assert self.process is not None
        self.remember_peak()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()
        _unmount(self.root)
        shutil.rmtree(self.root, ignore_errors=True)


class Podman(Engine):
    """Podman, which has no daemon."""

    def command(self) -> list[str]:
        return ["podman", "--root", f"{self.root}/data", "--runroot", f"{self.root}/run", "--storage-driver", "overlay"]

    def start(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir(parents=True)

    def remember_peak(self) -> None:
        return

    def stop(self) -> None:
        _unmount(self.root)
        shutil.rmtree(self.root, ignore_errors=True)


def _unmount(root: Path) -> None:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    for target in sorted((line.split()[4] for line in lines if str(root) in line), key=len, reverse=True):
        subprocess.run(["umount", "-l", target], check=False)


def timed(words: list[str]) -> float:
    """Run a command and return its seconds."""
    before = time.perf_counter()
    done = subprocess.run(words, capture_output=True, text=True)
    seconds = time.perf_counter() - before
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: {done.stdout[-500:]} {done.stderr[-2000:]}")
    return seconds


def measure(engine: Engine, folder: Path, source: Registry) -> dict[str, float]:
    """Return the seconds of every step on an engine with an empty store."""
    engine.start()
    target = Registry(folder / "target", 5055)
    insecure = ["--tls-verify=false"] if engine.name == "podman" else []
    archive = f"{folder}/image.tar"
    image, other = f"{source.host}/bench:1", f"{target.host}/bench:1"
    try:
        found = {"pull": timed([*engine.command(), "pull", *insecure, image])}
        timed([*engine.command(), "tag", image, other])
        found["push"] = timed([*engine.command(), "push", *insecure, other])
        found["save"] = timed([*engine.command(), "save", "-o", archive, image])
        found["rmi"] = timed([*engine.command(), "rmi", image, other])
        found["load"] = timed([*engine.command(), "load", "-i", archive])
        return found
    finally:
        Path(archive).unlink(missing_ok=True)
        target.stop()
        shutil.rmtree(folder / "target", ignore_errors=True)
        engine.stop()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--peers", default="barque,docker,podman")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    if os.environ.get("BENCH_INSIDE") != "1":
        words = ["unshare", "-n", "-m", sys.executable, *sys.argv]
        sys.exit(subprocess.run(words, env={**os.environ, "BENCH_INSIDE": "1"}).returncode)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    folder = options.keep or Path(tempfile.mkdtemp(prefix="bench-images", dir="/var/tmp"))
    try:
        run(options, folder)
    finally:
        if options.keep is None:
            shutil.rmtree(folder, ignore_errors=True)


def run(options: argparse.Namespace, folder: Path) -> None:
    layout = folder / "layout"
    if not layout.exists():
        make_image(folder)
    source = Registry(folder / "source", 5056)
    try:
        subprocess.run(["skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{layout}",
                        f"docker://{source.host}/bench:1"], check=True)  # fmt: skip
        kinds = {"podman": Podman}
        engines = [kinds.get(name, Engine)(name, folder) for name in options.peers.split(",")]
        best: dict[str, dict[str, float]] = {engine.name: {} for engine in engines}
        for _ in range(options.rounds):
            for engine in engines:
                for step, seconds in measure(engine, folder, source).items():
                    best[engine.name][step] = min(seconds, best[engine.name].get(step, 1e9))
    finally:
        source.stop()
    print(f"{'':8}" + "".join(f"{step:>8}" for step in STEPS) + "   peak MB")
    for engine in engines:
        row = "".join(f"{best[engine.name][step]:8.2f}" for step in STEPS)
        print(f"{engine.name:8}{row}   {engine.peak or ''}")
    if "docker" in best and "barque" in best:
        ratios = "".join(f"{best['barque'][step] / best['docker'][step]:8.2f}" for step in STEPS)
        print(f"{'/docker':8}{ratios}")


if __name__ == "__main__":
    main()
