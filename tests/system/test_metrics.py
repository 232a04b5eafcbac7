"""Numbers: for Prometheus, and of `stats`."""

import time
import urllib.error
import urllib.request

import pytest

from barque.client.api import Api
from barque.client.endpoint import parse_host
from under_test import running_engine

pytestmark = pytest.mark.system


def test_the_engines_numbers_are_served_as_text():
    for engine in running_engine("--metrics-addr", "127.0.0.1:9323"):
        engine.docker("run", "-d", "--name", "counted", "busybox", "sleep", "100")
        engine.docker("run", "--rm", "busybox", "true")
        with urllib.request.urlopen("http://127.0.0.1:9323/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        assert values['engine_daemon_container_states_containers{state="running"}'] == "1"
        assert values['engine_daemon_container_actions_seconds_count{action="start"}'] == "2"
        assert values['engine_daemon_container_actions_seconds_bucket{action="create",le="+Inf"}'] == "2"
        assert float(values["engine_daemon_events_total"]) >= 6
        assert any(key.startswith("barque_container_memory_bytes{id=") and 'name="counted"' in key for key in values)
        assert all(float(value) >= 0 for value in values.values())
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen("http://127.0.0.1:9323/other", timeout=5)


def test_one_reading_tells_the_work_of_the_last_moment_and_many_take_no_longer(engine):
    names = [f"idle{n}" for n in range(12)]
    for name in names:
        engine.docker("run", "-d", "--name", name, "busybox", "sleep", "1000")
    began = time.monotonic()
    lines = engine.barque("stats", "--no-stream", "--format", "{{.Name}} {{.CPUPerc}}").splitlines()
    assert time.monotonic() - began < 6, "they are asked one after the other"
    assert {line.split()[0] for line in lines} >= set(names)
    assert all(float(line.split()[1].rstrip("%")) < 50 for line in lines)
    engine.docker("rm", "-f", *names)


def test_the_share_of_a_busy_container_is_what_the_kernel_counts(engine):
    engine.docker("run", "-d", "--name", "busy", "--cpus", "0.5", "busybox", "sh", "-c", "while :; do :; done")
    shares = []
    for _ in range(8):
        before = used_ns(engine, "busy")
        reading = Api(parse_host(engine.host), version="1.51").get("/containers/busy/stats", stream="0")
        after = used_ns(engine, "busy")
        now, earlier = reading["cpu_stats"], reading["precpu_stats"]
        assert before <= now["cpu_usage"]["total_usage"] <= after
        whole = now["system_cpu_usage"] - earlier["system_cpu_usage"]
        shares.append((now["cpu_usage"]["total_usage"] - earlier["cpu_usage"]["total_usage"]) / whole * now["online_cpus"])
        assert whole >= 0.09e9 * now["online_cpus"]
        assert reading["preread"] < reading["read"]
    assert 0.05 < sorted(shares)[4] < 0.75, shares
    engine.docker("rm", "-f", "busy")


def used_ns(engine, name):
    """Return what a container's processes have used, by the kernel's own file."""
    shown = engine.docker("exec", name, "sh", "-c", "cat /sys/fs/cgroup/cpuacct/cpuacct.usage || grep usage_usec /sys/fs/cgroup/cpu.stat")
    return int(shown.split()[-1]) * (1000 if "usec" in shown else 1)
