"""Health checks, restarts and time limits, seen through the docker command and ours."""

import itertools
import json
import sys
import time

import pytest

from under_test import until

pytestmark = pytest.mark.system


def health(engine, name):
    return json.loads(engine.docker("inspect", "-f", "{{json .State.Health}}", name))


def test_a_check_that_takes_too_long_is_ended_and_what_it_said_is_kept(engine):
    engine.docker("run", "-d", "--name", "slow", "--health-cmd", "echo waiting; sleep 77", "--health-interval", "50ms",
                  "--health-timeout", "300ms", "--health-retries", "1", "busybox", "sleep", "100")  # fmt: skip
    until(lambda: health(engine, "slow")["Status"] == "unhealthy")
    entry = health(engine, "slow")["Log"][0]
    assert entry["ExitCode"] == -1
    assert entry["Output"] == "Health check exceeded timeout (300ms): waiting\n"
    assert engine.docker("top", "slow", "-eo", "pid,args").count("sleep 77") <= 3
    engine.docker("rm", "-f", "slow")


def test_five_results_of_four_kibibytes_are_kept(engine):
    engine.docker("run", "-d", "--name", "chatty", "--health-cmd", "yes | head -c 9000", "--health-interval", "30ms",
                  "busybox", "sleep", "100")  # fmt: skip
    until(lambda: len(health(engine, "chatty")["Log"] or []) == 5)
    found = health(engine, "chatty")
    assert found["Status"] == "healthy" and {len(e["Output"]) for e in found["Log"]} == {4096 + 3}
    assert found["Log"][0]["Output"].endswith("...")
    until(lambda: health(engine, "chatty")["Log"][0]["Start"] != found["Log"][0]["Start"], "more checks have run")
    assert len(health(engine, "chatty")["Log"]) == 5
    engine.docker("rm", "-f", "chatty")


def test_failures_within_the_start_period_do_not_count_and_checks_come_faster(engine):
    engine.docker("run", "-d", "--name", "young", "--health-cmd", "test -e /ready", "--health-interval", "60s",
                  "--health-start-period", "30s", "--health-start-interval", "100ms", "--health-retries", "1",
                  "busybox", "sleep", "100")  # fmt: skip
    until(lambda: len(health(engine, "young")["Log"] or []) >= 2)
    assert health(engine, "young")["Status"] == "starting" and health(engine, "young")["FailingStreak"] == 0
    engine.docker("exec", "young", "touch", "/ready")
    until(lambda: health(engine, "young")["Status"] == "healthy")
    engine.docker("rm", "-f", "young")


def test_a_health_check_of_the_image_can_be_switched_off_and_is_told_by_ps(engine):
    engine.docker("create", "--name", "checked", "busybox")
    engine.docker("commit", "-c", 'HEALTHCHECK --interval=100ms CMD ["true"]', "checked", "checked:1")
    engine.docker("run", "-d", "--name", "on", "checked:1", "sleep", "100")
    engine.docker("run", "-d", "--name", "off", "--no-healthcheck", "checked:1", "sleep", "100")
    until(lambda: "(healthy)" in engine.docker("ps", "--format", "{{.Status}}", "--filter", "name=on"))
    assert health(engine, "off") is None
    assert engine.docker("ps", "-q", "--filter", "health=none", "--filter", "name=off")
    engine.docker("rm", "-f", "on", "off", "checked")
    engine.docker("rmi", "checked:1")


@pytest.mark.parametrize(("action", "status"), [("stop", "exited"), ("kill", "exited"), ("restart", "running")])
def test_an_unhealthy_container_is_stopped_killed_or_restarted_where_that_is_wanted(engine, action, status):
    name = f"ill-{action}"
    engine.barque("run", "-d", "--name", name, "--health-cmd", "test ! -e /ill", "--health-interval", "50ms",
                  "--health-retries", "1", "--health-on-failure", action, "--stop-timeout", "0", "busybox",
                  "sh", "-c", "rm -f /ill; sleep 100")  # fmt: skip
    started = engine.docker("inspect", "-f", "{{.State.StartedAt}}", name)
    until(lambda: health(engine, name)["Status"] == "healthy")
    engine.docker("exec", name, "touch", "/ill")
    state = "{{.State.Status}} {{.State.StartedAt}}"
    until(lambda: (s := engine.docker("inspect", "-f", state, name).split())[0] == status
          and (status == "exited" or s[1] != started))  # fmt: skip
    if action == "restart":
        until(lambda: health(engine, name)["Status"] == "healthy")
    engine.docker("rm", "-f", name)


def test_a_container_ends_when_its_time_is_over(engine):
    engine.barque("run", "-d", "--name", "short", "--ttl", "300ms", "--stop-timeout", "0", "busybox", "sleep", "100")
    assert engine.docker("wait", "short") == "137"
    assert engine.docker("events", "--since", "60s", "--until", str(time.time()), "--filter", "container=short",
                         "--filter", "event=time_limit")  # fmt: skip
    engine.docker("rm", "short")
    began = time.monotonic()
    result = engine.run([sys.executable, "-m", "barque", "run", "--rm", "--timeout", "1", "--stop-timeout", "0", "busybox", "sleep", "100"])
    assert result.returncode == 137 and 1 <= time.monotonic() - began < 30
    both = engine.run([sys.executable, "-m", "barque", "create", "--timeout", "1", "--ttl", "1s", "busybox"])
    assert "use one of them" in both.stderr


def test_a_restart_policys_back_off_doubles_and_its_count_stays(engine):
    engine.docker("run", "-d", "--name", "backs", "--restart", "always", "busybox", "false")
    until(lambda: int(engine.docker("inspect", "-f", "{{.RestartCount}}", "backs")) >= 5)
    lines = engine.docker("events", "--since", "60s", "--until", str(time.time()), "--filter", "container=backs",
                          "--filter", "event=start", "--format", "{{.TimeNano}}").split()  # fmt: skip
    gaps = [(int(b) - int(a)) / 1e9 for a, b in itertools.pairwise(lines)]
    assert gaps[3] > gaps[0] * 2 and gaps[3] >= 0.8 and gaps[0] >= 0.1
    engine.docker("stop", "-t", "0", "backs")
    assert engine.docker("inspect", "-f", "{{.State.Status}}", "backs") == "exited"
    engine.docker("rm", "-f", "backs")


def test_containers_come_back_in_the_order_of_their_services(own_engine):
    def label(service, depends=""):
        pairs = {"project": "p", "service": service, "depends_on": depends}
        return [word for key, value in pairs.items() if value for word in ("-l", f"com.docker.compose.{key}={value}")]

    own_engine.docker("run", "-d", "--name", "app", *label("app", "db:service_healthy:false"), "--restart", "always",
                      "busybox", "sleep", "1000")  # fmt: skip
    own_engine.docker("run", "-d", "--name", "db", *label("db"), "--restart", "always", "--health-cmd", "true",
                      "--health-interval", "500ms", "busybox", "sleep", "1000")  # fmt: skip
    own_engine.lose_machine()
    own_engine.start()
    until(lambda: own_engine.docker("ps", "-q", "--filter", "status=running").count("\n") == 1)
    start = "{{.State.StartedAt}}"
    app, db = (own_engine.docker("inspect", "-f", start, name) for name in ("app", "db"))
    assert db < app
    assert health(own_engine, "db")["Log"][0]["End"] < app


def test_health_and_time_limits_go_on_after_the_daemon_was_killed(own_engine):
    own_engine.barque("run", "-d", "--name", "both", "--health-cmd", "true", "--health-interval", "100ms",
                      "--ttl", "6s", "--stop-timeout", "0", "busybox", "sleep", "100")  # fmt: skip
    own_engine.kill_daemon()
    until(lambda: health(own_engine, "both")["Log"])
    assert own_engine.docker("wait", "both") == "137"
