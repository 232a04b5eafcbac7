"""Log drivers on a real engine against real servers on loopback."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from system.log_servers import Fluentd, Http, Lines, certificate, gelf_messages, google_variables
from under_test import running_engine, until

pytestmark = pytest.mark.system


@pytest.fixture
def served():
    """Make servers that are closed at the end."""
    made = []

    def make(kind, *arguments, **options):
        made.append(kind(*arguments, **options))
        return made[-1]

    yield make
    for server in made:
        server.close()


def options(driver, **values):
    found = ["--log-driver", driver]
    for key, value in values.items():
        found += ["--log-opt", f"{key.replace('_', '-')}={value}"]
    return found


SPEAK = ["sh", "-c", "echo to out; echo to err >&2; echo; printf unfinished"]


def test_rsyslog_gets_lines_over_udp_and_tcp(engine, tmp_path):
    daemon = shutil.which("rsyslogd")
    if daemon is None:
        pytest.skip("rsyslog is not installed")
    target, config = tmp_path / "messages", tmp_path / "conf"
    config.write_text(
        'module(load="imudp")\nmodule(load="imtcp")\n'
        'input(type="imudp" address="127.0.0.1" port="10514")\ninput(type="imtcp" address="127.0.0.1" port="10515")\n'
        'template(name="t" type="string" string="%syslogfacility-text%.%syslogseverity-text% %syslogtag%%msg%\\n")\n'
        f'*.* action(type="omfile" file="{target}" template="t")\n'
    )
    server = subprocess.Popen([daemon, "-n", "-f", str(config), "-i", str(tmp_path / "pid")])
    try:
        until((tmp_path / "pid").exists)
        for scheme, port, form in (("udp", 10514, "rfc3164"), ("tcp", 10515, "rfc5424")):
            address = f"{scheme}://127.0.0.1:{port}"
            engine.docker("run", "--rm", *options("syslog", syslog_address=address, syslog_format=form,
                          syslog_facility="local3", tag=f"{scheme}-{{{{.Name}}}}"), "--name", "sys", "busybox", *SPEAK)  # fmt: skip
        until(lambda: target.exists() and target.read_text().count("unfinished") == 2)
        text = target.read_text()
        for scheme in ("udp", "tcp"):
            assert f"local3.info {scheme}-sys[" in text and f"local3.err {scheme}-sys[" in text
        assert text.count("to out") == text.count("to err") == 2
    finally:
        server.terminate()
        server.wait()


def test_syslog_over_tls_and_over_a_socket(engine, served, tmp_path):
    server = served(Lines, context=certificate(tmp_path))
    address = f"tcp+tls://127.0.0.1:{server.port}"
    engine.docker("run", "--rm", *options("syslog", syslog_address=address, syslog_format="rfc5424micro",
                  syslog_tls_ca_cert=tmp_path / "ca.pem"), "busybox", "echo", "over tls")  # fmt: skip
    until(lambda: any(b"over tls" in line for line in server.got))
    refused = engine.docker_result("run", "--rm", *options("syslog", syslog_address=address), "busybox", "true")
    assert "failed to initialize logging driver" in refused.stderr and "CERTIFICATE_VERIFY_FAILED" in refused.stderr.upper()
    path = tmp_path / "sock"
    local = served(Lines, "unixgram", str(path))
    engine.docker("run", "--rm", *options("syslog", syslog_address=f"unixgram://{path}"), "busybox", "echo", "by socket")
    until(lambda: any(b"by socket" in line for line in local.got))


def test_gelf_over_udp_and_tcp(engine, served):
    udp = served(Lines, "udp")
    engine.docker("run", "--rm", "-l", "team=a", *options("gelf", gelf_address=f"udp://127.0.0.1:{udp.port}", labels="team"),
                  "--name", "gelfed", "busybox", "sh", "-c", "echo short; head -c 9000 /dev/urandom | od -x | tr -d '\\n '")  # fmt: skip
    found = until(lambda: len(m := gelf_messages(list(udp.got))) >= 2 and m)
    assert (found[0]["short_message"], found[0]["_container_name"], found[0]["_team"]) == ("short", "gelfed", "a")
    assert len(found[1]["short_message"]) > 10_000
    tcp = served(Lines, separator=b"\0")
    engine.docker("run", "--rm", *options("gelf", gelf_address=f"tcp://127.0.0.1:{tcp.port}"), "busybox", *SPEAK)
    rows = until(lambda: len(tcp.got) >= 3 and [json.loads(m) for m in tcp.got])
    assert sorted((r["short_message"], r["level"]) for r in rows) == [("to err", 3), ("to out", 6), ("unfinished", 6)]


def test_fluentd_with_acknowledgement_and_exact_times(engine, served):
    server = served(Fluentd)
    engine.docker("run", "--rm", *options("fluentd", fluentd_address=f"127.0.0.1:{server.port}", tag="app.{{.Name}}",
                  fluentd_request_ack="true", fluentd_sub_second_precision="true", env="A"), "-e", "A=b",
                  "--name", "flu", "busybox", "sh", "-c", "echo one; yes | head -c 40000 | tr -d '\\n'")  # fmt: skip
    until(lambda: any(record.get("partial_last") == "true" for _, _, record in server.got))
    tag, moment, record = server.got[0]
    assert tag == "app.flu" and len(moment) == 8
    assert (record["log"], record["source"], record["container_name"], record["A"]) == ("one", "stdout", "/flu", "b")
    pieces = [r for _, _, r in server.got if "partial_id" in r]
    assert [r["partial_ordinal"] for r in pieces] == ["1", "2"] and "".join(r["log"] for r in pieces) == "y" * 20000


def test_splunk_in_all_forms(engine, served):
    server = served(Http)
    url = f"http://127.0.0.1:{server.port}"
    for form, more in (("inline", {"splunk_gzip": "true"}), ("json", {"splunk_index": "main"}), ("raw", {"tag": "t"})):
        engine.docker("run", "--rm", *options("splunk", splunk_url=url, splunk_token="tok", splunk_format=form, **more),
                      "busybox", "echo", '{"a": 1}')  # fmt: skip
    posts = until(lambda: len(p := [g for g in server.got if g[0] == "POST"]) == 3 and p)
    events = [json.loads(body) for _, _, _, body in posts]
    assert events[0]["event"]["line"] == '{"a": 1}' and events[1]["event"]["line"] == {"a": 1}
    assert events[1]["index"] == "main" and events[2]["event"] == 't {"a": 1}'
    assert posts[0][2]["Authorization"] == "Splunk tok" and posts[0][1] == "/services/collector/event/1.0"
    assert [g[0] for g in server.got].count("OPTIONS") == 3
    bad = served(Http, lambda method, path: (403, {"text": "Invalid token"}))
    refused = engine.docker_result("run", "--rm", *options("splunk", splunk_url=f"http://127.0.0.1:{bad.port}", splunk_token="x"),
                                   "busybox", "true")  # fmt: skip
    assert "failed to verify connection - 403" in refused.stderr


@pytest.fixture
def cloudwatch(monkeypatch):
    server = pytest.importorskip("moto.server", reason="moto is not installed").ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def test_cloudwatch_gets_events_in_a_group_that_is_made(cloudwatch, tmp_path):
    credentials = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "HOME": str(tmp_path)}
    for engine in running_engine(variables=credentials):
        words = options("awslogs", awslogs_region="eu-west-1", awslogs_endpoint=cloudwatch, awslogs_group="shop",
                        awslogs_stream="web", awslogs_create_group="true")  # fmt: skip
        engine.docker("run", "--rm", *words, "busybox", *SPEAK)
        refused = engine.docker_result("run", "--rm", *options("awslogs", awslogs_region="eu-west-1",
                                       awslogs_endpoint=cloudwatch, awslogs_group="none"), "busybox", "true")  # fmt: skip
        assert "failed to create Cloudwatch log stream" in refused.stderr
        client = boto_client(cloudwatch)
        until(lambda client=client: len(stored(client, "web")) >= 3)
        assert sorted(stored(client, "web")) == ["to err", "to out", "unfinished"]


def boto_client(endpoint):
    import boto3

    return boto3.client("logs", region_name="eu-west-1", endpoint_url=endpoint, aws_access_key_id="key", aws_secret_access_key="secret")


def stored(client, stream):
    return [e["message"] for e in client.get_log_events(logGroupName="shop", logStreamName=stream)["events"]]


def test_google_gets_entries_with_a_service_accounts_token(served, tmp_path):
    google = served(Http, lambda method, path: (200, {"access_token": "secret-token", "expires_in": 3600}))
    for engine in running_engine(variables=google_variables(google.port, tmp_path)):
        engine.docker("run", "--rm", *options("gcplogs", gcp_log_cmd="true", gcp_meta_name="vm"), "busybox", "echo", "cloudy")
        posts = until(lambda: [g for g in google.got if g[1] == "/v2/entries:write"])
    assert posts[0][2]["Authorization"] == "Bearer secret-token"
    body = json.loads(posts[0][3])
    assert body["logName"] == "projects/proj/logs/gcplogs-docker-driver"
    payload = body["entries"][0]["jsonPayload"]
    assert (payload["message"], payload["container"]["command"], payload["instance"]) == ("cloudy", "echo cloudy", {"name": "vm"})


def test_logs_work_for_every_driver_by_a_cache_unless_it_is_switched_off(engine, served):
    server = served(Lines, "udp")
    address = {"gelf_address": f"udp://127.0.0.1:{server.port}"}
    for name, words in {"local": options("local", max_size="1m"), "gelf": options("gelf", **address)}.items():
        engine.docker("run", "--name", f"cached-{name}", *words, "busybox", *SPEAK)
        result = engine.docker_result("logs", f"cached-{name}")
        assert (result.stdout, result.stderr) == ("to out\n\nunfinished", "to err\n")
        assert engine.docker("inspect", "-f", "{{.LogPath}}", f"cached-{name}") == ""
    for name, words in {"none": ["--log-driver", "none"], "off": options("gelf", cache_disabled="true", **address)}.items():
        engine.docker("run", "--name", f"uncached-{name}", *words, "busybox", "true")
        assert "configured logging driver does not support reading" in engine.docker_result("logs", f"uncached-{name}").stderr


def test_options_of_json_files_choose_attributes_and_rotate(engine):
    words = options("json-file", max_size="20k", max_file="3", compress="true", labels_regex="^t", env="A", tag="{{.Name}}")
    engine.docker("run", "--name", "files", "-l", "team=a", "-e", "A=b", *words, "busybox", "seq", "1", "3000")
    first = engine.docker("logs", "--details", "files").splitlines()[-1]
    assert first == "A=b,tag=files,team=a 3000"
    path = Path(engine.docker("inspect", "-f", "{{.LogPath}}", "files"))
    until(lambda: {p.name[len(path.name):] for p in path.parent.glob("*-json.log*")} == {"", ".1.gz", ".2.gz"})
    assert engine.docker("logs", "files").splitlines()[-1] == "3000"


def test_a_log_of_which_nothing_is_asked_is_rotated(engine):
    script = f"yes {'x' * 1000} | head -c 110000000"
    engine.docker("run", "--rm", "--log-opt", "max-size=-1", "busybox", "true")
    engine.docker("run", "-d", "--name", "large", "busybox", "sh", "-c", script)
    assert engine.docker("wait", "large") == "0"
    path = Path(engine.docker("inspect", "-f", "{{.LogPath}}", "large"))
    newest, older = (part.stat().st_size for part in sorted(path.parent.glob("*-json.log*")))
    assert 99 << 20 < older < 102 << 20 and newest + older > 110_000_000
    assert engine.docker("inspect", "-f", "{{json .HostConfig.LogConfig.Config}}", "large") == "{}"
    assert engine.docker("logs", "--tail", "2", "large").splitlines()[0] == "x" * 1000
    engine.docker("rm", "large")


def test_a_log_can_be_cleared_while_its_container_runs_and_after(engine):
    engine.docker("run", "-d", "--name", "clean", "busybox", "sh", "-c", "echo before; while ! test -e /go; do sleep 0.05; done; echo after; sleep 100")
    until(lambda: engine.docker("logs", "clean") == "before")
    engine.barque("logs", "--clear", "clean")
    assert engine.docker("logs", "clean") == ""
    engine.docker("exec", "clean", "touch", "/go")
    until(lambda: engine.docker("logs", "clean") == "after")
    engine.docker("kill", "clean")
    engine.barque("logs", "--clear", "clean")
    assert engine.docker("logs", "clean") == ""
    engine.docker("rm", "clean")


def test_a_killed_daemon_loses_no_line_and_delivers_those_of_removed_containers(own_engine, served):
    engine = own_engine
    server = served(Fluentd)
    words = options("fluentd", fluentd_address=f"127.0.0.1:{server.port}", fluentd_request_ack="true")
    engine.docker("run", "-d", "--name", "talks", *words, "busybox", "sh", "-c",
                  "i=0; while test $i -lt 3000; do i=$((i+1)); echo $i; done; sleep 100")  # fmt: skip
    until(lambda: len(server.got) > 100)
    engine.kill_daemon()
    until(lambda: server.got[-1][2]["log"] == "3000")
    assert {int(r["log"]) for _, _, r in server.got} == set(range(1, 3001))
    port = server.port
    server.close()
    engine.docker("rm", "-f", "talks")
    again = served(Fluentd, port=port)
    engine.docker("run", "--name", "last", *words, "busybox", "echo", "first words")
    until(lambda: again.got)
    again.close()
    engine.docker("start", "-a", "last", check=False)
    third = served(Fluentd, port=port)
    engine.docker("start", "-a", "last")
    engine.docker("rm", "last")
    until(lambda: "first words" in [r["log"] for _, _, r in third.got])
    until(lambda: not list((engine.root / "data").glob("unsent/*")))


def test_our_command_knows_the_drivers(engine):
    listed = json.loads(engine.docker("info", "-f", "{{json .Plugins.Log}}"))
    assert set(listed) >= {"awslogs", "fluentd", "gcplogs", "gelf", "journald", "json-file", "local", "splunk", "syslog"}
    result = engine.run([sys.executable, "-m", "barque", "run", "--log-driver", "nosuch", "busybox"])
    assert 'error looking up logging plugin nosuch: plugin "nosuch" not found' in result.stderr


def test_what_logs_take_is_shown_and_all_are_emptied_at_once(engine):
    engine.docker("run", "-d", "--name", "long", "busybox", "sh", "-c", "seq 1 2000; sleep 1000")
    until(lambda: engine.docker("logs", "-n", "1", "long") == "2000", "all is logged")
    row = next(line for line in engine.barque("system", "df", "--logs", "--format", "{{.Name}} {{.Size}}").splitlines() if "long" in line)
    assert row.split()[1].endswith("kB"), row
    assert "LOGS" not in engine.docker("system", "df").upper()
    said = engine.barque("system", "prune", "-f", "--logs", "--dry-run")
    assert "Emptied Logs:\nlong\n" in said and engine.docker("logs", "-n", "1", "long") == "2000"
    refused = engine.run([sys.executable, "-m", "barque", "system", "prune", "-f", "--logs", "--filter", "until=1h"])
    assert refused.returncode == 1 and "--logs" in refused.stderr
    assert "Emptied Logs:\nlong\n" in engine.barque("system", "prune", "-f", "--logs")
    assert engine.docker("logs", "long") == ""
    assert "long 0B" in engine.barque("system", "df", "--logs", "--format", "{{.Name}} {{.Size}}")
    engine.docker("rm", "-f", "long")
