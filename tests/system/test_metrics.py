"""Numbers for Prometheus."""

import urllib.error
import urllib.request

import pytest

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
