"""What `stats` shows: counters of the control group in Docker's shape."""

import os
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from barque.base.times import ZERO, format_ns
from barque.engine.container import Container, CpuReading
from barque.runtime.cgroups import open_manager

if TYPE_CHECKING:
    from barque.engine.engine import Engine

Json = dict[str, Any]
_MOMENT_S = 0.1
_YOUNGEST_S, _OLDEST_S = 0.5, 10.0
"""A kept reading of this age stands for the one of a moment ago: whoever asks every few seconds gets means."""


def system_cpu() -> tuple[int, int]:
    """Return (nanoseconds that all processors have worked, number of processors)."""
    tick_ns = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    total = cpus = 0
    with open("/proc/stat", encoding="ascii") as file:
        for line in file:
            if line.startswith("cpu "):
                total = sum(int(field) for field in line.split()[1:8]) * tick_ns
            elif line.startswith("cpu"):
                cpus += 1
            else:
                break
    return total, cpus


def memory_total() -> int:
    """Return the machine's memory in bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _cpu(cpu: Json) -> Json:
    system, online = system_cpu()
    return {
        "cpu_usage": {
            "total_usage": cpu["total_ns"],
            **({"percpu_usage": cpu["per_cpu_ns"]} if cpu.get("per_cpu_ns") else {}),
            "usage_in_kernelmode": cpu["system_ns"],
            "usage_in_usermode": cpu["user_ns"],
        },
        "system_cpu_usage": system,
        "online_cpus": online,
        "throttling_data": {
            "periods": cpu["periods"], "throttled_periods": cpu["throttled_periods"],
            "throttled_time": cpu["throttled_ns"],
        },
    }  # fmt: skip


def _memory(raw: Json) -> Json:
    memory = raw["memory"]
    limit = memory.get("limit") or 0
    total = memory_total()
    shown: Json = {
        "usage": memory["usage"], "stats": memory["stat"],
        "limit": total if not limit or limit > total else limit,
    }  # fmt: skip
    if memory.get("max_usage"):
        shown["max_usage"] = memory["max_usage"]
    if memory.get("failcnt"):
        shown["failcnt"] = memory["failcnt"]
    return shown


def _block(raw: Json, absent: list[Json] | None) -> Json:
    """Return the counters of block devices; version 2 of control groups has not all: null, version 1 empty lists."""
    names = ("io_service_bytes_recursive", "io_serviced_recursive", "io_queue_recursive",
             "io_service_time_recursive", "io_wait_time_recursive", "io_merged_recursive", "io_time_recursive",
             "sectors_recursive")  # fmt: skip
    return {name: raw["blkio"].get(name, absent) for name in names}


def _empty(container: Container) -> Json:
    cpu = {"cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
           "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0}}  # fmt: skip
    return {
        "name": f"/{container.name}", "id": container.id, "read": ZERO, "preread": ZERO, "pids_stats": {},
        "blkio_stats": _block({"blkio": {}}, None), "num_procs": 0, "storage_stats": {}, "cpu_stats": cpu,
        "precpu_stats": cpu, "memory_stats": {},
    }  # fmt: skip


def sample(engine: "Engine", container: Container, before: Json | None) -> Json:
    """Return one reading; `before` is the one of a second ago."""
    shown = _empty(container)
    if not container.is_running:
        return shown
    try:
        raw = open_manager(engine.cgroup_path(container)).stats()
    except OSError:
        return shown
    limit = raw["pids"].get("limit") or 0
    shown.update(
        read=format_ns(time.time_ns()),
        pids_stats={"current": raw["pids"]["current"], **({"limit": limit} if limit else {})},
        blkio_stats=_block(raw, None if engine.cgroups_v2 else []), cpu_stats=_cpu(raw["cpu"]), memory_stats=_memory(raw),
        networks=engine.network.statistics(container.id),
    )  # fmt: skip
    if before is not None:
        shown["preread"], shown["precpu_stats"] = before["read"], before["cpu_stats"]
    if not shown["networks"]:
        del shown["networks"]
    return shown


async def stream(engine: "Engine", container: Container, *, live: bool, one_shot: bool) -> AsyncIterator[Json]:
    """Yield readings, one a second, or a single one (with the processors' work of the last moment unless one_shot)."""
    import asyncio

    if not container.is_running:
        yield sample(engine, container, None)
        if not live:
            return
    if not live:
        yield await _single(engine, container, one_shot=one_shot)
        return
    before: Json | None = sample(engine, container, None)
    if before is not None:
        yield before
    await asyncio.sleep(1)
    while not container.removed.is_set():
        reading = sample(engine, container, before if before and before["read"] != ZERO else None)
        yield reading
        before = reading
        await asyncio.sleep(1)


async def _single(engine: "Engine", container: Container, *, one_shot: bool) -> Json:
    """Return one reading, beside what the processors had done at the last one, or a moment ago."""
    import asyncio

    if one_shot:
        return sample(engine, container, None)
    kept = container.cpu_reading
    if kept is None or not _YOUNGEST_S <= time.monotonic() - kept.at_s <= _OLDEST_S:
        kept = _read_cpu(engine, container)
        if kept is not None:
            await asyncio.sleep(_MOMENT_S)
    now_s = time.monotonic()
    reading = sample(engine, container, None)
    if kept is None or reading["read"] == ZERO:
        return reading
    # The system's counters tick ten times too seldom for a moment: all its processors' time has passed.
    cpu = reading["cpu_stats"]
    cpu["system_cpu_usage"] = kept.stats["system_cpu_usage"] + int((now_s - kept.at_s) * 1e9) * cpu["online_cpus"]
    reading["preread"], reading["precpu_stats"] = kept.read, kept.stats
    container.cpu_reading = CpuReading(now_s, reading["read"], cpu)
    return reading


def _read_cpu(engine: "Engine", container: Container) -> CpuReading | None:
    try:
        raw = open_manager(engine.cgroup_path(container)).cpu_stats()
    except OSError:
        return None
    return CpuReading(time.monotonic(), format_ns(time.time_ns()), _cpu(raw))
