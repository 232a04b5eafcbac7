"""What slow and dead log servers cost, with each driver: nothing where a container waits, else no more than the buffer says."""

import contextlib
import re

import pytest

from system.log_servers import Fluentd, Http, Journal, Lines, LogPlugin, certificate, google_variables, place_of_journal
from under_test import running_engine, until

pytestmark = pytest.mark.system
LINES = 10_000
"""More than a log's files, pipe and connection hold together: the keeper takes a megabyte at a time."""
CACHE = {"cache_max_size": "100k", "cache_max_file": 2, "cache_compress": "false"}
TEXT = "x" * 500
WAIT = "while ! test -e /{}; do usleep 20000; done; "


class Outlet:
    """A driver with a server that can be made anew at the same place.

    Args:
        driver: its name.
        make: makes the server at a port, 0 for any.
        options: of the driver, with `{port}` where the port belongs.
    """

    def __init__(self, driver, make, **options):
        self.driver, self._make, self._options = driver, make, options
        self.port = 0
        self.heard = []
        self.server = None
        self.serve()

    def serve(self):
        """Begin to serve, at the same place as before."""
        self.server = self._make(self.port)
        self.server.got = self.heard
        self.port = getattr(self.server, "port", 0)

    def words(self, **more):
        """Return the words of a command."""
        found = ["--log-driver", self.driver]
        for key, value in {**self._options, **more}.items():
            found += ["--log-opt", f"{key.replace('_', '-')}={value}".replace("{port}", str(self.port))]
        return found

    def numbers(self):
        """Return the numbers of all lines that were heard, in their order."""
        rows = [row if isinstance(row, bytes) else repr(row).encode() for row in self.heard[:]]
        return [int(number) for row in rows for number in re.findall(rb"(\d+) " + TEXT.encode(), row)]


def said(first, last):
    return f"seq {first} {last} | sed 's/$/ {TEXT}/'"


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    """Give an engine with credentials for clouds that lie here; `google_port` is where Google's logs are."""
    folder = tmp_path_factory.mktemp("credentials")
    tokens, logs = Http(lambda method, path: (200, {"access_token": "t", "expires_in": 3600})), Http()
    logs.close()
    variables = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", **google_variables(logs.port, folder, tokens.port)}
    for made in running_engine(variables=variables):
        (made.root / "exec" / "plugins").mkdir()
        made.google_port = logs.port
        yield made
    tokens.close()


KINDS = ("syslog", "syslog by TLS", "gelf", "fluentd", "splunk", "awslogs", "gcplogs", "journald", "a plugin")


@pytest.fixture(params=KINDS)
def outlet(request, engine, tmp_path):
    kind = request.param
    with place_of_journal() if kind == "journald" else contextlib.nullcontext() as journal:
        tls = certificate(tmp_path) if kind == "syslog by TLS" else None
        made = {
            "syslog": lambda: Outlet("syslog", lambda port: Lines(port=port), syslog_address="tcp://127.0.0.1:{port}"),
            "syslog by TLS": lambda: Outlet("syslog", lambda port: Lines(port=port, context=tls),
                                            syslog_address="tcp+tls://127.0.0.1:{port}", syslog_tls_ca_cert=tmp_path / "ca.pem"),
            "gelf": lambda: Outlet("gelf", lambda port: Lines(port=port, separator=b"\0"), gelf_address="tcp://127.0.0.1:{port}",
                                   gelf_tcp_max_reconnect=0),
            "fluentd": lambda: Outlet("fluentd", lambda port: Fluentd(port=port), fluentd_address="127.0.0.1:{port}"),
            "splunk": lambda: Outlet("splunk", lambda port: Http(port=port), splunk_url="http://127.0.0.1:{port}", splunk_token="t"),
            "awslogs": lambda: Outlet("awslogs", lambda port: Http(port=port), awslogs_endpoint="http://127.0.0.1:{port}",
                                      awslogs_region="eu-west-1", awslogs_group="g"),
            "gcplogs": lambda: Outlet("gcplogs", lambda port: Http(port=engine.google_port)),
            "journald": lambda: Outlet("journald", lambda port: Journal(journal)),
            "a plugin": lambda: Outlet("shelf", lambda port: LogPlugin(engine.root / "exec" / "plugins" / "shelf.sock")),
        }[kind]()  # fmt: skip
        yield made
        made.server.close()


def is_held_back(engine, name):
    return "pipe_write" in engine.docker("top", name, "-eo", "pid,wchan:32")


def test_in_blocking_mode_a_container_waits_for_a_slow_and_for_a_dead_server_and_nothing_is_lost(engine, outlet):
    script = f"{said(1, 1)}; {WAIT.format('slow')}{said(2, LINES)}; {WAIT.format('dead')}{said(LINES + 1, 2 * LINES)}; echo > /done; sleep 100"
    held = engine.docker("run", "-d", *outlet.words(**CACHE), "busybox", "sh", "-c", script)
    until(lambda: outlet.numbers() == [1], "the first line came", 60)
    outlet.server.flowing.clear()
    engine.docker("exec", held, "touch", "/slow")
    until(lambda: is_held_back(engine, held), "a slow server holds the container back", 60)
    outlet.server.flowing.set()
    until(lambda: outlet.numbers()[-1] == LINES, "all came that a slow server held back", 60)
    outlet.server.close()
    engine.docker("exec", held, "touch", "/dead")
    until(lambda: is_held_back(engine, held), "a dead server holds the container back", 60)
    assert engine.docker_result("exec", held, "test", "-e", "/done").returncode == 1
    outlet.serve()
    until(lambda: outlet.numbers()[-1] == 2 * LINES, "all came that a dead server held back", 60)
    # A batch that was on its way when the server died may come twice.
    assert set(outlet.numbers()) == set(range(1, 2 * LINES + 1))
    engine.docker("rm", "-f", held)


@pytest.mark.parametrize("fault", ["dead", "slow"])
def test_without_blocking_nobody_waits_and_no_more_is_lost_than_the_buffer_does_not_hold(engine, outlet, fault):
    buffer = 200 << 10
    words = outlet.words(mode="non-blocking", max_buffer_size=buffer, **CACHE)
    name = engine.docker("run", "-d", *words, "busybox", "sh", "-c", f"{said(1, 1)}; {WAIT.format('go')}{said(2, LINES)}")
    until(lambda: outlet.numbers() == [1], "the first line came", 60)
    if fault == "dead":
        outlet.server.close()
    else:
        outlet.server.flowing.clear()
    engine.docker("exec", name, "touch", "/go")
    assert engine.docker("wait", name) == "0"
    engine.docker("rm", name)
    if fault == "dead":
        outlet.serve()
    outlet.server.flowing.set()
    until(lambda: outlet.numbers()[-1:] == [LINES], "the last line came", 60)
    told = outlet.numbers()
    # First what was on its way before the buffer filled, then what it holds: the end, with nothing missing.
    last = [at for at in range(len(told)) if not at or told[at] != told[at - 1] + 1][-1]
    held = told[last:]
    assert sum(len(f"{number} {TEXT}\n") for number in held) >= buffer
    assert set(told) <= set(range(1, LINES + 1)) and held[-1] == LINES
