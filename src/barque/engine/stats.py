"""Statistics of a container in the shape of Docker's /stats, from a cgroup's raw counters. Pure."""

import os
from typing import Any

from barque.base import times

Json = dict[str, Any]


def system_cpu_ns() -> int:
    """Return the machine's cpu time since boot in ns: user to softirq of /proc/stat's first line."""
    with open("/proc/stat", encoding="ascii") as file:
        fields = file.readline().split()[1:8]
    return sum(map(int, fields)) * (1_000_000_000 // os.sysconf("SC_CLK_TCK"))


def machine_memory() -> int:
    """Return the machine's memory in bytes: the limit of a container that has none."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def empty_cpu() -> Json:
    """Return the cpu part before a first sample."""
    return {
        "cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
        "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
    }


def cpu(raw: Json, system_ns: int, cpus: int) -> Json:
    """Return the cpu part of one sample."""
    usage: Json = {"total_usage": raw["total_ns"]}
    if raw["per_cpu_ns"]:
        usage["percpu_usage"] = raw["per_cpu_ns"]
    usage["usage_in_kernelmode"] = raw["system_ns"]
    usage["usage_in_usermode"] = raw["user_ns"]
    return {
        "cpu_usage": usage,
        "system_cpu_usage": system_ns,
        "online_cpus": cpus,
        "throttling_data": {
            "periods": raw["periods"],
            "throttled_periods": raw["throttled_periods"],
            "throttled_time": raw["throttled_ns"],
        },
    }


def memory(raw: Json, version: int) -> Json:
    """Return the memory part; a limit beyond the machine's memory is the machine's memory."""
    total = machine_memory()
    limit = raw["limit"]
    shown: Json = {
        "usage": raw["usage"],
        "stats": raw["stat"],
        "limit": limit if 0 < limit < total else total,
    }
    if version == 1:
        shown["max_usage"] = raw["max_usage"]
        shown["failcnt"] = raw["failcnt"]
    return shown


def block_io(raw: Json) -> Json:
    """Return the block I/O part; lists that a kernel does not keep are null as in Docker's answer."""
    shown: Json = {key: raw.get(key) or [] for key in ("io_service_bytes_recursive", "io_serviced_recursive")}
    for key in ("io_queue_recursive", "io_service_time_recursive", "io_wait_time_recursive",
                "io_merged_recursive", "io_time_recursive", "sectors_recursive"):  # fmt: skip
        shown[key] = None
    return shown


def sample(
    container_id: str, name: str, raw: Json, *, now_ns: int, networks: Json | None, version: int, previous: Json | None
) -> Json:
    """Return one message of /stats.

    Args:
        container_id: full id.
        name: with its leading slash.
        raw: what the cgroup's stats() gave.
        now_ns: when it was taken.
        networks: counters by interface, None without a network namespace of its own.
        version: of the cgroup interface.
        previous: the message before, None for the first.
    """
    cpus = len(os.sched_getaffinity(0))
    message: Json = {
        "name": name,
        "id": container_id,
        "read": times.format_ns(now_ns),
        "preread": previous["read"] if previous else times.ZERO,
        "num_procs": 0,
        "storage_stats": {},
        "pids_stats": {key: value for key, value in raw["pids"].items() if value},
        "blkio_stats": block_io(raw["blkio"]),
        "cpu_stats": cpu(raw["cpu"], system_cpu_ns(), cpus),
        "precpu_stats": previous["cpu_stats"] if previous else empty_cpu(),
        "memory_stats": memory(raw["memory"], version),
    }
    if networks is not None:
        message["networks"] = networks
    return message


def stopped(container_id: str, name: str) -> Json:
    """Return the message of a container that does not run."""
    return {
        "name": name, "id": container_id, "read": times.ZERO, "preread": times.ZERO, "num_procs": 0,
        "storage_stats": {}, "pids_stats": {}, "blkio_stats": block_io({}), "cpu_stats": empty_cpu(),
        "precpu_stats": empty_cpu(), "memory_stats": {},
    }  # fmt: skip


def top(titles_and_rows: str, pids: set[int]) -> Json:
    """Return the /top answer from the output of ps: the rows whose PID column is one of pids.

    Raises:
        ValueError: there is no PID column.
    """
    lines = titles_and_rows.splitlines()
    titles = lines[0].split() if lines else []
    if "PID" not in titles:
        raise ValueError("Couldn't find PID field in ps output")
    column = titles.index("PID")
    rows = []
    for line in lines[1:]:
        fields = line.split(None, len(titles) - 1)
        if len(fields) > column and fields[column].isdigit() and int(fields[column]) in pids:
            rows.append(fields)
    return {"Titles": titles, "Processes": rows}
