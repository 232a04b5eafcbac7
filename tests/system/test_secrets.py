"""Secrets and configs without a cluster: kept sealed, given on a tmpfs, changed while containers run."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.system
VALUE = "correct horse battery staple"


def barque(engine, *words, given=""):
    return engine.run([sys.executable, "-m", "barque", *words], input=given)


@pytest.fixture
def secret(engine):
    assert barque(engine, "secret", "create", "-l", "team=a", "pass", given=VALUE).returncode == 0
    yield "pass"
    barque(engine, "secret", "rm", "pass")


def test_a_secret_is_given_as_a_file_and_nowhere_on_disk(engine, secret):
    mount = "source=pass,target=/etc/app/key,uid=33,gid=7,mode=400"
    shown = barque(engine, "run", "--name", "sealed", "--secret", "pass", "--secret", mount, "busybox", "sh", "-c",
                   "cat /run/secrets/pass; echo; stat -c '%a %u %g' /run/secrets/pass /etc/app/key; cat /etc/app/key; "
                   "grep -c 'app/key tmpfs ro' /proc/mounts; touch /run/secrets/pass").stdout  # fmt: skip
    assert shown.splitlines() == [VALUE, "444 0 0", "400 33 7", VALUE + "1"]
    for folder in (engine.root / "data", engine.root / "exec"):
        found = subprocess.run(["grep", "-rl", VALUE, str(folder)], capture_output=True, text=True)
        # Its own output is in its log, which says what it printed.
        assert all("-json.log" in line for line in found.stdout.splitlines())
    assert VALUE not in barque(engine, "inspect", "sealed").stdout
    assert VALUE not in barque(engine, "secret", "inspect", "pass").stdout
    assert (engine.root / "data" / "secrets.key").stat().st_mode & 0o777 == 0o600
    engine.docker("rm", "sealed")


def test_a_secret_in_use_stays_and_its_new_value_reaches_containers_that_run(engine, secret):
    assert barque(engine, "run", "-d", "--name", "reads", "--secret", "pass", "busybox", "sleep", "1000").returncode == 0
    refused = barque(engine, "secret", "rm", "pass")
    assert "secret 'pass' is in use by the following containers: reads" in refused.stderr
    assert barque(engine, "secret", "update", "pass", given="new").returncode == 0
    assert engine.docker("exec", "reads", "cat", "/run/secrets/pass") == "new"
    engine.docker("restart", "-t", "0", "reads")
    assert engine.docker("exec", "reads", "cat", "/run/secrets/pass") == "new"
    assert json.loads(barque(engine, "secret", "inspect", "pass").stdout)[0]["Version"] == {"Index": 2}
    engine.docker("rm", "-f", "reads")


def test_configs_show_their_value_and_lie_where_one_wants(engine):
    assert barque(engine, "config", "create", "conf", given="a=b\n").returncode == 0
    shown = barque(engine, "run", "--rm", "--config", "conf", "--config", "source=conf,target=/etc/conf.d/x", "busybox",
                   "sh", "-c", "cat /conf /etc/conf.d/x").stdout  # fmt: skip
    assert shown == "a=b\na=b\n"
    assert json.loads(barque(engine, "config", "inspect", "conf").stdout)[0]["Spec"]["Data"] == "YT1iCg=="
    assert "conf" in barque(engine, "config", "ls").stdout
    assert barque(engine, "config", "rm", "conf").returncode == 0


@pytest.mark.parametrize(
    ("words", "given", "message"),
    [
        (["secret", "create", "-bad"], "x", "unknown shorthand flag"),
        (["secret", "create", "bad name"], "x", "invalid secret name"),
        (["secret", "create", "empty"], "", "must be larger than 0"),
        (["secret", "create", "pass"], "x", "secret pass already exists"),
        (["secret", "inspect", "nobody"], "", "secret nobody not found"),
        (["run", "--secret", "nobody", "busybox"], "", "secret nobody not found"),
        (["run", "--secret", "pass,colour=red", "busybox"], "", "invalid field 'colour=red'"),
        (["run", "--secret", "pass,target=/a/../b", "busybox"], "", "invalid target of a secret"),
        (["run", "--secret", "pass", "--secret", "pass", "busybox"], "", "two secrets at /run/secrets/pass"),
    ],
)
def test_what_cannot_be_is_refused(engine, secret, words, given, message):
    result = barque(engine, *words, given=given)
    assert result.returncode != 0 and message in result.stderr


def test_dockers_own_paths_say_that_this_is_no_cluster(engine):
    refused = engine.docker_result("secret", "ls")
    assert "This node is not a swarm manager" in refused.stderr
