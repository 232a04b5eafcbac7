"""What the engine does with containers, seen through the docker command."""

import json
import sys
import time

import pytest

from under_test import until

pytestmark = pytest.mark.system


def state(engine, name, template):
    return engine.docker("inspect", "-f", template, name)


def test_an_on_failure_policy_starts_so_many_times_and_then_gives_up(engine):
    engine.docker("run", "-d", "--name", "flaky", "--restart", "on-failure:2", "busybox", "sh", "-c", "exit 3")
    until(lambda: state(engine, "flaky", "{{.RestartCount}} {{.State.Status}}") == "2 exited")
    assert state(engine, "flaky", "{{.State.ExitCode}}") == "3"


def test_a_stopped_container_is_not_restarted_by_its_policy(engine):
    engine.docker("run", "-d", "--name", "always", "--restart", "always", "busybox", "sleep", "100")
    engine.docker("stop", "-t", "0", "always")
    assert state(engine, "always", "{{.State.Status}} {{.RestartCount}}") == "exited 0"


def test_a_health_check_turns_a_container_healthy_and_unhealthy(engine):
    engine.docker("run", "-d", "--name", "ill", "--health-cmd", "test -e /ok", "--health-interval", "100ms",
                  "--health-retries", "2", "busybox", "sh", "-c", "touch /ok; sleep 100")  # fmt: skip
    until(lambda: state(engine, "ill", "{{.State.Health.Status}}") == "healthy")
    engine.docker("exec", "ill", "rm", "/ok")
    until(lambda: state(engine, "ill", "{{.State.Health.Status}}") == "unhealthy")
    assert int(state(engine, "ill", "{{.State.Health.FailingStreak}}")) >= 2
    assert engine.docker("ps", "-q", "--filter", "health=unhealthy")


def test_a_container_over_its_memory_limit_is_shown_as_killed_for_it(engine):
    engine.docker("run", "--name", "greedy", "-m", "8m", "busybox", "sh", "-c", "x=$(yes | head -c 100000000)",
                  check=False)  # fmt: skip
    assert state(engine, "greedy", "{{.State.OOMKilled}} {{.State.ExitCode}}") == "true 137"


def test_a_new_volume_is_filled_from_the_image_and_an_anonymous_one_goes_with_its_container(engine):
    engine.docker("volume", "create", "etc")
    assert "passwd" in engine.docker("run", "--rm", "-v", "etc:/etc", "-v", "/anonymous", "busybox", "ls", "/etc")
    assert engine.docker("run", "--rm", "-v", "etc:/x", "busybox", "ls", "/x") != ""
    assert engine.docker("volume", "ls", "-q", "--filter", "name=etc") == "etc"
    engine.docker("run", "-d", "--name", "user", "-v", "etc:/e", "busybox", "sleep", "100")
    refused = engine.docker_result("volume", "rm", "etc")
    assert refused.returncode == 1 and "volume is in use" in refused.stderr
    engine.docker("rm", "-f", "user")
    engine.docker("volume", "rm", "etc")


def test_events_tell_a_containers_life_in_order(engine):
    begin = str(time.time())
    engine.docker("run", "--rm", "--name", "seen", "-l", "a=b", "busybox", "true")
    lines = engine.docker("events", "--since", begin, "--until", str(time.time()), "--format", "{{json .}}",
                          "--filter", "container=seen").splitlines()  # fmt: skip
    events = [json.loads(line) for line in lines]
    assert [e["Action"] for e in events] == ["create", "attach", "start", "die", "destroy"]
    assert events[3]["Actor"]["Attributes"]["exitCode"] == "0"
    assert all(e["Actor"]["Attributes"]["a"] == "b" for e in events)


def test_limits_of_a_running_container_can_be_changed(engine):
    engine.docker("run", "-d", "--name", "grow", "-m", "64m", "busybox", "sleep", "100")
    engine.docker("update", "-m", "128m", "--memory-swap", "256m", "--restart", "unless-stopped", "grow")
    assert (
        state(engine, "grow", "{{.HostConfig.Memory}} {{.HostConfig.RestartPolicy.Name}}") == "134217728 unless-stopped"
    )
    assert "128MiB" in engine.docker("stats", "--no-stream", "grow")


def test_variables_and_labels_can_be_changed_without_another_container(engine):
    wait = "echo $A-$B-$C; sleep 100"
    engine.docker("run", "-d", "--name", "renewed", "-e", "A=1", "-e", "B=2", "-l", "x=1", "-l", "y=2", "busybox", "sh", "-c", wait)
    engine.barque("update", "--env", "A=new=1", "-e", "C=3", "--env-rm", "B", "--label", "x=new", "-l", "z=3", "--label-rm", "y", "renewed")
    assert state(engine, "renewed", "{{json .Config.Labels}}") == '{"x":"new","z":"3"}'
    assert "renewed" in engine.docker("ps", "--filter", "label=z=3", "--format", "{{.Names}}")
    until(lambda: engine.docker("logs", "renewed") == "1-2-")
    engine.docker("restart", "-t", "0", "renewed")
    until(lambda: engine.docker("logs", "renewed").splitlines()[1:] == ["new=1--3"])
    refused = engine.run([sys.executable, "-m", "barque", "update", "--env", "novalue", "renewed"])
    assert refused.returncode == 1 and "invalid environment variable: 'novalue'" in refused.stderr
    engine.docker("rm", "-f", "renewed")


def test_diff_shows_what_the_container_did_and_not_what_the_engine_mounted(engine):
    engine.docker("run", "--name", "changed", "busybox", "sh", "-c", "echo >/tmp/new; rm /etc/group")
    assert engine.docker("diff", "changed").splitlines() == ["C /etc", "D /etc/group", "C /tmp", "A /tmp/new"]


def test_a_paused_container_can_be_neither_started_nor_entered_but_removed_by_force(engine):
    engine.docker("run", "-d", "--name", "ice", "busybox", "sleep", "100")
    engine.docker("pause", "ice")
    assert "cannot start a paused container, try unpause instead" in engine.docker_result("start", "ice").stderr
    assert "Container ice is paused, unpause the container before exec" in engine.docker_result("exec", "ice", "true").stderr
    assert "paused and must be unpaused first" in engine.docker_result("rm", "ice").stderr
    engine.docker("rm", "-f", "ice")


def test_namespaces_are_shared_with_another_container(engine):
    engine.docker("run", "-d", "--name", "host", "--ipc", "shareable", "busybox", "sleep", "100")
    show = "for kind in net ipc pid; do readlink /proc/self/ns/$kind; done"
    own = engine.docker("exec", "host", "sh", "-c", show)
    shared = [f"--{kind}=container:host" for kind in ("network", "ipc", "pid")]
    assert engine.docker("run", "--rm", *shared, "busybox", "sh", "-c", show) == own


def test_logs_are_followed_over_rotations_to_the_end(engine):
    script = "i=0; while [ $i -lt 4000 ]; do echo line-$i; i=$((i+1)); done; sleep 1; echo end"
    engine.docker("create", "--name", "chatty", "--log-opt", "max-size=20k", "--log-opt", "max-file=50", "busybox",
                  "sh", "-c", script)  # fmt: skip
    engine.docker("start", "chatty")
    lines = engine.docker("logs", "-f", "chatty").splitlines()
    assert lines == [f"line-{number}" for number in range(4000)] + ["end"]
    engine.docker("rm", "chatty")


def test_a_container_that_ends_while_it_is_paused_is_never_left_paused(engine):
    import threading

    for delay in range(12):
        engine.docker("create", "--name", "race", "busybox", "usleep", str(20000 + 3000 * delay))
        pausing = threading.Thread(target=lambda: [engine.docker_result("pause", "race") for _ in range(4)])
        pausing.start()
        engine.docker("start", "race")
        pausing.join()
        if state(engine, "race", "{{.State.Status}}") == "paused":
            engine.docker("unpause", "race")
        until(lambda: state(engine, "race", "{{.State.Status}} {{.State.Paused}}") == "exited false")
        assert "is not running" in engine.docker_result("pause", "race").stderr
        engine.docker("rm", "race")
