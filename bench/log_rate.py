"""How fast the keeper brings a process's output into its json-file log.

    python bench/log_rate.py [MEGABYTES]

A plain process writes lines of 100 bytes into the keeper's pipe; printed are MB/s of output from start to
exit event, and of the formatting alone, and the processor time that the keeper took for each GB.
"""

import asyncio
import json
import os
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, f"{HERE}/../src")

from barque.keeper.client import Keeper  # noqa: E402
from barque.keeper.jsonlog import Clock, LineFormat, whole_part  # noqa: E402

LINE = (
    b"2024-05-06 07:08:09 INFO request served in 12 ms, status 200, 4711 bytes, client 10.1.2.3 ok".ljust(99, b".")
    + b"\n"
)
WRITER = """
import os, sys
chunk = os.environ['BENCH_LINE'].encode() + b'\\n'
chunk *= 655
left = int(sys.argv[1])
while left > 0:
    os.write(1, chunk)
    left -= len(chunk)
"""


def formatting(megabytes: int) -> float:
    text = LINE * 10_000
    lines, clock = LineFormat("stdout", None), Clock()
    before = time.perf_counter()
    for _ in range(megabytes):
        start = 0
        while (end := whole_part(text, start)) > start:
            lines.lines(text[start:end], clock.stamp())
            start = end
    return megabytes * len(text) / 1e6 / (time.perf_counter() - before)


def processor_s(pid: int) -> float:
    with open(f"/proc/{pid}/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def through_the_keeper(megabytes: int) -> tuple[float, float]:
    ended = asyncio.Event()
    boot = [sys.executable, "-I", "-S", f"{HERE}/../tests/unit/keeper/standin.py"]
    os.environ["BENCH_LINE"] = LINE[:-1].decode()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as root, tempfile.TemporaryDirectory() as logs:
        keeper = await Keeper.connect_or_spawn(
            root, on_event=lambda event: event["event"] == "exit" and ended.set(), boot=boot
        )
        bundle = f"{root}/containers/one"
        os.makedirs(bundle)
        with open(f"{bundle}/config.json", "w") as file:
            args = [sys.executable, "-S", "-c", WRITER, str(megabytes * 1_000_000)]
            json.dump({"process": {"args": args}}, file)
        before, used = time.perf_counter(), processor_s(keeper.pid)
        await keeper.start("one", bundle=bundle, log={"path": f"{logs}/one.log"})
        await ended.wait()
        seconds, used = time.perf_counter() - before, processor_s(keeper.pid) - used
        await keeper.close(shutdown=True)
    return megabytes / seconds, used * 1000 / megabytes


if __name__ == "__main__":
    size = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    print(f"formatting alone      {formatting(min(size, 300)):7.0f} MB/s")
    rate, processor = asyncio.run(through_the_keeper(size))
    print(f"through the keeper    {rate:7.0f} MB/s, {processor:.2f} s of the keeper's processor time a GB")
