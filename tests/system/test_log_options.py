"""What the options of log drivers change, by what real servers get."""

import json
import ssl
import subprocess
from contextlib import closing

import pytest

from system.log_servers import Fluentd, Http, Lines, certificate, gelf_messages, google_variables
from under_test import running_engine, until

pytestmark = pytest.mark.system
CREDENTIALS = "169.254.170.2"


def words(driver, **values):
    found = ["--log-driver", driver]
    for key, value in values.items():
        found += ["--log-opt", f"{key.replace('_', '-')}={value}"]
    return found


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    """Give an engine with credentials for clouds that lie here."""
    folder = tmp_path_factory.mktemp("credentials")
    with closing(Http(lambda method, path: (200, {"access_token": "t", "expires_in": 3600}))) as google:
        variables = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", **google_variables(google.port, folder)}
        for made in running_engine(variables=variables):
            made.google = google
            yield made


def test_syslog_shows_the_server_a_certificate_and_trusts_any_server_where_that_is_wanted(engine, tmp_path):
    context = certificate(tmp_path)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(tmp_path / "ca.pem")
    with closing(Lines(context=context)) as server:
        address = {"syslog_address": f"tcp+tls://127.0.0.1:{server.port}"}
        own = {"syslog_tls_cert": tmp_path / "ca.pem", "syslog_tls_key": tmp_path / "key.pem"}
        engine.docker("run", "--rm", *words("syslog", **address, **own, syslog_tls_skip_verify="true"), "busybox", "echo", "shown")
        until(lambda: any(b"shown" in line for line in server.got))
        missing = words("syslog", **address, syslog_tls_ca_cert="/no/such")
        refused = engine.docker_result("run", "--rm", *missing, "busybox", "true")
        assert refused.returncode == 125 and "could not load TLS files" in refused.stderr


@pytest.mark.parametrize(("packing", "head"), [("gzip", b"\x1f\x8b"), ("zlib", b"\x78"), ("none", b"{")])
def test_gelf_is_packed_as_wanted(engine, packing, head):
    sizes = {}
    for level in ("0", "9") if packing != "none" else ("-1",):
        packet = gelf_packet(engine, packing, level)
        assert packet.startswith(head) and gelf_messages([packet])[0]["short_message"] == "y" * 400
        sizes[level] = len(packet)
    assert packing == "none" or sizes["9"] < sizes["0"] - 300


def gelf_packet(engine, packing, level):
    with closing(Lines("udp")) as server:
        options = words("gelf", gelf_address=f"udp://127.0.0.1:{server.port}", gelf_compression_type=packing, gelf_compression_level=level)
        engine.docker("run", "--rm", *options, "busybox", "sh", "-c", "yes | head -c 800 | tr -d '\\n'")
        return until(lambda: server.got)[0]


def test_gelf_over_tcp_connects_again_after_a_pause(engine):
    server = Lines(separator=b"\0")
    address = f"tcp://127.0.0.1:{server.port}"
    options = words("gelf", gelf_address=address, gelf_tcp_max_reconnect="30", gelf_tcp_reconnect_delay="1")
    held = engine.docker("run", "-d", *options, "busybox", "sh", "-c", "echo 1; until test -e /go; do usleep 20000; done; echo 2; sleep 100")
    until(lambda: server.got)
    server.close()
    engine.docker("exec", held, "touch", "/go")
    with closing(Lines(separator=b"\0", port=server.port)) as again:
        until(lambda: again.got and json.loads(again.got[0])["short_message"] == "2")
    engine.docker("rm", "-f", held)


def test_fluentd_is_reached_by_a_socket_and_connected_anew_in_intervals(engine, tmp_path):
    with closing(Fluentd("unix", str(tmp_path / "fluentd.sock"))) as server:
        engine.docker("run", "--rm", *words("fluentd", fluentd_address=f"unix://{tmp_path}/fluentd.sock"), "busybox", "echo", "by socket")
        until(lambda: server.got and server.got[0][2]["log"] == "by socket")
    with closing(Fluentd()) as server:
        options = words("fluentd", fluentd_address=f"127.0.0.1:{server.port}", fluentd_async="true", fluentd_async_reconnect_interval="100ms")
        engine.docker("run", "--rm", *options, "busybox", "sh", "-c", "for i in 1 2 3 4 5; do echo $i; usleep 200000; done")
        until(lambda: len(server.got) == 5)
        assert len(server.peers) > 1


def test_fluentd_that_is_asynchronous_or_whose_tries_are_over_holds_nobody_back(engine):
    with closing(Fluentd()) as server:
        address = {"fluentd_address": f"127.0.0.1:{server.port}"}
        server.close()
        engine.docker("run", "--rm", *words("fluentd", **address, fluentd_async="true", fluentd_buffer_limit="5000"),
                      "busybox", "seq", "1", "5000")  # fmt: skip
        with closing(Fluentd(port=server.port)) as again:
            until(lambda: again.got and again.got[-1][2]["log"] == "5000")
            assert [record["log"] for _, _, record in again.got] == [str(n) for n in range(1, 5001)]
            tries = {"fluentd_max_retries": "1", "fluentd_retry_wait": "10ms"}
            held = engine.docker("run", "-d", *words("fluentd", **address, **tries), "busybox", "sh", "-c",
                                 "echo first; until test -e /go; do usleep 20000; done; echo lost; sleep 100")  # fmt: skip
            until(lambda: again.got[-1][2]["log"] == "first")
        engine.docker("exec", held, "touch", "/go")
        until(lambda: "cannot be delivered" in engine.log.read_text())
        position = next((engine.root / "data/containers" / held).glob("*.sent"))
        log = position.with_suffix("")
        until(lambda: int.from_bytes(position.read_bytes()[8:16], "little") == log.stat().st_size and "lost" in log.read_text(), "it is given up")
        engine.docker("rm", "-f", held)


def test_splunk_is_told_where_events_belong_and_trusts_whom_it_should(engine, tmp_path):
    with closing(Http(context=certificate(tmp_path))) as server:
        base = {"splunk_url": f"https://localhost:{server.port}", "splunk_token": "t"}
        refused = engine.docker_result("run", "--rm", *words("splunk", **base), "busybox", "true")
        assert refused.returncode == 125 and "certificate verify failed" in refused.stderr.lower()
        ca = {"splunk_capath": tmp_path / "ca.pem"}
        refused = engine.docker_result("run", "--rm", *words("splunk", **base, **ca), "busybox", "true")
        assert refused.returncode == 125 and "certificate verify failed" in refused.stderr.lower()
        where = {"splunk_source": "s", "splunk_sourcetype": "st", "splunk_index": "i", "splunk_index_acknowledgment": "true",
                 "splunk_verify_connection": "false", "splunk_gzip": "true", "splunk_gzip_level": "9", "labels": "team", "env": "A"}  # fmt: skip
        for trust in ({**ca, "splunk_caname": "127.0.0.1"}, {"splunk_insecureskipverify": "true"}):
            server.got.clear()
            engine.docker("run", "--rm", "-l", "team=a", "-e", "A=b", *words("splunk", **base, **where, **trust), "busybox", "echo", "told")
            method, _, headers, body = until(lambda: server.got)[0]
            event = json.loads(body)
            assert (method, headers["Content-Encoding"], event["source"], event["sourcetype"], event["index"]) == ("POST", "gzip", "s", "st", "i")
            assert (event["event"]["line"], event["event"]["attrs"]) == ("told", {"team": "a", "A": "b"})
            assert headers["X-Splunk-Request-Channel"]


def test_cloudwatch_gets_joined_lines_in_batches(engine):
    with closing(Http()) as server:
        base = {"awslogs_endpoint": f"http://127.0.0.1:{server.port}", "awslogs_region": "eu-west-1", "awslogs_group": "g"}
        traced = "for i in 1 2; do echo 2024-01-0$i start; usleep 300000; echo ' at a'; done"
        engine.docker("run", "--rm", *words("awslogs", **base, awslogs_datetime_format="%Y-%m-%d", awslogs_max_buffered_events="1",
                      awslogs_force_flush_interval_seconds="60", tag="{{.Name}}"), "--name", "tr", "busybox", "sh", "-c", traced)  # fmt: skip
        puts = until(lambda: len(p := calls(server, "PutLogEvents")) == 2 and p)
        assert [[row["message"] for row in body["logEvents"]] for _, body in puts] == [
            ["2024-01-01 start\n at a\n"], ["2024-01-02 start\n at a\n"]]  # fmt: skip
        assert calls(server, "CreateLogStream")[0][1] == {"logGroupName": "g", "logStreamName": "tr"}
        server.got.clear()
        emf = {"awslogs_format": "json/emf", "awslogs_create_stream": "false", "awslogs_stream": "st"}
        engine.docker("run", "--rm", *words("awslogs", **base, **emf), "busybox", "echo", "{}")
        headers, body = until(lambda: calls(server, "PutLogEvents"))[0]
        assert headers["x-amzn-logs-format"] == "json/emf" and body["logStreamName"] == "st" and not calls(server, "CreateLogStream")


def test_cloudwatch_is_called_with_credentials_of_the_endpoint_that_is_named(engine):
    # Where Amazon's agent answers; in the network namespace of the tests.
    subprocess.run(["ip", "address", "replace", f"{CREDENTIALS}/32", "dev", "lo"], check=True)
    with closing(Http(lambda method, path: (200, {"AccessKeyId": "other", "SecretAccessKey": "s", "Token": path}), host=CREDENTIALS, port=80)) as agent:
        with closing(Http()) as server:
            options = words("awslogs", awslogs_endpoint=f"http://127.0.0.1:{server.port}", awslogs_region="eu-west-1",
                            awslogs_group="g", awslogs_credentials_endpoint="/creds")  # fmt: skip
            engine.docker("run", "--rm", *options, "busybox", "echo", "told")
            headers, _ = until(lambda: calls(server, "PutLogEvents"))[0]
            assert "Credential=other/" in headers["Authorization"] and headers["X-Amz-Security-Token"] == "/creds"
        assert {path for _, path, _, _ in agent.got} == {"/creds"}


def calls(server, action):
    return [(headers, json.loads(body)) for _, _, headers, body in server.got if headers.get("X-Amz-Target", "").endswith(action)]


def test_google_is_told_of_the_machine_the_project_and_what_is_chosen_of_the_container(engine):
    options = words("gcplogs", gcp_project="other", gcp_meta_zone="z", gcp_meta_name="n", gcp_meta_id="7", labels="team", env="A")
    engine.docker("run", "--rm", "-l", "team=a", "-e", "A=b", *options, "busybox", "echo", "cloudy")
    body = json.loads(until(lambda: [got for got in engine.google.got if got[1] == "/v2/entries:write"])[0][3])
    payload = body["entries"][0]["jsonPayload"]
    assert body["logName"] == "projects/other/logs/gcplogs-docker-driver"
    assert body["resource"] == {"type": "gce_instance", "labels": {"instance_id": "7", "zone": "z"}}
    assert (payload["instance"], payload["container"]["metadata"]) == ({"zone": "z", "name": "n", "id": "7"}, {"team": "a", "A": "b"})
    assert "command" not in payload["container"]
