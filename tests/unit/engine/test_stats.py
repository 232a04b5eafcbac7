"""Statistics and top."""

import pytest

from barque.engine import stats

RAW = {
    "cpu": {"total_ns": 5, "per_cpu_ns": [2, 3], "user_ns": 3, "system_ns": 2, "periods": 1,
            "throttled_periods": 1, "throttled_ns": 9},
    "memory": {"usage": 10, "max_usage": 20, "limit": 1 << 62, "failcnt": 0, "stat": {"cache": 1}},
    "blkio": {"io_service_bytes_recursive": [], "io_serviced_recursive": []},
    "pids": {"current": 1, "limit": 0},
}  # fmt: skip


def test_a_second_sample_carries_the_first_as_its_past() -> None:
    first = stats.sample("ab", "/x", RAW, now_ns=10**9, networks=None, version=1, previous=None)
    second = stats.sample("ab", "/x", RAW, now_ns=2 * 10**9, networks={"eth0": {}}, version=1, previous=first)
    assert first["precpu_stats"]["cpu_usage"]["total_usage"] == 0
    assert second["precpu_stats"] == first["cpu_stats"]
    assert second["preread"] == first["read"]
    assert first["memory_stats"]["limit"] == stats.machine_memory()
    assert "networks" not in first
    assert second["cpu_stats"]["system_cpu_usage"] > 0


def test_top_keeps_the_containers_processes_and_the_last_column_whole() -> None:
    output = "UID PID CMD\nroot 1 sh -c x\nroot 22 sleep 5\n"
    assert stats.top(output, {22}) == {"Titles": ["UID", "PID", "CMD"], "Processes": [["root", "22", "sleep 5"]]}
    with pytest.raises(ValueError, match="PID"):
        stats.top("USER CMD\n", {1})
