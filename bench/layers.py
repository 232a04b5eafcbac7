"""Times load, start, read and removal with indexed layers beside layers in folders, interleaved, on one machine.

    python bench/layers.py [--files 20000] [--rounds 3] [--starts 30]
"""

import argparse
import io
import random
import statistics
import sys
import tarfile
import tempfile
import time
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from under_test import EngineUnderTest, isolate_network

DRIVERS = ("overlay2", "erofs")


def make_tar(path: Path, files: int) -> None:
    """Write an archive of many files, of which most are small."""
    chance = random.Random(1)
    pool = chance.randbytes(1 << 20)
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for number in range(files):
            info = tarfile.TarInfo(f"usr/lib/d{number % 300}/file{number}")
            info.size = chance.choice((300, 3000, 8000, 20_000, 70_000))
            start = chance.randrange(1 << 19)
            tar.addfile(info, io.BytesIO(pool[start : start + info.size]))


def stack(engine: EngineUnderTest) -> None:
    """Make an image of five layers."""
    base = "busybox"
    for number in range(5):
        engine.docker("run", "--name", "layer", base, "sh", "-c", f"mkdir -p /d{number}; echo {number} >/d{number}/f")
        engine.docker("commit", "layer", "stacked")
        engine.docker("rm", "layer")
        base = "stacked"


def measure(engine: EngineUnderTest, archive: Path, saved: Path) -> dict[str, float]:
    """Time one round."""
    found = {}
    steps = {
        "import": ["import", str(archive), "big"],
        "save": ["save", "-o", str(saved), "big"],
        "rmi": ["rmi", "big"],
        "load": ["load", "-i", str(saved)],
    }
    for name, command in steps.items():
        started = time.perf_counter()
        engine.docker(*command, timeout=300)
        found[name] = time.perf_counter() - started
    engine.docker("rmi", "big")
    return found


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--starts", type=int, default=30)
    options = parser.parse_args()
    isolate_network()
    with tempfile.TemporaryDirectory(prefix="bqlayers", dir="/var/tmp") as folder:
        archive = Path(folder) / "files.tar"
        make_tar(archive, options.files)
        engines = {}
        for driver in DRIVERS:
            root = Path(folder) / driver
            root.mkdir()
            engines[driver] = EngineUnderTest(root, "--storage-driver", driver)
            engines[driver].start()
            engines[driver].load_busybox()
            stack(engines[driver])
        times: dict[tuple[str, str], list[float]] = defaultdict(list)
        try:
            for _ in range(options.starts):
                for driver, engine in engines.items():
                    started = time.perf_counter()
                    engine.docker("run", "--rm", "stacked", "true")
                    times["run --rm", driver].append(time.perf_counter() - started)
            for _ in range(options.rounds):
                for driver, engine in engines.items():
                    for name, seconds in measure(engine, archive, Path(folder) / "saved.tar").items():
                        times[name, driver].append(seconds)
        finally:
            for engine in engines.values():
                engine.stop()
        print(f"{'':10}" + "".join(f"{driver:>12}" for driver in DRIVERS) + f"{'ratio':>8}")
        for name in ("run --rm", "import", "save", "rmi", "load"):
            folders, indexed = (statistics.median(times[name, driver]) for driver in DRIVERS)
            print(f"{name:10}{folders * 1000:>10.0f}ms{indexed * 1000:>10.0f}ms{indexed / folders:>8.2f}")


if __name__ == "__main__":
    main()
