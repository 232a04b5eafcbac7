"""Logs to the journal and to plugins."""

import json
import os
import time

import pytest

from system.log_servers import JOURNAL, Journal, LogPlugin, place_of_journal
from under_test import until

pytestmark = pytest.mark.system
SPEAK = ["sh", "-c", "echo to out; echo to err >&2; printf unfinished"]


@pytest.fixture
def journal():
    with place_of_journal() as place:
        server = Journal(place)
        yield server
        server.close()


def test_the_journal_gets_lines_with_their_containers_fields(engine, journal):
    words = ["--log-driver", "journald", "--log-opt", "tag={{.Name}}", "--log-opt", "labels=team", "--log-opt", "env=STAGE"]
    engine.docker("run", "--name", "journalled", "-l", "team=a", "-e", "STAGE=test", *words, "busybox", *SPEAK)
    found = {row["MESSAGE"]: row for row in until(lambda: len(journal.got) == 3 and journal.got, "three lines came")}
    assert {text: row["PRIORITY"] for text, row in found.items()} == {"to out": "6", "to err": "3", "unfinished": "6"}
    row = found["to out"]
    identity = engine.docker("inspect", "-f", "{{.Id}}", "journalled")
    assert (row["CONTAINER_NAME"], row["CONTAINER_TAG"], row["SYSLOG_IDENTIFIER"]) == ("journalled",) * 3
    assert (row["CONTAINER_ID"], row["CONTAINER_ID_FULL"], row["IMAGE_NAME"]) == (identity[:12], identity, "busybox")
    assert (row["TEAM"], row["STAGE"]) == ("a", "test")
    assert engine.docker("logs", "journalled") == "to out\nunfinished"
    # What fits no datagram comes as a file.
    words[5] = "labels-regex=big"
    big = [word for n in range(5) for word in ("-l", f"big{n}={'x' * 60_000}")]
    engine.docker("run", "--rm", *big, *words, "busybox", "echo", "large")
    until(lambda: len(journal.got) == 4, "the large one came")
    assert journal.files == 1 and len(journal.got[3]["BIG4"]) == 60_000 and journal.got[3]["MESSAGE"] == "large"
    engine.docker("run", "--rm", *words, "busybox", "sh", "-c", "yes | head -c 40000 | tr -d '\\n'")
    pieces = until(lambda: len(journal.got) == 6 and journal.got[4:], "both pieces came")
    assert "".join(piece["MESSAGE"] for piece in pieces) == "y" * 20000
    assert [piece.get("CONTAINER_PARTIAL_MESSAGE") for piece in pieces] == ["true", None]
    engine.docker("rm", "journalled")


def test_without_a_journal_a_container_does_not_start(engine):
    if JOURNAL.exists():
        pytest.skip("this machine has a journal of its own")
    refused = engine.docker_result("run", "--rm", "--log-driver", "journald", "busybox", "true")
    assert refused.returncode == 125 and "journald is not enabled on this host" in refused.stderr


@pytest.fixture
def plugin(engine):
    folder = engine.root / "exec" / "plugins"
    folder.mkdir(exist_ok=True)
    server = LogPlugin(folder / "keeper.sock")
    yield server
    server.close()


def test_a_log_plugin_is_used_by_dockers_protocol(engine, plugin):
    before = time.time_ns()
    engine.docker("run", "--name", "plugged", "-l", "team=a", "--log-driver", "keeper", "--log-opt", "any=option", "busybox", *SPEAK)
    until(lambda: len(plugin.got) == 3, "three entries came")
    assert sorted((e[1], e[3]) for e in plugin.got) == [(b"stderr", b"to err"), (b"stdout", b"to out"), (b"stdout", b"unfinished")]
    assert all(before < e[2] < time.time_ns() for e in plugin.got)
    begun = until(lambda: [body for path, body in plugin.calls if path == "/LogDriver.StartLogging"])[0]
    ended = until(lambda: [body for path, body in plugin.calls if path == "/LogDriver.StopLogging"], "it is told of the end")[0]
    assert ended["File"] == begun["File"]
    until(lambda: not os.path.exists(begun["File"]), "the pipe is gone")
    told = begun["Info"]
    assert (told["ContainerName"], told["ContainerLabels"], told["Config"]) == ("/plugged", {"team": "a"}, {"any": "option"})
    assert told["ContainerID"] == engine.docker("inspect", "-f", "{{.Id}}", "plugged")
    assert (told["ContainerEntrypoint"], told["ContainerArgs"][0]) == ("sh", "-c")
    result = engine.docker_result("logs", "plugged")
    assert (result.stdout, result.stderr) == ("to out\nunfinished", "to err\n")
    assert "keeper" in json.loads(engine.docker("info", "-f", "{{json .Plugins.Log}}"))
    plugin.err = "the shelf is full"
    refused = engine.docker_result("run", "--name", "unplugged", "--log-driver", "keeper", "busybox", "true")
    assert refused.returncode == 125 and "the shelf is full" in refused.stderr
    engine.docker("rm", "plugged", "unplugged")
