"""What a part of a very long log costs.

    python bench/long_log.py [--gigabytes 10]

Writes a log of ten thousand lines a second into a container's folder and asks for parts of it with the docker command:
by time, by the end, by both. Prints the time until the answer's end and the processor time that the daemon took for it.
"""

import argparse
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from under_test import EngineUnderTest, isolate_network, running_engine

_START_S = 1_700_000_000
_SECOND = b'{"log":"a line of this log, as long as most lines are\\n","stream":"stdout","time":"%s.000000001Z"}\n' * 10_000
_STAMP_SIZE = 19


def write(path: Path, size: int) -> int:
    """Write a log of about so many bytes; return how many seconds of it there are."""
    seconds = size // (len(_SECOND) + 10_000 * (_STAMP_SIZE - 2))
    with path.open("wb", buffering=0) as file:
        for second in range(seconds):
            file.write(_SECOND.replace(b"%s", moment(second).encode()))
    return seconds


def moment(second: int) -> str:
    """Return the time of a second of the log."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(_START_S + second))


def ask(engine: EngineUnderTest, *words: str) -> None:
    """Print what an answer costs."""
    began, worked = time.perf_counter(), processor_s(engine.pid)
    lines = engine.docker("logs", *words, "long").count("\n") + 1
    taken, work = time.perf_counter() - began, processor_s(engine.pid) - worked
    print(f"{' '.join(words):66} {lines:7} lines {taken * 1000:7.0f} ms, daemon {work * 1000:6.0f} ms", flush=True)


def processor_s(pid: int) -> float:
    """Return the processor time that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=10)
    options = parser.parse_args()
    isolate_network()
    for engine in running_engine():
        engine.docker("run", "--name", "long", "busybox", "true")
        path = Path(engine.docker("inspect", "-f", "{{.LogPath}}", "long"))
        seconds = write(path, int(options.gigabytes * 1e9))
        middle, end = f"{moment(seconds // 2)}Z", f"{moment(seconds)}Z"
        print(f"{path.stat().st_size / 1e9:.1f} GB, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
        ask(engine, "--tail", "10")
        ask(engine, "--since", f"{moment(seconds - 1)}Z", "--tail", "10")
        ask(engine, "--since", middle, "--until", f"{moment(seconds // 2 + 1)}Z")
        ask(engine, "--since", middle, "--until", end, "--tail", "1000")
        ask(engine, "--until", f"{moment(1)}Z")
        ask(engine, "--tail", "100000")


if __name__ == "__main__":
    main()
